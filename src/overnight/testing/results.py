"""Result logs in memory, with a commit that a test can hold back or lose."""

from __future__ import annotations

import asyncio
import sys
from contextlib import asynccontextmanager
from io import BytesIO
from typing import TYPE_CHECKING

import msgspec

from overnight.domain.frame import MAGIC, Segment, encode, scan
from overnight.domain.result import Result, ResultKind, Tally
from overnight.domain.usage import NO_USAGE
from overnight.ports.results import Recovered

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Sequence
    from pathlib import Path

    from overnight.domain.frame import Frame
    from overnight.domain.ids import BatchId


class Kept(msgspec.Struct):
    """What is durable of one batch: the bytes of each epoch, and how far an epoch reads the earlier ones."""

    segments: dict[int, bytearray] = {}
    pins: dict[int, dict[int, int]] = {}

    def pinned(self, epoch: int) -> dict[int, int]:
        """Give the earlier epochs and their lengths, fixed when this epoch first asks."""
        if epoch not in self.pins:
            self.pins[epoch] = self._readable(epoch)
        return self.pins[epoch]

    def durable(self, epoch: int) -> dict[int, int]:
        """Give what this epoch, or a newer one that has begun, would find, without fixing it."""
        return self._readable(max([epoch, *self.pins]) + 1)

    def _readable(self, epoch: int) -> dict[int, int]:
        last = max((pin for pin in self.pins if pin < epoch), default=0)
        later = {old: len(data) for old, data in sorted(self.segments.items()) if last <= old < epoch}
        return self.pins.get(last, {}) | later


class MemoryLog:
    """Keeps the promises of ``ports/results.py``; commits at the next turn of the loop unless ``held``."""

    def __init__(
        self, kept: Kept, epoch: int, recovered: Recovered, on_durable: Callable[[Tally], None], held: asyncio.Event
    ) -> None:
        self.recovered = recovered
        self.full = False
        self._segment = kept.segments.setdefault(epoch, bytearray(MAGIC))
        self._on_durable = on_durable
        self._held = held
        self._seen = bytearray(recovered.done)
        self._waiting: list[Result] = []
        self._arrived = asyncio.Event()
        self._clean = asyncio.Event()
        self._clean.set()

    def append(self, result: Result) -> None:
        if self._seen[result.line]:
            return
        self._seen[result.line] = 1
        self._waiting.append(result)
        self._clean.clear()
        self._arrived.set()

    async def room(self) -> None:
        return

    async def flush(self) -> None:
        await self._clean.wait()

    async def keep_committing(self) -> None:
        """Commit until cancelled."""
        while True:
            await self._arrived.wait()
            await asyncio.sleep(0)
            await self._held.wait()
            self._arrived.clear()
            committed, self._waiting = self._waiting, []
            for result in committed:
                self._segment += encode(result)
            self._on_durable(_tally(committed))
            if not self._waiting:
                self._clean.set()


class MemoryResultLogs:
    """Keeps the promises of ``ports/results.py``; ``scratch`` is a folder for the segments that are lent."""

    def __init__(self, scratch: Path) -> None:
        self.logs: dict[BatchId, Kept] = {}
        self._scratch = scratch
        self._committing = asyncio.Event()
        self._committing.set()

    def hold(self) -> None:
        """Let commits wait, as on a disk that does not answer."""
        self._committing.clear()

    def go_on(self) -> None:
        """Let commits pass again."""
        self._committing.set()

    @asynccontextmanager
    async def open(
        self, batch_id: BatchId, *, epoch: int, total: int, on_durable: Callable[[Tally], None]
    ) -> AsyncIterator[MemoryLog]:
        kept = self.logs.setdefault(batch_id, Kept())
        recovered = _recover(kept, epoch, total)
        log = MemoryLog(kept, epoch, recovered, on_durable, self._committing)
        async with asyncio.TaskGroup() as group:
            committing = group.create_task(log.keep_committing(), name=f"commit results of {batch_id}")
            try:
                yield log
            finally:
                # A test that kills the engine wants what was not committed to be lost.
                if not isinstance(sys.exception(), asyncio.CancelledError):
                    await log.flush()
                committing.cancel()

    @asynccontextmanager
    async def segments(self, batch_id: BatchId, *, epoch: int) -> AsyncIterator[Sequence[Segment]]:
        kept = self.logs.setdefault(batch_id, Kept())
        visible = [(old, bytes(kept.segments[old][:length])) for old, length in kept.pinned(epoch).items()]
        if epoch in kept.segments:
            visible.append((epoch, bytes(kept.segments[epoch])))
        yield [self._lend(f"{batch_id}-{epoch}-{old}.log", data) for old, data in visible]

    async def durable(self, batch_id: BatchId, *, epoch: int) -> Sequence[Segment]:
        kept = self.logs.get(batch_id, Kept())
        visible = kept.durable(epoch)
        return [Segment(path=str(old), length=length) for old, length in visible.items()]

    async def read(self, batch_id: BatchId, segment: str, *, offset: int, length: int) -> bytes:
        if batch_id not in self.logs:
            raise FileNotFoundError(batch_id)
        return bytes(self.logs[batch_id].segments[int(segment)][offset : offset + length])

    async def batch_ids(self) -> Sequence[BatchId]:
        return list(self.logs)

    async def delete(self, batch_id: BatchId) -> None:
        self.logs.pop(batch_id, None)

    def _lend(self, name: str, data: bytes) -> Segment:
        path = self._scratch / name
        path.write_bytes(data)
        return Segment(path=str(path), length=len(data))


def _recover(kept: Kept, epoch: int, total: int) -> Recovered:
    done = bytearray(total)
    frames: dict[int, Frame] = {}
    for old, length in kept.pinned(epoch).items():
        for frame in scan(BytesIO(bytes(kept.segments[old])), length):
            frames.setdefault(frame.line, frame)
            done[frame.line] = 1
    return Recovered(done=done, tally=_tally(frames.values()))


def _tally(results: Collection[Result | Frame]) -> Tally:
    failed = sum(result.kind is ResultKind.FAILED for result in results)
    usage = sum((result.usage for result in results), NO_USAGE)
    return Tally(completed=len(results) - failed, failed=failed, usage=usage)
