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
from overnight.adapters.results.committing import GroupCommitLog, Note, Recovery, committing
from overnight.adapters.results.segment import SegmentWriter, WriterThread
from overnight.crash_points import reached
from overnight.domain.frame import MAGIC, Segment, scan
from overnight.domain.ids import BatchId

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from overnight.domain.result import Tally
    from overnight.ports.results import Recovered
    from overnight.ports.troubles import Troubles

COMMIT_EVERY = 0.05
"""Seconds between two commits while results arrive."""

_READ_BUFFER = 1024 * 1024


class LocalResultLogs:
    """The logs of all batches, each in a folder of its own; ``troubles`` hears of those that the disk does not take."""

    def __init__(self, root: Path, troubles: Troubles) -> None:
        self._root = root / "results"
        self._root.mkdir(parents=True, exist_ok=True)
        self._writer = WriterThread()
        self._troubles = troubles

    @asynccontextmanager
    async def open(
        self, batch_id: BatchId, *, epoch: int, total: int, on_durable: Callable[[Tally], None]
    ) -> AsyncIterator[GroupCommitLog]:
        folder = self._root / batch_id
        recovered = await asyncio.to_thread(_recover, folder, epoch, total)
        note = Note(batch_id, self._troubles)
        with self._writer.running(), closing(SegmentWriter(folder, epoch, self._writer)) as segment:
            opened = GroupCommitLog(recovered, segment, on_durable, note, every=COMMIT_EVERY)
            async with committing(opened, batch_id, self._troubles):
                yield opened

    @asynccontextmanager
    async def segments(self, batch_id: BatchId, *, epoch: int) -> AsyncIterator[Sequence[Segment]]:
        yield await asyncio.to_thread(_visible, self._root / batch_id, epoch)

    async def durable(self, batch_id: BatchId, *, epoch: int) -> Sequence[Segment]:
        return await asyncio.to_thread(_durable, self._root / batch_id, epoch)

    async def read(self, batch_id: BatchId, segment: str, *, offset: int, length: int) -> bytes:
        return await asyncio.to_thread(_read, self._root / batch_id / segment, offset, length)

    async def batch_ids(self) -> Sequence[BatchId]:
        return [BatchId(folder.name) for folder in await asyncio.to_thread(_entries, self._root)]

    async def delete(self, batch_id: BatchId) -> None:
        await asyncio.to_thread(shutil.rmtree, self._root / batch_id, ignore_errors=True)
        reached("log.deleted")


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
    return [Segment(path=str(folder / segment.path), length=segment.length) for segment in _read_pin(folder, epoch)]


def _read_pin(folder: Path, epoch: int) -> list[Segment]:
    return msgspec.json.decode((folder / f"{epoch:08d}.pin").read_bytes(), type=list[Segment])


def _readable(folder: Path, epoch: int) -> list[Segment]:
    """Find what counts of earlier epochs: what the last pin says, and whole frames of what came after it."""
    pins = sorted(int(path.stem) for path in folder.glob("*.pin") if int(path.stem) < epoch)
    last = pins[-1] if pins else 0
    earlier = _read_pin(folder, last) if pins else []
    later = [Segment(path=path.name, length=_valid_length(path)) for path in _segments_of(folder, last, epoch - 1)]
    return [*earlier, *later]


def _durable(folder: Path, epoch: int) -> list[Segment]:
    newest = max((int(path.stem) for path in folder.glob("*.pin")), default=None)
    if newest is None:
        return []
    later = _segments_of(folder, newest, max(epoch, newest))
    return [*_read_pin(folder, newest), *(Segment(path=path.name, length=_sync(path)) for path in later)]


def _sync(path: Path) -> int:
    """Make durable what is written by now, and say how much that is: a reader shows nothing that could still go."""
    with path.open("rb", buffering=0) as file:
        length = os.fstat(file.fileno()).st_size
        os.fsync(file.fileno())
    return length


def _read(path: Path, offset: int, length: int) -> bytes:
    with path.open("rb", buffering=0) as file:
        return os.pread(file.fileno(), length, offset)


def _segments_of(folder: Path, first: int, last: int) -> list[Path]:
    return sorted(path for path in folder.glob("*.log") if first <= int(path.stem.partition("-")[0]) <= last)


def _valid_length(path: Path) -> int:
    end = len(MAGIC)
    with path.open("rb", buffering=_READ_BUFFER) as file:
        # What is read here will be taken as done, so it must not be only in the page cache of a dying machine. The
        # length comes first, for an owner that lost its lease may still append: what it adds is not synced.
        length = os.fstat(file.fileno()).st_size
        os.fsync(file.fileno())
        for frame in scan(file, length):
            end = frame.end
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
