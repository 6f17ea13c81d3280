"""The promises of ``ports/webhooks.py``, and that of ``Batches.save`` which feeds it."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from msgspec.structs import replace
from tests.contract.records import together

from overnight.adapters.sql.batches import SqlBatches
from overnight.adapters.sql.database import Database, sqlite_file
from overnight.adapters.sql.webhooks import SqlWebhooks
from overnight.domain.batch import Batch, BatchStatus, Expiry
from overnight.domain.flavour import Flavour
from overnight.domain.ids import BatchId, EndpointId, FileId, ResourceId
from overnight.domain.webhook import Attempt, DeliveryStatus, Endpoint, EventType
from overnight.ports.batches import Batches
from overnight.ports.webhooks import Webhooks
from overnight.testing.stores import MemoryBatches, Tables
from overnight.testing.webhooks import MemoryWebhooks

MINE, OTHERS = ResourceId("mine"), ResourceId("others")
NOW = 1_700_000_000
ALL = tuple(EventType)


@dataclass
class Stores:
    """The two stores, which share their tables."""

    batches: Batches
    webhooks: Webhooks

    async def end(self, number: int, status: BatchStatus = BatchStatus.FAILED, resource: ResourceId = MINE) -> Batch:
        """Let a batch end at the second of its number."""
        batch = a_batch(number, resource)
        await self.batches.add(batch)
        ended = batch.to(status, NOW + number)
        assert await self.batches.save(ended, expected=batch)
        return ended

    async def claim(self, now: float = NOW + 100, limit: int = 100, each: int = 100, **busy: int):
        """Claim for ten seconds."""
        counts = {EndpointId(name): count for name, count in busy.items()}
        return await self.webhooks.claim(now=now, until=now + 10, limit=limit, each=each, busy=counts)

    async def told(self, endpoint_id: str):
        """Give all deliveries of a receiver, oldest first."""
        page = await self.webhooks.deliveries(EndpointId(endpoint_id), after=None, limit=100)
        assert page is not None
        return [logged.delivery for logged in page.items][::-1]


@pytest.fixture(params=["memory", "sqlite"])
async def stores(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stores]:
    if request.param == "memory":
        tables = Tables()
        yield Stores(MemoryBatches(tables), MemoryWebhooks(tables.webhooks))
        return
    database = Database(sqlite_file(tmp_path))
    await database.migrate()
    yield Stores(SqlBatches(database), SqlWebhooks(database))
    await database.close()


def a_batch(number: int, resource: ResourceId = MINE) -> Batch:
    return Batch(
        id=BatchId(f"batch_{number}"),
        resource=resource,
        flavour=Flavour.OPENAI,
        endpoint="/v1/chat/completions",
        input_file_id=FileId("file-1"),
        completion_window="24h",
        created_at=NOW,
        expires_at=NOW + 86_400,
        expiry=Expiry.EXPIRE,
    )


def an_endpoint(name: str = "we_1", resource: ResourceId = MINE, types: tuple[EventType, ...] = ALL) -> Endpoint:
    return Endpoint(
        id=EndpointId(name),
        resource=resource,
        name="n",
        url="https://example.com",
        event_types=types,
        secret="whsec_YQ==",
        created_at=NOW,
        updated_at=NOW,
    )


async def add(stores: Stores, *endpoints: Endpoint) -> None:
    for endpoint in endpoints:
        assert await stores.webhooks.add(endpoint, most=10)


async def test_an_endpoint_comes_back_as_it_was_stored(stores: Stores) -> None:
    full = replace(an_endpoint(), old_secret="whsec_Yg==", old_secret_until=NOW + 0.5, revision=3)
    await add(stores, full)

    assert full == await stores.webhooks.get(MINE, full.id)
    assert await stores.webhooks.get(OTHERS, full.id) is None


async def test_no_more_than_the_bound_are_stored(stores: Stores) -> None:
    """However many ask at once, and others do not count."""
    await add(stores, an_endpoint("we_0", OTHERS))
    stored = await together(*(stores.webhooks.add(an_endpoint(f"we_{number}"), most=3) for number in range(1, 7)))

    assert sorted(stored) == [False, False, False, True, True, True]


async def test_pages_follow_one_another(stores: Stores) -> None:
    await add(stores, an_endpoint("we_0", OTHERS), *(an_endpoint(f"we_{number}") for number in range(1, 6)))
    first = await stores.webhooks.page(MINE, after=None, limit=3)
    second = await stores.webhooks.page(MINE, after=EndpointId("we_3"), limit=3)
    assert first is not None
    assert second is not None

    assert ([each.id for each in first.items], first.has_more) == (["we_5", "we_4", "we_3"], True)
    assert ([each.id for each in second.items], second.has_more) == (["we_2", "we_1"], False)
    assert await stores.webhooks.page(MINE, after=EndpointId("we_0"), limit=3) is None


async def test_a_write_that_names_an_older_revision_is_refused(stores: Stores) -> None:
    first = an_endpoint()
    await add(stores, first)
    second = replace(first, name="m", revision=1)
    stored = [await stores.webhooks.save(second, expected=first) for _ in range(2)]

    assert stored == [True, False]
    assert second == await stores.webhooks.get(MINE, first.id)


async def test_a_batch_that_ends_is_told_to_those_who_want_to_know(stores: Stores) -> None:
    """Not to other resources, not of other events, not to whoever comes later."""
    await add(
        stores,
        an_endpoint("we_all"),
        an_endpoint("we_failed", types=(EventType.FAILED,)),
        an_endpoint("we_others", OTHERS),
        an_endpoint("we_completed", types=(EventType.COMPLETED,)),
    )
    ended = await stores.end(1)
    await add(stores, an_endpoint("we_late"))
    told = {name: await stores.told(name) for name in ("we_all", "we_failed", "we_others", "we_completed", "we_late")}

    assert {name: len(found) for name, found in told.items()} == {
        "we_all": 1,
        "we_failed": 1,
        "we_others": 0,
        "we_completed": 0,
        "we_late": 0,
    }
    (delivery,) = told["we_all"]
    assert (delivery.batch_id, delivery.type, delivery.created_at) == (ended.id, EventType.FAILED, NOW + 1)
    assert delivery.event == told["we_failed"][0].event


async def test_a_batch_that_goes_on_is_told_to_nobody(stores: Stores) -> None:
    await add(stores, an_endpoint())
    batch = a_batch(1)
    await stores.batches.add(batch)
    await stores.batches.save(batch.to(BatchStatus.CANCELLING, NOW), expected=batch)

    assert await stores.told("we_1") == []


async def test_a_save_that_is_refused_tells_nobody(stores: Stores) -> None:
    await add(stores, an_endpoint())
    ended = await stores.end(1)
    again = await stores.batches.save(ended, expected=replace(a_batch(1), epoch=7))

    assert not again
    assert len(await stores.told("we_1")) == 1


async def test_nobody_is_given_what_another_has(stores: Stores) -> None:
    """However many ask at once, until the claim runs out."""
    await add(stores, an_endpoint())
    for number in range(6):
        await stores.end(number)
    claimed = [each for found in await together(*(stores.claim(each=6) for _ in range(4))) for each in found]

    assert len(claimed) == 6
    assert len({each.delivery.event_id for each in claimed}) == 6
    assert list(await stores.claim(now=NOW + 109)) == []
    assert len(await stores.claim(now=NOW + 110)) == 6


async def test_a_claim_brings_the_endpoint_as_it_is_now(stores: Stores) -> None:
    first = an_endpoint()
    await add(stores, first)
    await stores.end(1)
    second = replace(first, url="https://example.org", revision=1)
    await stores.webhooks.save(second, expected=first)
    (claimed,) = await stores.claim()

    assert claimed.endpoint == second
    assert (claimed.delivery.epoch, claimed.delivery.due_at) == (1, NOW + 110)


async def test_nothing_is_given_before_it_is_due(stores: Stores) -> None:
    await add(stores, an_endpoint())
    await stores.end(50)

    assert list(await stores.claim(now=NOW + 49)) == []
    assert len(await stores.claim(now=NOW + 50)) == 1


async def test_all_receivers_have_their_first_before_one_has_a_second(stores: Stores) -> None:
    await add(stores, an_endpoint("we_many"), an_endpoint("we_one", types=(EventType.EXPIRED,)))
    for number in range(5):
        await stores.end(number)
    await stores.end(9, BatchStatus.EXPIRED)
    claimed = await stores.claim(limit=3)

    assert [each.endpoint.id for each in claimed] == ["we_many", "we_one", "we_many"]
    assert [each.delivery.batch_id for each in claimed] == ["batch_0", "batch_9", "batch_1"]


@pytest.mark.parametrize(("busy", "given"), [(0, 2), (1, 1), (2, 0), (3, 0)])
async def test_a_receiver_is_given_no_more_than_it_may_have_at_once(stores: Stores, busy: int, given: int) -> None:
    await add(stores, an_endpoint())
    for number in range(5):
        await stores.end(number)

    assert len(await stores.claim(each=2, we_1=busy)) == given


async def test_what_became_of_a_delivery_is_kept_with_its_attempts(stores: Stores) -> None:
    await add(stores, an_endpoint())
    await stores.end(1)
    (claimed,) = await stores.claim()
    failed = Attempt(at=NOW + 100.5, seconds=0.25, error="connection refused")
    later = replace(claimed.delivery, due_at=NOW + 200.0, attempts=1)
    assert await stores.webhooks.record(later, failed)
    assert list(await stores.claim(now=NOW + 199)) == []
    (again,) = await stores.claim(now=NOW + 200)
    taken = Attempt(at=NOW + 200.5, seconds=0.5, status_code=204)
    done = replace(again.delivery, status=DeliveryStatus.DELIVERED, attempts=2)
    assert await stores.webhooks.record(done, taken)
    page = await stores.webhooks.deliveries(EndpointId("we_1"), after=None, limit=5)
    assert page is not None
    (logged,) = page.items

    assert logged.attempts == (failed, taken)
    assert logged.delivery == done
    assert list(await stores.claim(now=NOW + 1_000_000)) == []


async def test_whoever_lost_a_claim_cannot_write(stores: Stores) -> None:
    await add(stores, an_endpoint())
    await stores.end(1)
    (first,) = await stores.claim()
    (second,) = await stores.claim(now=NOW + 110)
    attempt = Attempt(at=NOW, seconds=1, status_code=200)
    done = [replace(each.delivery, status=DeliveryStatus.DELIVERED, attempts=1) for each in (first, second, second)]
    recorded = [await stores.webhooks.record(each, attempt) for each in done]

    assert recorded == [False, True, False]


async def test_a_deleted_receiver_is_told_nothing_any_more(stores: Stores) -> None:
    await add(stores, an_endpoint(), an_endpoint("we_2"))
    await stores.end(1)
    (first, _) = await stores.claim(limit=2)
    removed = [await stores.webhooks.delete(resource, EndpointId("we_1")) for resource in (OTHERS, MINE, MINE)]
    recorded = await stores.webhooks.record(
        replace(first.delivery, due_at=0.0), Attempt(at=NOW, seconds=1, error="closed")
    )

    assert removed == [False, True, False]
    assert not recorded
    assert [each.endpoint.id for each in await stores.claim(now=NOW + 200)] == ["we_2"]
    assert await stores.told("we_1") == []


async def test_the_log_is_read_in_pages(stores: Stores) -> None:
    await add(stores, an_endpoint())
    for number in range(5):
        await stores.end(number)
    first = await stores.webhooks.deliveries(EndpointId("we_1"), after=None, limit=3)
    assert first is not None
    second = await stores.webhooks.deliveries(EndpointId("we_1"), after=first.items[-1].delivery.event_id, limit=3)
    assert second is not None

    assert [each.delivery.batch_id for each in first.items] == ["batch_4", "batch_3", "batch_2"]
    assert [each.delivery.batch_id for each in second.items] == ["batch_1", "batch_0"]
    assert (first.has_more, second.has_more) == (True, False)
    assert await stores.webhooks.deliveries(EndpointId("we_1"), after="evt_0", limit=3) is None


async def test_what_is_over_is_forgotten_and_what_waits_is_not(stores: Stores) -> None:
    await add(stores, an_endpoint())
    for number in range(4):
        await stores.end(number)
    for claimed in await stores.claim(limit=3):
        over = replace(claimed.delivery, status=DeliveryStatus.FAILED, attempts=1)
        await stores.webhooks.record(over, Attempt(at=NOW, seconds=1, error="closed"))
    forgotten = [await stores.webhooks.forget(before=NOW + 2, limit=limit) for limit in (1, 5, 5)]

    assert forgotten == [1, 1, 0]
    assert [each.batch_id for each in await stores.told("we_1")] == ["batch_2", "batch_3"]
