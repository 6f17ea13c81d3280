"""What must hold of a batch service whatever happens to it, checked from outside.

Every check gives a list of sentences, one for each promise that was broken; an empty list means that all were kept.
``History`` watches what a client is shown while the service runs, ``check_results`` looks at a batch that has ended,
and ``check_runs`` at what the model server saw.
"""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import msgspec

from overnight.domain.batch import TERMINAL, TRANSITIONS, BatchStatus
from overnight.domain.result import BATCH_CANCELLED, BATCH_EXPIRED, BILLING_HARD_LIMIT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from overnight.testing.upstream import Received, ScriptedUpstream

SETTLE = 1.0
"""Seconds within which an answer is durable: the commit interval and the sync of the disk, on a busy machine."""

_NOT_EXECUTED = {
    BATCH_CANCELLED[0]: BatchStatus.CANCELLED,
    BILLING_HARD_LIMIT[0]: BatchStatus.CANCELLED,
    BATCH_EXPIRED[0]: BatchStatus.EXPIRED,
}

Json = dict[str, Any]


class History:
    """What a client was told. What it was told once must stay true, also after any number of crashes."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.last: dict[str, Json] = {}
        self._cancelled: set[str] = set()

    def saw(self, batch: Json) -> None:
        """Note a batch as the API showed it, in the order of the answers."""
        before = self.last.get(batch["id"])
        if before is not None:
            self.problems += [f"{batch['id']} {problem}" for problem in _steps_back(before, batch)]
        self.last[batch["id"]] = batch

    def saw_cancel(self, batch: Json) -> None:
        """Note that a cancel was acknowledged with this answer."""
        self._cancelled.add(batch["id"])
        self.saw(batch)

    def check_end(self, batch: Json) -> list[str]:
        """Look at a batch that should have ended by now, with all that was told of it before."""
        self.saw(batch)
        problems = []
        if batch["status"] not in TERMINAL:
            problems.append(f"{batch['id']} does not end: it is {batch['status']}")
        elif batch["id"] in self._cancelled and batch["status"] != BatchStatus.CANCELLED:
            problems.append(f"{batch['id']} was cancelled with success, but is {batch['status']}")
        return problems


def check_results(batch: Json, asked: Sequence[str], output: bytes, errors: bytes) -> list[str]:
    """Look at a batch that was run and has ended: its counts and its two files (``b""`` where it has none).

    ``asked`` holds the ``custom_id`` of each line of the input, in order.
    """
    try:
        good, bad = ([json.loads(line) for line in content.splitlines()] for content in (output, errors))
    except ValueError as error:
        return [f"{batch['id']} has a result that is not JSON: {error}"]
    unrun = [line for line in bad if line["response"] is None and line["error"]["code"] in _NOT_EXECUTED]
    counts = batch["request_counts"]
    found = Counter(line["custom_id"] for line in good + bad)
    said = {
        "does not list each request exactly once": Counter(asked) != found,
        "counts another total than its input has": counts["total"] != len(asked),
        "counts other successes than its output file has": counts["completed"] != len(good),
        "counts other failures than its error file has": counts["failed"] != len(bad) - len(unrun),
        "does not add up": counts["completed"] + counts["failed"] + len(unrun) != counts["total"],
        "has its output in another order": not _in_order(good, asked),
        "has its errors in another order": not _in_order(bad, asked),
        "has an error in its output file": any(line["error"] is not None for line in good),
        "did not run all requests though it completed": batch["status"] == BatchStatus.COMPLETED and bool(unrun),
        "says of a request that it ended another way than the batch": any(
            _NOT_EXECUTED[line["error"]["code"]] != batch["status"] for line in unrun
        ),
    }
    return [f"{batch['id']} {problem}" for problem, holds in said.items() if holds]


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One time that a model server was asked; ``ended`` is ``None`` if no answer went out, ``final`` if it settles."""

    name: str
    began: float
    ended: float | None
    final: bool


def runs_of(
    upstream: ScriptedUpstream, name: Callable[[Received], str], *, final: Callable[[int], bool] | None = None
) -> list[Run]:
    """Give the runs that a scripted upstream has seen.

    ``name`` tells requests apart; ``final`` says whether an answer of this status settles a request, which by default
    all but 408, 409, 425, 429 and 5xx do.
    """
    settles = final or _settles
    answers = {answered.number: answered for answered in upstream.answered}
    runs = []
    for received in upstream.asked:
        answer = answers.get(received.number)
        ended, status = (answer.at, answer.status) if answer is not None else (None, None)
        runs.append(
            Run(name=name(received), began=received.at, ended=ended, final=status is not None and settles(status))
        )
    return runs


def allowed_repeats(crash: float, runs: Iterable[Run], *, max_concurrency: int, settle: float = SETTLE) -> int:
    """Say how many requests may be asked again because of one crash: the allowance of every check.

    Those that were in flight, which are at most ``max_concurrency``, and those whose answer had come so shortly before
    that it need not have been durable.
    """
    return max_concurrency + sum(run.ended is not None and crash - settle < run.ended <= crash for run in runs)


def check_runs(
    runs: Sequence[Run], crashes: Sequence[float], *, max_concurrency: int, settle: float = SETTLE
) -> list[str]:
    """Look at what the model server saw: nothing is asked again but for a crash (unix times) that could have hit it."""
    problems = []
    blamed: Counter[float] = Counter()
    by_name: dict[str, list[Run]] = {}
    for run in sorted(runs, key=lambda run: run.began):
        by_name.setdefault(run.name, []).append(run)
    for name, tries in by_name.items():
        for first, again in pairwise(tries):
            culprit = _culprit(first, again, crashes, settle)
            if first.final and culprit is None:
                problems.append(f"{name} was asked again at {again.began:.2f}, after its answer of {first.ended:.2f}")
            elif culprit is not None:
                blamed[culprit] += 1
    for crash, repeats in blamed.items():
        most = allowed_repeats(crash, runs, max_concurrency=max_concurrency, settle=settle)
        if repeats > most:
            problems.append(f"{repeats} requests were asked again for the crash at {crash:.2f}, of at most {most}")
    return problems


def check_answers_ran(output: bytes, runs: Sequence[Run]) -> list[str]:
    """Look whether each answer in an output file was really given, where runs are named by ``custom_id``."""
    ran = {run.name for run in runs}
    names = [json.loads(line)["custom_id"] for line in output.splitlines()]
    return [f"{name} has an answer that the model server never gave" for name in names if name not in ran]


def check_never_again(durable: Mapping[float, Iterable[str]], runs: Sequence[Run]) -> list[str]:
    """Look whether a request was asked after a moment (unix time) at which its result was known to be durable."""
    problems = []
    for moment, names in durable.items():
        settled = set(names)
        problems += [
            f"{run.name} was asked at {run.began:.2f}, though its result was durable at {moment:.2f}"
            for run in runs
            if run.began > moment and run.name in settled
        ]
    return problems


def _culprit(first: Run, again: Run, crashes: Sequence[float], settle: float) -> float | None:
    for crash in crashes:
        in_between = first.began <= crash <= again.began
        if in_between and (first.ended is None or first.ended > crash - settle):
            return crash
    return None


def _steps_back(before: Json, now: Json) -> list[str]:
    problems = []
    for count in ("total", "completed", "failed"):
        shown, later = before["request_counts"][count], now["request_counts"][count]
        if later < shown:
            problems.append(f"showed {count} {shown} and later {later}")
    if not _can_follow(before["status"], now["status"]):
        problems.append(f"was {before['status']} and later {now['status']}")
    for field, value in before.items():
        if (field.endswith(("_at", "_id")) or before["status"] in TERMINAL) and value not in (None, now[field]):
            problems.append(f"showed {field} {value!r} and later {now[field]!r}")
    return problems


def _can_follow(before: str, now: str) -> bool:
    reachable, fresh = {BatchStatus(before)}, {BatchStatus(before)}
    while fresh:
        fresh = {after for status in fresh for after in TRANSITIONS.get(status, ())} - reachable
        reachable |= fresh
    return BatchStatus(now) in reachable


def _in_order(lines: Sequence[Json], asked: Sequence[str]) -> bool:
    places = {name: place for place, name in enumerate(asked)}
    shown = [places.get(line["custom_id"], -1) for line in lines]
    return shown == sorted(shown)


def _settles(status: int) -> bool:
    return status not in {408, 409, 425, 429} and status < 500  # noqa: PLR2004 - where faults of the server begin
