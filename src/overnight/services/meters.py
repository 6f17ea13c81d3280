"""How an upstream answers: how often with what, and how fast, over the last minutes and since the start."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import msgspec

from overnight.domain.durations import bin_of, no_durations, quantile
from overnight.domain.result import Answer
from overnight.domain.retry import SERVER_ERRORS

if TYPE_CHECKING:
    from overnight.domain.retry import Outcome

RECENT_MINUTES = 5
_MINUTE = 60.0
_TOO_MANY = 429


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """How attempts ended: ``refused`` with 429, ``broken`` with 5xx, ``rejected`` with another error status.

    ``unanswered`` brought no usable answer: the server was away, too slow, or its answer could not be read.
    """

    succeeded: int = 0
    refused: int = 0
    broken: int = 0
    rejected: int = 0
    unanswered: int = 0

    @property
    def total(self) -> int:
        """All attempts."""
        return self.succeeded + self.refused + self.broken + self.rejected + self.unanswered


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What a meter shows. ``recent`` and all that follow are of the last ``seconds``; times are in seconds."""

    since_start: Tally
    recent: Tally
    seconds: float
    p50: float | None
    p95: float | None
    tokens_in: float
    tokens_out: float


class Activity(msgspec.Struct, frozen=True, kw_only=True):
    """What an upstream does; ``left_alone`` is for how many seconds nothing is sent to it."""

    figures: Figures
    left_alone: float


class _Window:
    __slots__ = ("counts", "minute", "times", "tokens_in", "tokens_out")

    def __init__(self, minute: int) -> None:
        self.minute = minute
        self.counts = [0] * len(Tally.__struct_fields__)
        self.times = no_durations()
        self.tokens_in = self.tokens_out = 0


class Meter:
    """Told of each attempt how it ended. All moments are ticks of one clock; ``began`` is when the meter was made."""

    def __init__(self, began: float) -> None:
        self._began = began
        self._until = 0.0
        self._before = [0] * len(Tally.__struct_fields__)
        self._windows: deque[_Window] = deque()
        self._window = self._next(began)

    def note(self, outcome: Outcome, seconds: float, now: float) -> None:
        """Count an attempt that took so long; of those that failed, the time says nothing of the others."""
        window = self._window if now < self._until else self._next(now)
        if isinstance(outcome, Answer):
            status = outcome.status
            if outcome.succeeded:
                window.counts[0] += 1
                window.times[bin_of(seconds)] += 1
                usage = outcome.usage
                window.tokens_in += usage.input_tokens
                window.tokens_out += usage.output_tokens
            else:
                window.counts[1 if status == _TOO_MANY else 2 if status in SERVER_ERRORS else 3] += 1
        else:
            window.counts[4] += 1

    def figures(self, now: float) -> Figures:
        """Tell how the upstream did up to now."""
        first = int(now // _MINUTE) - RECENT_MINUTES + 1
        recent = [window for window in self._windows if window.minute >= first]
        seconds = max(now - max(first * _MINUTE, self._began), 1.0)
        times = [sum(column) for column in zip(*(window.times for window in recent), strict=True)]
        return Figures(
            since_start=_tally(self._before, *(window.counts for window in self._windows)),
            recent=_tally(*(window.counts for window in recent)),
            seconds=seconds,
            p50=quantile(times, 0.5),
            p95=quantile(times, 0.95),
            tokens_in=sum(window.tokens_in for window in recent) / seconds,
            tokens_out=sum(window.tokens_out for window in recent) / seconds,
        )

    def _next(self, now: float) -> _Window:
        while len(self._windows) >= RECENT_MINUTES:
            gone = self._windows.popleft()
            self._before = [sum(pair) for pair in zip(self._before, gone.counts, strict=True)]
        self._window = _Window(int(now // _MINUTE))
        self._until = (self._window.minute + 1) * _MINUTE
        self._windows.append(self._window)
        return self._window


def _tally(*counts: list[int]) -> Tally:
    sums = [sum(column) for column in zip(*counts, strict=True)]
    return Tally(**dict(zip(Tally.__struct_fields__, sums, strict=False)))
