"""When an upstream is left alone as a whole, and when it is taken back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overnight.dispatch.breaker import Breaker
from overnight.domain.retry import Trouble

DETAIL = "why"


def fail(breaker: Breaker, trouble: Trouble, at: float, *, wait: float | None = None) -> bool:
    """Send a request and let it fail at once."""
    breaker.sent(at)
    return breaker.failed(trouble, at, at, detail=DETAIL, wait=wait)


def opened(at: float = 100.0) -> Breaker:
    """Give a breaker that has just opened."""
    breaker = Breaker()
    fail(breaker, Trouble.UNREACHABLE, at)
    return breaker


def test_a_server_that_is_not_there_is_left_alone_at_once() -> None:
    """The other requests would only find out the same."""
    breaker = opened(at=100.0)

    assert breaker.free_at == 100.5
    assert breaker.problem == DETAIL


@pytest.mark.parametrize("trouble", [Trouble.FAILING, Trouble.REFUSING])
def test_one_failure_says_little_and_five_more_enough(trouble: Trouble) -> None:
    """A flaky server is not a broken one."""
    breaker = Breaker()
    breaker.sent(99.0)
    first = breaker.failed(trouble, 99.0, 99.9, detail=DETAIL)

    assert [first, *(fail(breaker, trouble, 100.0 + number) for number in range(5))] == [False] * 5 + [True]
    assert breaker.free_at == 104.5


def test_failures_among_many_requests_that_are_under_way_are_no_outage() -> None:
    """Answers that come at once outrun those that take their time: what counts is the share of those sent."""
    breaker = Breaker()
    due = []
    for number in range(200):
        if number % 20:
            breaker.sent(100.0)
        else:
            due.append(fail(breaker, Trouble.REFUSING, 100.0))

    assert not any(due)


def test_refusals_that_come_before_the_first_answers_are_no_outage() -> None:
    """Of 500 requests sent together the refused ones end first, and each makes room for another."""
    breaker = Breaker()
    for _ in range(500):
        breaker.sent(100.0)
    due = []
    for number in range(15):
        now = 100.1 + number / 1000
        due.append(breaker.failed(Trouble.REFUSING, 100.0, now, detail=DETAIL))
        breaker.sent(now)

    assert not any(due)


def test_a_success_that_began_since_ends_a_row_of_failures_and_an_older_one_does_not() -> None:
    """An answer to a request from before says nothing about now."""
    older, newer = Breaker(), Breaker()
    for breaker, began in ((older, 99.0), (newer, 103.0)):
        for number in range(4):
            fail(breaker, Trouble.FAILING, 100.0 + number)
        breaker.succeeded(began)

    assert fail(older, Trouble.FAILING, 104.0)
    assert not fail(newer, Trouble.FAILING, 104.0)


def test_the_server_is_left_alone_for_as_long_as_it_asks() -> None:
    """All requests share what one of them was told."""
    breaker = Breaker()
    for number in range(5):
        fail(breaker, Trouble.REFUSING, 100.0 + number, wait=20.0)

    assert breaker.free_at == 124.0


def test_after_the_pause_one_request_probes_while_the_others_wait() -> None:
    """A hundred slots must not knock together."""
    breaker = opened(at=100.0)
    breaker.sent(101.0)

    assert breaker.free_at == 102.0
    breaker.succeeded(101.0)
    assert breaker.free_at == 0.0
    assert breaker.problem is None


def test_pauses_double_while_probes_fail_and_start_anew_after_a_success() -> None:
    """Up to fifteen seconds."""
    breaker = opened(at=100.0)
    pauses = []
    for number in range(6):
        now = 200.0 + 100 * number
        fail(breaker, Trouble.UNREACHABLE, now)
        pauses.append(breaker.free_at - now)

    assert pauses == [1.0, 2.0, 4.0, 8.0, 15.0, 15.0]
    breaker.sent(900.0)
    breaker.succeeded(900.0)
    fail(breaker, Trouble.UNREACHABLE, 901.0)
    assert breaker.free_at == 901.5


def test_a_probe_that_takes_long_lets_others_follow_and_the_first_failure_ends_that() -> None:
    """A model may think for minutes: that must not cost the night."""
    breaker = opened(at=100.0)
    breaker.sent(101.0)
    breaker.sent(102.0)
    breaker.sent(102.0)

    assert breaker.free_at == 0.0
    assert breaker.problem == DETAIL
    assert breaker.failed(Trouble.UNREACHABLE, 102.0, 103.0, detail=DETAIL)
    assert breaker.free_at == 104.0


def test_requests_from_before_the_pause_neither_end_nor_prolong_it() -> None:
    """They tell of the time before."""
    breaker = opened(at=100.0)
    before = breaker.free_at
    breaker.succeeded(99.0)

    assert not breaker.failed(Trouble.UNREACHABLE, 99.0, 100.4, detail=DETAIL)
    assert breaker.free_at == before
    breaker.sent(101.0)
    assert not breaker.failed(Trouble.UNREACHABLE, 99.5, 101.2, detail=DETAIL)


@pytest.mark.parametrize(("trouble", "most", "within"), [(Trouble.FAILING, 5, 20.0), (Trouble.AWAY, 8, 70.0)])
def test_errors_that_no_pause_helps_against_are_the_requests_own(trouble: Trouble, most: int, within: float) -> None:
    """A batch of requests that the server cannot answer must end, too."""
    breaker = Breaker()
    now = 100.0
    pauses = 0
    for _ in range(200):
        now = max(now, breaker.free_at)
        pauses += fail(breaker, trouble, now)

    assert pauses == most
    assert now < 100.0 + within
    assert breaker.free_at == 0.0
    assert fail(breaker, Trouble.UNREACHABLE, now)


@given(st.lists(st.tuples(st.sampled_from([*Trouble, None]), st.floats(0, 30), st.floats(0, 30)), max_size=60))
def test_it_is_never_closed_for_longer_than_it_says(steps: list[tuple[Trouble | None, float, float]]) -> None:
    """Whatever happens, a request may start again within fifteen seconds."""
    breaker = Breaker()
    now = 100.0
    for trouble, pause, took in steps:
        now = max(now + pause, breaker.free_at)
        breaker.sent(now)
        if trouble is None:
            breaker.succeeded(now)
        else:
            breaker.failed(trouble, now, now + took, detail=DETAIL)

        assert breaker.free_at <= now + took + 15.0
        assert (breaker.problem is None) <= (breaker.free_at <= now + took)
