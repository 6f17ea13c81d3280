"""Blobs on a local disk: written to a temporary file, synced, renamed, and the folder synced.

A published id must survive a power cut, so both the bytes and the name are on disk before ``commit`` returns.
"""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from overnight.adapters.disk import sync_folder
from overnight.crash_points import reached
from overnight.ports.blobs import StorageFull

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

_PIECE = 1024 * 1024
_BUFFER = 4 * 1024 * 1024


class LocalWriter:
    """Collects bytes and hands them to the disk in large pieces, off the event loop."""

    def __init__(self, file: BinaryIO, temporary: Path, final: Path) -> None:
        self._file = file
        self._temporary = temporary
        self._final = final
        self._buffer = bytearray()

    async def write(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) >= _BUFFER:
            full, self._buffer = self._buffer, bytearray()
            await asyncio.to_thread(_write, self._file, full)

    async def commit(self) -> None:
        await asyncio.to_thread(self._commit)

    def _commit(self) -> None:
        _write(self._file, self._buffer)
        self._buffer = bytearray()
        reached("blob.written")
        os.fsync(self._file.fileno())
        _publish(self._temporary, self._final)


class LocalBlobs:
    """Blobs under one folder; a key is a relative path. ``temporary`` is a folder of our own on the same disk."""

    def __init__(self, root: Path, temporary: Path) -> None:
        self._root = root / "blobs"
        self._temporary = temporary
        self._root.mkdir(parents=True, exist_ok=True)

    @asynccontextmanager
    async def writer(self, key: str) -> AsyncIterator[LocalWriter]:
        temporary = self._new_temporary()
        file = await asyncio.to_thread(temporary.open, "wb", buffering=0)
        try:
            yield LocalWriter(file, temporary, self._path(key))
        finally:
            await asyncio.to_thread(_discard, file, temporary)

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


def _write(file: BinaryIO, data: bytearray) -> None:
    view = memoryview(data)
    try:
        while view:
            view = view[file.write(view) :]
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            raise StorageFull(error.errno, "there is no room left in the data folder") from error
        raise


def _discard(file: BinaryIO, temporary: Path) -> None:
    file.close()
    temporary.unlink(missing_ok=True)


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
