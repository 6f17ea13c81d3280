"""The result log: the truth about which requests of a batch are done."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import msgspec

from overnight.domain.frame import Segment
from overnight.domain.ids import BatchId
from overnight.domain.result import Result, Tally


class Recovered(msgspec.Struct, frozen=True, kw_only=True):
    """What earlier epochs recorded; ``done`` holds one byte for each request of the batch."""

    done: bytearray
    tally: Tally


class ResultLog(Protocol):
    """The log of one epoch of one batch, open for appending."""

    recovered: Recovered
    full: bool
    """Whether so many bytes wait for their commit that ``room`` waits."""

    def append(self, result: Result) -> None:
        """Hand over a result. It is durable, and counts, only once ``on_durable`` was told of it."""

    async def room(self) -> None:
        """Return when the results that wait for their commit are within bounds again."""

    async def flush(self) -> None:
        """Return once all that was handed over is durable."""


class ResultLogs(Protocol):
    """The logs of all batches."""

    def open(
        self, batch_id: BatchId, *, epoch: int, total: int, on_durable: Callable[[Tally], None]
    ) -> AbstractAsyncContextManager[ResultLog]:
        """Open the log of a batch for its newest epoch.

        What earlier epochs recorded up to now is kept; what they still write is ignored from now on.
        A second result for the same line is ignored. Leaving the context flushes.
        """

    def segments(self, batch_id: BatchId, *, epoch: int) -> AbstractAsyncContextManager[Sequence[Segment]]:
        """Lend files on this machine with the log as an opened epoch sees it, oldest first (``services/finalize.py``).

        They are there until the context is left, and must not be changed.
        """

    async def durable(self, batch_id: BatchId, *, epoch: int) -> Sequence[Segment]:
        """Give what is durable of the log by now, oldest first, for a reader while others write; none is fine.

        It is what the ``epoch`` sees, or a newer one that has begun; no epoch is pinned by it. The ``path`` of a
        segment is its name for ``read``, and its last frame may be cut off. A segment grows; it is shorter than before
        only where a new epoch has left out what its old owner still wrote.
        """

    async def read(self, batch_id: BatchId, segment: str, *, offset: int, length: int) -> bytes:
        """Read a piece of a segment, shorter at its end. Raises ``FileNotFoundError`` if the log was removed."""

    async def batch_ids(self) -> Sequence[BatchId]:
        """Give the batches that have a log."""

    async def delete(self, batch_id: BatchId) -> None:
        """Remove the log of a batch; fine if there is none."""
