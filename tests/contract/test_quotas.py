"""The promises of ``ports/quotas.py``, and those of ``ports/batches.py`` that quotas rest on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from msgspec.structs import replace
from tests.contract.records import together
from tests.contract.test_batches import ANN, MINE, NOW, OTHERS, a_batch

from overnight.adapters.sql.batches import SqlBatches
from overnight.adapters.sql.database import Database, sqlite_file
from overnight.adapters.sql.keys import SqlKeys
from overnight.adapters.sql.quotas import SqlQuotas
from overnight.domain.batch import Batch, BatchStatus
from overnight.domain.ids import ResourceId
from overnight.domain.key import Resource
from overnight.domain.quota import Offer, Own, Terms
from overnight.domain.result import Tally
from overnight.ports.batches import Admission, Batches, Verdict
from overnight.ports.keys import Keys
from overnight.ports.quotas import Quotas
from overnight.testing.quotas import MemoryQuotas
from overnight.testing.stores import MemoryKeys, Tables

S = BatchStatus
ADMITTED, FULL, LOST = Verdict.ADMITTED, Verdict.FULL, Verdict.LOST


@dataclass(frozen=True, slots=True)
class Office:
    """Quotas beside the resources that they are for."""

    quotas: Quotas
    keys: Keys


@pytest.fixture(params=["memory", "sqlite"])
async def office(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Office]:
    """Stores without resources and quotas."""
    if request.param == "memory":
        tables = Tables()
        yield Office(MemoryQuotas(tables), MemoryKeys(tables))
        return
    database = Database(sqlite_file(tmp_path))
    await database.migrate()
    yield Office(SqlQuotas(database), SqlKeys(database))
    await database.close()


async def added(batches: Batches, name: str = "batch_1", resource: ResourceId = MINE) -> Batch:
    """Store a new batch."""
    batch = a_batch(name, resource)
    await batches.add(batch)
    return batch


async def admit(
    batches: Batches, batch: Batch, tokens: int, *, limit: int = 100, total: int = 4, in_turn: bool = False
) -> Admission:
    """Try to let a batch in."""
    new = batch.to(S.IN_PROGRESS, NOW, total=total, deployment="chat", reserved_tokens=tokens)
    return await batches.admit(new, expected=batch, limit=limit, in_turn=in_turn)


async def held(batches: Batches, resource: ResourceId = MINE, deployment: str = "chat") -> int:
    """Say what is enqueued."""
    return (await batches.enqueued(resource, [deployment]))[deployment]


async def test_what_is_let_in_is_written_with_its_reservation(batches: Batches) -> None:
    """In one transaction: no crash can come in between."""
    batch = await added(batches)

    assert await admit(batches, batch, 100) == Admission(verdict=ADMITTED)

    stored = await batches.get(MINE, batch.id)
    assert stored is not None
    assert (stored.status, stored.reserved_tokens) == (S.IN_PROGRESS, 100)
    assert await held(batches) == 100


async def test_what_does_not_fit_is_left_as_it_was(batches: Batches) -> None:
    """And it is told how much is enqueued."""
    first, second = await added(batches), await added(batches, "batch_2")
    await admit(batches, first, 60)

    assert await admit(batches, second, 41) == Admission(verdict=FULL, enqueued=60)
    assert await batches.get(MINE, second.id) == second
    assert await admit(batches, second, 40) == Admission(verdict=ADMITTED, enqueued=60)
    assert await held(batches) == 100


async def test_only_the_state_that_was_seen_is_let_in(batches: Batches) -> None:
    """A cancel in between, or another owner, wins."""
    cancelled, taken = await added(batches), await added(batches, "batch_2")
    await batches.save(cancelled.to(S.CANCELLING, NOW), expected=cancelled)
    await batches.claim(ANN, now=NOW, until=NOW + 10, limit=5)

    assert [(await admit(batches, each, 1)).verdict for each in (cancelled, taken)] == [LOST, LOST]
    assert await held(batches) == 0


async def test_requests_that_end_give_back_their_share(batches: Batches) -> None:
    """Rounded up for each batch, and all of it at the end, whatever was left undone."""
    batch = await added(batches)
    await admit(batches, batch, 10, total=3)
    running = await batches.get(MINE, batch.id)
    assert running is not None
    shown = []
    for tally in (Tally(completed=1), Tally(completed=1, failed=1), Tally(completed=2, failed=1)):
        await batches.record_progress(running, tally, now=NOW)
        shown.append(await held(batches))
    await batches.record_progress(running, Tally(), now=NOW)
    cancelling = running.to(S.CANCELLING, NOW)
    await batches.save(cancelling, expected=running)
    shown.append(await held(batches))
    await batches.save(cancelling.to(S.CANCELLED, NOW), expected=cancelling)

    assert shown == [7, 4, 0, 10]
    assert await held(batches) == 0


async def test_resources_and_deployments_have_quotas_of_their_own(batches: Batches) -> None:
    """What one has enqueued leaves the other's alone."""
    await admit(batches, await added(batches), 100)
    foreign = await added(batches, "batch_2", OTHERS)
    other = await added(batches, "batch_3")
    elsewhere = other.to(S.IN_PROGRESS, NOW, total=1, deployment="other", reserved_tokens=100)

    assert (await admit(batches, foreign, 100)).verdict is ADMITTED
    assert (await batches.admit(elsewhere, expected=other, limit=100, in_turn=False)).verdict is ADMITTED
    assert await batches.enqueued(MINE, ["chat", "other", "none"]) == {"chat": 100, "other": 100, "none": 0}
    assert await batches.enqueued(MINE, []) == {}


async def test_batches_that_were_let_in_without_a_limit_hold_nothing(batches: Batches) -> None:
    """Their tokens were not counted."""
    batch = await added(batches)
    await batches.save(batch.to(S.IN_PROGRESS, NOW, total=3, deployment="chat"), expected=batch)

    assert await held(batches) == 0


async def test_nobody_overtakes_an_older_batch_that_waits_for_room(batches: Batches) -> None:
    """Or a large one would wait for ever; those that wait for something else are not in the way."""
    oldest, waiting, small = [await added(batches, f"batch_{number}") for number in (1, 2, 3)]
    foreign = await added(batches, "batch_4", OTHERS)
    counted = replace(waiting, prompt_tokens=90, deployment="chat")
    await batches.save(counted, expected=waiting)

    assert await admit(batches, small, 10, in_turn=True) == Admission(verdict=FULL, ahead=1)
    assert (await admit(batches, foreign, 10, in_turn=True)).verdict is ADMITTED
    assert (await admit(batches, oldest, 20, in_turn=True)).verdict is ADMITTED
    assert await admit(batches, counted, 90, in_turn=True) == Admission(verdict=FULL, enqueued=20)
    assert (await admit(batches, small, 10)).verdict is ADMITTED

    await batches.save(counted.to(S.CANCELLING, NOW), expected=counted)
    last = await added(batches, "batch_5")
    assert (await admit(batches, last, 10, in_turn=True)).verdict is ADMITTED


async def test_of_many_at_once_no_more_are_let_in_than_fit(batches: Batches) -> None:
    """Each sees those before it."""
    waiting = [await added(batches, f"batch_{number}") for number in range(12)]
    found = await together(*(admit(batches, each, 30) for each in waiting))

    assert sorted(each.verdict for each in found) == [ADMITTED] * 3 + [FULL] * 9
    assert await held(batches) == 90


async def test_of_several_processes_no_more_are_let_in_than_fit(tmp_path: Path) -> None:
    """Each has connections of its own to the same database."""
    databases = [Database(sqlite_file(tmp_path)) for _ in range(3)]
    await databases[0].migrate()
    stores = [SqlBatches(database) for database in databases]
    waiting = [await added(stores[0], f"batch_{number}") for number in range(12)]
    found = await together(*(admit(stores[number % 3], each, 30) for number, each in enumerate(waiting)))
    enqueued = [await held(store) for store in stores]
    for database in databases:
        await database.close()

    assert sorted(each.verdict for each in found) == [ADMITTED] * 3 + [FULL] * 9
    assert enqueued == [90] * 3


async def test_the_query_for_what_is_enqueued_uses_its_index(tmp_path: Path) -> None:
    """However many batches a resource has had."""
    database = Database(sqlite_file(tmp_path))
    await database.migrate()
    statement = "EXPLAIN QUERY PLAN SELECT sum(reserved_tokens) FROM batches"
    condition = " WHERE resource = 'a' AND deployment = 'b' AND status IN ('in_progress', 'finalizing')"
    async with database.transaction() as connection:
        plan = str((await connection.exec_driver_sql(statement + condition)).all())
    await database.close()

    assert "batches_by_deployment (resource=? AND deployment=? AND status=?)" in plan


async def test_a_repetition_is_found_before_it_is_stored(batches: Batches) -> None:
    """As ``add_once`` finds it."""
    stored = replace(a_batch(), idempotency_key="key", fingerprint="print")
    await batches.add(stored)
    again = replace(stored, id=a_batch("batch_2").id)

    assert await batches.repeated(again, since=int(NOW)) == stored
    assert await batches.repeated(again, since=int(NOW) + 1) is None
    assert await batches.repeated(replace(again, idempotency_key="other"), since=0) is None
    assert await batches.repeated(replace(again, idempotency_key=None), since=0) is None


async def test_the_terms_of_a_resource_are_its_offer_and_its_numbers(office: Office) -> None:
    """Those of another are not."""
    for name in (MINE, OTHERS):
        await office.keys.add_resource(Resource(name=name, created_at=1, offer=Offer.FREE))
    put = [
        await office.quotas.put(Own(resource=MINE, deployment="chat", tokens=5)),
        await office.quotas.put(Own(resource=MINE, deployment="chat", tokens=2**40)),
        await office.quotas.put(Own(resource=MINE, deployment="other", tokens=None)),
        await office.quotas.put(Own(resource=OTHERS, deployment="chat", tokens=0)),
        await office.quotas.put_offer(MINE, Offer.CREDIT_CARD),
    ]

    assert put == [True] * 5
    assert await office.quotas.terms(MINE) == Terms(offer=Offer.CREDIT_CARD, own={"chat": 2**40, "other": None})
    assert await office.quotas.terms(OTHERS) == Terms(offer=Offer.FREE, own={"chat": 0})
    assert [each.offer for each in await office.keys.resources()] == [Offer.CREDIT_CARD, Offer.FREE]
    assert list(await office.quotas.own()) == [
        Own(resource=MINE, deployment="chat", tokens=2**40),
        Own(resource=MINE, deployment="other", tokens=None),
        Own(resource=OTHERS, deployment="chat", tokens=0),
    ]


async def test_what_was_set_can_be_taken_back(office: Office) -> None:
    """And only what was set."""
    await office.keys.add_resource(Resource(name=MINE, created_at=1, offer=Offer.FREE))
    await office.quotas.put(Own(resource=MINE, deployment="chat", tokens=5))

    assert await office.quotas.put_offer(MINE, None)
    assert await office.quotas.remove(MINE, "chat")
    assert not await office.quotas.remove(MINE, "chat")
    assert await office.quotas.terms(MINE) == Terms()


async def test_a_resource_that_there_is_not_has_no_terms(office: Office) -> None:
    """And is given none."""
    assert await office.quotas.terms(MINE) == Terms()
    assert not await office.quotas.put(Own(resource=MINE, deployment="chat", tokens=5))
    assert not await office.quotas.put_offer(MINE, Offer.FREE)
    assert list(await office.quotas.own()) == []
