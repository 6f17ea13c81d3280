"""What every result log does alike: it gathers results, commits them in order, and keeps them while the store is away.

Where the frames go, and what makes them durable there, is the business of the adapter.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, BinaryIO, Protocol

import structlog

from overnight.domain.frame import encode, scan
from overnight.domain.result import Count, Result, Tally
from overnight.ports.results import Recovered

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from overnight.domain.ids import BatchId
    from overnight.ports.troubles import Troubles

log = structlog.get_logger()

COMMIT_BYTES = 4 * 1024 * 1024
"""A commit does not wait for its time once so many bytes have gathered."""

_MOST_WAITING = 16 * 1024 * 1024
_TRY_AGAIN = 1.0


class Frames(Protocol):
    """Where an adapter puts the frames of one epoch."""

    def take(self, frame: bytes) -> None:
        """Take a frame, which need not be durable before ``commit``. Never waits."""

    async def commit(self, count: int) -> None:
        """Return once the ``count`` oldest frames since the last commit are durable behind those before them.

        Raises ``OSError``; then the frames are kept, and it is called again with the same count.
        """


class _Waiting:
    """Results that wait for one commit."""

    def __init__(self) -> None:
        self.results = 0
        self.size = 0
        self.count = Count()


class GroupCommitLog:
    """The log of one epoch. Appending never waits; a task commits what has gathered, ``every`` so many seconds."""

    def __init__(
        self, recovered: Recovered, frames: Frames, on_durable: Callable[[Tally], None], trouble: Note, *, every: float
    ) -> None:
        self.recovered = recovered
        self._frames = frames
        self._on_durable = on_durable
        self._trouble = trouble
        self._every = every
        self._recorded = bytearray(recovered.done)
        self._waiting = _Waiting()
        self._arrived = asyncio.Event()
        self._full = asyncio.Event()
        self._closing = False
        self._clean = asyncio.Event()
        self._clean.set()
        self._roomy = asyncio.Event()
        self._roomy.set()
        self.full = False

    def append(self, result: Result) -> None:
        if self._recorded[result.line]:
            return
        self._recorded[result.line] = 1
        frame = encode(result)
        self._frames.take(frame)
        waiting = self._waiting
        waiting.results += 1
        waiting.size += len(frame)
        waiting.count.add(result.kind, result.usage)
        if waiting.results == 1:
            self._clean.clear()
            self._arrived.set()
        if waiting.size >= COMMIT_BYTES:
            self._full.set()
        if waiting.size >= _MOST_WAITING:
            self.full = True
            self._roomy.clear()

    async def room(self) -> None:
        await self._roomy.wait()

    async def flush(self) -> None:
        self._full.set()
        await self._clean.wait()

    async def keep_committing(self) -> None:
        """Commit until closed and clean."""
        try:
            while not (self._closing and self._clean.is_set()):
                await self._arrived.wait()
                if not self._closing:
                    await self._gather()
                await self._commit()
        finally:
            # Nobody may wait for a log that is gone.
            self._clean.set()
            self._make_room()

    def close(self) -> None:
        """Let ``keep_committing`` end after a last commit."""
        self._closing = True
        self._arrived.set()
        self._full.set()

    def _make_room(self) -> None:
        self.full = False
        self._roomy.set()

    async def _gather(self) -> None:
        try:
            async with asyncio.timeout(self._every):
                await self._full.wait()
        except TimeoutError:
            pass

    async def _commit(self) -> None:
        batchful, self._waiting = self._waiting, _Waiting()
        self._arrived.clear()
        self._full.clear()
        if batchful.results:
            await self._make_durable(batchful)
            self._on_durable(batchful.count.tally())
        if not self._waiting.results:
            self._clean.set()
        self._make_room()

    async def _make_durable(self, batchful: _Waiting) -> None:
        """Try until it is done: results that are here stay here while the store is full, broken or away."""
        while True:
            try:
                await self._frames.commit(batchful.results)
            except OSError as error:
                self._trouble.begins(error, batchful.size + self._waiting.size)
                if self._closing:
                    raise
                await asyncio.sleep(_TRY_AGAIN)
            else:
                self._trouble.ends()
                return


class Note:
    """Tells people of a batch whose results cannot be made durable, once when that begins and once when it ends."""

    def __init__(self, batch_id: BatchId, troubles: Troubles) -> None:
        self._batch_id = batch_id
        self._troubles = troubles
        self._on = False

    def begins(self, error: OSError, size: int) -> None:
        """So many bytes of results wait, and cannot be made durable now."""
        self._troubles.note(self._batch_id, error, bytes_waiting=size)
        if not self._on:
            log.error("results.not_durable", batch_id=self._batch_id, problem=str(error), bytes=size)
        self._on = True

    def ends(self) -> None:
        """They have been."""
        if self._on:
            self._troubles.over(self._batch_id)
            log.info("results.durable_again", batch_id=self._batch_id)
        self._on = False


@asynccontextmanager
async def committing(opened: GroupCommitLog, batch_id: BatchId, troubles: Troubles) -> AsyncIterator[None]:
    """Commit what is appended meanwhile, and at the end the rest."""
    # The log could be read, so whatever kept the batch from going on is over.
    troubles.over(batch_id)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(opened.keep_committing(), name=f"commit results of {batch_id}")
        try:
            yield
        finally:
            # An error in the body must not end the last commit: its own error comes out of the group.
            opened.close()
            await asyncio.wait([task])
            troubles.over(batch_id)


class Recovery:
    """Adds up what the segments of earlier epochs hold; of each line the first result counts."""

    def __init__(self, total: int) -> None:
        self._done = bytearray(total)
        self._count = Count()

    def read(self, segment: BinaryIO, length: int) -> None:
        """Take in the whole frames within the first ``length`` bytes of a segment."""
        for frame in scan(segment, length):
            if not self._done[frame.line]:
                self._done[frame.line] = 1
                self._count.add(frame.kind, frame.usage)

    def recovered(self) -> Recovered:
        return Recovered(done=self._done, tally=self._count.tally())
