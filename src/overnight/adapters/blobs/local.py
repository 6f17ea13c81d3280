"""Blobs on a local disk: written to a temporary file, synced, renamed, and the folder synced.

A published id must survive a power cut, so both the bytes and the name are on disk before ``commit`` returns.
"""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import sys
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from overnight.adapters.disk import sync_folder
from overnight.crash_points import reached
from overnight.ports.blobs import StorageFull

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from concurrent.futures import Executor, Future

_PIECE = 1024 * 1024
_BATCH = 1024 * 1024
_WRITERS = 4
# A multiple of the batch.
_STRIDE = 8 * _BATCH


class LocalWriter:
    """Collects bytes and hands them to the disk in large batches, off the event loop: one is written, one is filled.

    The two batches are used again and again, because the page faults of fresh memory cost more than the copy.
    """

    def __init__(self, file: BinaryIO, temporary: Path, final: Path, threads: Executor) -> None:
        self._file = file
        self._temporary = temporary
        self._final = final
        self._threads = threads
        self._batch = memoryview(bytearray(_BATCH))
        self._filled = 0
        self._spare: memoryview | None = None
        self._writing: Future[None] | None = None

    async def write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            piece = rest[: _BATCH - self._filled]
            self._batch[self._filled : self._filled + len(piece)] = piece
            self._filled += len(piece)
            rest = rest[len(piece) :]
            if self._filled == _BATCH:
                await self._hand_over()

    async def commit(self) -> None:
        await self._written()
        await asyncio.to_thread(self._commit)

    def discard(self) -> None:
        """Forget what was not committed, once no thread writes to it any more."""
        if self._writing is not None:
            wait([self._writing])
        self._file.close()
        self._temporary.unlink(missing_ok=True)

    async def _hand_over(self) -> None:
        await self._written()
        self._writing = self._threads.submit(_write, self._file, self._batch)
        self._batch, self._spare = self._spare or memoryview(bytearray(_BATCH)), self._batch
        self._filled = 0

    async def _written(self) -> None:
        if self._writing is not None:
            await asyncio.wrap_future(self._writing)

    def _commit(self) -> None:
        _write(self._file, self._batch[: self._filled])
        self._filled = 0
        reached("blob.written")
        os.fsync(self._file.fileno())
        _publish(self._temporary, self._final)


class LocalBlobs:
    """Blobs under one folder; a key is a relative path. ``temporary`` is a folder of our own on the same disk."""

    def __init__(self, root: Path, temporary: Path) -> None:
        self._root = root / "blobs"
        self._temporary = temporary
        self._root.mkdir(parents=True, exist_ok=True)
        self._threads = ThreadPoolExecutor(_WRITERS, "blobs")

    @asynccontextmanager
    async def writer(self, key: str) -> AsyncIterator[LocalWriter]:
        temporary = self._new_temporary()
        file = await asyncio.to_thread(temporary.open, "wb", buffering=0)
        writer = LocalWriter(file, temporary, self._path(key), self._threads)
        try:
            yield writer
        finally:
            await asyncio.to_thread(writer.discard)

    async def stream(self, key: str) -> AsyncIterator[bytes]:
        file = await asyncio.to_thread(self._path(key).open, "rb", buffering=0)
        try:
            while piece := await asyncio.to_thread(file.read, _PIECE):
                yield piece
        finally:
            file.close()

    @asynccontextmanager
    async def local(self, key: str) -> AsyncIterator[Path]:
        path = self._path(key)
        if not await asyncio.to_thread(path.exists):
            raise FileNotFoundError(key)
        yield path

    @asynccontextmanager
    async def placing(self, key: str) -> AsyncIterator[Path]:
        temporary = self._new_temporary()
        try:
            yield temporary
            await asyncio.to_thread(_place, temporary, self._path(key))
        finally:
            await asyncio.to_thread(temporary.unlink, missing_ok=True)

    async def size(self, key: str) -> int | None:
        try:
            return (await asyncio.to_thread(self._path(key).stat)).st_size
        except FileNotFoundError:
            return None

    async def keys_before(self, moment: float) -> Sequence[str]:
        return await asyncio.to_thread(_keys_before, self._root, moment)

    async def delete(self, key: str) -> None:
        await asyncio.to_thread(self._path(key).unlink, missing_ok=True)
        reached("blob.deleted")

    def _path(self, key: str) -> Path:
        return self._root / key

    def _new_temporary(self) -> Path:
        return self._temporary / secrets.token_hex(16)


def _keys_before(root: Path, moment: float) -> list[str]:
    return [str(path.relative_to(root)) for path in root.rglob("*") if _is_file_before(path, moment)]


def _is_file_before(path: Path, moment: float) -> bool:
    try:
        return path.is_file() and path.stat().st_mtime < moment
    except FileNotFoundError:
        return False


def _write(file: BinaryIO, rest: memoryview) -> None:
    try:
        while rest:
            rest = rest[file.write(rest) :]
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            raise StorageFull(error.errno, "there is no room left in the data folder") from error
        raise
    end = file.tell()
    if sys.platform == "linux" and end and end % _STRIDE == 0:
        # Linux begins to write out what it is told to drop, so the sync at the end has little left to wait for.
        os.posix_fadvise(file.fileno(), end - _STRIDE, _STRIDE, os.POSIX_FADV_DONTNEED)


def _place(temporary: Path, final: Path) -> None:
    descriptor = os.open(temporary, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    _publish(temporary, final)


def _publish(temporary: Path, final: Path) -> None:
    reached("blob.synced")
    if not final.parent.is_dir():
        final.parent.mkdir(parents=True, exist_ok=True)
        sync_folder(final.parent.parent)
    temporary.rename(final)
    reached("blob.renamed")
    sync_folder(final.parent)
    reached("blob.placed")
