"""Removing the bytes of files and uploads that are gone for their owners."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from overnight.ports.blobs import Blobs
    from overnight.ports.clock import Clock
    from overnight.ports.files import Files, Uploads

_AT_ONCE = 100


class Sweeper:
    """Frees storage; every step can be repeated, so a crash in between costs nothing."""

    def __init__(self, files: Files, uploads: Uploads, blobs: Blobs, clock: Clock) -> None:
        self._files = files
        self._uploads = uploads
        self._blobs = blobs
        self._clock = clock

    async def sweep(self) -> int:
        """Remove what is due, bytes first and then the note of them, and say how many things were removed."""
        now = self._clock.now()
        files = await self._files.gone(now=now, limit=_AT_ONCE)
        for file in files:
            await self._blobs.delete(file.blob)
            await self._files.forget_bytes(file)
        uploads = await self._uploads.finished(now=now, limit=_AT_ONCE)
        for upload in uploads:
            for part in await self._uploads.parts(upload.id):
                await self._blobs.delete(part.blob)
            await self._uploads.forget_parts(upload)
        return len(files) + len(uploads)
