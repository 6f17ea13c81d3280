"""The requests of one batch while this process runs them: which are due, in flight, waiting for a retry, or done."""

from __future__ import annotations

import asyncio
import heapq
from math import inf
from typing import TYPE_CHECKING

from overnight.dispatch.source import Source
from overnight.dispatch.work import Attempt
from overnight.domain.batch import LEAVING, Batch, StopCause
from overnight.domain.ids import request_id_prefix
from overnight.domain.outcome import examine, to_result
from overnight.domain.request import Request, parse_request, with_model
from overnight.domain.result import Result, Tally

if TYPE_CHECKING:
    from collections.abc import Callable

    from overnight.dispatch.work import Work
    from overnight.domain.deployment import Deployment, UpstreamName
    from overnight.domain.index import Index
    from overnight.domain.retry import Outcome, RetryPolicy
    from overnight.ports.results import ResultLog


class Run:
    """Hands out the requests of a batch, each at most once at a time, and knows when nothing is left to do.

    A request is only a number here until it is sent: memory grows with what is in flight, not with the file.
    """

    def __init__(
        self, batch: Batch, deployment: Deployment, index: Index, source: int, *, held_until: float = inf
    ) -> None:
        self.batch = batch
        self.deployment = deployment
        self.endpoint = batch.endpoint
        self.policy: RetryPolicy | None = None
        self.cause: StopCause | None = None
        self.trouble: Exception | None = None
        # Halted: no request is started any more. Ended: nor is one in flight. Settled: ended, or to be left soon.
        self.halted = asyncio.Event()
        self.ended = asyncio.Event()
        self.settled = asyncio.Event()
        self.on_put_back: Callable[[], None] = _tell_nobody
        self._total = len(index)
        self._deadline = batch.deadline()
        self._held_until = held_until
        self._source = Source(source, index)
        self._renames = deployment.model != deployment.name
        self._id_prefix = request_id_prefix(batch.id)
        self._log: ResultLog | None = None
        self._next = 0
        self._done = bytearray()
        self._retries: list[tuple[float, int, Attempt]] = []
        # Taken and not left yet; those of them that a slot has begun to send; and what `abort` ended of these.
        self._taken = 0
        self._in_flight: set[asyncio.Task[None]] = set()
        self._aborted: set[asyncio.Task[None]] = set()
        self._aborting = False
        self._completed = 0
        self._failed = 0
        self._usage = batch.usage

    def works(self) -> list[tuple[Work, tuple[UpstreamName, ...]]]:
        """Say which upstreams are to work on what."""
        return [(self, self.deployment.upstreams)]

    def start(self, log: ResultLog) -> None:
        """Go on from what the log already holds."""
        self._log = log
        self._done = log.recovered.done
        tally = log.recovered.tally
        self._completed, self._failed, self._usage = tally.completed, tally.failed, tally.usage
        self._check_end()

    @property
    def tally(self) -> Tally:
        """What is durable."""
        return Tally(completed=self._completed, failed=self._failed, usage=self._usage)

    @property
    def remaining(self) -> int:
        """How many requests have no durable result."""
        return self._total - self._completed - self._failed

    @property
    def has_more(self) -> bool:
        """Whether there are requests to start, now or later; those that are in flight may still become such."""
        return bool(self._retries) or self._find_next() >= 0

    def on_durable(self, recorded: Tally) -> None:
        """Count results that have just become durable."""
        self._completed += recorded.completed
        self._failed += recorded.failed
        self._usage += recorded.usage
        self._check_end()

    def take(self, now: float, ticks: float) -> Attempt | None:
        """Give the next request to send; ``None`` if none is due. The run does not end before it is ``left``.

        ``now`` is unix seconds, ``ticks`` the clock's (``ports/clock.py``).
        """
        if not self._may_take(now):
            return None
        if self._retries and self._retries[0][0] <= ticks:
            self._taken += 1
            return heapq.heappop(self._retries)[2]
        line = self._find_next()
        if line < 0:
            return None
        self._claim(line)
        self._taken += 1
        return Attempt(line)

    def due_at(self, now: float) -> float | None:
        """Say from when on ``take`` may give a request (ticks of the clock), 0 for now; ``None`` if it has none."""
        if not self._may_send(now):
            return None
        if self._find_next() >= 0:
            return 0.0
        return self._retries[0][0] if self._retries else None

    def _may_send(self, now: float) -> bool:
        return self.cause is None and self._log is not None and now < self._held_until

    def _may_take(self, now: float) -> bool:
        if not self._may_send(now):
            return False
        if self._deadline is not None and now >= self._deadline:
            self.stop(StopCause.EXPIRY)
            return False
        return True

    def _claim(self, line: int) -> None:
        self._done[line] = 1

    def _find_next(self) -> int:
        if self._next >= 0:
            self._next = self._done.find(0, self._next)
        return self._next

    def hold(self, until: float) -> None:
        """Go on until then (unix seconds). A process that slept past its lease asks before it sends anything more."""
        self._held_until = until
        self.on_put_back()

    def read(self, line: int) -> Request:
        """Read a request from the input file, its body as it is to be sent."""
        request = parse_request(line, self._source.read(line))
        if not self._renames:
            return request
        return Request(line=line, custom_id=request.custom_id, body=with_model(request.body, self.deployment.model))

    def own_id(self, line: int) -> str:
        """Give the id of a request, as ``request_id`` does, 10,000 times a second."""
        return f"{self._id_prefix}{line:08x}"

    def entered(self, slot: asyncio.Task[None]) -> bool:
        """Note a request in flight, which ``abort`` ends by its slot; ``False`` if it must not be sent any more."""
        if self._aborting:
            return False
        self._in_flight.add(slot)
        return True

    def left(self, slot: asyncio.Task[None]) -> None:
        """Note that a request is not in flight any more, once its outcome has been noted."""
        self._taken -= 1
        self._in_flight.discard(slot)
        if self.cause is not None:
            self._check_end()

    def was_aborted(self, slot: asyncio.Task[None]) -> bool:
        """Say whether it was ``abort`` that cancelled a slot, which then goes on with other work."""
        if slot not in self._aborted:
            return False
        self._aborted.discard(slot)
        return slot.uncancel() == 0

    @property
    def idle(self) -> bool:
        """Whether nothing is in flight or waits to be judged."""
        return self._log is not None and self._taken == 0

    @property
    def in_flight(self) -> int:
        """How many requests are with an upstream."""
        return len(self._in_flight)

    def examine(self, line: int, outcome: Outcome) -> Outcome:  # noqa: ARG002 - a check looks at its line
        """Look into what an attempt brought."""
        return examine(outcome)

    def end(self, request: Request, attempt: Attempt, outcome: Outcome) -> None:
        """Take an outcome that stands."""
        self.record(to_result(request, self.own_id(attempt.line), outcome, attempt.trail, attempt.number))

    def record(self, result: Result) -> None:
        """Hand a result to the log; it counts once it is durable."""
        if self._log is not None:
            self._log.append(result)

    @property
    def log_is_full(self) -> bool:
        """Whether so many bytes wait for their commit that ``room`` waits."""
        return self._log is not None and self._log.full

    async def room(self) -> None:
        """Wait while too many bytes wait for their commit."""
        if self._log is not None:
            await self._log.room()

    def put_back(self, attempt: Attempt, *, not_before: float) -> None:
        """Take a request back that is to be tried again; ``not_before`` is in ticks of the clock."""
        heapq.heappush(self._retries, (not_before, attempt.line, attempt))
        # It may be due before any that is waited for, and another upstream may be the one to do it.
        self.on_put_back()

    def stop(self, cause: StopCause) -> None:
        """Start no more requests; the first cause counts, but a lost lease overrides all."""
        if self.cause is None or cause is StopCause.LEASE_LOST:
            self.cause = cause
        if cause in LEAVING:
            self.settled.set()
        self._check_end()

    def break_off(self, error: Exception) -> None:
        """Stop because a request that was taken cannot be read; ``trouble`` tells the dispatcher."""
        self._taken -= 1
        self.trouble = error
        self.stop(StopCause.TROUBLE)

    def abort(self) -> None:
        """End what is still in flight, without a result."""
        self._aborting = True
        self._aborted |= self._in_flight
        for slot in self._in_flight:
            slot.cancel()

    def _check_end(self) -> None:
        if self.remaining == 0 and self.cause is None:
            self.cause = StopCause.DONE
        if self.cause is None:
            return
        self.halted.set()
        if not self._taken:
            self.ended.set()
            self.settled.set()


def _tell_nobody() -> None:
    """Stand in where nobody waits."""
