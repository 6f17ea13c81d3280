"""How many requests one upstream bears at once, found by trying.

The limit climbs while throughput climbs with it; then it rests, and tries now and then whether more helps or less would
do. Throughput is compared over windows of many answers, because the time that one request takes says little.
"""

from __future__ import annotations

from enum import Enum
from math import exp, inf, log, sqrt

import msgspec

# A window has at least so many answers, and so many times the limit: then each slot has been used several times.
_FEWEST_ANSWERS = 24
_ROUNDS = 4
# Answers whose times differ much are counted longer, up to so many times as long, until the mean is this sure.
_LONGEST_WINDOW = 4
_SURE = 0.1

# More slots are kept if they bring this share of the throughput that as many unhindered slots would bring.
_WORTH = 0.3
# Fewer slots are kept if they cost no more than this share of what they would cost if all had been needed.
_NEEDED = 0.15
# How many standard errors a climb has to miss its gain by before it ends: a false end costs more than a late one.
_CLEARLY = 3.0
# Where a climb has ended, so much room above the estimate is left: too many slots cost less than too few.
_ROOM = 1.25
# The same after a try, whose estimate is better.
_MARGIN = 1.05

# A try changes the limit by this share, doubled each time it helps.
_STEP = 0.25
_CAREFUL_STEP = 0.0625
# How many windows to rest between tries: doubled by each that did not help.
_REST = 1
_LONGEST_REST = 8
# The same for less where nothing hints that less would do: such a try costs throughput on an upstream that is not full.
_BLIND_REST = 32
_LONGEST_BLIND_REST = 256
# Answers that take so much longer than the fastest window are the hint that slots only wait.
_SLOWER = 1.4
# The fastest window is forgotten by so much with each window: requests change.
_FADE = 1.01
# One try raises it by no more than this: it may have been misled.
_RISE = 1.3
# The first answers of all are the quick ones: what is slow is so many times slower.
_FIRST = 3.0

# One stray refusal is no overload. Each adds one to a score and each answer takes a little off, so that a share of
# refusals below about 5 % never adds up.
_EASE = 0.05
_FEWEST_REFUSALS = 3.5
_MOST_REFUSALS = 32.0
_SLOTS_PER_REFUSAL = 32
# After overload: what is left of the limit, at first and if that did not end it, and if nothing at all was answered.
_CUT = 0.85
_CUT_AGAIN = 0.7
_CUT_OUTAGE = 0.5
# The limit stays below this share of where the overload was, until as many answers have come as make its refusals few.
_CEILING = 0.97
# Each overload in a row takes this share once more: answers that come together lift the limit past where it began.
_ANSWERS_PER_REFUSAL = 300
_FEWEST_CEILING_WINDOWS = 10
_MOST_CEILING_WINDOWS = 40

# Between two answers that are further apart than so many mean times, clock or upstream stood still.
_STANDSTILL = 20.0


class _Phase(Enum):
    CLIMB = "climb"
    REST = "rest"
    MORE = "more"
    LESS = "less"


_LONGEST_STEP = {_Phase.MORE: 1.0, _Phase.LESS: 0.5}


class _Window(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured at one limit: answers a second, mean seconds of one, and how unsure that mean is (a share)."""

    limit: float
    rate: float
    latency: float
    error: float


class Limiter:
    """The limit of one upstream. Pure: times are the caller's, in seconds of one clock that may jump."""

    __slots__ = (
        "_aim",
        "_base",
        "_began",
        "_blind",
        "_cap",
        "_ceiling",
        "_ceiling_left",
        "_cut_at",
        "_first",
        "_last",
        "_left",
        "_mark",
        "_measuring",
        "_overloads",
        "_patience",
        "_phase",
        "_recovering",
        "_refusals",
        "_rest",
        "_rested",
        "_score",
        "_since",
        "_size",
        "_squares",
        "_step",
        "_sum",
        "limit",
    )

    def __init__(self, *, start: int, cap: int) -> None:
        """Begin at ``start``, never exceed ``cap``; both at least 1."""
        if not 1 <= start <= cap:
            raise ValueError(f"start must be from 1 to cap, not {start} of {cap}")
        self.limit = start
        self._cap = cap
        self._ceiling = cap
        self._ceiling_left = 0
        self._base = inf
        self._mark: _Window | None = None
        self._recovering = False
        self._score = 0.0
        self._refusals = 0
        self._overloads = 0
        self._cut_at = -inf
        self._last = -inf
        self._began = inf
        self._patience = inf
        self._blind = _BLIND_REST
        self._rested = {_Phase.MORE: 0, _Phase.LESS: 0}
        self._rest = {_Phase.MORE: _REST, _Phase.LESS: _REST}
        self._step = {_Phase.MORE: _STEP, _Phase.LESS: _STEP}
        self._aim = start
        self._phase = _Phase.CLIMB
        self._climb()

    def succeeded(self, began: float, now: float, starved: bool) -> None:  # noqa: FBT001 - on the hot path
        """Note an answer, good or bad, that is no refusal.

        ``starved``: the upstream had free slots for want of requests, so this says nothing about it.
        """
        if self._score > 0.0:
            self._score -= _EASE
        gap = now - self._last
        self._last = now
        if starved or not 0.0 <= gap <= self._patience:
            self._disturbed(gap, now)
            return
        if self.limit < self._aim:
            self.limit += 1
        took = now - began
        self._began = began
        self._sum += took
        self._squares += took * took
        self._left -= 1
        if self._left <= 0:
            self._turn(now)

    def refused(self, began: float, now: float) -> bool:
        """Note a 429, a 503 or a timeout, and say whether it was taken as overload: then the limit has been cut."""
        self._cut_at = min(self._cut_at, now)
        if began <= self._cut_at:
            return False
        self._score += 1.0
        self._refusals += 1
        if self._score < min(_FEWEST_REFUSALS + self.limit / _SLOTS_PER_REFUSAL, _MOST_REFUSALS):
            return False
        self._cut(now)
        return True

    # --- windows ---

    def _disturbed(self, gap: float, now: float) -> None:
        """Begin the window again: demand was missing, or time jumped."""
        if gap < 0.0:
            self._cut_at = min(self._cut_at, now)
        elif gap > self._patience:
            self._patience = 2.0 * gap
        if self._phase is _Phase.CLIMB:
            self._look(now)
        else:
            self._settle()

    def _open(self, answers: int, now: float) -> None:
        self._left = self._size = answers
        self._since = now
        self._sum = self._squares = 0.0

    def _settle(self) -> None:
        """Let what was sent under another limit come back before anything is measured."""
        self._measuring = False
        self._left = self.limit + max(0, self._aim - self.limit)

    def _turn(self, now: float) -> None:
        """So many answers have come as were waited for."""
        if self._phase is _Phase.CLIMB:
            self._stage(now)
        elif self._recovering:
            self._recovering = False
            self._climb()
        elif not self._measuring:
            self._measuring = True
            self._open(max(_FEWEST_ANSWERS, _ROUNDS * self.limit), now)
        else:
            self._close(now)

    def _close(self, now: float) -> None:
        window = self._window(self.limit, now)
        if window is None:
            self._settle()
            return
        fewest = max(_FEWEST_ANSWERS, _ROUNDS * self.limit)
        if window.error > _SURE and self._size < _LONGEST_WINDOW * fewest:
            self._left = fewest
            self._size += fewest
            return
        self._patience = _STANDSTILL * window.latency
        self._age(self._size)
        self._judge(window)
        if self._measuring:
            self._open(max(_FEWEST_ANSWERS, _ROUNDS * self.limit), now)

    def _window(self, limit: float, now: float) -> _Window | None:
        elapsed, answers = now - self._since, self._size
        if elapsed <= 0.0 or self._sum <= 0.0:
            return None
        mean = self._sum / answers
        # Few answers may be alike by chance.
        variance = max(0.0, self._squares / answers - mean * mean) + mean * mean / answers
        return _Window(limit=limit, rate=answers / elapsed, latency=mean, error=sqrt(variance / answers) / mean)

    # --- the climb ---

    def _climb(self) -> None:
        """One more slot with each answer, which doubles them within the time that a request takes."""
        self._phase = _Phase.CLIMB
        self._measuring = False
        self._mark = None
        self._aim = self._ceiling
        self._look(self._last)

    def _stage(self, now: float) -> None:
        """The limit has doubled since the last look, or is at its aim: has throughput followed?"""
        level = _mean_level(self._first, self.limit)
        window, mark = self._window(level, now), self._mark
        at_aim = self._first >= self._aim
        if window is not None:
            self._patience = _STANDSTILL * window.latency
            self._base = min(self._base, _FIRST * window.latency)
            if mark is None or _is_worth(mark, window):
                self._mark = window
            elif _is_clearly_not(mark, window):
                self.limit = min(self.limit, max(1, round(mark.limit * window.rate / mark.rate * _ROOM)))
                at_aim = True
        if at_aim:
            self._repose()
            return
        self._look(now)

    def _look(self, now: float) -> None:
        """Let the limit double before the next look."""
        self._first = self.limit
        self._open(self.limit, now)

    # --- rest and tries ---

    def _repose(self) -> None:
        """Stay where we are, measure, and try again later."""
        self._phase = _Phase.REST
        self._mark = None
        self._step = {_Phase.MORE: _STEP, _Phase.LESS: _STEP}
        self._rested = {_Phase.MORE: 0, _Phase.LESS: 0}
        self._rest = {_Phase.MORE: _REST, _Phase.LESS: _REST}
        self._blind = _BLIND_REST
        self._aim = self.limit
        self._settle()

    def _judge(self, window: _Window) -> None:
        mark = self._mark
        if self._phase is _Phase.REST or mark is None:
            self._rest_on(window)
        elif self._phase is _Phase.MORE:
            self._end_try(mark, window, helped=_is_worth(mark, window))
        else:
            self._end_try(mark, window, helped=_is_enough(mark, window))

    def _rest_on(self, window: _Window) -> None:
        self._overloads = 0
        mark = self._mark = window if self._mark is None else _blend(self._mark, window)
        self._base = min(self._base * _FADE, mark.latency)
        for phase in self._rested:
            self._rested[phase] += 1
        hinted = mark.latency > _SLOWER * self._base
        if self._may_try(_Phase.LESS, self._rest[_Phase.LESS] if hinted else self._blind):
            self._try(_Phase.LESS)
        elif self._may_try(_Phase.MORE, self._rest[_Phase.MORE]):
            self._try(_Phase.MORE)

    def _may_try(self, phase: _Phase, rest: int) -> bool:
        return self._has_room(phase) and self._rested[phase] >= rest

    def _has_room(self, phase: _Phase) -> bool:
        return self.limit < self._ceiling if phase is _Phase.MORE else self.limit > 1

    def _try(self, phase: _Phase) -> None:
        self._phase = phase
        if phase is _Phase.MORE:
            self._aim = min(self._ceiling, max(self.limit + 1, round(self.limit * (1.0 + self._step[phase]))))
            self._settle()
        else:
            before = self.limit
            self.limit = self._aim = max(1, min(self.limit - 1, round(self.limit * (1.0 - self._step[phase]))))
            self._settle()
            self._left += before - self.limit

    def _end_try(self, mark: _Window, window: _Window, *, helped: bool) -> None:
        phase = self._phase
        self._phase = _Phase.REST
        self._rested[phase] = 0
        if helped:
            self._helped(phase, window)
            return
        aim = int(mark.limit)
        if self._step[phase] > _STEP:
            # The last step was long: part of it may have helped, and a shorter one may yet.
            self._step[phase] = _STEP
            if phase is _Phase.MORE:
                aim = max(aim, min(self.limit, round(aim * window.rate / mark.rate * _MARGIN)))
        else:
            self._rest[phase] = min(2 * self._rest[phase], _LONGEST_REST)
        if phase is _Phase.LESS:
            # In so far as fewer slots did not cost throughput, their answers had waited, too.
            unhindered = window.latency * min(1.0, window.limit / mark.limit * mark.rate / window.rate)
            self._base = min(_RISE * self._base, unhindered)
            self._blind = min(2 * self._blind, _LONGEST_BLIND_REST)
        if aim != mark.limit:
            self._mark = None
        self._aim = min(self._ceiling, aim)
        self.limit = min(self.limit, self._aim)
        self._settle()

    def _helped(self, phase: _Phase, window: _Window) -> None:
        """Keep what was tried, and try a longer step if there is room for one."""
        self._rest = {_Phase.MORE: _REST, _Phase.LESS: _REST}
        self._mark = window
        if self._has_room(phase):
            self._step[phase] = min(2.0 * self._step[phase], _LONGEST_STEP[phase])
            self._try(phase)
        else:
            self._step[phase] = _STEP

    # --- overload ---

    def _age(self, answers: int) -> None:
        if self._ceiling < self._cap:
            self._ceiling_left -= answers
            if self._ceiling_left <= 0:
                self._ceiling = self._cap

    def _cut(self, now: float) -> None:
        self._overloads += 1
        seen, window = self.limit, max(_FEWEST_ANSWERS, _ROUNDS * self.limit)
        if self._began > self._cut_at:
            self._ceiling = min(self._cap, max(1, int(seen * _CEILING**self._overloads)))
            budget = self._refusals * _ANSWERS_PER_REFUSAL
            self._ceiling_left = min(_MOST_CEILING_WINDOWS * window, max(_FEWEST_CEILING_WINDOWS * window, budget))
            share = _CUT_AGAIN if self._recovering else _CUT
        else:
            share = _CUT_OUTAGE
        if self._phase is _Phase.MORE and self._mark is not None:
            self.limit = min(int(self._mark.limit), self._ceiling)
        else:
            self.limit = max(1, int(seen * share))
            self._recovering = True
        self._refusals = 0
        self._score = 0.0
        self._cut_at = now
        self._repose()
        self._step[_Phase.MORE] = _CAREFUL_STEP
        self._left += seen - self.limit


def _mean_level(first: int, last: int) -> float:
    """Give the mean of a limit that has grown exponentially."""
    return float(first) if last <= first else (last - first) / log(last / first)


def _is_worth(mark: _Window, window: _Window) -> bool:
    """Say whether more slots have brought more throughput."""
    return window.rate >= mark.rate * (1.0 + _WORTH * (window.limit / mark.limit - 1.0))


def _is_clearly_not(mark: _Window, window: _Window) -> bool:
    """Say whether throughput has not followed, beyond what chance explains."""
    doubt = sqrt(mark.error * mark.error + window.error * window.error)
    return window.rate < mark.rate * (window.limit / mark.limit) * exp(-_CLEARLY * doubt)


def _is_enough(mark: _Window, window: _Window) -> bool:
    """Say whether fewer slots have brought as much throughput."""
    return window.rate >= mark.rate * (1.0 - _NEEDED * (1.0 - window.limit / mark.limit))


def _blend(old: _Window, new: _Window) -> _Window:
    """Average windows at the same limit, the newest counting half."""
    return _Window(
        limit=new.limit,
        rate=(old.rate + new.rate) / 2.0,
        latency=(old.latency + new.latency) / 2.0,
        error=max(old.error, new.error),
    )
