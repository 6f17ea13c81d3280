"""Several upstreams of one deployment: who gets what, and who does without whom."""

from collections import Counter

import pytest
from tests.engine.house import House, line, number_of

from overnight.domain.deployment import Capacity
from overnight.domain.errors import NotFound
from overnight.domain.retry import Failure, Fault
from overnight.ports.upstream import UpstreamHealth
from overnight.testing.in_process import InProcessUpstream, Reply, ScriptedDeployments, always, answer, deployment

UNREACHABLE = Failure(fault=Fault.UNREACHABLE, detail="refused")


def capacity(slots: int, **more: object) -> Capacity:
    """Say that an upstream has so many slots, no more and no fewer."""
    return Capacity(max_concurrency=slots, start_concurrency=slots, **more)  # type: ignore[arg-type]


def served_by(house: House, *upstreams: InProcessUpstream) -> None:
    """Let one deployment have these upstreams."""
    house.upstreams = list(upstreams)
    house.deployments = ScriptedDeployments([deployment("m", *upstreams)])


def upstream(house: House, name: str, slots: int, *, delay: float = 10.0, **more: object) -> InProcessUpstream:
    """Make an upstream that answers after a while."""
    return InProcessUpstream(house.clock, always(answer(), delay=delay), name=name, capacity=capacity(slots, **more))


async def test_few_requests_go_where_there_is_most_room(house: House) -> None:
    """Least loaded relative to its limit."""
    small, large = upstream(house, "small", 2), upstream(house, "large", 8)
    served_by(house, small, large)
    batch = await house.submit(5)
    house.start()

    await house.check(await house.reach(batch))

    assert (small.most_in_flight, large.most_in_flight) == (1, 4)


async def test_weights_shift_the_share_while_there_is_room(house: House) -> None:
    """And cost nothing when there is none."""
    light, heavy = upstream(house, "light", 16), upstream(house, "heavy", 16, weight=3.0)
    served_by(house, light, heavy)
    few = await house.submit(12)
    house.start()
    await house.check(await house.reach(few))

    assert (len(light.sent), len(heavy.sent)) == (3, 9)
    await house.check(await house.reach(await house.submit(64)))
    assert (light.most_in_flight, heavy.most_in_flight) == (16, 16)


async def test_a_slow_upstream_does_not_hold_up_the_others(house: House) -> None:
    """Each takes the next request when it has room."""
    slow, quick = upstream(house, "slow", 4, delay=100), upstream(house, "quick", 4, delay=1)
    served_by(house, slow, quick)
    batch = await house.submit(404)
    began = house.clock.now()
    house.start()

    await house.check(await house.reach(batch))

    assert house.clock.now() - began < 110
    assert len(quick.sent) > 380


async def test_a_dead_upstream_is_probed_and_taken_back_while_others_work(house: House) -> None:
    """Its requests go to the others, and lose no try."""
    dead = True
    lame, sound = upstream(house, "lame", 4), upstream(house, "sound", 4)
    lame.script = lambda _: Reply(outcome=UNREACHABLE) if dead else Reply(outcome=answer(), delay=10)
    served_by(house, lame, sound)
    batch = await house.submit(80)
    house.start()
    await house.clock.advance(60)
    knocked = len(lame.sent)
    dead = False

    output, errors = await house.check(await house.reach(batch))

    assert knocked <= 4 + 8
    assert (len(output), errors) == (80, [])
    assert len(lame.sent) > knocked + 8
    assert lame.most_in_flight == 4


async def test_health_tells_of_limits_and_of_upstreams_left_alone(house: House) -> None:
    """For whoever watches over the service."""
    lame, sound = upstream(house, "lame", 4), upstream(house, "sound", 3)
    lame.script = always(UNREACHABLE)
    served_by(house, lame, sound)
    await house.submit(80)
    house.start()
    await house.clock.advance(5)
    assert house.dispatcher is not None
    answered = [UpstreamHealth(name=one.name, url="u") for one in (lame, sound)]
    told = house.dispatcher._parts.router.health(answered)  # noqa: SLF001 - as `GET /ready` asks it

    assert told == [
        UpstreamHealth(name=lame.name, url="u", problem="refused", in_flight=0, limit=4),
        UpstreamHealth(name=sound.name, url="u", in_flight=3, limit=3),
    ]


async def test_a_server_that_refuses_everything_is_left_alone_as_long_as_it_asks(house: House) -> None:
    """One cool-down for all requests, not one for each."""
    until = house.clock.now() + 100
    house.upstream.capacity = capacity(8)
    house.upstream.script = lambda sent: Reply(
        outcome=answer(429, retry_after=50.0) if sent.at < until else answer(), delay=0.1
    )
    batch = await house.submit(200)
    house.start()

    await house.check(await house.reach(batch))

    refused = [sent for sent in house.upstream.sent if sent.at < until]
    assert len(refused) <= 3 * 8
    assert len(house.upstream.sent) == 200 + len(refused)


async def test_a_refusal_now_and_then_is_the_matter_of_its_request(house: House) -> None:
    """Others go on at full width."""
    house.upstream.capacity = capacity(8)
    house.upstream.script = lambda sent: (
        Reply(outcome=answer(429, retry_after=50.0))
        if number_of(sent.body) % 20 == 0 and sent.attempt == 1
        else Reply(outcome=answer(), delay=1)
    )
    batch = await house.submit(400)
    began = house.clock.now()
    house.start()

    await house.check(await house.reach(batch))

    assert house.clock.now() - began < 400 / 8 + 55


@pytest.mark.parametrize(("status", "seconds"), [(500, 10), (502, 50)])
async def test_a_server_out_of_order_costs_no_request_its_tries(house: House, status: int, seconds: int) -> None:
    """One that fails everything it is asked, and longer if only a proxy is left to answer for it."""
    until = house.clock.now() + seconds
    house.upstream.capacity = capacity(16)
    house.upstream.script = lambda sent: Reply(outcome=answer(status if sent.at < until else 200), delay=0.2)
    batch = await house.submit(300)
    house.start()

    output, errors = await house.check(await house.reach(batch))

    assert (len(output), errors) == (300, [])


async def test_requests_that_no_server_can_answer_end_all_the_same(house: House) -> None:
    """Each after its tries."""
    house.upstream.capacity = capacity(16)
    house.upstream.script = always(answer(500), delay=0.2)
    batch = await house.submit(300)
    house.start()

    done = await house.reach(batch, within=600)

    assert (done.completed, done.failed) == (0, 300)
    assert Counter(Counter(sent.body for sent in house.upstream.sent).values()) == {4: 300}


async def test_requests_per_minute_are_a_hard_cap(house: House) -> None:
    """In every minute."""
    house.upstream.capacity = capacity(50, requests_per_minute=30)
    house.upstream.script = always(answer(), delay=0.1)
    batch = await house.submit(70)
    house.start()

    await house.check(await house.reach(batch))

    times = [sent.at for sent in house.upstream.sent]
    assert all(later - first >= 60 - 1e-3 for first, later in zip(times, times[30:], strict=False))
    assert 130 < times[-1] - times[0] < 145


async def test_tokens_per_minute_are_a_hard_cap_by_what_was_really_used(house: House) -> None:
    """Before the answer an estimate stands for it."""
    house.upstream.capacity = capacity(50, tokens_per_minute=300)
    batch = await house.submit(
        [line(number, body={"model": "m", "messages": [], "n": number, "max_tokens": 50}) for number in range(200)]
    )
    house.start()

    await house.check(await house.reach(batch))

    times = [sent.at for sent in house.upstream.sent]
    assert 110 < times[-1] - times[0] < 130


@pytest.mark.parametrize(("attempts", "before"), [(1, None), (3, 500)])
async def test_an_error_line_says_how_often_it_was_tried_and_what_came_before(
    house: House, attempts: int, before: int | None
) -> None:
    """Whoever reads it in the morning has only that."""
    house.upstream.script = lambda sent: Reply(
        outcome=Failure(fault=Fault.TOO_LARGE, detail="Too large.") if sent.attempt == attempts else answer(500)
    )
    batch = await house.submit(1)
    house.start()

    _, [entry] = await house.check(await house.reach(batch))

    told = "Too large." if before is None else f"Too large. It was tried {attempts} times, with status {before} before."
    assert entry["response"]["body"]["error"]["message"] == told


async def test_a_paused_upstream_gets_nothing_until_it_is_resumed(house: House) -> None:
    """What is in flight ends, and the other upstreams go on."""
    idle, busy = upstream(house, "idle", 4), upstream(house, "busy", 4)
    served_by(house, idle, busy)
    batch = await house.submit(40)
    house.start()
    await house.clock.advance(1)
    assert house.dispatcher is not None
    router = house.dispatcher._parts.router  # noqa: SLF001 - as the Studio is handed it

    router.pause("idle")
    await house.clock.advance(15)
    sent = len(idle.sent)
    await house.clock.advance(20)

    assert (sent, len(idle.sent)) == (4, 4)
    assert [each.paused for each in router.health([UpstreamHealth(name=idle.name, url="u")])] == [True]
    router.resume("idle")
    output, errors = await house.check(await house.reach(batch))
    assert (len(output), errors) == (40, [])
    assert len(idle.sent) > sent
    assert router.activity()[idle.name].figures.since_start.succeeded == len(idle.sent)


async def test_a_batch_whose_only_upstream_is_paused_waits(house: House) -> None:
    """It ends as soon as there is somebody for it."""
    only = upstream(house, "only", 2)
    served_by(house, only)
    house.start()
    assert house.dispatcher is not None
    house.dispatcher._parts.router.pause("only")  # noqa: SLF001
    batch = await house.submit(3)
    await house.clock.advance(60)

    assert only.sent == []
    house.dispatcher._parts.router.resume("only")  # noqa: SLF001
    await house.check(await house.reach(batch))


async def test_an_unknown_upstream_cannot_be_paused(house: House) -> None:
    """Whoever mistypes a name is told."""
    house.start()
    assert house.dispatcher is not None

    with pytest.raises(NotFound, match="nobody"):
        house.dispatcher._parts.router.pause("nobody")  # noqa: SLF001
