"""What the chart of one batch draws, and what its sentence says."""

from __future__ import annotations

from overnight.domain.throughput import NO_THROUGHPUT, Stretch, Throughput
from overnight.studio.batch_chart import batch_chart

BEGAN = 1_790_000_000.0
STRETCHES = (
    Stretch(100, 0, 1_000, 200, 0.5, 1.0),
    Stretch(50, 10, 500, 100, 0.7, 1.2),
    Stretch(),
    Stretch(10, 0, 10, 10, 1.0, 1.0),
)
SOME = Throughput(start=int(BEGAN), width=2, stretches=STRETCHES, p50=0.52, p95=1.23)


def test_lines_begin_with_the_first_result_and_are_per_second():
    drawn = batch_chart(SOME, None)

    assert list(drawn.times) == [BEGAN, BEGAN + 2, BEGAN + 4, BEGAN + 6, BEGAN + 8]
    assert (drawn.length, drawn.end) == (8, BEGAN + 8)
    assert drawn.done == (50.0, 50.0, 25.0, 0.0, 5.0)
    assert drawn.failed == (0.0, 0.0, 5.0, 0.0, 0.0)
    assert drawn.p50 == (0.5, 0.5, 0.7, None, 1.0)
    assert drawn.p95 == (1.0, 1.0, 1.2, None, 1.0)
    assert drawn.tokens_in == (500.0, 500.0, 250.0, 0.0, 5.0)
    assert drawn.summary == (
        "At most 50 requests/s succeeded. Half of the answers took up to 520 ms, 95 % up to 1.2 s."
    )


def test_stretch_that_is_not_over_is_left_out():
    drawn = batch_chart(SOME, BEGAN + 5.5)

    assert list(drawn.times) == [BEGAN, BEGAN + 2, BEGAN + 4]
    assert drawn.summary.startswith(
        "25 requests/s succeed now, and 5.0 requests/s fail; at most it was 50 requests/s. Half"
    )


def test_batch_that_stands_still_does_not_look_as_if_it_went_on():
    drawn = batch_chart(SOME, BEGAN + 21)

    assert (drawn.times[-1], drawn.end, drawn.length) == (BEGAN + 20, BEGAN + 20, 20)
    assert len(drawn.times) == len(drawn.done) == len(drawn.p50)
    assert drawn.done[-6:] == (0.0,) * 6
    assert drawn.summary.startswith("No request succeeds now; at most it was 50 requests/s. Half")


def test_chart_of_a_batch_that_has_stood_still_for_days_reaches_up_to_now_and_stays_small():
    drawn = batch_chart(SOME, BEGAN + 500_001)

    assert (drawn.times[0], drawn.times[-1], drawn.end, drawn.length) == (
        BEGAN,
        BEGAN + 500_000,
        BEGAN + 500_000,
        500_000,
    )
    assert len(drawn.times) == len(drawn.done) < 300


def test_rates_of_a_slow_batch_are_no_zero():
    drawn = batch_chart(Throughput(start=int(BEGAN), width=512, stretches=(Stretch(1), Stretch(1, 1))), None)

    assert drawn.done == (0.001953, 0.001953, 0.001953)
    assert drawn.summary == "At most 0.1 requests/min succeeded."


def test_batch_without_a_success_says_so():
    failing = Throughput(start=int(BEGAN), width=2, stretches=(Stretch(0, 4),))

    assert batch_chart(failing, None).summary == "No request succeeded."
    assert (
        batch_chart(failing, BEGAN + 3).summary
        == "No request succeeds now, and 2.0 requests/s fail; at most it was none."
    )


def test_rates_of_a_long_batch_are_smoothed():
    drawn = batch_chart(Throughput(start=int(BEGAN), stretches=(Stretch(24), Stretch()) * 24), None)

    assert drawn.done[:3] == (24.0, 24.0, 12.0)
    assert set(drawn.done[2:]) == {12.0}


def test_nothing_to_draw_is_said():
    assert batch_chart(NO_THROUGHPUT, BEGAN).summary == "Drawn as soon as there is something to see."
    assert batch_chart(NO_THROUGHPUT, None).summary == "Nothing is known of when its requests ended."
    assert batch_chart(SOME, BEGAN).times == ()
