"""The slots of one upstream: as many requests in flight as it may have, taken in turn from the batches it serves."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

import structlog

from overnight.domain.retry import Failure, Outcome, never_arrived

if TYPE_CHECKING:
    from overnight.dispatch.attempt import Attempts
    from overnight.dispatch.run import Run
    from overnight.domain.deployment import UpstreamName
    from overnight.ports.clock import Clock
    from overnight.ports.upstream import Upstream

log = structlog.get_logger()

# How long to leave an upstream alone that cannot be reached, in seconds: doubling from the first to the second.
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 15.0


class Pool:
    """Works for one upstream. Slots never wait for one another: each takes the next request when it is free."""

    def __init__(self, upstream: Upstream, attempts: Attempts, clock: Clock) -> None:
        self._upstream = upstream
        self._attempts = attempts
        self._clock = clock
        self._runs: deque[Run] = deque()
        self._ready = asyncio.Event()
        self._rearm = asyncio.Event()
        self._paused_until = 0.0
        self._pause = _FIRST_PAUSE
        self.problem: str | None = None

    @property
    def name(self) -> UpstreamName:
        """The upstream's name."""
        return self._upstream.name

    async def serve(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._alarm(), name=f"alarm of {self.name}")
            for slot in range(self._upstream.max_concurrency):
                group.create_task(self._work(), name=f"slot {slot} of {self.name}")

    def add(self, run: Run) -> None:
        """Let the upstream work on a batch."""
        self._runs.append(run)
        run.on_put_back.append(self._rearm.set)
        self._ready.set()

    def remove(self, run: Run) -> None:
        """Take a batch away."""
        self._runs.remove(run)
        run.on_put_back.remove(self._rearm.set)

    async def _work(self) -> None:
        slot = asyncio.current_task()
        if slot is None:
            return
        while True:
            await self._ready.wait()
            taken = self._take()
            if taken is None:
                self._ready.clear()
                self._rearm.set()
                continue
            run, line, attempt = taken
            self._note(await self._attempts.make(run, line, attempt, self._upstream, slot))

    def _take(self) -> tuple[Run, int, int] | None:
        now = self._clock.now()
        if now < self._paused_until:
            return None
        for _ in range(len(self._runs)):
            run = self._runs[0]
            self._runs.rotate(-1)
            taken = run.take(now)
            if taken is not None:
                return run, *taken
        return None

    def _note(self, outcome: Outcome | None) -> None:
        if outcome is not None and self.problem is not None and not never_arrived(outcome):
            log.info("upstream.back", upstream=self.name)
            self.problem = None
            self._pause = _FIRST_PAUSE
        if isinstance(outcome, Failure) and never_arrived(outcome):
            self._hold_off(outcome)

    def _hold_off(self, failure: Failure) -> None:
        now = self._clock.now()
        if now < self._paused_until:
            return
        if self.problem is None:
            log.warning("upstream.unreachable", upstream=self.name, detail=failure.detail)
        self.problem = failure.detail
        self._paused_until = now + self._pause
        self._rearm.set()
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)

    async def _alarm(self) -> None:
        """Wake the slots when a retry or the end of a pause is due."""
        while True:
            self._rearm.clear()
            # While no slot is idle there is nobody to wake, whatever is due: the next idle one rearms.
            due = None if self._ready.is_set() else self._next_due()
            if not await self._clock.wait(self._rearm, None if due is None else due - self._clock.now()):
                self._ready.set()

    def _next_due(self) -> float | None:
        now = self._clock.now()
        if self._paused_until > now:
            return self._paused_until
        return min((due for run in self._runs if (due := run.next_due()) is not None), default=None)
