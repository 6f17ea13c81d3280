"""What the chart of one batch draws, and what its sentence says."""

from __future__ import annotations

from overnight.domain.throughput import NO_THROUGHPUT, Stretch, Throughput
from overnight.studio.batch_chart import batch_chart

BEGAN = 1_790_000_000
STRETCHES = (
    Stretch(100, 0, 1_000, 200, 0.5, 1.0),
    Stretch(50, 10, 500, 100, 0.7, 1.2),
    Stretch(),
    Stretch(10, 0, 10, 10, 1.0, 1.0),
)
SOME = Throughput(start=BEGAN, width=2, stretches=STRETCHES, p50=0.52, p95=1.23)


def test_lines_begin_with_the_first_result_and_are_per_second():
    drawn = batch_chart(SOME, None)

    assert drawn.times == (BEGAN, BEGAN + 2, BEGAN + 4, BEGAN + 6, BEGAN + 8)
    assert (drawn.length, drawn.end) == (8, BEGAN + 8)
    assert drawn.done == (50.0, 50.0, 25.0, 0.0, 5.0)
    assert drawn.failed == (0.0, 0.0, 5.0, 0.0, 0.0)
    assert drawn.p50 == (0.5, 0.5, 0.7, None, 1.0)
    assert drawn.p95 == (1.0, 1.0, 1.2, None, 1.0)
    assert drawn.tokens_in == (500.0, 500.0, 250.0, 0.0, 5.0)
    assert drawn.summary == (
        "At most 50.0 requests a second succeeded. Half of the answers took up to 520 ms, 95 % up to 1.2 s."
    )


def test_stretch_that_is_not_over_is_left_out():
    drawn = batch_chart(SOME, BEGAN + 5.5)

    assert drawn.times == (BEGAN, BEGAN + 2, BEGAN + 4)
    assert drawn.summary.startswith("25.0 requests a second succeed now, and 5.0 fail; at most it was 50.0. Half")


def test_rates_of_a_long_batch_are_smoothed():
    drawn = batch_chart(Throughput(start=BEGAN, stretches=(Stretch(24), Stretch()) * 24), None)

    assert drawn.done[:3] == (24.0, 24.0, 12.0)
    assert set(drawn.done[2:]) == {12.0}


def test_nothing_to_draw_is_said():
    assert batch_chart(NO_THROUGHPUT, BEGAN).summary == "Drawn as soon as there is something to see."
    assert batch_chart(NO_THROUGHPUT, None).summary == "Nothing is known of when its requests ended."
    assert batch_chart(SOME, BEGAN).times == ()
