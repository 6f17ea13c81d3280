"""What ``ports/batches.py`` promises about who may write a batch."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from overnight.domain.batch import Batch, BatchStatus, Expiry
from overnight.domain.flavour import Flavour
from overnight.domain.ids import BatchId, FileId, ResourceId, WorkerId
from overnight.domain.listing import BatchQuery
from overnight.domain.result import Tally
from overnight.ports.batches import Verdict
from overnight.testing.contracts.expect import expect

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from overnight.ports.batches import Batches

_NOW = 1_700_000_000.0
_MINE, _OTHERS = ResourceId("mine"), ResourceId("others")
_ANN, _BOB = WorkerId("ann"), WorkerId("bob")


async def a_batch_belongs_to_its_resource(batches: Batches) -> None:
    """A foreign id is an unknown one, by itself and as a cursor."""
    batch = await _added(batches, 1)
    expect(batch, await batches.get(_MINE, batch.id))
    expect(None, await batches.get(_OTHERS, batch.id))
    expect(None, await batches.page(_OTHERS, BatchQuery(after=batch.id, limit=5)))


async def pages_follow_one_another(batches: Batches) -> None:
    """Newest first, each batch once."""
    added = [await _added(batches, number) for number in range(5)]
    first = await batches.page(_MINE, BatchQuery(limit=3))
    expect([batch.id for batch in added[:1:-1]], [batch.id for batch in first.items] if first else None)
    second = await batches.page(_MINE, BatchQuery(after=added[2].id, limit=3))
    expect(
        ([added[1].id, added[0].id], False), ([batch.id for batch in second.items], second.has_more) if second else 0
    )


async def a_write_that_names_an_older_state_is_refused(batches: Batches) -> None:
    """And writes nothing."""
    batch = await _added(batches, 1)
    cancelling = batch.to(BatchStatus.CANCELLING, _NOW)
    expect(True, await batches.save(cancelling, expected=batch))
    expect(False, await batches.save(batch.to(BatchStatus.IN_PROGRESS, _NOW, total=3), expected=batch))
    expect(cancelling, await batches.get(_MINE, batch.id))


async def a_claim_raises_the_epoch_and_shuts_out_the_last_owner(batches: Batches) -> None:
    """Its writes are refused from then on, whatever it believes."""
    await _added(batches, 1)
    [first] = await batches.claim(_ANN, now=_NOW, until=_NOW + 10, limit=5)
    expect([], list(await batches.claim(_BOB, now=_NOW + 9, until=_NOW + 19, limit=5)))
    [second] = await batches.claim(_BOB, now=_NOW + 11, until=_NOW + 21, limit=5)
    expect(first.epoch + 1, second.epoch)
    expect(False, await batches.record_progress(first, Tally(completed=1), now=_NOW))
    expect(False, await batches.save(first.to(BatchStatus.FAILED, _NOW), expected=first))
    expect(None, await batches.renew(first, _ANN, until=_NOW + 30))
    expect(True, await batches.record_progress(second, Tally(completed=2), now=_NOW))


async def no_two_workers_are_given_one_epoch(batches: Batches) -> None:
    """However many ask at once."""
    for number in range(4):
        await _added(batches, number)
    asked = [batches.claim(WorkerId(f"w{number}"), now=_NOW, until=_NOW + 10, limit=4) for number in range(6)]
    claimed = [(batch.id, batch.epoch) for found in await asyncio.gather(*asked) for batch in found]
    expect(4, len(claimed))
    expect(4, len(set(claimed)))


async def a_renewed_claim_holds_and_a_released_one_is_free(batches: Batches) -> None:
    """Not before the moment that was named; a claim that was lost cannot be given back."""
    await _added(batches, 1)
    [held] = await batches.claim(_ANN, now=_NOW, until=_NOW + 10, limit=5)
    expect(held, await batches.renew(held, _ANN, until=_NOW + 30))
    expect([], list(await batches.claim(_BOB, now=_NOW + 20, until=_NOW + 40, limit=5)))
    await batches.release(held, _ANN, until=_NOW + 25)
    expect([], list(await batches.claim(_BOB, now=_NOW + 24, until=_NOW + 40, limit=5)))
    [taken] = await batches.claim(_BOB, now=_NOW + 25, until=_NOW + 40, limit=5)
    await batches.release(held, _ANN)
    expect(taken, await batches.renew(taken, _BOB, until=_NOW + 50))


async def the_claims_of_the_dead_are_free_at_once(batches: Batches) -> None:
    """And only theirs."""
    await _added(batches, 1)
    await batches.claim(_ANN, now=_NOW, until=_NOW + 10, limit=5)
    await _added(batches, 2)
    await batches.claim(_BOB, now=_NOW, until=_NOW + 10, limit=5)
    await batches.release_all(_ANN)
    free = await batches.claim(WorkerId("new"), now=_NOW, until=_NOW + 10, limit=5)
    expect([BatchId("batch_1")], [batch.id for batch in free])


async def an_ended_batch_is_claimed_by_nobody(batches: Batches) -> None:
    """It is not active any more."""
    batch = await _added(batches, 1)
    other = await _added(batches, 2)
    await batches.save(batch.to(BatchStatus.FAILED, _NOW), expected=batch)
    known = await batches.known([batch.id, other.id, BatchId("batch_unknown")])
    expect({batch.id: True, other.id: False}, {each.id: each.ended for each in known})
    claimed = await batches.claim(_ANN, now=_NOW, until=_NOW + 10, limit=5)
    expect([other.id], [found.id for found in claimed])


async def no_more_are_let_in_than_fit(batches: Batches) -> None:
    """However many ask at once; what was let in gives back its share as its requests end."""
    waiting = [await _added(batches, number) for number in range(6)]
    running = [
        batch.to(BatchStatus.IN_PROGRESS, _NOW, total=3, deployment="chat", reserved_tokens=40) for batch in waiting
    ]
    found = await asyncio.gather(
        *(batches.admit(new, expected=old, limit=100, in_turn=False) for new, old in zip(running, waiting, strict=True))
    )
    admitted = [new for new, each in zip(running, found, strict=True) if each.verdict is Verdict.ADMITTED]
    expect(2, len(admitted))
    expect({"chat": 80}, dict(await batches.enqueued(_MINE, ["chat"])))
    await batches.record_progress(admitted[0], Tally(completed=1), now=_NOW)
    expect({"chat": 67}, dict(await batches.enqueued(_MINE, ["chat"])))
    expect({"chat": 0}, dict(await batches.enqueued(_OTHERS, ["chat"])))


BATCHES: tuple[Callable[[Batches], Awaitable[None]], ...] = (
    a_batch_belongs_to_its_resource,
    pages_follow_one_another,
    a_write_that_names_an_older_state_is_refused,
    a_claim_raises_the_epoch_and_shuts_out_the_last_owner,
    no_two_workers_are_given_one_epoch,
    a_renewed_claim_holds_and_a_released_one_is_free,
    the_claims_of_the_dead_are_free_at_once,
    an_ended_batch_is_claimed_by_nobody,
    no_more_are_let_in_than_fit,
)
"""What ``ports/batches.py`` promises."""


async def _added(batches: Batches, number: int) -> Batch:
    batch = Batch(
        id=BatchId(f"batch_{number}"),
        resource=_MINE,
        flavour=Flavour.OPENAI,
        endpoint="/v1/chat/completions",
        input_file_id=FileId("file-1"),
        completion_window="24h",
        created_at=int(_NOW),
        expires_at=int(_NOW) + 86_400,
        expiry=Expiry.EXPIRE,
    )
    await batches.add(batch)
    return batch
