"""A bound per minute holds for every minute, not only on average."""

from hypothesis import given
from hypothesis import strategies as st

from overnight.dispatch.rate import Rate


def starts(rate: Rate, units: list[float], now: float) -> list[float]:
    """Spend each of the units as soon as it may be."""
    times = []
    for one in units:
        now = max(now, rate.free_at())
        rate.spend(one, now)
        times.append(now)
    return times


@given(st.integers(1, 600), st.floats(0, 1e9))
def test_no_minute_has_more_than_its_bound(per_minute: int, now: float) -> None:
    """Nor does any other window of 60 seconds."""
    times = starts(Rate(per_minute), [1.0] * (3 * per_minute), now)

    for first, later in zip(times, times[per_minute:], strict=False):
        assert later - first >= 60 - 1e-3


def test_the_bound_is_nearly_reached() -> None:
    """It costs 1 in 61 to hold it in every window."""
    times = starts(Rate(600), [1.0] * 6001, 100.0)

    assert 585 < 6000 * 60 / (times[-1] - times[0]) < 600


def test_what_was_not_used_can_be_used_later() -> None:
    """An estimate of tokens is corrected once they are known, in either direction."""
    frugal, greedy = Rate(60), Rate(60)
    frugal.spend(100, 10.0)
    greedy.spend(100, 10.0)
    frugal.give_back(90)
    greedy.give_back(-90)

    assert round(frugal.free_at() - 10.0, 3) == round(10 * 61 / 60 - 1, 3)
    assert round(greedy.free_at() - 10.0, 3) == round(190 * 61 / 60 - 1, 3)


def test_a_pause_earns_one_second_and_no_more() -> None:
    """Unused minutes do not add up."""
    times = starts(Rate(60), [1.0] * 4, 1e6)

    assert times[1] - times[0] < 1.0
    assert times[3] - times[1] > 2.0
