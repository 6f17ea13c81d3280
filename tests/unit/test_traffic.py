"""What is counted while requests end, and how an upstream answers."""

import pytest

from overnight.domain.ids import ResourceId
from overnight.domain.result import Answer
from overnight.domain.retry import Failure, Fault
from overnight.domain.usage import NO_USAGE, Usage
from overnight.services.meters import Meter, Tally
from overnight.services.traffic import Span, Traffic
from overnight.testing.clock import ManualClock

BLUE, GREEN = ResourceId("blue"), ResourceId("green")
TOKENS = Usage(input_tokens=30, output_tokens=10)


def traffic_at(now: float, **more: int) -> tuple[ManualClock, Traffic]:
    clock = ManualClock(now)
    return clock, Traffic(clock, **more)


async def test_rates_are_those_of_each_step_since_the_start():
    clock, traffic = traffic_at(1000.0)
    for succeeded in (True, True, True, False):
        traffic.note(BLUE, TOKENS, succeeded=succeeded)
    await clock.advance(5)
    traffic.note(GREEN, NO_USAGE, succeeded=True)
    await clock.advance(10)

    points = traffic.points(Span.HOUR)

    assert (points.since, points.length) == (1000.0, 3600)
    assert points.times == (1005.0, 1010.0, 1015.0)
    assert (points.done, points.failed) == ((0.6, 0.2, 0.0), (0.2, 0.0, 0.0))
    assert (points.tokens_in, points.tokens_out) == ((24.0, 0.0, 0.0), (8.0, 0.0, 0.0))


async def test_each_resource_has_rates_of_its_own():
    clock, traffic = traffic_at(1000.0)
    traffic.note(BLUE, NO_USAGE, succeeded=True)
    traffic.note(GREEN, NO_USAGE, succeeded=False)
    await clock.advance(5)

    blue, green, nobody = (traffic.points(Span.HOUR, ResourceId(name)) for name in ("blue", "green", "red"))

    assert (blue.done, blue.failed) == ((0.2,), (0.0,))
    assert (green.done, green.failed) == ((0.0,), (0.2,))
    assert (nobody.times, nobody.length) == ((), 3600)


async def test_a_step_that_has_hardly_begun_is_left_out_and_one_half_over_is_told():
    clock, traffic = traffic_at(1000.0)
    traffic.note(BLUE, NO_USAGE, succeeded=True)
    await clock.advance(2)

    assert traffic.points(Span.HOUR).times == ()
    await clock.advance(0.5)
    assert traffic.points(Span.HOUR).done == (0.4,)


async def test_a_first_step_counts_from_the_start_and_not_from_its_beginning():
    clock, traffic = traffic_at(1001.0)
    traffic.note(BLUE, NO_USAGE, succeeded=True)
    await clock.advance(4)

    assert traffic.points(Span.HOUR).done == (0.25,)


async def test_a_first_step_that_was_short_is_not_lost():
    clock, traffic = traffic_at(1004.0)
    traffic.note(BLUE, NO_USAGE, succeeded=True)
    await clock.advance(4)

    assert traffic.points(Span.HOUR).done == (0.4, 0.0)


@pytest.mark.parametrize(("span", "width", "slots"), [(Span.HOUR, 5, 720), (Span.DAY, 120, 720), (Span.WEEK, 900, 672)])
async def test_what_is_older_than_the_span_is_forgotten(span: Span, width: int, slots: int):
    clock, traffic = traffic_at(0.0)
    traffic.note(BLUE, NO_USAGE, succeeded=True)
    await clock.advance(width * (slots - 0.5))
    kept = traffic.points(span)
    await clock.advance(width)
    forgotten = traffic.points(span)
    await clock.advance(10 * width * slots)

    assert len(kept.times) == slots
    assert sum(kept.done) * width == pytest.approx(1)
    assert (len(forgotten.times), sum(forgotten.done)) == (slots, 0)
    assert sum(traffic.points(span).done) == 0


async def test_of_many_resources_the_one_that_rested_longest_is_forgotten():
    clock, traffic = traffic_at(1000.0, remembered=2)
    for name in ("old", "new", "newest"):
        traffic.note(ResourceId(name), NO_USAGE, succeeded=True)
        await clock.advance(5)
        traffic.points(Span.HOUR)

    known = [name for name in ("old", "new", "newest") if traffic.points(Span.HOUR, ResourceId(name)).times]

    assert known == ["new", "newest"]
    assert sum(traffic.points(Span.HOUR).done) * 5 == pytest.approx(3)


def test_a_meter_tells_how_attempts_ended_and_how_long_the_good_ones_took():
    meter = Meter(100.0)
    for seconds in (0.1,) * 18 + (2.0,) * 2:
        meter.note(Answer(status=200, body=b"", usage=TOKENS), seconds, 110.0)
    for status in (429, 429, 500, 503, 400):
        meter.note(Answer(status=status, body=b""), 9.0, 110.0)
    meter.note(Failure(fault=Fault.TIMEOUT), 600.0, 110.0)

    figures = meter.figures(120.0)

    assert figures.recent == Tally(succeeded=20, refused=2, broken=2, rejected=1, unanswered=1)
    assert (figures.recent.total, figures.since_start, figures.seconds) == (26, figures.recent, 20.0)
    assert figures.p50 == pytest.approx(0.1, rel=0.1)
    assert figures.p95 == pytest.approx(2.0, rel=0.1)
    assert (figures.tokens_in, figures.tokens_out) == (30.0, 10.0)


def test_a_meter_that_saw_nothing_has_no_times():
    figures = Meter(100.0).figures(100.0)

    assert (figures.p50, figures.p95, figures.recent, figures.since_start) == (None, None, Tally(), Tally())


def test_a_meter_forgets_what_is_older_than_some_minutes_but_for_its_sums():
    meter = Meter(0.0)
    for minute in range(9):
        meter.note(Answer(status=200, body=b""), 0.1, minute * 60.0)

    figures = meter.figures(8 * 60.0 + 30)

    assert (figures.since_start.succeeded, figures.recent.succeeded, figures.seconds) == (9, 5, 270.0)
    assert meter.figures(3600.0).recent == Tally()
    assert meter.figures(3600.0).p50 is None


def test_an_answer_that_took_longer_than_any_bin_counts_as_the_longest():
    meter = Meter(0.0)
    meter.note(Answer(status=200, body=b""), 1e6, 0.0)

    p95 = meter.figures(1.0).p95

    assert p95 is not None
    assert p95 > 3_000
