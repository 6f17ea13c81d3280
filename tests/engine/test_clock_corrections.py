"""The clock of the machine is corrected while batches run: it costs at most the correction, and never a request."""

import asyncio

import pytest
from tests.engine.house import House

from overnight.domain.batch import BatchStatus
from overnight.testing.in_process import InProcessUpstream, Reply, Sent, always, answer, unreachable

S = BatchStatus


@pytest.mark.parametrize("seconds", [-60.0, -1.0, 1.0, 60.0])
async def test_a_batch_goes_on_when_the_clock_is_corrected(house: House, seconds: float) -> None:
    """With requests in flight, and others that wait for their retry."""
    house.upstream.script = _first_fails
    batch = await house.submit(12)
    house.start()
    await house.sent(10)
    house.clock.correct(seconds)

    done = await house.reach(batch, within=60)

    assert done.status is S.COMPLETED
    await house.check(done)
    assert {sent.attempt for sent in house.upstream.sent} == {1, 2}


async def test_a_dead_upstream_is_asked_again_as_soon_when_the_clock_was_set_back(house: House) -> None:
    """Pauses are measured in time that never goes back."""
    house.upstream.script = always(unreachable())
    batch = await house.submit(4)
    house.start()
    await house.sent(1)
    house.clock.correct(-60)
    house.upstream.script = always(answer())

    done = await house.reach(batch, within=10)

    assert done.status is S.COMPLETED
    await house.check(done)


async def test_a_clock_that_was_set_ahead_does_not_let_two_workers_have_one_batch(house: House) -> None:
    """Leases seem to have run out, but who holds them is told apart by epochs."""
    house.upstream.script = always(answer(), delay=3)
    other_upstream = InProcessUpstream(house.clock, always(answer(), delay=3))
    batches = [await house.submit(8) for _ in range(3)]
    house.start()
    house.upstreams = [other_upstream]
    other = house.make_dispatcher("other")
    task = asyncio.get_running_loop().create_task(other.run())
    await house.sent(4)
    house.clock.correct(3_600)

    for batch in batches:
        done = await house.reach(batch)
        await house.check(done)
        assert done.status is S.COMPLETED

    other.stop()
    await house.clock.run_until(task.done)


def _first_fails(sent: Sent) -> Reply:
    return Reply(outcome=answer(500 if sent.attempt == 1 else 200), delay=1.0)
