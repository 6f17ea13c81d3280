"""One upstream at work: how many requests it may have in flight, whether it is left alone, which one comes next."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

import msgspec
import structlog

from overnight.dispatch.breaker import Breaker
from overnight.dispatch.limiter import Limiter
from overnight.dispatch.rate import Rate
from overnight.dispatch.work import Attempt, Work
from overnight.domain.request import Request, estimate_tokens
from overnight.domain.result import Answer
from overnight.domain.retry import Failure, Outcome, Trouble, overloaded, trouble_of
from overnight.services.meters import Meter

if TYPE_CHECKING:
    from collections.abc import Callable

    from overnight.dispatch.attempt import Attempts
    from overnight.domain.deployment import UpstreamName
    from overnight.ports.clock import Clock
    from overnight.ports.upstream import Upstream

log = structlog.get_logger()

# A server that asks for longer is asked again after so many seconds.
_LONGEST_WAIT = 600.0


class _Taken(msgspec.Struct, frozen=True, gc=False):
    """A request on its way: ``began`` is in ticks, ``reserved`` the tokens that it may use."""

    run: Work
    attempt: Attempt
    request: Request
    began: float
    reserved: int


class Pool:
    """Works for one upstream. Requests never wait for one another: what ends makes room for the next at once.

    While it is ``paused`` nothing more is sent; what is in flight ends.
    """

    def __init__(self, upstream: Upstream, attempts: Attempts, clock: Clock) -> None:
        capacity = upstream.capacity
        self.in_flight = 0
        self.paused = False
        self.meter = Meter(clock.ticks())
        self._upstream = upstream
        self._attempts = attempts
        self._clock = clock
        self._runs: deque[Work] = deque()
        self._limiter = Limiter(start=capacity.start_concurrency, cap=capacity.max_concurrency)
        self._breaker = Breaker()
        self._requests = Rate(capacity.requests_per_minute) if capacity.requests_per_minute else None
        self._tokens = Rate(capacity.tokens_per_minute) if capacity.tokens_per_minute else None
        self._group: asyncio.TaskGroup | None = None
        self._on_room: Callable[[], None] = _tell_nobody

    @property
    def name(self) -> UpstreamName:
        """The upstream's name."""
        return self._upstream.name

    @property
    def limit(self) -> int:
        """How many requests may be in flight now."""
        return self._limiter.limit

    @property
    def problem(self) -> str | None:
        """Why the upstream is left alone or on trial; ``None`` if it is in order."""
        return self._breaker.problem

    @property
    def rests(self) -> bool:
        """Whether little or nothing is sent until somebody resumes it, or it has shown that it is in order."""
        return self.paused or self._breaker.problem is not None

    @property
    def left_alone(self) -> float:
        """For how many seconds from now on nothing is sent, because of trouble or to keep to a rate."""
        return max(0.0, self._free_at() - self._clock.ticks())

    @property
    def load(self) -> float:
        """How full the upstream would be with one request more, by its limit and its weight."""
        return (self.in_flight + 1) / (self._limiter.limit * self._upstream.capacity.weight)

    def open(self, group: asyncio.TaskGroup, on_room: Callable[[], None]) -> None:
        """Work in a task group from now on; ``on_room`` is called when a request more could be sent than there was."""
        self._group = group
        self._on_room = on_room

    def add(self, run: Work) -> None:
        """Let the upstream work on a batch."""
        self._runs.append(run)

    def remove(self, run: Work) -> None:
        """Take a batch away."""
        self._runs.remove(run)

    def start_one(self) -> bool:
        """Send one more request, if there is room for it and one is due."""
        if self._group is None or self.paused or self.in_flight >= self._limiter.limit:
            return False
        taken = self._take()
        if taken is None:
            return False
        self.in_flight += 1
        self._group.create_task(self._work(taken), name=f"slot of {self.name}")
        return True

    def due_at(self) -> float | None:
        """Say when a request could be sent that cannot be now (ticks); ``None`` if only an event can tell."""
        if self.paused or self.in_flight >= self._limiter.limit:
            return None
        now = self._clock.now()
        dues = [due for run in self._runs if (due := run.due_at(now)) is not None]
        return max(min(dues), self._free_at()) if dues else None

    async def _work(self, taken: _Taken | None) -> None:
        """Be a slot: send one request after the other until there is none, or no room for it."""
        slot = asyncio.current_task()
        try:
            while taken is not None and slot is not None:
                outcome = await self._attempts.make(taken.run, taken.attempt, taken.request, self._upstream, slot)
                if outcome is not None:
                    self._note(outcome, taken)
                if taken.run.log_is_full:
                    # An answer may be large, and is in the log already.
                    run, outcome, taken = taken.run, None, None
                    await run.room()
                if self.in_flight > self._limiter.limit:
                    return
                taken = self._take()
                if self.in_flight < self._limiter.limit:
                    self._fill()
        finally:
            self.in_flight -= 1
            self._on_room()

    def _fill(self) -> None:
        """Use at once what the limit has grown by: the next answer must not be taken for a lack of requests."""
        while self.in_flight < self._limiter.limit:
            if not self.start_one():
                self._on_room()
                return

    def _take(self) -> _Taken | None:
        """Take a request that is due, and count it as sent: what comes next must see it."""
        ticks = self._clock.ticks()
        if self.paused or ticks < self._free_at():
            return None
        now = self._clock.now()
        for _ in range(len(self._runs)):
            run = self._runs[0]
            self._runs.rotate(-1)
            attempt = run.take(now, ticks)
            request = None if attempt is None else self._attempts.read(run, attempt)
            if attempt is not None and request is not None:
                self._breaker.sent(ticks)
                return _Taken(run, attempt, request, ticks, self._spend(request, ticks))
        return None

    def _free_at(self) -> float:
        free_at = self._breaker.free_at
        if self._requests is not None:
            free_at = max(free_at, self._requests.free_at())
        if self._tokens is not None:
            free_at = max(free_at, self._tokens.free_at())
        return free_at

    def _spend(self, request: Request, now: float) -> int:
        if self._requests is not None:
            self._requests.spend(1, now)
        if self._tokens is None:
            return 0
        tokens = estimate_tokens(request.body)
        self._tokens.spend(tokens, now)
        return tokens

    def _note(self, outcome: Outcome, taken: _Taken) -> None:
        now, began = self._clock.ticks(), taken.began
        self.meter.note(outcome, now - began, now)
        trouble = trouble_of(outcome)
        if trouble is None:
            self._limiter.succeeded(began, now, self.in_flight < self._limiter.limit)
            self._note_success(outcome, taken)
            return
        if overloaded(outcome):
            self._limiter.refused(began, now)
        elif trouble is not Trouble.UNREACHABLE:
            self._limiter.succeeded(began, now, self.in_flight < self._limiter.limit)
        self._note_trouble(trouble, outcome, began, now)

    def _note_success(self, outcome: Outcome, taken: _Taken) -> None:
        if self._tokens is not None and isinstance(outcome, Answer) and outcome.succeeded:
            self._tokens.give_back(taken.reserved - outcome.usage.total_tokens)
        problem = self._breaker.problem
        self._breaker.succeeded(taken.began)
        if problem is not None and self._breaker.problem is None:
            log.info("upstream.back", upstream=self.name)

    def _note_trouble(self, trouble: Trouble, outcome: Outcome, began: float, now: float) -> None:
        known = self._breaker.problem
        if isinstance(outcome, Failure):
            detail, wait = outcome.detail, None
        else:
            detail, wait = f"The upstream answers with status {outcome.status}.", outcome.retry_after
        if wait is not None:
            wait = min(max(wait, 0.0), _LONGEST_WAIT)
        opened = self._breaker.failed(trouble, began, now, detail=detail, wait=wait)
        if opened and known is None:
            log.warning("upstream.left_alone", upstream=self.name, trouble=trouble, detail=detail, wait=wait)


def _tell_nobody() -> None:
    """Stand in until somebody wants to know."""
