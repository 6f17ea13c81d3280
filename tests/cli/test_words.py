"""Numbers, spans, tables and progress as they are put into words: pure functions, one table each."""

import pytest

from overnight import human
from overnight.cli import progress
from overnight.cli.progress import LogGate, Pace, Snapshot
from overnight.cli.table import Heading, fit, lay_out


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (None, ""),
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (947_312, "947.3 kB"),
        (999_960, "1.0 MB"),
        (183_210_000, "183.2 MB"),
        (5_000_000_000, "5.0 GB"),
    ],
)
def test_sizes(count: int | None, words: str) -> None:
    """Decimal units with one digit."""
    assert words == human.size(count)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-1, "0.0 s"),
        (0.62, "0.6 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (242, "4 min 02 s"),
        (11_100, "3 h 05 min"),
        (190_000, "2 d 04 h"),
    ],
)
def test_spans(seconds: float, words: str) -> None:
    """The two units that matter."""
    assert words == human.span(seconds)


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (2, 3, "about 5 s"),
        (31, 34, "about 35 s"),
        (31, 52, "30 to 55 s"),
        (100, 170, "1 to 3 min"),
        (170, 178, "about 3 min"),
        (3000, 7000, "0.5 to 2 h"),
    ],
)
def test_what_is_left_is_a_range(low: float, high: float, words: str) -> None:
    """An exact number would be a lie."""
    assert words == human.between(low, high)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, "–"),
        (0.0, "under 1 ms"),
        (0.0006, "1 ms"),
        (0.32, "320 ms"),
        (0.9994, "999 ms"),
        (0.9996, "1.0 s"),
        (75, "1 min 15 s"),
    ],
)
def test_answers_took_no_more_exactly_than_is_known(seconds: float | None, words: str) -> None:
    assert words == human.took(seconds)


@pytest.mark.parametrize(
    ("part", "whole", "words"),
    [
        (0, 0, "–"),
        (0, 9, "0 %"),
        (1, 10_000, "under 0.1 %"),
        (39, 40, "97.5 %"),
        (9_999, 10_000, "over 99.9 %"),
        (9, 9, "100 %"),
    ],
)
def test_share_is_all_or_nothing_only_where_it_is(part: int, whole: int, words: str) -> None:
    assert words == human.share(part, whole)


@pytest.mark.parametrize(
    ("per_second", "words"),
    [(1234.5, "1,234 requests/s"), (2.84, "2.8 requests/s"), (0.5, "30.0 requests/min"), (0.001, "3.6 requests/h")],
)
def test_rates(per_second: float, words: str) -> None:
    """Slow models are measured by the minute."""
    assert words == human.rate(per_second)


@pytest.mark.parametrize(
    ("age", "words"), [(0, "0 s ago"), (59, "59 s ago"), (61, "1 min ago"), (7300, "2 h ago"), (90_000, "1 d ago")]
)
def test_ages(age: int, words: str) -> None:
    """One unit is enough for a list."""
    assert words == human.ago(1_000_000, 1_000_000 + age)


@pytest.mark.parametrize(
    ("left", "words"), [(30, "in 30 s"), (7300, "in 2 h"), (260_000, "in 3 d"), (0, "0 s ago"), (-90, "1 min ago")]
)
def test_what_is_to_come(left: int, words: str) -> None:
    """Or is over by now."""
    assert words == human.until(1_000_000 + left, 1_000_000)


def test_moments_are_exact() -> None:
    """A pipe gets what a program can read."""
    assert human.moment(1_795_415_944) == "2026-11-23T06:39:04Z"
    assert human.moment(None) == ""


@pytest.mark.parametrize("timestamp", [253_402_300_799, 253_402_300_800, 2**63 - 1])
def test_a_moment_beyond_all_dates_is_shown_as_the_last(timestamp: int) -> None:
    """A list has to show all that is stored."""
    assert human.moment(timestamp) == "9999-12-31T23:59:59Z"


@pytest.mark.parametrize(
    ("count", "noun", "words"), [(1, "line", "1 line"), (50_000, "line", "50,000 lines"), (2, "reply", "2 replies")]
)
def test_plurals(count: int, noun: str, words: str) -> None:
    """One is not many."""
    assert words == human.plural(count, noun)


def test_lists_are_joined() -> None:
    """As a sentence would."""
    assert [human.listing(list("abc")[:n]) for n in range(4)] == ["", "a", "a and b", "a, b and c"]


def running(done: int, total: int = 1000, failed: int = 0) -> Snapshot:
    """A batch in progress."""
    return Snapshot(status="in_progress", total=total, completed=done - failed, failed=failed, accepted=True)


def paced(*samples: tuple[float, int]) -> Pace:
    """A pace with these polls behind it."""
    pace = Pace()
    for now, done in samples:
        pace.add(now, running(done))
    return pace


@pytest.mark.parametrize(
    ("done", "total", "known"),
    [(19, 100, False), (20, 100, True), (49, 1000, False), (50, 1000, True), (100, 100, False)],
)
def test_the_time_left_appears_after_20_results_and_5_percent(done: int, total: int, known: bool) -> None:
    """Before, it would be a guess; at the end there is none."""
    pace = paced((0, 0), (10, done))

    assert known == (progress.eta(running(done, total), pace) is not None)


def test_the_time_left_lies_between_the_paces() -> None:
    """The whole time and the last half minute may differ; both are said."""
    pace = paced((0, 0), (100, 100), (120, 300), (140, 500))

    assert pace.recent == 10.0
    assert progress.eta(running(500), pace) == (500 / 10.0, 500 / pace.overall)


def test_the_time_left_is_unknown_while_nothing_moves() -> None:
    """A division by zero helps nobody."""
    assert progress.eta(running(100), paced((0, 100), (60, 100))) is None


def test_only_the_time_in_progress_counts_for_the_pace() -> None:
    """Validation and finalizing answer no requests."""
    pace = Pace()
    for now, snapshot in (
        (0.0, Snapshot(status="validating")),
        (50.0, running(0)),
        (60.0, running(500)),
        (70.0, Snapshot(status="finalizing", total=1000, completed=1000)),
        (170.0, Snapshot(status="completed", total=1000, completed=1000)),
    ):
        pace.add(now, snapshot)

    assert pace.overall == 50.0


def test_a_log_gets_a_line_per_10_percent_or_30_seconds() -> None:
    """Neither a flood nor silence."""
    gate = LogGate()
    polls = [(0, 0.0), (1, 0.05), (2, 0.1), (3, 0.11), (4, 0.35), (20, 0.36), (34, 0.37), (40, 0.38), (41, 1.0)]

    assert [now for now, share in polls if gate.due(now, share)] == [2, 4, 34, 41]


@pytest.mark.parametrize(
    ("snapshot", "words"),
    [
        (Snapshot(status="validating"), ""),
        (running(0), "0/1,000"),
        (running(500, failed=31), "500/1,000   31 failed   50 requests/s   about 10 s"),
    ],
)
def test_progress_in_words(snapshot: Snapshot, words: str) -> None:
    """What is known, and nothing else."""
    assert words == progress.describe(snapshot, paced((0, 0), (10, snapshot.done)))


@pytest.mark.parametrize(("share", "full"), [(0.0, 0), (0.5, 10), (0.999, 19), (1.0, 20)])
def test_the_bar_is_full_only_at_the_end(share: float, full: int) -> None:
    """99.9 % is not done."""
    assert progress.bar(share) == "█" * full + "░" * (20 - full)


@pytest.mark.parametrize(
    ("completed", "failed", "words"),
    [
        (20, 0, "20 succeeded, 4.0 s"),
        (17, 3, "17 succeeded, 3 failed, 4.0 s"),
        (5, 1, "5 succeeded, 1 failed, 14 not run, 4.0 s"),
    ],
)
def test_the_outcome_says_what_was_not_run(completed: int, failed: int, words: str) -> None:
    """After a cancel the rest is neither done nor failed."""
    snapshot = Snapshot(status="cancelled", total=20, completed=completed, failed=failed, seconds=4.0)

    assert words == progress.outcome(snapshot)


def test_several_batches_add_up() -> None:
    """One line for all of them, in progress until the last has ended."""
    ended = Snapshot(status="failed")

    assert progress.together([running(3), ended]).status == "in_progress"
    assert progress.together([running(3), running(4, failed=1)]).done == 7
    assert progress.together([ended, ended]).ended
    assert progress.together([ended]) is ended


def test_a_table_is_aligned() -> None:
    """Numbers to the right, nothing after the last column, wide characters counted as two."""
    headings = [Heading("id"), Heading("done", right=True), Heading("name")]

    assert lay_out(headings, [["a", "12,410", "日本"], ["bcd", "3", "x"]], 80) == [
        "id     done  name",
        "a    12,410  日本",
        "bcd       3  x",
    ]


def test_a_table_fits_its_terminal_but_ids_stay_whole() -> None:
    """An id that is cut cannot be copied."""
    headings = [Heading("id"), Heading("endpoint"), Heading("message", wraps=True)]
    lines = lay_out(headings, [["batch_0123456789", "/v1/chat/completions", "one two three four five"]], 40)

    assert lines == [
        "id                endpoint    message",
        "batch_0123456789  /v1/chat/…  one two",
        "                              three four",
        "                              five",
    ]


def test_columns_stop_giving_way_when_nothing_is_left() -> None:
    """A terminal of ten columns gets a table that runs over, not an endless loop."""
    assert fit([30, 20, 4], 10) == [30, 8, 4]
