"""The limit of an upstream, on simulated servers in virtual time."""

from math import inf
from statistics import fmean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.simulated_upstream import Server, Simulation, Trace, steady

from overnight.dispatch.limiter import Limiter

CAP = 512
# What the flaky server of the benchmark does: log-normal times with sigma 1 and a median of 0.2 s.
HEAVY_TAIL = Server(latency=0.33, spread=1.311, flaky=0.02, broken=0.01)


@pytest.mark.parametrize("spread", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("queue", ["none", "short", "endless"])
@pytest.mark.parametrize("slots", [1, 3, 8, 32, 100, 256])
def test_it_finds_what_a_server_with_slots_bears(slots: int, queue: str, spread: float) -> None:
    """Most of the throughput, and hardly a refusal, without knowing anything about the server."""
    waiting = {"none": 0, "short": max(2, slots // 4), "endless": inf}[queue]
    server = Server(slots=slots, queue=waiting, spread=spread)

    found = [steady(server, seed=seed) for seed in range(3 if slots <= 32 else 2)]

    assert min(each.share for each in found) >= 0.9
    assert max(each.refused for each in found) < 0.01


@pytest.mark.parametrize("spread", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("slots", [3, 32, 100])
def test_it_finds_what_a_server_bears_that_never_refuses_but_slows_down(slots: int, spread: float) -> None:
    """Past its knee such a server only takes longer for each; a small one is still on its way back from the climb."""
    found = [steady(Server(slots=slots, sharing=True, spread=spread), seed=seed) for seed in range(3)]

    assert min(each.share for each in found) >= 0.9
    assert max(each.limit for each in found) <= max(3 * slots, 4 * 8)


@pytest.mark.parametrize("spread", [0.0, 0.3, 1.0, 1.311])
def test_a_server_that_never_slows_down_gets_all_that_is_allowed_at_once(spread: float) -> None:
    """From 16 to 512 are five doublings, each in the time of one request."""
    traces = [Simulation(Server(spread=spread), Limiter(start=16, cap=CAP), seed=seed).run(100.0) for seed in range(2)]

    assert max(trace.reached(CAP) for trace in traces) <= 6.0
    assert min(trace.mean_limit(6.0, 100.0) for trace in traces) >= 0.98 * CAP


@pytest.mark.parametrize("spread", [0.0, 0.3, 1.0, 1.311])
def test_a_limit_that_starts_at_its_cap_stays_there_while_the_server_does_not_slow_down(spread: float) -> None:
    """Trying less costs throughput, so it is hardly tried where nothing hints that less would do."""
    traces = [Simulation(Server(spread=spread), Limiter(start=CAP, cap=CAP), seed=seed).run(100.0) for seed in range(2)]

    assert min(trace.mean_limit(0.0, 100.0) for trace in traces) >= 0.99 * CAP


@pytest.mark.parametrize("start", [16, CAP])
def test_stray_refusals_and_errors_are_no_overload(start: int) -> None:
    """2 % of refusals whatever the load, and a heavy tail, must not cost slots."""
    traces = [Simulation(HEAVY_TAIL, Limiter(start=start, cap=CAP), seed=seed).run(40.0) for seed in range(4)]

    assert min(trace.mean_limit(5.0, 40.0) for trace in traces) >= 0.97 * CAP


@pytest.mark.parametrize("spread", [0.3, 1.0])
@pytest.mark.parametrize("queue", [0, 8, inf])
@pytest.mark.parametrize(("before", "after"), [(32, 16), (32, 64), (100, 50), (100, 200)])
def test_it_follows_a_server_that_changes(before: int, after: int, queue: float, spread: float) -> None:
    """A server may lose half of its capacity or get twice as much while a batch runs."""
    traces = []
    for seed in range(2):
        simulation = Simulation(Server(slots=before, queue=queue, spread=spread), Limiter(start=16, cap=CAP), seed=seed)
        simulation.run(200.0)
        simulation.resize(after)
        traces.append(simulation.run(600.0))
    shares = [trace.throughput(400.0, 600.0) / after for trace in traces]

    assert fmean(shares) >= 0.9
    assert min(shares) >= 0.85
    assert max(trace.refused(400.0, 600.0) for trace in traces) < 0.01


def test_an_outage_does_not_cost_the_limit_for_long() -> None:
    """A server that starts again refuses everything for a while, which says nothing about what it bears."""
    simulation = Simulation(Server(slots=64, queue=0), Limiter(start=16, cap=CAP))
    simulation.run(150.0)
    simulation.resize(0)
    simulation.run(160.0)
    during = simulation.limiter.limit
    simulation.resize(64)

    trace = simulation.run(250.0)

    assert during <= 2
    assert trace.throughput(200.0, 250.0) >= 0.9 * 64


def test_demand_that_dries_up_leaves_the_limit_as_it_is() -> None:
    """And when it comes back, the search goes on where it was."""
    simulation = Simulation(Server(slots=32), Limiter(start=16, cap=CAP), seed=1)
    simulation.run(150.0)
    simulation.demand = False
    before = simulation.limiter.limit
    simulation.run(250.0)
    idle = simulation.limiter.limit
    simulation.demand = True

    trace = simulation.run(400.0)

    assert before == idle
    assert trace.throughput(255.0, 400.0) >= 0.9 * 32


@pytest.mark.parametrize("jump", [-36_000.0, -0.5, 36_000.0])
def test_a_clock_that_jumps_does_not_cost_the_limit(jump: float) -> None:
    """A laptop sleeps, a clock is set."""
    simulation = Simulation(Server(slots=32), Limiter(start=16, cap=CAP), seed=2)
    simulation.run(150.0)
    simulation.offset = jump

    trace = simulation.run(400.0)

    assert trace.throughput(150.0, 400.0) >= 0.9 * 32
    assert trace.limit_at(400.0) < 3 * 32


def test_one_refusal_is_no_overload_but_a_burst_is() -> None:
    """The rest of the burst was sent before the cut, so it says nothing new."""
    limiter = Limiter(start=32, cap=CAP)

    taken = [limiter.refused(1.0, 2.0) for _ in range(20)]

    assert taken[0] is False
    assert sum(taken) == 1
    assert limiter.limit < 32


def test_a_limit_of_one_stays() -> None:
    """There is nothing to cut."""
    limiter = Limiter(start=1, cap=4)

    taken = [limiter.refused(float(second), second + 0.5) for second in range(40)]

    assert any(taken)
    assert limiter.limit == 1


@pytest.mark.parametrize(("start", "cap"), [(0, 4), (5, 4)])
def test_a_start_outside_the_bounds_is_a_mistake(start: int, cap: int) -> None:
    """Configuration has checked it before."""
    with pytest.raises(ValueError, match="start must be from 1"):
        Limiter(start=start, cap=cap)


FLOATS = st.floats(allow_nan=False, min_value=-1e9, max_value=1e9)
EVENTS = st.tuples(st.sampled_from(["answer", "starved", "refusal"]), FLOATS, FLOATS, st.integers(1, 60))


@given(start=st.integers(1, 40), more=st.integers(0, 40), events=st.lists(EVENTS, max_size=60))
def test_the_limit_is_always_within_its_bounds(
    start: int, more: int, events: list[tuple[str, float, float, int]]
) -> None:
    """Whatever is told it, at whatever times."""
    limiter = Limiter(start=start, cap=start + more)
    for kind, began, now, times in events:
        for _ in range(times):
            _tell(limiter, kind, began, now)

            assert 1 <= limiter.limit <= start + more


@given(start=st.integers(1, 40), events=st.lists(EVENTS, max_size=40), prefix=st.lists(EVENTS, max_size=40))
def test_it_never_grows_without_demand(
    start: int, events: list[tuple[str, float, float, int]], prefix: list[tuple[str, float, float, int]]
) -> None:
    """An upstream that was never full has not shown that it bears more."""
    limiter = Limiter(start=start, cap=2 * start)
    for kind, began, now, times in prefix:
        for _ in range(times):
            _tell(limiter, kind, began, now)
    for kind, began, now, times in events:
        for _ in range(times):
            before = limiter.limit
            _tell(limiter, "refusal" if kind == "refusal" else "starved", began, now)

            assert limiter.limit <= before


@given(seed=st.integers(0, 1_000), slots=st.integers(1, 40))
@settings(max_examples=20)
def test_a_run_repeats_exactly(seed: int, slots: int) -> None:
    """The limiter draws nothing and reads no clock."""
    runs: list[Trace] = [
        Simulation(Server(slots=slots, queue=2), Limiter(start=4, cap=64), seed=seed).run(20.0) for _ in range(2)
    ]

    assert runs[0] == runs[1]


def _tell(limiter: Limiter, kind: str, began: float, now: float) -> None:
    if kind == "refusal":
        limiter.refused(began, now)
    else:
        limiter.succeeded(began, now, starved=kind == "starved")
