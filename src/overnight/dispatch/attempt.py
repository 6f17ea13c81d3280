"""One try of one request: send it, decide, and record it or put it back."""

from __future__ import annotations

import asyncio
import struct
from typing import TYPE_CHECKING

import msgspec
import structlog

from overnight.dispatch.work import Attempt
from overnight.domain.result import Answer
from overnight.domain.retry import Accept, Failure, Fault, Leave, Retry, RetryPolicy, succeeded
from overnight.domain.trail import Attempted, name_of
from overnight.domain.usage import NO_USAGE

if TYPE_CHECKING:
    from overnight.dispatch.work import Work
    from overnight.domain.request import Request
    from overnight.domain.retry import Outcome
    from overnight.ports.clock import Clock, Entropy
    from overnight.ports.upstream import Upstream
    from overnight.services.traffic import Traffic

log = structlog.get_logger()


class Attempts:
    """Makes attempts under one policy; ``traffic`` is told of each request that ends."""

    def __init__(self, policy: RetryPolicy, clock: Clock, entropy: Entropy, traffic: Traffic | None = None) -> None:
        self._policy = policy
        self._clock = clock
        self._entropy = entropy
        self._traffic = traffic

    def read(self, run: Work, attempt: Attempt) -> Request | None:
        """Read a request from the input; ``None`` if that cannot be done, and the run ends."""
        try:
            return run.read(attempt.line)
        except (OSError, ValueError, struct.error, RecursionError) as error:
            # The disk is in trouble or the input is damaged: nothing more can be read, so the batch has to wait.
            run.break_off(error)
            return None

    async def make(
        self, run: Work, attempt: Attempt, request: Request, upstream: Upstream, slot: asyncio.Task[None]
    ) -> Outcome | None:
        """Try a request once and see to what follows; gives the outcome, or ``None`` if there is none.

        ``slot`` is the calling task: it is cancelled, and goes on, when the run is aborted.
        """
        began = self._clock.ticks()
        try:
            if not run.entered(slot):
                return None
            try:
                outcome = run.examine(attempt.line, await upstream.send(run.endpoint, request.body))
            except Exception as error:  # noqa: BLE001 - attempt boundary: one odd request must not end the others
                outcome = _odd(run, request, upstream, error)
            made = self._made(upstream, outcome, began)
            self._settle(run, request, attempt, outcome, made)
        except asyncio.CancelledError:
            if run.was_aborted(slot):
                return None
            raise
        finally:
            run.left(slot)
        return outcome

    def _made(self, upstream: Upstream, outcome: Outcome, began: float) -> Attempted:
        seconds = self._clock.ticks() - began
        return Attempted(
            upstream=name_of(upstream.name),
            at=self._clock.now() - seconds,
            seconds=seconds,
            # The status of a failure is ours, made up for the line of the request.
            status=outcome.status if isinstance(outcome, Answer) else 0,
            fault=outcome.fault if isinstance(outcome, Failure) else "",
        )

    def _settle(self, run: Work, request: Request, attempt: Attempt, outcome: Outcome, made: Attempted) -> None:
        if succeeded(outcome):
            self._end(run, request, attempt, outcome, made)
            return
        decision = (run.policy or self._policy).decide(
            outcome,
            attempt=attempt.number,
            now=self._clock.now(),
            deadline=run.batch.deadline(),
            jitter=self._entropy.fraction(),
        )
        match decision:
            case Accept():
                self._end(run, request, attempt, outcome, made)
            case Retry(after=after, counts=counts):
                made = msgspec.structs.replace(made, wait=after)
                _log_retry(run, attempt, made)
                again = Attempt(attempt.line, attempt.number + counts, attempt.trail.then(made))
                run.put_back(again, not_before=self._clock.ticks() + after)
            case Leave():
                log.info("attempt.left", batch_id=run.batch.id, line=attempt.line, upstream=made.upstream)

    def _end(self, run: Work, request: Request, attempt: Attempt, outcome: Outcome, made: Attempted) -> None:
        run.end(request, Attempt(attempt.line, attempt.number, attempt.trail.then(made)), outcome)
        if self._traffic is not None:
            usage = outcome.usage if isinstance(outcome, Answer) else NO_USAGE
            self._traffic.note(run.batch.resource, usage, succeeded=succeeded(outcome))


def _odd(run: Work, request: Request, upstream: Upstream, error: Exception) -> Failure:
    log.error("attempt.broke", batch_id=run.batch.id, line=request.line, upstream=upstream.name, exc_info=error)
    detail = f"The request could not be sent ({type(error).__name__})."
    return Failure(fault=Fault.BROKEN_OFF, detail=detail)


def _log_retry(run: Work, attempt: Attempt, made: Attempted) -> None:
    log.debug(
        "attempt.retried",
        batch_id=run.batch.id,
        line=attempt.line,
        attempt=attempt.number,
        upstream=made.upstream,
        status=made.status or None,
        fault=made.fault or None,
        after=round(made.wait, 3),
    )
