"""How a batch got on over time: what ended in each stretch of its run, how fast, with how many tokens."""

from __future__ import annotations

from itertools import zip_longest
from typing import TYPE_CHECKING, Annotated

import msgspec

from overnight.domain.durations import Seconds, bin_of, no_durations, quantile

if TYPE_CHECKING:
    from overnight.domain.usage import Usage

MOST_STRETCHES = 240

# A throughput is read from where a failing disk may have changed it: what could not be counted is not believed.
_Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 62)]


class Stretch(msgspec.Struct, frozen=True, array_like=True):
    """What ended within one stretch of time; ``p50`` and ``p95`` say how many seconds the successes took."""

    succeeded: _Count = 0
    failed: _Count = 0
    input_tokens: _Count = 0
    output_tokens: _Count = 0
    p50: Seconds | None = None
    p95: Seconds | None = None


class Throughput(msgspec.Struct, frozen=True, kw_only=True):
    """Stretches of ``width`` seconds each, one after the other from ``start`` on (unix seconds).

    ``p50`` and ``p95`` are those of all successes.
    """

    start: Annotated[int, msgspec.Meta(ge=0, le=1 << 40)] = 0
    width: Annotated[int, msgspec.Meta(ge=1, le=1 << 40)] = 1
    stretches: Annotated[tuple[Stretch, ...], msgspec.Meta(max_length=MOST_STRETCHES)] = ()
    p50: Seconds | None = None
    p95: Seconds | None = None


NO_THROUGHPUT = Throughput()


class _Open:
    """A stretch in the making: plain numbers, for they change with each result."""

    __slots__ = ("durations", "failed", "input_tokens", "output_tokens", "succeeded")

    def __init__(self) -> None:
        self.succeeded = self.failed = self.input_tokens = self.output_tokens = 0
        self.durations: list[int] | None = None

    def joined(self, later: _Open) -> _Open:
        """Give both as one new stretch: another thread may be reading these."""
        both = _Open()
        both.succeeded = self.succeeded + later.succeeded
        both.failed = self.failed + later.failed
        both.input_tokens = self.input_tokens + later.input_tokens
        both.output_tokens = self.output_tokens + later.output_tokens
        both.durations = self.durations or later.durations
        if self.durations is not None and later.durations is not None:
            both.durations = [sum(pair) for pair in zip(self.durations, later.durations, strict=True)]
        return both

    def closed(self) -> Stretch:
        durations = self.durations or ()
        return Stretch(
            self.succeeded,
            self.failed,
            self.input_tokens,
            self.output_tokens,
            quantile(durations, 0.5),
            quantile(durations, 0.95),
        )


class ThroughputCount:
    """A throughput in the making. The stretches widen as time goes by, so that there are never many."""

    def __init__(self) -> None:
        self._start = 0
        # Seconds of a stretch, and the stretches: exchanged together, for another thread may read them.
        self._kept: tuple[int, list[_Open]] = (1, [])

    def add(self, ended_at: float, seconds: float, usage: Usage, *, succeeded: bool) -> None:
        """Count a result: when it came (unix seconds), and how long its last attempt took.

        A clock may have been set back meanwhile; what seems to have ended before the first counts with it.
        """
        stretch = self._at(int(ended_at))
        if succeeded:
            stretch.succeeded += 1
            if stretch.durations is None:
                stretch.durations = no_durations()
            stretch.durations[bin_of(seconds)] += 1
        else:
            stretch.failed += 1
        stretch.input_tokens += usage.input_tokens
        stretch.output_tokens += usage.output_tokens

    def _at(self, ended_at: int) -> _Open:
        if not self._kept[1]:
            self._start = ended_at
        seconds = max(ended_at - self._start, 0)
        while seconds // self._kept[0] >= MOST_STRETCHES:
            self._widen()
        width, stretches = self._kept
        place = seconds // width
        while place >= len(stretches):
            stretches.append(_Open())
        return stretches[place]

    def _widen(self) -> None:
        width, narrow = self._kept
        pairs = zip_longest(narrow[::2], narrow[1::2], fillvalue=_Open())
        self._kept = (width * 2, [first.joined(second) for first, second in pairs])

    def throughput(self) -> Throughput:
        """Say what was counted, also while another thread counts on."""
        width, kept = self._kept
        stretches = list(kept)
        all_of_them = [
            sum(column) for column in zip(*filter(None, (each.durations for each in stretches)), strict=True)
        ]
        return Throughput(
            start=self._start,
            width=width,
            stretches=tuple(each.closed() for each in stretches),
            p50=quantile(all_of_them, 0.5),
            p95=quantile(all_of_them, 0.95),
        )
