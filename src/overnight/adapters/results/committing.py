"""What every result log does alike: it gathers results, commits them in order, and keeps them while the store is away.

Where the frames go, and what makes them durable there, is the business of the adapter.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, BinaryIO

import structlog

from overnight.domain.frame import encode, scan
from overnight.domain.result import Result, ResultKind, Tally
from overnight.domain.usage import NO_USAGE
from overnight.ports.results import Recovered

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from overnight.domain.ids import BatchId

log = structlog.get_logger()

COMMIT_BYTES = 4 * 1024 * 1024
"""A commit does not wait for its time once so many bytes have gathered."""

_MOST_WAITING = 16 * 1024 * 1024
_TRY_AGAIN = 1.0


class _Batchful:
    """Frames that wait for one commit, and what they add up to."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.size = 0
        self.counts = [0, 0]
        self.usage = NO_USAGE

    def add(self, result: Result) -> None:
        frame = encode(result)
        self.frames.append(frame)
        self.size += len(frame)
        self.counts[result.kind] += 1
        if result.usage is not NO_USAGE:
            self.usage += result.usage

    def tally(self) -> Tally:
        return Tally(
            completed=self.counts[ResultKind.SUCCEEDED], failed=self.counts[ResultKind.FAILED], usage=self.usage
        )


class GroupCommitLog:
    """The log of one epoch. Appending never waits; a task commits what has gathered.

    ``append_durably`` takes the frames of a commit and returns once they are durable behind those of earlier commits.
    If it raises ``OSError`` it is called again with the same frames. Commits are ``every`` so many seconds apart.
    """

    def __init__(
        self,
        recovered: Recovered,
        on_durable: Callable[[Tally], None],
        append_durably: Callable[[bytes], Awaitable[None]],
        *,
        every: float,
    ) -> None:
        self.recovered = recovered
        self._append_durably = append_durably
        self._on_durable = on_durable
        self._every = every
        self._recorded = bytearray(recovered.done)
        self._waiting = _Batchful()
        self._arrived = asyncio.Event()
        self._full = asyncio.Event()
        self._closing = False
        self._clean = asyncio.Event()
        self._clean.set()
        self._roomy = asyncio.Event()
        self._roomy.set()

    def append(self, result: Result) -> None:
        if self._recorded[result.line]:
            return
        self._recorded[result.line] = 1
        self._waiting.add(result)
        self._clean.clear()
        self._arrived.set()
        if self._waiting.size >= COMMIT_BYTES:
            self._full.set()
        if self._waiting.size >= _MOST_WAITING:
            self._roomy.clear()

    async def room(self) -> None:
        if not self._roomy.is_set():
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
            self._roomy.set()

    def close(self) -> None:
        """Let ``keep_committing`` end after a last commit."""
        self._closing = True
        self._arrived.set()
        self._full.set()

    async def _gather(self) -> None:
        try:
            async with asyncio.timeout(self._every):
                await self._full.wait()
        except TimeoutError:
            pass

    async def _commit(self) -> None:
        batchful, self._waiting = self._waiting, _Batchful()
        self._arrived.clear()
        self._full.clear()
        if batchful.frames:
            await self._write(batchful)
            self._on_durable(batchful.tally())
        if not self._waiting.frames:
            self._clean.set()
        self._roomy.set()

    async def _write(self, batchful: _Batchful) -> None:
        """Write until it is durable: results that are here stay here while the store is full, broken or away."""
        data = b"".join(batchful.frames)
        in_trouble = False
        while True:
            try:
                await self._append_durably(data)
            except OSError as error:
                if not in_trouble:
                    log.error("results.not_durable", problem=str(error), bytes=batchful.size)  # noqa: TRY400 - no defect of ours to trace
                in_trouble = True
                if self._closing:
                    raise
                await asyncio.sleep(_TRY_AGAIN)
            else:
                if in_trouble:
                    log.info("results.durable_again", bytes=batchful.size)
                return


@asynccontextmanager
async def committing(opened: GroupCommitLog, batch_id: BatchId) -> AsyncIterator[None]:
    """Commit what is appended meanwhile, and at the end the rest."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(opened.keep_committing(), name=f"commit results of {batch_id}")
        try:
            yield
        finally:
            # An error in the body must not end the last commit: its own error comes out of the group.
            opened.close()
            await asyncio.wait([task])


class Recovery:
    """Adds up what the segments of earlier epochs hold; of each line the first result counts."""

    def __init__(self, total: int) -> None:
        self._done = bytearray(total)
        self._counts = [0, 0]
        self._usage = NO_USAGE

    def read(self, segment: BinaryIO, length: int) -> None:
        """Take in the whole frames within the first ``length`` bytes of a segment."""
        for frame in scan(segment, length):
            if not self._done[frame.line]:
                self._done[frame.line] = 1
                self._counts[frame.kind] += 1
                self._usage += frame.usage

    def recovered(self) -> Recovered:
        completed, failed = self._counts[ResultKind.SUCCEEDED], self._counts[ResultKind.FAILED]
        return Recovered(done=self._done, tally=Tally(completed=completed, failed=failed, usage=self._usage))
