"""Blobs in memory. They keep every promise of their port but that of outliving the process."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

_PIECE = 64 * 1024


class MemoryBlobs:
    """Keeps the promises of ``ports/blobs.py``; ``scratch`` is a folder for the paths that are lent."""

    def __init__(self, scratch: Path, now: Callable[[], float] = time.time) -> None:
        self.held: dict[str, bytes] = {}
        self._written: dict[str, float] = {}
        self._scratch = scratch
        self._now = now
        self._lent = 0

    @asynccontextmanager
    async def writer(self, key: str) -> AsyncIterator[MemoryWriter]:
        yield MemoryWriter(self, key)

    async def stream(self, key: str) -> AsyncIterator[bytes]:
        data = self._read(key)
        for start in range(0, len(data), _PIECE):
            yield data[start : start + _PIECE]

    @asynccontextmanager
    async def local(self, key: str) -> AsyncIterator[Path]:
        path = self._new_path()
        path.write_bytes(self._read(key))
        try:
            yield path
        finally:
            path.unlink()

    @asynccontextmanager
    async def placing(self, key: str) -> AsyncIterator[Path]:
        path = self._new_path()
        try:
            yield path
            self.put(key, path.read_bytes())
        finally:
            path.unlink(missing_ok=True)

    async def size(self, key: str) -> int | None:
        return len(self.held[key]) if key in self.held else None

    async def keys_before(self, moment: float) -> Sequence[str]:
        return [key for key in self.held if self._written[key] < moment]

    async def delete(self, key: str) -> None:
        self.held.pop(key, None)

    def put(self, key: str, data: bytes) -> None:
        """Store a blob at once."""
        self.held[key] = data
        self._written[key] = self._now()

    def _read(self, key: str) -> bytes:
        if key not in self.held:
            raise FileNotFoundError(key)
        return self.held[key]

    def _new_path(self) -> Path:
        self._lent += 1
        return self._scratch / f"lent-{self._lent}"


class MemoryWriter:
    """Keeps the promises of ``ports/blobs.py``."""

    def __init__(self, blobs: MemoryBlobs, key: str) -> None:
        self._blobs = blobs
        self._key = key
        self._data = bytearray()

    async def write(self, data: bytes) -> None:
        self._data += data

    async def commit(self) -> None:
        self._blobs.put(self._key, bytes(self._data))
