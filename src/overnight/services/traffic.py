"""How many requests end and how many tokens they use over time, in the memory of this process, since it started."""

from __future__ import annotations

from array import array
from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from overnight.domain.ids import ResourceId
    from overnight.domain.usage import Usage
    from overnight.ports.clock import Clock

# In seconds: what is counted together at first.
_STEP = 5
_FIELDS = 4
# Beyond, whoever had its last request longest ago is forgotten: a resource takes 70 kB.
_REMEMBERED = 64


class Span(StrEnum):
    """How far back to look."""

    HOUR = "1h"
    DAY = "24h"
    WEEK = "7d"


_WIDTHS = {Span.HOUR: (_STEP, 720), Span.DAY: (120, 720), Span.WEEK: (900, 672)}


class Points(msgspec.Struct, frozen=True, kw_only=True):
    """What happened a second up to each of the times (unix seconds), oldest first; ``length`` is the span in seconds.

    ``since`` is when counting began: whatever was before is not known.
    """

    length: int
    since: float
    times: tuple[float, ...] = ()
    done: tuple[float, ...] = ()
    failed: tuple[float, ...] = ()
    tokens_in: tuple[float, ...] = ()
    tokens_out: tuple[float, ...] = ()


class _Ring:
    """Counts in slots of ``width`` seconds; only the newest slots are kept."""

    def __init__(self, width: int, slots: int, began: float) -> None:
        self.width = width
        self.slots = slots
        self._began = began
        self._first = self._last = int(began // width)
        self._counts = array("q", bytes(8 * _FIELDS * slots))

    def add(self, at: float, counts: list[int]) -> None:
        """Count what happened at a moment that is not before the newest slot."""
        self._go_to(int(at // self.width))
        place = self._last % self.slots * _FIELDS
        for field, count in enumerate(counts):
            self._counts[place + field] += count

    def _go_to(self, number: int) -> None:
        for passed in range(max(self._last + 1, number - self.slots + 1), number + 1):
            place = passed % self.slots * _FIELDS
            self._counts[place : place + _FIELDS] = array("q", bytes(8 * _FIELDS))
        self._last = max(self._last, number)

    def rates(self, now: float) -> list[tuple[float, ...]]:
        """Give the end of each slot and what happened a second in it; one that has hardly begun would mislead."""
        self._go_to(int(now // self.width))
        found: list[tuple[float, ...]] = []
        for number in range(max(self._first, self._last - self.slots + 1), self._last + 1):
            end = min(float((number + 1) * self.width), now)
            seconds = end - max(float(number * self.width), self._began)
            # The first slot may be a short one, too, but it is over: what was counted in it must not get lost.
            if number < self._last or seconds >= _STEP / 2:
                seconds = max(seconds, _STEP / 2)
                place = number % self.slots * _FIELDS
                found.append((end, *(count / seconds for count in self._counts[place : place + _FIELDS])))
        return found


class _Series:
    """The counts of one resource, or of all; ``noted_at`` is when they last grew."""

    def __init__(self, began: float) -> None:
        self.rings = {span: _Ring(width, slots, began) for span, (width, slots) in _WIDTHS.items()}
        self.noted_at = began

    def add(self, at: float, counts: list[int]) -> None:
        self.noted_at = at
        for ring in self.rings.values():
            ring.add(at, counts)


class Traffic:
    """Counts requests when they end; of many resources only those that were busy lately are remembered by name.

    What ends within one step is added up first, so that counting a request costs about a microsecond.
    """

    def __init__(self, clock: Clock, *, remembered: int = _REMEMBERED) -> None:
        self._clock = clock
        self._remembered = remembered
        self._since = self._step = clock.now()
        self._all = _Series(self._since)
        self._of: dict[ResourceId, _Series] = {}
        self._open: dict[ResourceId, list[int]] = {}

    def note(self, resource: ResourceId, usage: Usage, *, succeeded: bool) -> None:
        """Count a request that has ended, and the tokens that it used."""
        now = self._clock.now()
        if now - self._step >= _STEP:
            self._close(now)
        counts = self._open.get(resource)
        if counts is None:
            counts = self._open[resource] = [0] * _FIELDS
        counts[0 if succeeded else 1] += 1
        counts[2] += usage.input_tokens
        counts[3] += usage.output_tokens

    def points(self, span: Span, resource: ResourceId | None = None) -> Points:
        """Tell what happened in a span, of one resource or of all."""
        now = self._clock.now()
        self._close(now)
        width, slots = _WIDTHS[span]
        series = self._all if resource is None else self._of.get(resource)
        rates = [] if series is None else series.rings[span].rates(now)
        times, done, failed, tokens_in, tokens_out = zip(*rates, strict=True) if rates else ((),) * (1 + _FIELDS)
        return Points(
            length=width * slots,
            since=self._since,
            times=times,
            done=done,
            failed=failed,
            tokens_in=tokens_in,
            tokens_out=tokens_out,
        )

    def _close(self, now: float) -> None:
        """Put what was added up into the step that it happened in, and begin the one that ``now`` is in."""
        for resource, counts in self._open.items():
            self._all.add(self._step, counts)
            series = self._of.get(resource) or self._begin(resource)
            series.add(self._step, counts)
        self._open.clear()
        self._step = max(now // _STEP * _STEP, self._since)

    def _begin(self, resource: ResourceId) -> _Series:
        if len(self._of) >= self._remembered:
            del self._of[min(self._of, key=lambda each: self._of[each].noted_at)]
        # What came before was counted for all, and for this one there was nothing.
        series = self._of[resource] = _Series(self._since)
        return series
