"""The result log on a local disk: append-only segments with group commit.

Each epoch appends to segments of its own. An epoch begins by pinning how far the earlier segments count
(``<epoch>.pin``); what an owner that lost its lease still appends lies behind the pin and is never read.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from overnight.adapters.disk import sync_folder
from overnight.adapters.results.committing import GroupCommitLog, Recovery, committing
from overnight.domain.frame import MAGIC, Segment, scan
from overnight.domain.ids import BatchId

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from overnight.domain.result import Tally
    from overnight.ports.results import Recovered

COMMIT_EVERY = 0.05
"""Seconds between two commits while results arrive."""

_READ_BUFFER = 1024 * 1024


class _SegmentWriter:
    """Appends to the newest segment of an epoch, or to a new one after a failed sync."""

    def __init__(self, folder: Path, epoch: int) -> None:
        self._folder = folder
        self._epoch = epoch
        self._number = 0
        self._descriptor: int | None = None
        self._end = 0

    async def append_durably(self, data: bytes) -> None:
        """Return once the data is on disk. Raises ``OSError``; then it can be called again with the same data."""
        await asyncio.to_thread(self._append, data)

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _append(self, data: bytes) -> None:
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
        try:
            os.fdatasync(descriptor)
        except OSError:
            # After a failed sync the kernel may have dropped the pages: only a new file can be trusted again.
            self.close()
            raise
        self._end = offset

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
    ) -> AsyncIterator[GroupCommitLog]:
        folder = self._root / batch_id
        recovered = await asyncio.to_thread(_recover, folder, epoch, total)
        with closing(_SegmentWriter(folder, epoch)) as segment:
            opened = GroupCommitLog(recovered, on_durable, segment.append_durably, every=COMMIT_EVERY)
            async with committing(opened, batch_id):
                yield opened

    @asynccontextmanager
    async def segments(self, batch_id: BatchId, *, epoch: int) -> AsyncIterator[Sequence[Segment]]:
        yield await asyncio.to_thread(_visible, self._root / batch_id, epoch)

    async def batch_ids(self) -> Sequence[BatchId]:
        return [BatchId(folder.name) for folder in await asyncio.to_thread(_entries, self._root)]

    async def delete(self, batch_id: BatchId) -> None:
        await asyncio.to_thread(shutil.rmtree, self._root / batch_id, ignore_errors=True)


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def _recover(folder: Path, epoch: int, total: int) -> Recovered:
    recovery = Recovery(total)
    for segment in _pinned(folder, epoch):
        with Path(segment.path).open("rb", buffering=_READ_BUFFER) as file:
            recovery.read(file, segment.length)
    return recovery.recovered()


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
    temporary.rename(pin)
    sync_folder(pin.parent)
