"""Whether an upstream is left alone for a while: decided once for all its requests, not found out by each of them."""

from __future__ import annotations

from enum import Enum, auto

from overnight.domain.retry import Trouble

# In seconds: pauses double from the first to the second; a probe that has not failed for so long counts as a good sign.
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 15.0
# One request a second is no burden, and a server that refuses them may have room again at any moment.
_LONGEST_REFUSED_PAUSE = 1.0
_PATIENCE = 1.0
# A flaky server fails some of its requests, a broken one nearly all. After a first failure only requests that began
# since are counted, sent and failed: failures come sooner than answers, so of older ones they say nothing.
_FAILURES = 5
_SHARE = 0.8
# A server that still answers with errors after so many probes is not down: its errors are about the requests. One that
# a proxy speaks for may be starting, which takes a model server a minute.
_MOST_PROBES = {Trouble.FAILING: 5, Trouble.AWAY: 8}


class _State(Enum):
    CLOSED = auto()
    OPEN = auto()
    PROBING = auto()
    TRIAL = auto()


class Breaker:
    """Told of each request how it began and ended. Times are seconds of one clock.

    ``free_at`` says from when on a request may start. Closed, all requests pass. Open, none does until then, and then
    one may probe. Unless the probe fails, others follow on trial, until a request that began since has succeeded.
    """

    def __init__(self) -> None:
        self.problem: str | None = None
        self.free_at = 0.0
        self._state = _State.CLOSED
        self._pause = _FIRST_PAUSE
        self._probes = 0
        self._watching = False
        self._watched_since = 0.0
        self._failures = 0
        self._sent = 0

    def sent(self, now: float) -> None:
        """Note that a request starts, which ``free_at`` allows."""
        self._sent += 1
        if self._state is _State.OPEN:
            self._state = _State.PROBING
            self._watched_since = now
            self.free_at = now + _PATIENCE
        elif self._state is _State.PROBING:
            self._state = _State.TRIAL
            self.free_at = 0.0

    def succeeded(self, began: float) -> None:
        """Note an answer, good or bad, that tells of a server in order."""
        if began < self._watched_since or self._state is _State.OPEN:
            return
        self._watching = False
        if self._state is not _State.CLOSED:
            self._state = _State.CLOSED
            self.free_at = 0.0
            self.problem = None
            self._pause = _FIRST_PAUSE
            self._probes = 0

    def failed(self, trouble: Trouble, began: float, now: float, *, detail: str, wait: float | None = None) -> bool:
        """Note trouble; ``wait`` is how long the server asked to be left alone. Says whether that begins now."""
        if self._state is _State.OPEN or not self._is_due(trouble, began, now):
            return False
        if self._gives_way(trouble):
            return False
        longest = _LONGEST_REFUSED_PAUSE if trouble is Trouble.REFUSING else _LONGEST_PAUSE
        self.free_at = now + (min(self._pause, longest) if wait is None else wait)
        self._pause = min(self._pause * 2, longest)
        self._state = _State.OPEN
        self._watching = False
        self.problem = detail
        return True

    def _is_due(self, trouble: Trouble, began: float, now: float) -> bool:
        if self._state is not _State.CLOSED:
            return began >= self._watched_since
        if trouble is Trouble.UNREACHABLE:
            return True
        if not self._watching:
            self._watching = True
            self._watched_since = now
            self._failures = self._sent = 0
        self._failures += began >= self._watched_since
        return self._failures >= _FAILURES and self._failures >= _SHARE * self._sent

    def _gives_way(self, trouble: Trouble) -> bool:
        """Let errors pass which may be the requests' own: a batch of poison must end, too."""
        if trouble not in _MOST_PROBES:
            return False
        self._probes += self._state is not _State.CLOSED
        if self._probes < _MOST_PROBES[trouble]:
            return False
        self._state = _State.TRIAL
        self.free_at = 0.0
        return True
