"""How often something may happen."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overnight.domain.errors import TooManyRequests
from overnight.domain.flavour import Flavour
from overnight.domain.ids import ResourceId
from overnight.domain.rate import Rate, take
from overnight.services.rates import Allowances, Known, Rates, Running
from overnight.testing.clock import ManualClock

BLUE, GREEN = ResourceId("blue"), ResourceId("green")


@given(most=st.integers(1, 5_000), seconds=st.floats(1, 100_000), now=st.floats(0, 1e8))
def test_an_allowance_is_given_out_to_its_last_and_not_further(most: int, seconds: float, now: float):
    rate, full_at = Rate(most=most, seconds=seconds), 0.0
    given_out = 0
    while (taken := take(rate, full_at, now)).given:
        given_out += 1
        full_at = taken.full_at

        assert taken.left == most - given_out

    assert given_out == most
    assert taken.full_at == full_at


def test_what_was_refused_can_be_had_after_the_wait_and_not_before():
    rate = Rate(most=2, seconds=10.0)
    full_at = take(rate, take(rate, 0.0, 100.0).full_at, 100.0).full_at

    refused = take(rate, full_at, 101.0)

    assert (refused.given, refused.left, refused.wait) == (False, 0, 4.0)
    assert not take(rate, full_at, 102.0).given
    assert take(rate, full_at, 105.0).given


def test_an_allowance_fills_up_again_at_a_steady_pace_and_not_beyond_its_size():
    rate = Rate(most=4, seconds=8.0)
    full_at = 0.0
    for _ in range(4):
        full_at = take(rate, full_at, 50.0).full_at

    assert take(rate, full_at, 54.0).left == 1
    assert take(rate, full_at, 10_000.0).left == 3


class TestRates:
    """One allowance for each caller."""

    def test_each_caller_has_its_own(self) -> None:
        """And it comes back with time."""
        clock = ManualClock()
        rates = Rates(Rate(most=1), clock)

        assert [rates.take(caller).given for caller in ("a", "b", "a")] == [True, True, False]
        clock.jump(60)
        assert rates.take("a").given

    def test_looking_takes_nothing(self) -> None:
        """However often."""
        rates = Rates(Rate(most=1), ManualClock())

        assert [rates.look("a").given for _ in range(3)] == [True] * 3
        assert len(rates) == 0

    def test_a_bounded_number_of_callers_is_remembered(self) -> None:
        """Who asked longest ago is forgotten first."""
        rates = Rates(Rate(most=2), ManualClock(), remembered=2)
        for caller in ("a", "b", "a", "c"):
            rates.take(caller)

        assert len(rates) == 2
        assert [rates.look(caller).left for caller in ("a", "b", "c")] == [0, 1, 0]


class TestKnown:
    """Who was let in lately."""

    def test_a_bounded_number_is_remembered(self) -> None:
        """Who came longest ago is forgotten first."""
        known = Known(remembered=2)
        for caller in ("a", "b", "a", "c"):
            known.add(caller)

        assert [caller in known for caller in ("a", "b", "c")] == [True, False, True]

    def test_whoever_is_refused_is_forgotten(self) -> None:
        """Also if it was never known."""
        known = Known()
        known.add("a")
        known.discard("a")
        known.discard("b")

        assert "a" not in known


class TestRunning:
    """How much is under way."""

    def test_each_caller_has_its_bound(self) -> None:
        """And what ends makes room."""
        running = Running(2)

        assert [running.begin(caller) for caller in ("a", "a", "a", "b")] == [True, True, False, True]
        assert running.total() == 3

        running.end("a")
        assert running.begin("a")

    def test_without_a_bound_any_number_is_let_in(self) -> None:
        """And nothing is kept of those that ended."""
        running = Running(None)

        assert all(running.begin("a") for _ in range(1_000))
        for _ in range(1_000):
            running.end("a")
        assert running.total() == 0


class TestAllowances:
    """What keys and resources may do, whichever way they come."""

    def test_requests_are_counted_by_key(self) -> None:
        """And whoever is refused is told when to come back."""
        allowances = Allowances(Rates(Rate(most=2), ManualClock()), {}, Running(None))

        left = [taken.left for key in (b"a", b"b", b"a") if (taken := allowances.count_request(key)) is not None]

        assert left == [1, 1, 0]
        with pytest.raises(
            TooManyRequests, match=r"more than 2 requests within a minute. Try again in 30 s"
        ) as refused:
            allowances.count_request(b"a")
        assert refused.value.wait == 30.0

    def test_files_are_counted_by_resource_and_flavour(self) -> None:
        """Where there is a bound."""
        new_files = {Flavour.OPENAI: Rates(Rate(most=1), ManualClock()), Flavour.AZURE: None}
        allowances = Allowances(None, new_files, Running(None))
        for flavour in (Flavour.AZURE, Flavour.AZURE, Flavour.OPENAI):
            allowances.count_file(BLUE, flavour)

        allowances.count_file(GREEN, Flavour.OPENAI)
        with pytest.raises(TooManyRequests, match="More than 1 files"):
            allowances.count_file(BLUE, Flavour.OPENAI)

    def test_uploads_are_counted_while_they_are_under_way(self) -> None:
        """However they end."""
        allowances = Allowances(None, {}, Running(1))
        with contextlib.suppress(ConnectionError), allowances.uploading(BLUE), allowances.uploading(GREEN):
            with pytest.raises(TooManyRequests, match="as may be at the same time"):
                allowances.uploading(BLUE).__enter__()
            raise ConnectionError

        with allowances.uploading(BLUE):
            assert allowances.count_request(b"a") is None
