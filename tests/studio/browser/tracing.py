"""What keeps a page from answering: the longest tasks of its main thread, out of the browser's own trace."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Page

_CATEGORIES = ["toplevel", "devtools.timeline"]
_LONG_MESSAGE = 5
_SCRIPTS = frozenset({"FunctionCall", "EvaluateScript"})


@dataclass(slots=True, kw_only=True)
class Longest:
    """In milliseconds of processor time, so that other programs do not count."""

    task: float = 0.0
    """Of any kind."""
    drawing: float = 0.0
    """The part of that task that is style and layout."""
    script: float = 0.0
    """Without a pause for anything else."""


@contextmanager
def longest_tasks(page: Page) -> Iterator[Longest]:
    """Fill in what was longest meanwhile."""
    browser = page.context.browser
    assert browser is not None
    found = Longest()
    browser.start_tracing(page=page, categories=_CATEGORIES)
    try:
        yield found
    finally:
        _fill(found, json.loads(browser.stop_tracing())["traceEvents"])


def _fill(found: Longest, events: list[dict[str, Any]]) -> None:
    main = {
        (each["pid"], each["tid"])
        for each in events
        if each["name"] == "thread_name" and each["args"]["name"] == "CrRendererMain"
    }
    timed = [each for each in events if "tdur" in each and (each["pid"], each["tid"]) in main]
    # A message between processes is the tracing itself.
    tracing = [each for each in timed if each["name"] == "Receive mojo message"]
    tasks = [
        each for each in timed if each["name"].endswith("RunTask") and not any(_within(one, each) for one in tracing)
    ]
    scripts = [each for each in timed if each["name"] in _SCRIPTS]
    if not tasks:
        return
    longest = max(tasks, key=_took)
    drawing = [each for each in timed if each["name"] in {"Layout", "UpdateLayoutTree"} and _within(each, longest)]
    found.task = _took(longest)
    found.drawing = sum(map(_took, drawing))
    found.script = max(map(_took, scripts), default=0.0)


def _within(each: dict[str, Any], task: dict[str, Any]) -> bool:
    same = (each["pid"], each["tid"]) == (task["pid"], task["tid"])
    return bool(same and task["ts"] <= each["ts"] < task["ts"] + task["dur"])


def _took(event: dict[str, Any]) -> float:
    return float(event["tdur"]) / 1000
