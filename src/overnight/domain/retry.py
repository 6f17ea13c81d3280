"""Which attempts are repeated, when, and when to give up: a pure decision."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from overnight.domain.result import Answer


class Fault(StrEnum):
    """Why an attempt brought no usable answer."""

    UNREACHABLE = "unreachable"
    BROKEN_OFF = "broken_off"
    TIMEOUT = "timeout"
    UNREADABLE = "unreadable"
    TOO_LARGE = "too_large"


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt without a usable answer; ``status`` and ``detail`` are kept for the error line."""

    fault: Fault
    status: int | None = None
    detail: str = ""


Outcome = Answer | Failure


class Accept(msgspec.Struct, frozen=True):
    """The outcome stands, as success or as failure."""


class Leave(msgspec.Struct, frozen=True):
    """The request never reached a model and no time is left: it ends with the batch, as not executed."""


class Retry(msgspec.Struct, frozen=True, kw_only=True):
    """Try again ``after`` so many seconds; an attempt that never reached the model does not count."""

    after: float
    counts: bool = True


Decision = Accept | Retry | Leave

# Besides these, 5xx but 501; the set of the official SDK and 425.
RETRIED_STATUSES = frozenset({408, 409, 425, 429})
NOT_IMPLEMENTED = 501
SERVER_ERRORS = range(500, 600)
OVERLOADED = frozenset({429, 503})
# What a proxy says when the server behind it is not there.
GATEWAY_ERRORS = frozenset({502, 504})


class RetryPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Back-off with full jitter. ``base``, ``cap`` and ``longest_wait`` are seconds.

    An overloaded upstream is asked ``overload_attempts`` times, since it says nothing about the request.
    """

    attempts: int = 4
    overload_attempts: int = 100
    base: float = 0.5
    cap: float = 30.0
    longest_wait: float = 600.0

    def decide(self, outcome: Outcome, *, attempt: int, now: float, deadline: float | None, jitter: float) -> Decision:
        """Say what follows on the ``attempt``-th counted try (from 1); ``jitter`` is drawn from [0, 1).

        Times are unix seconds. A retry that could only start past the deadline is not made: the outcome stands.
        """
        limit = self._attempts_for(outcome)
        if limit is None:
            return Accept()
        if attempt >= limit:
            return Accept()
        after = self._wait(outcome, attempt, jitter)
        if deadline is not None and now + after >= deadline:
            return Leave() if never_arrived(outcome) else Accept()
        return Retry(after=after, counts=not never_arrived(outcome))

    def _attempts_for(self, outcome: Outcome) -> float | None:
        """Give the number of tries that the outcome is worth, or ``None`` where a repetition cannot help."""
        if isinstance(outcome, Failure):
            if outcome.fault is Fault.TOO_LARGE:
                return None
            return float("inf") if never_arrived(outcome) else self.attempts
        if outcome.status in OVERLOADED:
            return self.overload_attempts
        return self.attempts if is_retried(outcome.status) else None

    def _wait(self, outcome: Outcome, attempt: int, jitter: float) -> float:
        if isinstance(outcome, Answer) and outcome.retry_after is not None:
            return min(max(outcome.retry_after, 0.0), self.longest_wait)
        ceiling: float = min(self.cap, self.base * 2.0 ** min(attempt - 1, 16))
        # A floor keeps a lucky draw from asking a struggling server again at once.
        return ceiling * (0.1 + 0.9 * jitter)


class Trouble(StrEnum):
    """What an outcome says about the upstream, and not about the request alone."""

    UNREACHABLE = "unreachable"
    REFUSING = "refusing"
    AWAY = "away"
    FAILING = "failing"


def trouble_of(outcome: Outcome) -> Trouble | None:
    """Say what an outcome tells about the upstream; ``None`` if it is in order."""
    if isinstance(outcome, Failure):
        if outcome.fault is Fault.TOO_LARGE:
            return None
        return Trouble.UNREACHABLE if never_arrived(outcome) else Trouble.FAILING
    if outcome.succeeded:
        return None
    if outcome.status in OVERLOADED:
        return Trouble.REFUSING
    if outcome.status in GATEWAY_ERRORS:
        return Trouble.AWAY
    return Trouble.FAILING if outcome.status in SERVER_ERRORS and is_retried(outcome.status) else None


def overloaded(outcome: Outcome) -> bool:
    """Say whether the upstream had too much to do: it refused the request, or did not answer it in time."""
    if isinstance(outcome, Failure):
        return outcome.fault is Fault.TIMEOUT
    return outcome.status in OVERLOADED


def succeeded(outcome: Outcome) -> bool:
    """Say whether an attempt brought what was asked for."""
    return isinstance(outcome, Answer) and outcome.succeeded


def is_retried(status: int) -> bool:
    """Say whether a request that got this status is worth repeating."""
    return status in RETRIED_STATUSES or (status in SERVER_ERRORS and status != NOT_IMPLEMENTED)


def never_arrived(outcome: Outcome) -> bool:
    """Say whether the upstream was not there at all: that says nothing about the request, which loses no try."""
    return isinstance(outcome, Failure) and outcome.fault is Fault.UNREACHABLE
