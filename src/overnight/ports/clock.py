"""Time and randomness, handed in so that a test of 24 hours takes a millisecond."""

import asyncio
from typing import Protocol


class Clock(Protocol):
    """The time."""

    def now(self) -> float:
        """Give the unix time in seconds. It may be corrected, so it is for moments that others know of, too."""

    def ticks(self) -> float:
        """Give seconds since some moment; they never go back, so they are for how long something takes or waits."""

    async def sleep(self, seconds: float) -> None:
        """Return after so many seconds; at once for zero or less."""

    async def wait(self, event: asyncio.Event, seconds: float | None) -> bool:
        """Return ``True`` once the event is set, or ``False`` after so many seconds; ``None`` waits for the event."""


class Entropy(Protocol):
    """A source of randomness."""

    def hex(self) -> str:
        """Give 32 unpredictable hexadecimal digits, different at each call."""

    def fraction(self) -> float:
        """Give a number from [0, 1)."""
