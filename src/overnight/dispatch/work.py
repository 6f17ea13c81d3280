"""What a pool works on: the requests of a batch, or what a content filter is to be asked about them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

from overnight.domain.trail import NO_TRAIL, Trail

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from overnight.domain.batch import Batch
    from overnight.domain.request import Request
    from overnight.domain.retry import Outcome, RetryPolicy


class Attempt(msgspec.Struct, frozen=True, gc=False):
    """One try of a request: ``number`` counts from 1, by the policy's count; ``trail`` is what was tried so far."""

    line: int
    number: int = 1
    trail: Trail = NO_TRAIL


class Work(Protocol):
    """Hands out requests, each at most once at a time, and takes what becomes of them.

    ``endpoint`` is where they are sent, ``policy`` when they are tried again if not as all others, ``on_put_back`` is
    called when one may be due that was not before.
    """

    batch: Batch
    endpoint: str
    policy: RetryPolicy | None
    on_put_back: Callable[[], None]

    def take(self, now: float, ticks: float) -> Attempt | None:
        """Give the next request to send; ``None`` if none is due. ``now`` is unix seconds, ``ticks`` the clock's."""

    def due_at(self, now: float) -> float | None:
        """Say from when on ``take`` may give a request (ticks of the clock), 0 for now; ``None`` if it has none."""

    def read(self, line: int) -> Request | None:
        """Read a request that was taken, as it is to be sent; ``None`` if it has just ended instead.

        Raises:
            OSError, ValueError: the input cannot be read.
        """

    def break_off(self, error: Exception) -> None:
        """Stop because a request that was taken cannot be read."""

    def entered(self, slot: asyncio.Task[None]) -> bool:
        """Note a request in flight; ``False`` if it must not be sent any more."""

    def left(self, slot: asyncio.Task[None]) -> None:
        """Note that a request is not in flight any more, once its outcome has been noted."""

    def was_aborted(self, slot: asyncio.Task[None]) -> bool:
        """Say whether a slot was cancelled to end its request, and goes on with other work."""

    def examine(self, line: int, outcome: Outcome) -> Outcome:
        """Look into what an attempt brought."""

    def end(self, request: Request, attempt: Attempt, outcome: Outcome) -> None:
        """Take an outcome that stands."""

    def put_back(self, attempt: Attempt, *, not_before: float) -> None:
        """Take a request back that is to be tried again; ``not_before`` is in ticks of the clock."""

    @property
    def log_is_full(self) -> bool:
        """Whether so many bytes wait for their commit that ``room`` waits."""

    async def room(self) -> None:
        """Wait while too many bytes wait for their commit."""
