"""Batches that need room in a quota: who fails, who waits, who comes first, and what a crash changes."""

from __future__ import annotations

import pytest
import structlog
from msgspec.structs import replace
from structlog.testing import capture_logs
from tests.engine.accounts import EACH, Quota, hold, requests, statuses
from tests.engine.house import MODEL, House

from overnight.domain.batch import BatchStatus, Expiry
from overnight.domain.flavour import Flavour
from overnight.domain.ids import DEFAULT_RESOURCE
from overnight.domain.key import Resource
from overnight.domain.quota import OverQuota, Own

S = BatchStatus


@pytest.fixture
def quota(house: House) -> Quota:
    """On memory, and on SQLite and a disk."""
    return Quota(house)


async def test_without_a_limit_nothing_is_counted(house: House, quota: Quota) -> None:
    """It would cost something."""
    quota.set(None)
    batch = await house.submit(requests(3))
    house.start()

    done = await house.reach(batch)

    assert done.status is S.COMPLETED
    assert (done.prompt_tokens, done.reserved_tokens) == (None, 0)
    assert quota.counting.calls == []


async def test_a_batch_holds_its_tokens_until_its_requests_end(house: House, quota: Quota) -> None:
    """And none at its end."""
    quota.set(6)
    held = hold(house)
    batch = await house.submit(requests(6))
    house.start()
    running = await house.reach(batch, S.IN_PROGRESS)
    at_first = await quota.enqueued()
    held.set()

    done = await house.reach(batch)

    assert (running.prompt_tokens, running.reserved_tokens) == (6 * EACH, 6 * EACH)
    assert at_first == 6
    assert done.status is S.COMPLETED
    assert await quota.enqueued() == 0


@pytest.mark.parametrize("flavour", Flavour)
async def test_a_batch_that_does_not_fit_fails(house: House, quota: Quota, flavour: Flavour) -> None:
    """With one problem, of no line."""
    quota.set(5)
    hold(house)
    first = await house.submit(requests(3), flavour)
    house.start()
    await house.reach(first, S.IN_PROGRESS)

    failed = await house.reach(await house.submit(requests(3), flavour))

    assert failed.status is S.FAILED
    (problem,) = failed.errors
    assert (problem.code, problem.line, problem.param) == ("token_limit_exceeded", None, None)
    assert "24 of 40 are enqueued" in problem.message
    assert (failed.total, failed.reserved_tokens, failed.in_progress_at) == (0, 0, None)
    assert await house.stores.blobs.size(f"batches/{failed.id}/index") is None
    assert await quota.enqueued() == 3


@pytest.mark.parametrize("over", OverQuota)
async def test_a_file_that_is_too_large_by_itself_fails_in_every_mode(
    house: House, quota: Quota, over: OverQuota
) -> None:
    """It would wait for ever."""
    quota.set(5, over)
    batch = await house.submit(requests(6))
    house.start()

    failed = await house.reach(batch)

    assert failed.status is S.FAILED
    assert "this file alone has 48 prompt tokens" in failed.errors[0].message


async def test_a_batch_waits_for_room_without_being_counted_again(house: House, quota: Quota) -> None:
    """Nor is its file checked again, and the log says it once."""
    quota.set(5, OverQuota.QUEUE)
    held = hold(house)
    first = await house.submit(requests(4))
    house.start()
    await house.reach(first, S.IN_PROGRESS)
    structlog.reset_defaults()
    with capture_logs() as logs:
        second = await house.submit(requests(2))
        await house.clock.advance(60)
        waiting = await house.look(second)
        calls = list(quota.counting.calls)
        held.set()
        done = await house.reach(second)

    assert (waiting.status, waiting.prompt_tokens, waiting.reserved_tokens) == (S.VALIDATING, 2 * EACH, 0)
    assert waiting.total == 0
    assert calls == ["count_file"] * 2
    assert quota.counting.calls == calls
    assert sum(log["event"] == "batch.waits" for log in logs) == 1
    assert (done.status, done.completed) == (S.COMPLETED, 2)
    await house.check(done)


async def test_the_oldest_that_waits_comes_first(house: House, quota: Quota) -> None:
    """Small ones that would fit wait behind a large one, or it would never find room."""
    quota.set(5, OverQuota.QUEUE)
    held = hold(house)
    first = await house.submit(requests(3))
    house.start()
    await house.reach(first, S.IN_PROGRESS)
    large = await house.submit(requests(4))
    await house.clock.advance(5)
    small = [await house.submit(requests(1)) for _ in range(3)]
    await house.clock.advance(60)
    before = await statuses(house, [large, *small])
    held.set()
    ended = [await house.reach(batch) for batch in (large, *small)]

    assert before == [S.VALIDATING] * 4
    assert [batch.status for batch in ended] == [S.COMPLETED] * 4
    started = [batch.in_progress_at or 0 for batch in ended]
    assert started[0] <= min(started[1:])


async def test_a_batch_whose_window_closes_while_it_waits_expires(house: House, quota: Quota) -> None:
    """As any other that is not let in, and the next one moves up."""
    quota.set(5, OverQuota.QUEUE)
    hold(house)
    first = await house.submit(requests(3), Flavour.AZURE)
    house.start()
    await house.reach(first, S.IN_PROGRESS)
    expiring = await house.submit(requests(4), Flavour.OPENAI)
    await house.clock.advance(10)
    going_on = await house.submit(requests(2), Flavour.AZURE)

    house.clock.jump(86_400)
    expired = await house.reach(expiring, within=100)
    moved_up = await house.reach(going_on, S.IN_PROGRESS)

    assert expired.status is S.EXPIRED
    assert moved_up.reserved_tokens == 2 * EACH


async def test_a_deployment_whose_batches_go_on_keeps_those_that_wait(house: House, quota: Quota) -> None:
    """What it says of closing windows counts from the moment that it is known."""
    (deployment,) = house.deployments.now.deployments
    going_on = replace(deployment, expiry=Expiry.CONTINUE)
    house.deployments.now = replace(house.deployments.now, deployments=(going_on,))
    quota.set(5, OverQuota.QUEUE)
    held = hold(house)
    first = await house.submit(requests(3))
    house.start()
    await house.reach(first, S.IN_PROGRESS)
    second = await house.submit(requests(3))
    await house.clock.advance(10)
    house.clock.jump(86_400)
    await house.clock.advance(10)
    held.set()

    done = await house.reach(second, within=100)

    assert done.status is S.COMPLETED


async def test_a_batch_that_waits_can_be_cancelled(house: House, quota: Quota) -> None:
    """At once, and it is not in the way of others any more."""
    quota.set(5, OverQuota.QUEUE)
    hold(house)
    first = await house.submit(requests(4))
    house.start()
    await house.reach(first, S.IN_PROGRESS)
    large, small = await house.submit(requests(5)), await house.submit(requests(1))
    await house.clock.advance(10)
    await house.cancel(large)

    cancelled = await house.reach(large, within=10)
    running = await house.reach(small, S.IN_PROGRESS, within=60)

    assert cancelled.status is S.CANCELLED
    assert running.reserved_tokens == EACH


async def test_a_raised_limit_lets_in_who_waits(house: House, quota: Quota) -> None:
    """Without a restart; where there is none any more, nothing is reserved."""
    quota.set(5, OverQuota.QUEUE)
    hold(house)
    first = await house.submit(requests(5))
    house.start()
    await house.reach(first, S.IN_PROGRESS)
    second, third = await house.submit(requests(3)), await house.submit(requests(3))
    await house.clock.advance(10)
    await quota.keys.add_resource(Resource(name=DEFAULT_RESOURCE, created_at=1))
    await quota.quotas.put(Own(resource=DEFAULT_RESOURCE, deployment=MODEL, tokens=8 * EACH))
    let_in = await house.reach(second, S.IN_PROGRESS, within=60)
    await quota.quotas.put(Own(resource=DEFAULT_RESOURCE, deployment=MODEL, tokens=None))
    free = await house.reach(third, S.IN_PROGRESS, within=60)

    assert (let_in.reserved_tokens, free.reserved_tokens) == (3 * EACH, 0)


async def test_a_lowered_limit_fails_who_can_never_fit(house: House, quota: Quota) -> None:
    """It would be in the way of all others."""
    quota.set(5, OverQuota.QUEUE)
    hold(house)
    first = await house.submit(requests(3))
    house.start()
    await house.reach(first, S.IN_PROGRESS)
    second = await house.submit(requests(4))
    await house.clock.advance(10)
    await quota.keys.add_resource(Resource(name=DEFAULT_RESOURCE, created_at=1))
    await quota.quotas.put(Own(resource=DEFAULT_RESOURCE, deployment=MODEL, tokens=3 * EACH))

    failed = await house.reach(second, within=60)

    assert failed.status is S.FAILED
    assert failed.errors[0].code == "token_limit_exceeded"


async def test_after_a_crash_the_books_are_as_they_were(house: House, quota: Quota) -> None:
    """Reservations stand, waiting batches keep their place and their count, and nothing is counted twice."""
    quota.set(5, OverQuota.QUEUE)
    held = hold(house)
    first = await house.submit(requests(4))
    house.start()
    await house.reach(first, S.IN_PROGRESS)
    second = await house.submit(requests(3))
    await house.clock.advance(10)
    before = await quota.enqueued()
    await house.kill()
    await house.reopen()
    quota.open()
    after = await quota.enqueued()
    calls = list(quota.counting.calls)
    house.start()
    await house.clock.advance(30)
    waiting = await house.look(second)
    held.set()

    done = [await house.reach(batch) for batch in (first, second)]

    assert (before, after) == (4, 4)
    assert (waiting.status, waiting.prompt_tokens) == (S.VALIDATING, 3 * EACH)
    assert quota.counting.calls == calls
    assert [batch.status for batch in done] == [S.COMPLETED] * 2
    assert await quota.enqueued() == 0
    for batch in done:
        await house.check(batch)


async def test_a_batch_whose_index_is_lost_is_checked_again(house: House, quota: Quota) -> None:
    """It waits with its count, which alone does not say where its requests are."""
    quota.set(5, OverQuota.QUEUE)
    held = hold(house)
    first = await house.submit(requests(4))
    house.start()
    await house.reach(first, S.IN_PROGRESS)
    second = await house.submit(requests(3))
    await house.clock.advance(10)
    await house.stores.blobs.delete(f"batches/{second.id}/index")
    held.set()

    done = await house.reach(second)

    assert done.status is S.COMPLETED
    await house.check(done)
