"""A clock that a test moves: a day passes in a millisecond, and nothing is due before the test says so."""

from __future__ import annotations

import asyncio
import heapq
import inspect
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

START = 1_700_000_000.0

# Turns of the event loop within which work that waits for nothing outside comes to rest.
_TURNS = 60


class OutOfTime(AssertionError):
    """What a test waited for did not happen in the time that it allowed."""


class ManualClock:
    """Keeps the promises of ``ports/clock.py`` in time that stands still until it is moved.

    ``busy`` says whether work is under way that the event loop does not see, such as a query in another thread.
    """

    def __init__(self, now: float = START, *, busy: Callable[[], bool] = lambda: False) -> None:
        self.waits = 0
        self._now = now
        self._corrected = 0.0
        self._busy = busy
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._armed = 0

    def now(self) -> float:
        return self._now + self._corrected

    def ticks(self) -> float:
        return self._now

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        due = asyncio.get_running_loop().create_future()
        self._arm(seconds, lambda: None if due.done() else due.set_result(None))
        await due

    async def wait(self, event: asyncio.Event, seconds: float | None) -> bool:
        self.waits += 1
        if seconds is not None and seconds <= 0:
            # As a real clock does, let others run before saying that the time is over.
            await asyncio.sleep(0)
            return event.is_set()
        try:
            async with asyncio.timeout(None) as scope:
                if seconds is not None:
                    self._arm(seconds, lambda: _end(scope))
                await event.wait()
        except TimeoutError:
            return event.is_set()
        return True

    def jump(self, seconds: float) -> None:
        """Let time pass at once, as for a machine that slept: everybody wakes late."""
        self._now += seconds
        while self._timers and self._timers[0][0] <= self._now:
            heapq.heappop(self._timers)[2]()

    def correct(self, seconds: float) -> None:
        """Move the hands, back if negative, as a time server does: ``now`` changes, but what is due comes no sooner."""
        self._corrected += seconds

    async def advance(self, seconds: float) -> None:
        """Let time pass from one thing that is due to the next, with time for what follows from each."""
        until = self._now + seconds
        await self.settle()
        while self._timers and self._timers[0][0] <= until:
            self.jump(self._timers[0][0] - self._now)
            await self.settle()
        self._now = max(self._now, until)

    async def run_until(self, happened: Callable[[], Awaitable[object] | object], *, within: float = 3_600.0) -> None:
        """Let time pass until something has happened, in steps from one thing that is due to the next.

        Raises:
            OutOfTime: it did not happen within so many seconds, or nothing is due any more.
        """
        until = self._now + within
        await self.settle()
        while not await _truth(happened()):
            if not self._timers or self._timers[0][0] > until:
                message = f"it did not happen within {within:,} seconds"
                raise OutOfTime(message)
            self.jump(self._timers[0][0] - self._now)
            await self.settle()

    async def settle(self) -> None:
        """Let everything run that can run without time passing."""
        calm = 0
        while calm < _TURNS:
            await asyncio.sleep(0)
            calm = 0 if self._busy() else calm + 1

    def _arm(self, seconds: float, fire: Callable[[], None]) -> None:
        self._armed += 1
        heapq.heappush(self._timers, (self._now + seconds, self._armed, fire))


async def _truth(said: Awaitable[object] | object) -> bool:
    return bool(await said if inspect.isawaitable(said) else said)


def _end(scope: asyncio.Timeout) -> None:
    # A wait that is over has left its scope; its timer is then of no meaning.
    try:
        scope.reschedule(asyncio.get_running_loop().time())
    except RuntimeError:
        return
