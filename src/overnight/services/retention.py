"""Removing the bytes of files, uploads and batches that are gone for their owners, or were left by a crash."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from overnight.domain.blob_keys import PLACES, error_key, output_key, places_key
from overnight.domain.ids import BatchId

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from overnight.ports.batches import Batches
    from overnight.ports.blobs import Blobs
    from overnight.ports.clock import Clock
    from overnight.ports.files import Files, Uploads
    from overnight.ports.results import ResultLogs

T = TypeVar("T")

_AT_ONCE = 100

# Bytes are stored before they are spoken of; what nobody speaks of after so many seconds was left by a crash.
_ORPHAN_AFTER = 3_600

# A batch whose input expires at the moment of its creation has the bytes kept by the time this is over.
_EXPIRED_FOR = 60

# An upload that was about to expire when it was completed has its parts put together by the time this is over.
_UPLOAD_EXPIRED_FOR = 600

_OF_BATCHES = "batches/"


class Sweeper:
    """Frees storage; every step can be repeated, so a crash in between costs nothing."""

    def __init__(
        self, files: Files, uploads: Uploads, batches: Batches, blobs: Blobs, logs: ResultLogs, clock: Clock
    ) -> None:
        self._files = files
        self._uploads = uploads
        self._batches = batches
        self._blobs = blobs
        self._logs = logs
        self._clock = clock

    async def sweep(self) -> int:
        """Remove what is deleted or expired, bytes first and then the note of them; say how many things went."""
        now = self._clock.now()
        files = await self._files.gone(now=now - _EXPIRED_FOR, limit=_AT_ONCE)
        for file in files:
            await self._blobs.delete(file.blob)
            await self._files.forget_bytes(file)
        uploads = await self._uploads.finished(now=now - _UPLOAD_EXPIRED_FOR, limit=_AT_ONCE)
        for upload in uploads:
            for part in await self._uploads.parts(upload.id):
                await self._blobs.delete(part.blob)
            await self._uploads.forget_parts(upload)
        return len(files) + len(uploads)

    async def sweep_orphans(self) -> int:
        """Remove blobs that nothing names and the logs of batches that have ended; say how many went."""
        removed = 0
        for keys in _chunks(await self._blobs.keys_before(self._clock.now() - _ORPHAN_AFTER)):
            needed = await self._needed(keys)
            for key in keys:
                if key not in needed:
                    await self._blobs.delete(key)
                    removed += 1
        for batch_ids in _chunks(await self._logs.batch_ids()):
            active = await self._batches.active(batch_ids)
            for batch_id in batch_ids:
                if batch_id not in active:
                    await self._logs.delete(batch_id)
                    removed += 1
        return removed

    async def _needed(self, keys: Sequence[str]) -> set[str]:
        owners = {key: BatchId(key.split("/")[1]) for key in keys if key.startswith(_OF_BATCHES)}
        active = await self._batches.active(list(owners.values()))
        of_batches = {key for key, owner in owners.items() if owner in active} | await self._places(keys, owners)
        return of_batches | await self._files.known_blobs(keys) | await self._uploads.known_blobs(keys)

    async def _places(self, keys: Sequence[str], owners: Mapping[str, BatchId]) -> set[str]:
        """Give the places that say where something lies: they go with the last file of their batch."""
        asked = {owners[key] for key in keys if key.endswith(PLACES)}
        if not asked:
            return set()
        batches = [batch for batch in await self._batches.known(list(asked)) if batch.ended]
        files = {batch.id: (str(batch.input_blob), output_key(batch), error_key(batch)) for batch in batches}
        stored = await self._files.known_blobs([blob for blobs in files.values() for blob in blobs])
        return {places_key(batch) for batch in batches if not stored.isdisjoint(files[batch.id])}


def _chunks(things: Sequence[T]) -> Iterator[Sequence[T]]:
    return (things[start : start + _AT_ONCE] for start in range(0, len(things), _AT_ONCE))
