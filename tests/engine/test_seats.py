"""Which batches this process owns where more wait: nothing that cannot go on is in the way of what can."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from tests.engine.house import URL, House, line, number_of

from overnight.dispatch import seats
from overnight.dispatch.router import Router
from overnight.domain.batch import Batch, BatchStatus
from overnight.domain.deployment import Capacity
from overnight.domain.flavour import Flavour
from overnight.domain.ids import DEFAULT_RESOURCE, ResourceId
from overnight.domain.retry import Failure, Fault
from overnight.services.batches import NewBatch
from overnight.services.files import NewFile
from overnight.testing.in_process import InProcessUpstream, ScriptedDeployments, always, answer, deployment

S = BatchStatus
REFUSED = Failure(fault=Fault.UNREACHABLE, detail="refused")
DAY = 86_400.0
RUNNING, ASIDE = 12, 6


@pytest.fixture(autouse=True)
def _few_seats(monkeypatch: pytest.MonkeyPatch) -> None:
    """What holds for a dozen holds for as many as there are."""
    monkeypatch.setattr(seats, "RUNNING", RUNNING)
    monkeypatch.setattr(seats, "ASIDE", ASIDE)


def two_upstreams(house: House, *, slots: int = 4, delay: float = 0.0) -> tuple[InProcessUpstream, InProcessUpstream]:
    """Let the deployments ``one`` and ``two`` have an upstream each; the second answers at once."""
    room = Capacity(max_concurrency=slots, start_concurrency=slots)
    one = InProcessUpstream(house.clock, always(answer(), delay=delay), name="one", capacity=room)
    two = InProcessUpstream(house.clock, name="two")
    house.upstreams = [one, two]
    house.deployments = ScriptedDeployments([deployment("one", one), deployment("two", two)])
    return one, two


async def create(
    house: House, model: str, *, by: str = DEFAULT_RESOURCE, count: int = 1, lines: int = 1
) -> list[Batch]:
    """Create batches of one file."""
    content = [line(number, body={"model": model, "messages": [], "n": number}) for number in range(lines)]
    resource = ResourceId(by)
    async with house.files.receiving(Flavour.OPENAI) as receiver:
        await receiver.write(b"\n".join(content))
        file = await receiver.finish(resource, Flavour.OPENAI, NewFile(filename="in.jsonl", purpose="batch"))
    created = []
    for number in range(count):
        wanted: dict[str, Any] = {"input_file_id": file.id, "endpoint": URL, "completion_window": "24h"}
        new = NewBatch(**wanted, metadata={"number": str(number)})
        created.append(await house.batches.create(resource, Flavour.OPENAI, new))
    return created


async def seen(house: House, batches: Sequence[Batch]) -> list[Batch]:
    """Read batches as they stand."""
    return list(await house.stores.batches.known([batch.id for batch in batches]))


async def reach(house: House, batches: Sequence[Batch], status: BatchStatus, *, within: float = 60.0) -> None:
    """Let time pass until all have the status."""

    async def there() -> bool:
        house.complain()
        return {batch.status for batch in await seen(house, batches)} == {status}

    await house.clock.run_until(there, within=within)


def router_of(house: House) -> Router:
    """Give what operators pause upstreams with."""
    assert house.dispatcher is not None
    return house.dispatcher._parts.router  # noqa: SLF001 - as the Studio is handed it


async def test_batches_that_wait_for_a_paused_upstream_are_in_nobodys_way(house: House) -> None:
    """More of them than there are seats; what needs another upstream runs, what needs none is done with."""
    one, _ = two_upstreams(house)
    house.start()
    router_of(house).pause("one")
    waiting = await create(house, "one", count=RUNNING + 1)
    await reach(house, waiting, S.IN_PROGRESS)

    await reach(house, await create(house, "two"), S.COMPLETED, within=10)
    await reach(house, await create(house, "unknown"), S.FAILED, within=10)
    await house.batches.cancel(DEFAULT_RESOURCE, waiting[-1].id)
    await reach(house, waiting[-1:], S.CANCELLED, within=10)

    assert one.sent == []
    router_of(house).resume("one")
    await reach(house, waiting[:-1], S.COMPLETED)
    assert len(one.sent) == RUNNING


async def test_a_hundred_resources_that_wait_for_one_upstream_are_in_nobodys_way(quick: House) -> None:
    """Their batches give their seats back, are not claimed again and again, and go on when the upstream does."""
    one, _ = two_upstreams(quick)
    quick.start()
    router_of(quick).pause("one")
    waiting = [batch for number in range(RUNNING + 4) for batch in await create(quick, "one", by=f"r{number}")]
    await reach(quick, waiting, S.IN_PROGRESS)
    await quick.clock.advance(5)

    other = await create(quick, "two", by="other", count=10, lines=2)
    await reach(quick, other, S.COMPLETED, within=20)
    before = await seen(quick, waiting)
    await quick.clock.advance(600)

    assert await seen(quick, waiting) == before
    assert max(batch.epoch for batch in before) <= 3
    router_of(quick).resume("one")
    await reach(quick, waiting, S.COMPLETED)
    assert len(one.sent) == len(waiting)


async def test_an_upstream_that_is_down_is_tried_by_a_few_batches_while_others_want_their_seats(quick: House) -> None:
    """And they notice when it is back."""
    one, _ = two_upstreams(quick)
    one.script = always(REFUSED)
    waiting = [batch for number in range(RUNNING + 4) for batch in await create(quick, "one", by=f"r{number}")]
    quick.start()
    await reach(quick, waiting, S.IN_PROGRESS)
    await quick.clock.advance(30)

    await reach(quick, await create(quick, "two", by="other", count=10), S.COMPLETED, within=20)
    tried = len(one.sent)
    await quick.clock.advance(60)

    assert len(one.sent) > tried
    one.script = always(answer())
    await reach(quick, waiting, S.COMPLETED)


async def test_slow_batches_of_one_resource_leave_seats_to_others(house: House) -> None:
    """One that comes later is served next by the upstream that they share; its cancelled batch is done with at once."""
    one, _ = two_upstreams(house, slots=2, delay=5.0)
    house.start()
    slow = await create(house, "one", by="alpha", count=RUNNING + 1, lines=8)
    await house.clock.advance(4)
    late, cancelled = await create(house, "one", by="beta", count=2)
    await reach(house, [late, cancelled], S.IN_PROGRESS, within=2)
    await house.batches.cancel(ResourceId("beta"), cancelled.id)

    await reach(house, [cancelled], S.CANCELLED, within=5)
    # Two slots take each batch that has a seat in turn.
    await reach(house, [late], S.COMPLETED, within=5.0 * (RUNNING / 2 + 2))
    assert not any(batch.ended for batch in await seen(house, slow))
    assert len(one.sent) < 2 * RUNNING


async def test_the_last_idle_batch_of_whoever_has_most_makes_room_for_who_has_nothing(quick: House) -> None:
    """Where every seat is taken; it goes on when it is its turn again."""
    one, _ = two_upstreams(quick, slots=2, delay=10.0)
    quick.start()
    crowd = [batch for number in range(4) for batch in await create(quick, "one", by=f"r{number}", count=8, lines=4)]
    await quick.clock.advance(5)

    late = [batch for number in range(3) for batch in await create(quick, "one", by=f"late{number}")]
    await reach(quick, late, S.COMPLETED, within=10.0 * RUNNING)

    assert not any(batch.ended for batch in await seen(quick, crowd))
    await reach(quick, crowd, S.COMPLETED, within=DAY)
    assert {batch.completed for batch in await seen(quick, crowd)} == {4}
    assert len(one.sent) == 4 * len(crowd) + len(late)


async def test_what_a_batch_has_done_is_kept_when_it_waits_for_its_turn_again(house: House) -> None:
    """No request is sent twice, and the counts stand still meanwhile."""
    one, _ = two_upstreams(house)
    one.script = lambda sent: always(answer() if number_of(sent.body) == 0 else REFUSED)(sent)
    half = [batch for number in range(RUNNING) for batch in await create(house, "one", by=f"r{number}", lines=2)]
    house.start()
    await house.clock.advance(10)
    counts = [(batch.status, batch.completed) for batch in await seen(house, half)]

    await reach(house, await create(house, "two", by="other", count=10), S.COMPLETED)

    assert [(batch.status, batch.completed) for batch in await seen(house, half)] == counts
    one.script = always(answer())
    await reach(house, half, S.COMPLETED, within=120)
    answered = Counter(number_of(sent.body) for sent in one.sent)
    assert answered[0] == len(half)


async def test_overdue_batches_expire_where_every_seat_is_taken(quick: House) -> None:
    """They need no upstream any more; here the clock was set on by a day, which those that run do not hear."""
    two_upstreams(quick)
    quick.start()
    router_of(quick).pause("one")
    waiting = await create(quick, "one", count=2 * RUNNING)
    await reach(quick, waiting, S.IN_PROGRESS)

    quick.clock.correct(DAY)
    await reach(quick, waiting[RUNNING:], S.EXPIRED)


async def test_owned_batches_are_bounded(quick: House) -> None:
    """Those that run and those that need no upstream, each by a bound of its own."""
    two_upstreams(quick)
    quick.start()
    router_of(quick).pause("one")
    for number in range(12):
        await create(quick, "one", by=f"r{number}", count=4)
    await quick.clock.advance(20)

    assert quick.dispatcher is not None
    owned = [each.batch.status for each in quick.dispatcher._owned.values()]  # noqa: SLF001 - nothing else tells
    assert Counter(owned)[S.IN_PROGRESS] <= RUNNING
    assert len(owned) <= RUNNING + ASIDE
