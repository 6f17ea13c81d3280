"""The checks themselves: each finds what it is for, and is silent where all is well."""

from __future__ import annotations

import json
from typing import Any

import pytest

from overnight.testing.invariants import (
    History,
    Run,
    allowed_repeats,
    check_answers_ran,
    check_never_again,
    check_results,
    check_runs,
)

UNRUN = {"code": "batch_cancelled", "message": "not executed"}


def a_batch(status: str = "completed", completed: int = 2, failed: int = 1, total: int = 3, **more: Any) -> Any:
    counts = {"total": total, "completed": completed, "failed": failed}
    return {"id": "b", "status": status, "request_counts": counts, "in_progress_at": 5, "output_file_id": None, **more}


def lines(*names: str, error: Any = None, response: Any = "x") -> bytes:
    return b"".join(
        json.dumps({"custom_id": name, "error": error, "response": response}).encode() + b"\n" for name in names
    )


def a_run(name: str, began: float, ended: float | None = None, *, final: bool = True) -> Run:
    return Run(name=name, began=began, ended=ended, final=final)


@pytest.mark.parametrize(
    ("batch", "output", "errors", "expected"),
    [
        (a_batch(), lines("a", "c"), lines("b"), ""),
        (a_batch(), lines("a"), lines("b"), "exactly once"),
        (a_batch(), lines("a", "c", "c"), lines("b"), "exactly once"),
        (a_batch(), lines("a", "b", "c"), lines("b"), "exactly once"),
        (a_batch(), lines("c", "a"), lines("b"), "output in another order"),
        (a_batch(completed=1, failed=2), lines("a"), lines("c", "b"), "errors in another order"),
        (a_batch(completed=3), lines("a", "c"), lines("b"), "other successes"),
        (a_batch(failed=2), lines("a", "c"), lines("b"), "other failures"),
        (a_batch(total=4), lines("a", "c"), lines("b"), "another total"),
        (a_batch(), lines("a", "c", error=UNRUN), lines("b"), "error in its output"),
        (a_batch(failed=0), lines("a", "c"), lines("b", error=UNRUN, response=None), "did not run all"),
        (a_batch("expired", failed=0), lines("a", "c"), lines("b", error=UNRUN, response=None), "another way"),
        (a_batch("cancelled", failed=0), lines("a", "c"), lines("b", error=UNRUN, response=None), ""),
        (a_batch(), b"{", b"", "not JSON"),
    ],
)
def test_what_is_wrong_with_files_is_found(batch: Any, output: bytes, errors: bytes, expected: str):
    problems = check_results(batch, ["a", "b", "c"], output, errors)

    assert bool(problems) is bool(expected)
    assert any(expected in problem for problem in problems) or not expected


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        (a_batch("in_progress"), a_batch("completed"), ""),
        (a_batch("validating"), a_batch("cancelled"), ""),
        (a_batch("in_progress"), a_batch("in_progress", completed=1), "completed 2 and later 1"),
        (a_batch("finalizing"), a_batch("in_progress"), "was finalizing and later in_progress"),
        (a_batch("in_progress"), a_batch("in_progress", in_progress_at=6), "in_progress_at"),
        (a_batch(output_file_id="f"), a_batch(output_file_id="g"), "output_file_id"),
        (a_batch(), a_batch(failed=2), "request_counts"),
    ],
)
def test_what_is_taken_back_is_found(before: Any, now: Any, expected: str):
    history = History()

    history.saw(before)
    history.saw(now)

    assert bool(history.problems) is bool(expected)
    assert any(expected in problem for problem in history.problems) or not expected


def test_an_end_that_does_not_fit_is_found():
    history = History()
    history.saw_cancel(a_batch("cancelling"))

    assert history.check_end(a_batch("cancelling")) == ["b does not end: it is cancelling"]
    assert history.check_end(a_batch("completed")) == ["b was cancelled with success, but is completed"]
    assert History().check_end(a_batch("cancelled")) == []


@pytest.mark.parametrize(
    ("runs", "broken"),
    [
        ([a_run("a", 1, 2), a_run("b", 1, 2)], False),
        ([a_run("a", 9), a_run("a", 11, 12)], False),
        ([a_run("a", 8, 9.5), a_run("a", 11, 12)], False),
        ([a_run("a", 7, 8), a_run("a", 11, 12)], True),
        ([a_run("a", 11, 12), a_run("a", 13, 14)], True),
        ([a_run("a", 11, 12, final=False), a_run("a", 13, 14)], False),
        ([a_run(name, at) for name in "abc" for at in (9, 11)], True),
    ],
    ids=["none", "in-flight", "just-answered", "long-durable", "no-crash", "a-retry", "too-many"],
)
def test_a_repeat_without_a_reason_is_found(runs: list[Run], broken: bool):
    """One crash at 10, after which at most the two requests in flight may be asked again."""
    assert bool(check_runs(runs, [10.0], max_concurrency=2)) is broken


def test_the_allowance_counts_what_was_answered_just_before():
    runs = [a_run("a", 8, 9.5), a_run("b", 8, 8.5), a_run("c", 9), a_run("d", 9, 10.5)]

    assert allowed_repeats(10.0, runs, max_concurrency=4) == 5


def test_an_answer_out_of_nothing_is_found():
    assert check_answers_ran(lines("a", "b"), [a_run("a", 1, 2)]) == [
        "b has an answer that the model server never gave"
    ]


def test_a_request_that_runs_after_its_result_was_durable_is_found():
    runs = [a_run("a", 1, 2), a_run("b", 1), a_run("b", 6, 7)]

    assert check_never_again({5.0: ["a"]}, runs) == []
    assert check_never_again({5.0: ["b"]}, runs) == ["b was asked at 6.00, though its result was durable at 5.00"]
