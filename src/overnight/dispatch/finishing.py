"""The last step of a batch: its files are written and published together with the final status."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overnight.crash_points import reached
from overnight.domain.batch import Batch, BatchStatus, StopCause, terminal_status
from overnight.domain.blob_keys import error_key, index_key, output_key, places_key
from overnight.domain.file import File, Purpose
from overnight.domain.flavour import Flavour
from overnight.domain.ids import output_file_id
from overnight.domain.result import BATCH_CANCELLED, BATCH_EXPIRED, BILLING_HARD_LIMIT
from overnight.services.finalize import Merge, Merged, merge

if TYPE_CHECKING:
    from overnight.dispatch.owned import Owned


# The code and message of the requests that a stop has kept from running.
_UNRUN = {
    StopCause.CANCEL: BATCH_CANCELLED,
    StopCause.EXPIRY: BATCH_EXPIRED,
    StopCause.CAP: BILLING_HARD_LIMIT,
}


async def finish(owned: Owned) -> None:
    """Take a batch from ``finalizing`` or ``cancelling`` to its end.

    The bytes are stored first; their ids appear in the same transaction as the status. A cancel that comes in between
    wins: the batch is left in ``cancelling``, to be finished again.
    """
    batch = owned.batch
    if not batch.accepted:
        await owned.end_early(batch.to(BatchStatus.CANCELLED, owned.parts.clock.now()))
        return
    merged = await _merge(owned)
    output = await _publishable(owned, output_key(batch), "output")
    errors = await _publishable(owned, error_key(batch), "error")
    ended = batch.to(
        terminal_status(_why(batch, merged)),
        owned.parts.clock.now(),
        completed=merged.tally.completed,
        failed=merged.tally.failed,
        usage=merged.tally.usage,
        output_file_id=output.id if output else None,
        error_file_id=errors.id if errors else None,
    )
    if await owned.save(ended, files=tuple(file for file in (output, errors) if file is not None)):
        await owned.parts.logs.delete(batch.id)
        await owned.parts.blobs.delete(index_key(batch))
        reached("index.deleted")


def _why(batch: Batch, merged: Merged) -> StopCause:
    if batch.status is BatchStatus.CANCELLING:
        return _who_cancelled(batch)
    return StopCause.EXPIRY if merged.unrun else StopCause.DONE


def _who_cancelled(batch: Batch) -> StopCause:
    return StopCause.CAP if batch.capped else StopCause.CANCEL


async def _merge(owned: Owned) -> Merged:
    parts, batch = owned.parts, owned.batch
    cause = _who_cancelled(batch) if batch.status is BatchStatus.CANCELLING else StopCause.EXPIRY
    async with (
        parts.blobs.local(str(batch.input_blob)) as source,
        parts.blobs.local(index_key(batch)) as index,
        parts.logs.segments(batch.id, epoch=batch.epoch) as segments,
        parts.blobs.placing(output_key(batch)) as output,
    ):
        async with parts.blobs.placing(error_key(batch)) as errors:
            async with parts.blobs.placing(places_key(batch)) as places:
                job = Merge(
                    batch_id=batch.id,
                    input_path=str(source),
                    index_path=str(index),
                    segments=segments,
                    unrun=_UNRUN[cause],
                )
                merged = await parts.offload.run(merge, job, output, errors, places)
            reached("places.placed")
        reached("error_file.placed")
    reached("output_file.placed")
    return merged


async def _publishable(owned: Owned, key: str, kind: str) -> File | None:
    """Make the record of a result file; OpenAI shows none for an empty one (CONTRACT section 4.3)."""
    parts, batch = owned.parts, owned.batch
    size = await parts.blobs.size(key) or 0
    if size == 0 and batch.flavour is Flavour.OPENAI:
        await parts.blobs.delete(key)
        return None
    now = int(parts.clock.now())
    life = batch.output_expires_after
    if life is None:
        life = parts.limits[batch.flavour].output_life
    return File(
        id=output_file_id(batch.flavour, parts.entropy.hex()),
        resource=batch.resource,
        purpose=Purpose.BATCH_OUTPUT,
        filename=f"{batch.id}_{kind}.jsonl",
        bytes=size,
        created_at=now,
        blob=key,
        expires_at=None if life is None else now + life,
    )
