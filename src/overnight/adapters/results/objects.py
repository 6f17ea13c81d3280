"""The result log in an object store: immutable segments, each put once and whole.

Each epoch puts segments of its own. An epoch begins by pinning which earlier segments count (``<epoch>.pin``, put only
if there is none); what an owner that lost its lease still puts is not in the pin and is never read.
"""

from __future__ import annotations

import asyncio
import secrets
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from io import BytesIO
from typing import TYPE_CHECKING, BinaryIO

import msgspec
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import from_url

from overnight.adapters.results.committing import GroupCommitLog, Note, Recovery, committing
from overnight.domain.errors import Unavailable
from overnight.domain.frame import MAGIC, Segment, scan
from overnight.domain.ids import BatchId

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence
    from pathlib import Path

    from obstore.store import ObjectStore

    from overnight.domain.result import Tally
    from overnight.ports.troubles import Troubles

COMMIT_EVERY = 1.0
"""Seconds between two commits while results arrive: each is a request to the store, and an object that it keeps."""

_ROOT = "results"

# So many segments are fetched at once, unless fewer already make so many bytes.
_FETCHED_AT_ONCE = 16
_FETCHED_BYTES = 16 * 1024 * 1024


def open_store(url: str) -> ObjectStore:
    """Open a store without asking it; what else it needs is in the environment. Raises ``ValueError``."""
    try:
        if url.startswith("file:"):
            return from_url(url, mkdir=True, automatic_cleanup=True)
        # A store that stays away is reported and asked again by whoever needs it, so the client gives up early.
        return from_url(url, retry_config={"max_retries": 3, "retry_timeout": timedelta(seconds=15)})
    except (BaseError, OSError) as error:
        raise ValueError(_reason(error)) from error


async def probe(store: ObjectStore) -> None:
    """Put, read and remove an object as the log does. Raises ``OSError``."""
    key = f"{_ROOT}/probe-{secrets.token_hex(8)}"
    try:
        await store.put_async(key, MAGIC, mode="create")
        try:
            overwritten = await _created(store, key, b"")
            found = await _fetch(store, key)
        finally:
            await store.delete_async(key)
    except BaseError as error:
        raise OSError(_reason(error)) from error
    if overwritten or found != MAGIC:
        raise OSError("it overwrites an object that was to be made only if there is none")


class ObjectResultLogs:
    """The logs of all batches in one store. ``scratch`` is a folder for the segments that are lent."""

    def __init__(self, store: ObjectStore, scratch: Path, troubles: Troubles) -> None:
        self._store = store
        self._scratch = scratch
        self._troubles = troubles

    @asynccontextmanager
    async def open(
        self, batch_id: BatchId, *, epoch: int, total: int, on_durable: Callable[[Tally], None]
    ) -> AsyncIterator[GroupCommitLog]:
        """Open the log. Raises ``Unavailable``."""
        pinned, own = await self._visible(batch_id, epoch)
        recovery = Recovery(total)
        async for data in self._contents(pinned):
            await asyncio.to_thread(recovery.read, BytesIO(data), len(data))
        segments = _SegmentPutter(self._store, _folder(batch_id), epoch, first=len(own))
        note = Note(batch_id, self._troubles)
        opened = GroupCommitLog(recovery.recovered(), segments, on_durable, note, every=COMMIT_EVERY)
        async with committing(opened, batch_id, self._troubles):
            yield opened

    @asynccontextmanager
    async def segments(self, batch_id: BatchId, *, epoch: int) -> AsyncIterator[Sequence[Segment]]:
        """Lend the log as one file. Raises ``Unavailable``."""
        pinned, own = await self._visible(batch_id, epoch)
        path = self._scratch / secrets.token_hex(16)
        try:
            yield [Segment(path=str(path), length=await self._download([*pinned, *own], path))]
        finally:
            await asyncio.to_thread(path.unlink, missing_ok=True)

    async def durable(self, batch_id: BatchId, *, epoch: int) -> Sequence[Segment]:
        """Give the segments that are stored. Raises ``Unavailable``."""
        found = await self._found(batch_id)
        newest = max((_epoch(each.path) for each in found if each.path.endswith(".pin")), default=0)
        try:
            # As the next epoch would pin it, if it began now.
            visible = await self._readable(found, max(epoch, newest) + 1)
        except BaseError as error:
            raise _unavailable(error) from error
        return [Segment(path=each.path.rpartition("/")[2], length=each.length) for each in visible]

    async def read(self, batch_id: BatchId, segment: str, *, offset: int, length: int) -> bytes:
        """Read a piece of a segment. Raises ``Unavailable``."""
        try:
            piece = await self._store.get_range_async(f"{_folder(batch_id)}/{segment}", start=offset, length=length)
        except FileNotFoundError:
            raise
        except BaseError as error:
            raise _unavailable(error) from error
        return piece.to_bytes()

    async def batch_ids(self) -> Sequence[BatchId]:
        # Asking for the folders alone is not enough: some stores still show one that has become empty.
        keys = [each.path async for each in self._objects(_ROOT)]
        return [BatchId(batch_id) for batch_id in sorted({key.split("/")[1] for key in keys if key.count("/") > 1})]

    async def delete(self, batch_id: BatchId) -> None:
        keys = [each.path async for each in self._objects(_folder(batch_id))]
        if not keys:
            return
        try:
            # Some stores mind if another was faster.
            with suppress(FileNotFoundError):
                await self._store.delete_async(keys)
        except BaseError as error:
            raise _unavailable(error) from error

    async def _visible(self, batch_id: BatchId, epoch: int) -> tuple[list[Segment], list[Segment]]:
        """Give the segments of earlier epochs as this epoch sees them, pinned the first time, and its own."""
        found = await self._found(batch_id)
        pin = f"{_folder(batch_id)}/{epoch:08d}.pin"
        try:
            if all(each.path != pin for each in found):
                # If another put it meanwhile, or our answer was lost, then the one that is there holds.
                await _created(self._store, pin, msgspec.json.encode(await self._readable(found, epoch)))
            return await self._read_pin(pin), _segments_of(found, epoch, epoch)
        except BaseError as error:
            raise _unavailable(error) from error

    async def _found(self, batch_id: BatchId) -> list[Segment]:
        return sorted([each async for each in self._objects(_folder(batch_id))], key=lambda each: each.path)

    async def _readable(self, found: Sequence[Segment], epoch: int) -> list[Segment]:
        """Find what counts of earlier epochs: what the last pin says, and what came after it."""
        pins = [each.path for each in found if each.path.endswith(".pin") and _epoch(each.path) < epoch]
        if not pins:
            return _segments_of(found, 0, epoch - 1)
        last = max(pins)
        return [*await self._read_pin(last), *_segments_of(found, _epoch(last), epoch - 1)]

    async def _read_pin(self, key: str) -> list[Segment]:
        return msgspec.json.decode(await _fetch(self._store, key), type=list[Segment])

    async def _objects(self, folder: str) -> AsyncIterator[Segment]:
        try:
            async for metas in self._store.list(folder, chunk_size=1_000):
                for meta in metas:
                    yield Segment(path=meta["path"], length=meta["size"])
        except BaseError as error:
            raise _unavailable(error) from error

    async def _download(self, segments: Sequence[Segment], path: Path) -> int:
        file = await asyncio.to_thread(path.open, "wb")
        try:
            length = file.write(MAGIC)
            async for data in self._contents(segments):
                length += await asyncio.to_thread(_copy_frames, data, file)
        finally:
            await asyncio.to_thread(file.close)
        return length

    async def _contents(self, segments: Sequence[Segment]) -> AsyncIterator[bytes]:
        """Give the bytes of each segment, in order; a bounded number of them is in memory."""
        for handful in _handfuls(segments):
            for data in await self._fetch_all(handful):
                yield data

    async def _fetch_all(self, segments: Sequence[Segment]) -> list[bytes]:
        try:
            async with asyncio.TaskGroup() as group:
                fetching = [group.create_task(_fetch(self._store, segment.path)) for segment in segments]
        except ExceptionGroup as failed:
            first = failed.exceptions[0]
            raise _unavailable(first) if isinstance(first, BaseError) else first from failed
        return [task.result() for task in fetching]


class _SegmentPutter:
    """Puts each commit of an epoch as an object of its own."""

    def __init__(self, store: ObjectStore, folder: str, epoch: int, *, first: int) -> None:
        self._store = store
        self._prefix = f"{folder}/{epoch:08d}"
        self._number = first
        self._frames: list[bytes] = []

    def take(self, frame: bytes) -> None:
        """Take a frame, to be put with the next commit."""
        self._frames.append(frame)

    async def commit(self, count: int) -> None:
        """Return once the ``count`` oldest frames since the last commit are stored.

        Raises ``OSError``; then the frames are kept, and it can be called again.
        """
        data = b"".join((MAGIC, *self._frames[:count]))
        try:
            while not await self._put(f"{self._prefix}-{self._number:08d}.log", data):
                self._number += 1
        except BaseError as error:
            raise OSError(_reason(error)) from error
        self._number += 1
        del self._frames[:count]

    async def _put(self, key: str, data: bytes) -> bool:
        """Store a segment; ``False`` if the key is taken by another."""
        if await _created(self._store, key, data):
            return True
        # It was there already: most likely we have put it ourselves, and the answer was lost.
        return await _fetch(self._store, key) == data


async def _created(store: ObjectStore, key: str, data: bytes) -> bool:
    """Put an object; ``False`` if there is one of this key."""
    try:
        await store.put_async(key, data, mode="create")
    except AlreadyExistsError:
        return False
    return True


async def _fetch(store: ObjectStore, key: str) -> bytes:
    found = await store.get_async(key)
    return (await found.bytes_async()).to_bytes()


def _folder(batch_id: BatchId) -> str:
    return f"{_ROOT}/{batch_id}"


def _epoch(key: str) -> int:
    return int(key.rpartition("/")[2][:8])


def _segments_of(found: Sequence[Segment], first: int, last: int) -> list[Segment]:
    return [each for each in found if each.path.endswith(".log") and first <= _epoch(each.path) <= last]


def _handfuls(segments: Sequence[Segment]) -> Iterator[Sequence[Segment]]:
    start = size = 0
    for end, segment in enumerate(segments):
        full = end - start == _FETCHED_AT_ONCE or size + segment.length > _FETCHED_BYTES
        if full and end > start:
            yield segments[start:end]
            start, size = end, 0
        size += segment.length
    if segments:
        yield segments[start:]


def _copy_frames(data: bytes, target: BinaryIO) -> int:
    """Add the whole frames of a segment to a file, and say how many bytes they are."""
    end = len(MAGIC)
    for frame in scan(BytesIO(data), len(data)):
        end = frame.end
    return target.write(memoryview(data)[len(MAGIC) : end])


def _reason(error: Exception) -> str:
    # Below the first line the client adds the state of its own code.
    return str(error).partition("\n")[0]


def _unavailable(error: Exception) -> Unavailable:
    return Unavailable(f"the object store of the results does not answer as it should: {_reason(error)}")
