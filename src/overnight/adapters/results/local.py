"""The result log on a local disk: append-only segments with group commit.

Each epoch appends to segments of its own. An epoch begins by pinning how far the earlier segments count
(``<epoch>.pin``); what an owner that lost its lease still appends lies behind the pin and is never read.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import structlog

from overnight.adapters.disk import sync_folder
from overnight.crash_points import reached
from overnight.domain.frame import MAGIC, Segment, encode, scan
from overnight.domain.ids import BatchId
from overnight.domain.result import Result, ResultKind, Tally
from overnight.domain.usage import NO_USAGE
from overnight.ports.results import Recovered

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

log = structlog.get_logger()

COMMIT_EVERY = 0.05
"""Seconds between two commits while results arrive."""

COMMIT_BYTES = 4 * 1024 * 1024
"""A commit does not wait for its time once so many bytes have gathered."""

_MOST_WAITING = 16 * 1024 * 1024
_TRY_AGAIN = 1.0
_READ_BUFFER = 1024 * 1024


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


class LocalLog:
    """The log of one epoch. Appending never waits; a task commits what has gathered."""

    def __init__(self, folder: Path, epoch: int, recovered: Recovered, on_durable: Callable[[Tally], None]) -> None:
        self.recovered = recovered
        self._segment = _SegmentWriter(folder, epoch)
        self._on_durable = on_durable
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
            self._segment.close()

    def close(self) -> None:
        """Let ``keep_committing`` end after a last commit."""
        self._closing = True
        self._arrived.set()
        self._full.set()

    async def _gather(self) -> None:
        try:
            async with asyncio.timeout(COMMIT_EVERY):
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
        """Write until it is durable: results that are here stay here while the disk is full or broken."""
        data = b"".join(batchful.frames)
        in_trouble = False
        while True:
            try:
                await asyncio.to_thread(self._segment.append, data)
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


class _SegmentWriter:
    """Appends to the newest segment of an epoch, or to a new one after a failed sync."""

    def __init__(self, folder: Path, epoch: int) -> None:
        self._folder = folder
        self._epoch = epoch
        self._number = 0
        self._descriptor: int | None = None
        self._end = 0

    def append(self, data: bytes) -> None:
        """Return once the data is on disk. Raises ``OSError``; then it can be called again with the same data."""
        if self._descriptor is None:
            self._create()
        descriptor = self._descriptor
        if descriptor is None:
            raise FileNotFoundError(self._folder)
        view = memoryview(data)
        offset = self._end
        while view:
            written = os.pwrite(descriptor, view, offset)
            view = view[written:]
            offset += written
        reached("log.written")
        try:
            os.fdatasync(descriptor)
        except OSError:
            # After a failed sync the kernel may have dropped the pages: only a new file can be trusted again.
            self.close()
            raise
        reached("log.synced")
        self._end = offset

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _create(self) -> None:
        path = self._folder / f"{self._epoch:08d}-{self._number:04d}.log"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        self._number += 1
        descriptor = os.open(path, flags, 0o600)
        try:
            os.pwrite(descriptor, MAGIC, 0)
            os.fsync(descriptor)
            sync_folder(self._folder)
        except OSError:
            os.close(descriptor)
            raise
        reached("log.segment_created")
        self._descriptor = descriptor
        self._end = len(MAGIC)


class LocalResultLogs:
    """The logs of all batches, each in a folder of its own."""

    def __init__(self, root: Path) -> None:
        self._root = root / "results"
        self._root.mkdir(parents=True, exist_ok=True)

    @asynccontextmanager
    async def open(
        self, batch_id: BatchId, *, epoch: int, total: int, on_durable: Callable[[Tally], None]
    ) -> AsyncIterator[LocalLog]:
        folder = self._root / batch_id
        recovered = await asyncio.to_thread(_recover, folder, epoch, total)
        opened = LocalLog(folder, epoch, recovered, on_durable)
        async with asyncio.TaskGroup() as group:
            committing = group.create_task(opened.keep_committing(), name=f"commit results of {batch_id}")
            try:
                yield opened
            finally:
                # An error in the body must not end the last commit: its own error comes out of the group.
                opened.close()
                await asyncio.wait([committing])

    async def segments(self, batch_id: BatchId, *, epoch: int) -> Sequence[Segment]:
        folder = self._root / batch_id
        return await asyncio.to_thread(_visible, folder, epoch)

    async def batch_ids(self) -> Sequence[BatchId]:
        return [BatchId(folder.name) for folder in await asyncio.to_thread(_entries, self._root)]

    async def delete(self, batch_id: BatchId) -> None:
        await asyncio.to_thread(shutil.rmtree, self._root / batch_id, ignore_errors=True)
        reached("log.deleted")


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def _recover(folder: Path, epoch: int, total: int) -> Recovered:
    done = bytearray(total)
    counts = [0, 0]
    usage = NO_USAGE
    for segment in _pinned(folder, epoch):
        with Path(segment.path).open("rb", buffering=_READ_BUFFER) as file:
            for frame in scan(file, segment.length):
                if not done[frame.line]:
                    done[frame.line] = 1
                    counts[frame.kind] += 1
                    usage += frame.usage
    tally = Tally(completed=counts[ResultKind.SUCCEEDED], failed=counts[ResultKind.FAILED], usage=usage)
    return Recovered(done=done, tally=tally)


def _visible(folder: Path, epoch: int) -> list[Segment]:
    own = [Segment(path=str(path), length=path.stat().st_size) for path in _segments_of(folder, epoch, epoch)]
    return [*_pinned(folder, epoch), *own]


def _pinned(folder: Path, epoch: int) -> list[Segment]:
    """Give the segments of earlier epochs as this epoch sees them, pinning them when it looks for the first time."""
    pin = folder / f"{epoch:08d}.pin"
    if not pin.exists():
        if not folder.is_dir():
            folder.mkdir(parents=True)
            sync_folder(folder.parent)
        _write_pin(pin, _readable(folder, epoch))
    named = msgspec.json.decode(pin.read_bytes(), type=list[Segment])
    return [Segment(path=str(folder / segment.path), length=segment.length) for segment in named]


def _readable(folder: Path, epoch: int) -> list[Segment]:
    """Find what counts of earlier epochs: what the last pin says, and whole frames of what came after it."""
    pins = sorted(int(path.stem) for path in folder.glob("*.pin") if int(path.stem) < epoch)
    last = pins[-1] if pins else 0
    earlier = msgspec.json.decode((folder / f"{last:08d}.pin").read_bytes(), type=list[Segment]) if pins else []
    later = [Segment(path=path.name, length=_valid_length(path)) for path in _segments_of(folder, last, epoch - 1)]
    return [*earlier, *later]


def _segments_of(folder: Path, first: int, last: int) -> list[Path]:
    return sorted(path for path in folder.glob("*.log") if first <= int(path.stem.partition("-")[0]) <= last)


def _valid_length(path: Path) -> int:
    end = len(MAGIC)
    with path.open("rb", buffering=_READ_BUFFER) as file:
        # What is read here will be taken as done, so it must not be only in the page cache of a dying machine.
        os.fsync(file.fileno())
        for frame in scan(file, path.stat().st_size):
            end = frame.offset + frame.length
    return end


def _write_pin(pin: Path, segments: list[Segment]) -> None:
    temporary = pin.with_suffix(".new")
    with temporary.open("wb") as file:
        file.write(msgspec.json.encode(segments))
        file.flush()
        os.fsync(file.fileno())
    reached("log.pin_written")
    temporary.rename(pin)
    sync_folder(pin.parent)
    reached("log.pinned")
