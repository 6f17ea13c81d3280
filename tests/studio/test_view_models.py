"""What pages say of a batch: decided by pure functions, so checked as tables."""

from __future__ import annotations

import pytest

from overnight.domain.batch import Batch, BatchStatus, Expiry, Problem
from overnight.domain.flavour import Flavour
from overnight.domain.ids import BatchId, FileId, ResourceId
from overnight.studio.pace import Paces
from overnight.studio.view_models import (
    NO_PACE,
    Pace,
    badge,
    details,
    downloads,
    moment,
    name_of,
    numbers,
    percent,
    progress,
    timeline,
)

S = BatchStatus
NOW = 1_700_000_000


def a_batch(status: BatchStatus = S.IN_PROGRESS, **changes: object) -> Batch:
    fields: dict[str, object] = {
        "id": BatchId("batch_1"),
        "resource": ResourceId("blue"),
        "flavour": Flavour.OPENAI,
        "endpoint": "/v1/chat/completions",
        "input_file_id": FileId("file-1"),
        "completion_window": "24h",
        "created_at": NOW,
        "expires_at": NOW + 86_400,
        "expiry": Expiry.EXPIRE,
        "status": status,
    }
    return Batch(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("batch", "pace", "obstacle", "word", "tone", "sentence"),
    [
        (a_batch(S.VALIDATING), NO_PACE, None, "Validating", "neutral", "Checking the lines of the input"),
        (a_batch(total=50), NO_PACE, None, "Queued", "neutral", "Waiting for a free slot"),
        (
            a_batch(total=50_000, completed=12_000),
            Pace(overall=212.0, recent=212.0),
            None,
            "In progress",
            "info",
            "24 % · 212 requests/s · about 3 min",
        ),
        (a_batch(total=50, failed=1), NO_PACE, None, "In progress", "info", "2 %"),
        (a_batch(total=50, completed=1), NO_PACE, "No upstream", "Stalled", "warning", "No upstream"),
        (a_batch(S.FINALIZING, total=9, completed=9), NO_PACE, None, "Finalizing", "progress", "Writing 9 results"),
        (
            a_batch(S.COMPLETED, total=50_000, completed=50_000, completed_at=NOW + 242),
            NO_PACE,
            None,
            "Completed",
            "success",
            "50,000 succeeded in 4 min 02 s",
        ),
        (
            a_batch(S.COMPLETED, total=50_000, completed=49_969, failed=31),
            NO_PACE,
            None,
            "Completed with failures",
            "warning",
            "49,969 succeeded, 31 failed",
        ),
        (
            a_batch(S.COMPLETED, total=9, failed=9),
            NO_PACE,
            None,
            "All requests failed",
            "danger",
            "None of 9 requests succeeded: the error file says why",
        ),
        (
            a_batch(S.FAILED, errors=(Problem(code="c", message="Bad.", line=17), Problem(code="d", message="x"))),
            NO_PACE,
            None,
            "Failed validation",
            "danger",
            "Line 17: Bad. (and 1 more problem)",
        ),
        (a_batch(S.FAILED), NO_PACE, None, "Failed validation", "danger", "The input was refused"),
        (
            a_batch(S.EXPIRED, total=50_000, completed=38_000),
            NO_PACE,
            None,
            "Expired",
            "warning",
            "38,000 done before the 24h window closed",
        ),
        (a_batch(S.CANCELLING), NO_PACE, None, "Cancelling", "cancel", "Waiting for the running requests"),
        (a_batch(S.CANCELLED), NO_PACE, None, "Cancelled", "cancel", "Stopped before any request ran"),
        (
            a_batch(S.CANCELLED, total=9, completed=3, failed=1, in_progress_at=NOW),
            NO_PACE,
            None,
            "Cancelled",
            "cancel",
            "3 succeeded, 1 failed, 5 not run",
        ),
    ],
    ids=lambda value: value.status if isinstance(value, Batch) else None,
)
def test_badge_follows_from_status_and_counts(
    batch: Batch, pace: Pace, obstacle: str | None, word: str, tone: str, sentence: str
):
    shown = badge(batch, pace, obstacle)

    assert (shown.word, shown.tone, shown.sentence) == (word, tone, sentence)


def test_every_status_has_a_badge_with_an_icon():
    assert all(badge(a_batch(status)).icon for status in BatchStatus)


def test_bar_is_full_only_when_all_has_ended():
    almost = a_batch(total=100_000, completed=99_999)

    assert percent(almost) == 99
    assert percent(a_batch(total=100_000, completed=99_999, failed=1)) == 100
    assert percent(a_batch()) == 0


def test_bar_stacks_done_failed_and_waiting():
    shown = progress(a_batch(total=10, completed=5, failed=2))

    assert [(each.kind, each.start, each.width) for each in shown.segments] == [
        ("done", 0.0, 50.0),
        ("failed", 50.0, 20.0),
        ("waiting", 70.0, 30.0),
    ]
    assert shown.text == "7 of 10, 2 failed"
    assert shown.counts == (("done", "5", "done"), ("failed", "2", "failed"), ("waiting", "3", "waiting"))


def test_what_a_cancelled_batch_left_is_not_called_waiting():
    shown = progress(a_batch(S.CANCELLED, total=4, completed=1))

    assert shown.counts[-1] == ("unfinished", "3", "not run")


def test_bar_of_a_batch_that_was_not_counted_is_empty():
    shown = progress(a_batch(S.VALIDATING))

    assert (shown.segments, shown.text) == ((), "not counted yet")


def test_timeline_says_how_long_each_step_took():
    batch = a_batch(
        S.COMPLETED, in_progress_at=NOW + 2, finalizing_at=NOW + 90, completed_at=NOW + 90, total=1, completed=1
    )

    steps = timeline(batch, NOW + 100)

    assert [(step.name, step.state, step.took) for step in steps] == [
        ("Created", "done", ""),
        ("Started", "done", "2 s"),
        ("Finalizing", "done", "1 min 28 s"),
        ("Completed", "done", "under 1 s"),
    ]


def test_timeline_shows_what_is_ahead():
    steps = timeline(a_batch(in_progress_at=NOW + 2), NOW + 100)

    assert [(step.name, step.state) for step in steps] == [
        ("Created", "done"),
        ("Started", "now"),
        ("Finalizing", "ahead"),
        ("Completed", "ahead"),
    ]


def test_timeline_of_a_cancelled_batch_goes_by_what_happened():
    cancelling = a_batch(S.CANCELLING, in_progress_at=NOW + 2, cancelling_at=NOW + 4)
    cancelled = a_batch(S.CANCELLED, cancelling_at=NOW + 4, cancelled_at=NOW + 9)

    assert [step.name for step in timeline(cancelling, NOW + 5)] == ["Created", "Started", "Cancelling", "Cancelled"]
    assert [step.name for step in timeline(cancelled, NOW + 9)] == ["Created", "Cancelling", "Cancelled"]


@pytest.mark.parametrize(
    ("distance", "text"), [(-5, "5 s ago"), (-90, "1 min ago"), (90, "in 1 min"), (7200, "in 2 h"), (5, "in 5 s")]
)
def test_moment_is_told_by_its_distance_and_exactly(distance: int, text: str):
    shown = moment(NOW + distance, NOW)

    assert shown.text == text
    assert shown.exact.endswith("UTC")
    assert shown.iso.endswith("Z")


def test_name_comes_from_the_metadata_and_steers_nothing():
    assert name_of(a_batch()) == "batch_1"
    assert name_of(a_batch(metadata={"name": "a\u202eb\x1b[31m"})) == "a⟨U+202E⟩b␛[31m"


def test_numbers_of_a_batch_that_ended_are_final():
    batch = a_batch(
        S.COMPLETED, total=100, completed=100, in_progress_at=NOW, finalizing_at=NOW + 10, completed_at=NOW + 11
    )

    assert dict(numbers(batch, NOW + 500, NO_PACE)) == {
        "Duration": "11 s",
        "Throughput": "10 requests/s",
        "Requests": "100",
    }


def test_details_say_what_happens_at_the_end_of_the_window():
    continuing = a_batch(expiry=Expiry.CONTINUE, flavour=Flavour.AZURE, output_expires_after=86_400)

    assert dict(details(a_batch(), NOW))["Window"] == "24h, then it ends with what is done"
    assert dict(details(continuing, NOW))["Window"] == "24h, then it goes on"
    assert dict(details(continuing, NOW))["Results expire"] == "1 d 00 h after they are written"


def test_only_files_that_are_there_can_be_downloaded():
    batch = a_batch(S.COMPLETED, output_file_id=FileId("file-o"))

    assert downloads(batch, "/gate") == (("Output", "/gate/studio/files/file-o/content"),)


def test_pace_is_told_over_all_and_of_late():
    paces = Paces()
    batch = a_batch(in_progress_at=NOW, total=1000)

    paces.see(batch, NOW + 10)
    pace = paces.see(a_batch(in_progress_at=NOW, total=1000, completed=200), NOW + 20)

    assert (pace.overall, pace.recent) == (10.0, 20.0)


def test_time_left_is_no_guess_once_nothing_ends_any_more():
    paces = Paces()
    stuck = a_batch(in_progress_at=NOW - 10, total=1000, completed=200)
    paces.see(stuck, NOW)
    soon, later = paces.see(stuck, NOW + 5), paces.see(stuck, NOW + 25)

    assert (soon.recent, later.recent) == (None, 0.0)
    assert "about" in badge(stuck, soon).sentence
    assert badge(stuck, later).sentence == "20 % · none has ended of late"
    assert "Throughput" not in dict(numbers(stuck, NOW + 25, later))
    assert "Time left" not in dict(numbers(stuck, NOW + 25, later))


def test_batch_that_was_refused_is_not_still_to_be_counted():
    refused = a_batch(S.FAILED, failed_at=NOW + 1)

    assert dict(numbers(refused, NOW + 5, NO_PACE))["Requests"] == "none accepted"
    assert progress(refused).text == "none accepted"


def test_pace_of_a_batch_that_does_not_run_is_none():
    assert Paces().see(a_batch(S.VALIDATING), NOW) == NO_PACE


def test_paces_of_many_batches_take_bounded_memory():
    paces = Paces()
    for number in range(600):
        paces.see(a_batch(id=BatchId(f"batch_{number}"), in_progress_at=NOW), NOW + number)

    assert len(paces) == 500
