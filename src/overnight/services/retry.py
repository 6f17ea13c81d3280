"""Running the requests of an ended batch again that had no success, as a new batch with a file of its own."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager, suppress
from enum import StrEnum
from itertools import islice
from typing import TYPE_CHECKING

import msgspec

from overnight.domain.errors import Conflict, InvalidRequest, TooManyRequests, Unavailable
from overnight.domain.file import ExpiresAfter
from overnight.domain.ids import FileId
from overnight.domain.limits import METADATA_PAIRS
from overnight.domain.listing import BatchQuery
from overnight.domain.places import Place, State
from overnight.services.batches import NewBatch
from overnight.services.files import NewFile
from overnight.services.sheets import lines_in

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from overnight.domain.batch import Batch
    from overnight.domain.ids import BatchId, ResourceId
    from overnight.services.batches import BatchService
    from overnight.services.files import FileService, Receiver
    from overnight.services.rates import Allowances
    from overnight.services.requests import RequestService
    from overnight.services.sheets import Sheet, Span

RETRY_OF = "retry_of"
"""The metadata of a new batch that names the batch whose requests it runs again."""

# Two retries are equal by what they are derived from, whatever their file.
_NO_FILE = FileId("")
_LINES_AT_ONCE = 1_000
_PIECE = 1024 * 1024
_LOOKED_AT = 100


class Which(StrEnum):
    """Which requests run again."""

    FAILED = "failed"
    NOT_RUN = "not_run"
    ALL_UNFINISHED = "all_unfinished"


_STATES: Mapping[Which, frozenset[State]] = {
    Which.FAILED: frozenset({State.FAILED}),
    Which.NOT_RUN: frozenset({State.NOT_RUN}),
    Which.ALL_UNFINISHED: frozenset({State.FAILED, State.NOT_RUN}),
}


class NewRetry(msgspec.Struct, frozen=True, kw_only=True):
    """What the caller asks for; the last two are as in ``NewBatch``."""

    which: Which = Which.FAILED
    idempotency_key: str | None = None
    sent_again: bool = False


class RetryService:
    """The use case of retrying."""

    def __init__(
        self,
        requests: RequestService,
        batches: BatchService,
        files: FileService,
        allowances: Allowances | None = None,
    ) -> None:
        self._requests = requests
        self._batches = batches
        self._files = files
        self._allowances = allowances

    async def retry(self, resource: ResourceId, batch_id: BatchId, new: NewRetry) -> Batch:
        """Create a batch from lines of the input of another, byte for byte, with its endpoint and metadata.

        A request that repeats another gets the batch of that one, as in ``BatchService.create``.

        Raises:
            NotFound: there is no such batch.
            Conflict: the batch has not ended, its input is gone, it has no such requests, or the key was used for
                another request.
            QuotaExceeded: the resource has as many files as it may.
            TokenLimitExceeded: the new batch does not fit into the quota of its deployment.
            TooManyRequests: it created as many batches within an hour, or begins or sends as many files, as it may.
        """
        old = await self._batches.get(resource, batch_id)
        if not old.ended:
            message = f"The batch '{old.id}' has not ended yet. Wait for its end, or cancel it."
            raise Conflict(message)
        # Asked before anything is copied: its input may be gone by now, or its copy be the last file that was allowed.
        repeated = await self._batches.repeated(resource, old.flavour, _new_batch(old, _NO_FILE, new))
        if repeated is not None:
            return repeated
        # And before hundreds of megabytes are copied only to be thrown away.
        await self._batches.require_room(resource, old.flavour, _new_batch(old, old.input_file_id, new))
        await self._files.check_input_quota(resource, old.flavour)
        with self._counted(old):
            file_id = await self._copy(old, new.which)
        return await self._create(old, file_id, new)

    @contextmanager
    def _counted(self, old: Batch) -> Iterator[None]:
        """Count the copy as a file that is sent: it costs as much."""
        if self._allowances is None:
            yield
            return
        self._allowances.count_file(old.resource, old.flavour)
        with self._allowances.uploading(old.resource):
            yield

    async def _create(self, old: Batch, file_id: FileId, new: NewRetry) -> Batch:
        try:
            batch = await self._batches.create(old.resource, old.flavour, _new_batch(old, file_id, new))
        except Unavailable:
            # Whether the batch was stored cannot be told by this: only by looking, if that is possible by now.
            with suppress(Unavailable):
                if not await self._is_read(old.resource, file_id):
                    await self._files.discard(old.resource, file_id)
            raise
        except (InvalidRequest, Conflict, TooManyRequests):
            await self._files.discard(old.resource, file_id)
            raise
        if batch.input_file_id != file_id:
            # This repeats a request that was first, and nobody knows of our file.
            await self._files.discard(old.resource, file_id)
        return batch

    async def _is_read(self, resource: ResourceId, file_id: FileId) -> bool:
        newest = await self._batches.page(resource, BatchQuery(limit=_LOOKED_AT))
        return any(batch.input_file_id == file_id for batch in newest.items)

    async def _copy(self, old: Batch, which: Which) -> FileId:
        if not old.accepted:
            message = (
                f"None of the requests of the batch '{old.id}' was let in, so there is nothing to run again. Create a"
                f" new batch from its input file '{old.input_file_id}'."
            )
            raise Conflict(message)
        async with (
            self._requests.ended(old) as sheet,
            self._files.receiving(old.flavour) as receiver,
        ):
            if sheet.line(0, Place()) is None:
                message = (
                    f"The input file of the batch '{old.id}' was deleted or has expired, so nothing can be copied."
                )
                raise Conflict(message)
            await _copy_lines(sheet, _STATES[which], receiver)
            if not receiver.size:
                raise _none_such(old, which)
            name = f"retry-of-{old.id}.jsonl"
            file = await receiver.finish(old.resource, old.flavour, NewFile(filename=name, purpose="batch"))
        return file.id


async def _copy_lines(sheet: Sheet, states: frozenset[State], receiver: Receiver) -> None:
    spans = lines_in(sheet, states)
    while True:
        some = await asyncio.to_thread(_next_lines, spans)
        if not some:
            return
        await receiver.write(some)


def _next_lines(spans: Iterator[Span]) -> bytes:
    """Read some more lines, each with one line break at its end."""
    piece = bytearray()
    for span in islice(spans, _LINES_AT_ONCE):
        piece += span.read().rstrip(b"\r\n") + b"\n"
        if len(piece) >= _PIECE:
            break
    return bytes(piece)


def _new_batch(old: Batch, file_id: FileId, new: NewRetry) -> NewBatch:
    life = old.output_expires_after
    return NewBatch(
        input_file_id=file_id,
        endpoint=old.endpoint,
        completion_window=old.completion_window,
        metadata=_metadata(old),
        output_expires_after=None if life is None else ExpiresAfter(anchor="created_at", seconds=life),
        idempotency_key=new.idempotency_key,
        sent_again=new.sent_again,
        derived_from=f"{new.which} requests of {old.id}",
    )


def _metadata(old: Batch) -> dict[str, str]:
    """Name the old batch, unless its own metadata leaves no room for that."""
    metadata = dict(old.metadata or {})
    if RETRY_OF in metadata or len(metadata) < METADATA_PAIRS:
        metadata[RETRY_OF] = old.id
    return metadata


def _none_such(old: Batch, which: Which) -> Conflict:
    kind = {Which.FAILED: "failed", Which.NOT_RUN: "was not run"}.get(which, "failed or was not run")
    message = f"No request of the batch '{old.id}' {kind}, so there is nothing to run again."
    return Conflict(message)
