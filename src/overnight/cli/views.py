"""Progress on stderr: one line that redraws itself on a terminal, a few plain lines in a log."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import click

from overnight import human
from overnight.cli import progress
from overnight.cli.console import Console
from overnight.cli.options import Options
from overnight.cli.progress import LogGate, Pace, Snapshot

LABEL = 13
CLEAR_LINE = "\r\x1b[2K"


class View(Protocol):
    """Shows how a batch, or several, get on."""

    def update(self, snapshot: Snapshot) -> None:
        """Show what one poll saw."""

    def close(self) -> None:
        """Leave the terminal clean."""


class Screen:
    """The lines of a command's conversation, the last of which may still change."""

    def __init__(self, console: Console, options: Options) -> None:
        self._console = console
        self._shown = options.progress and not options.quiet
        self.moving = self._shown and console.err_is_terminal and os.environ.get("TERM") != "dumb"
        self._live = False

    def live(self, text: str) -> None:
        """Show a line that the next one replaces; nothing in a log."""
        if self.moving:
            width = shutil.get_terminal_size().columns - 1
            self._control(f"{CLEAR_LINE}{text[:width]}")
            self._live = True

    def settle(self, text: str) -> None:
        """Show a line that stays."""
        self.clear()
        if self._shown:
            self._console.say(text)

    def clear(self) -> None:
        """Take the changing line away."""
        if self._live:
            self._control(CLEAR_LINE)
            self._live = False

    def _control(self, text: str) -> None:
        # Moving the cursor is no colour: `--no-color` must not strip it.
        click.echo(text, err=True, nl=False, color=True)


@dataclass(slots=True)
class LineView:
    """`batch_01JD8… in progress   12,410/50,000   31 failed   212 requests/s   about 3 min`."""

    screen: Screen
    label: str
    clock: Callable[[], float] = time.monotonic
    _pace: Pace = field(default_factory=Pace)
    _gate: LogGate = field(default_factory=LogGate)
    _status: str = ""

    def update(self, snapshot: Snapshot) -> None:
        now = self.clock()
        self._pace.add(now, snapshot)
        words = f"{self.label} {spoken(snapshot.status)}   {progress.describe(snapshot, self._pace)}".rstrip()
        if self.screen.moving:
            self.screen.live(words)
        elif snapshot.status != self._status or self._gate.due(now, snapshot.share):
            self.screen.settle(words)
        self._status = snapshot.status

    def close(self) -> None:
        self.screen.clear()


@dataclass(slots=True)
class PhaseView:
    """The life of one batch, one line for each phase that it has been through."""

    screen: Screen
    clock: Callable[[], float] = time.monotonic
    _pace: Pace = field(default_factory=Pace)
    _gate: LogGate = field(default_factory=LogGate)
    _settled: list[str] = field(default_factory=list)

    def update(self, snapshot: Snapshot) -> None:
        now = self.clock()
        self._pace.add(now, snapshot)
        for phase in _phases_behind(snapshot):
            if phase not in self._settled:
                self._settled.append(phase)
                self.screen.settle(_phase_line(phase, self._words(phase, snapshot)))
        if not snapshot.ended:
            self._show_current(snapshot, now)

    def close(self) -> None:
        self.screen.clear()

    def _show_current(self, snapshot: Snapshot, now: float) -> None:
        line = _phase_line(snapshot.status, self._words_now(snapshot))
        self.screen.live(line)
        # When all is done, the line that closes the phase says so.
        running = snapshot.status == "in_progress" and snapshot.share < 1
        if running and not self.screen.moving and self._gate.due(now, snapshot.share):
            self.screen.settle(line)

    def _words_now(self, snapshot: Snapshot) -> str:
        match snapshot.status:
            case "in_progress":
                return self._progress(snapshot)
            case "finalizing":
                return f"writing {human.plural(snapshot.done, 'result')}"
            case "cancelling":
                return "waiting for the running requests"
        return "checking the lines"

    def _words(self, phase: str, snapshot: Snapshot) -> str:
        match phase:
            case "validating":
                model = f", model {snapshot.model}" if snapshot.model else ""
                return f"{human.plural(snapshot.total, 'line')}{model}, no problems"
            case "in_progress":
                return self._progress(snapshot)
            case "finalizing":
                return f"{snapshot.done:,}/{snapshot.total:,} results written"
        return progress.outcome(snapshot) if snapshot.accepted else "in validation"

    def _progress(self, snapshot: Snapshot) -> str:
        words = progress.describe(snapshot, self._pace)
        return f"{progress.bar(snapshot.share)}  {words}" if self.screen.moving else words


def spoken(status: str) -> str:
    """`in_progress` as people say it."""
    return status.replace("_", " ")


def _phase_line(phase: str, text: str) -> str:
    return f"  {spoken(phase):<{LABEL}} {text}".rstrip()


def _phases_behind(snapshot: Snapshot) -> list[str]:
    """The phases that are over, in order: a poll may have missed some."""
    over = []
    if snapshot.accepted:
        over.append("validating")
    if snapshot.accepted and (snapshot.status == "finalizing" or snapshot.ended):
        over.append("in_progress")
    if snapshot.status == "completed":
        over.append("finalizing")
    if snapshot.ended:
        over.append(snapshot.status)
    return over
