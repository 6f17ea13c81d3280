"""Removing the bytes of files, uploads and batches that are gone for their owners, or were left by a crash."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import structlog

from overnight.domain.blob_keys import PLACES, error_key, output_key, places_key
from overnight.domain.file import File
from overnight.domain.ids import BatchId
from overnight.domain.upload import Upload

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence

    from overnight.domain.batch import Batch
    from overnight.ports.batches import Batches
    from overnight.ports.blobs import Blobs
    from overnight.ports.clock import Clock
    from overnight.ports.files import Files, Uploads
    from overnight.ports.results import ResultLogs

log = structlog.get_logger()

T = TypeVar("T")
Gone = TypeVar("Gone", File, Upload)

_AT_ONCE = 100

# Seconds between one load and the next: a great many files that were deleted at once must not hold up everybody else.
_PAUSE = 0.1

# Bytes are stored before they are spoken of; what nobody speaks of after so many seconds was left by a crash.
_ORPHAN_AFTER = 3_600

# A batch whose input expires at the moment of its creation has the bytes kept by the time this is over.
_EXPIRED_FOR = 60

# An upload that was about to expire when it was completed has its parts put together by the time this is over.
_UPLOAD_EXPIRED_FOR = 600

_OF_BATCHES = "batches/"


class Sweeper:
    """Frees storage; every step can be repeated, so a crash in between costs nothing.

    Batches are never forgotten, so one that the database does not know is another service's, which shares the store of
    the results, or is younger than the backup that the database was restored from. What belongs to it stays.
    """

    def __init__(
        self, files: Files, uploads: Uploads, batches: Batches, blobs: Blobs, logs: ResultLogs, clock: Clock
    ) -> None:
        self._files = files
        self._uploads = uploads
        self._batches = batches
        self._blobs = blobs
        self._logs = logs
        self._clock = clock
        self._stuck = _Stuck()
        self._stuck_orphans = _Stuck()
        self._strangers = 0

    async def sweep(self) -> int:
        """Remove what is deleted or expired, bytes first and then the note of them; say how many things went."""
        now = self._clock.now()
        went = 0
        async for files in self._loads(
            lambda last: self._files.gone(now=now - _EXPIRED_FOR, limit=_AT_ONCE, after=last)
        ):
            removed = [file for file in files if await self._remove([file.blob], self._stuck) == 1]
            if removed:
                await self._files.forget_bytes(removed)
            went += len(removed)
        over = now - _UPLOAD_EXPIRED_FOR
        async for uploads in self._loads(lambda last: self._uploads.finished(now=over, limit=_AT_ONCE, after=last)):
            for upload in uploads:
                went += await self._sweep_upload(upload)
        self._stuck.tell()
        return went

    async def _loads(self, ask: Callable[[Gone | None], Awaitable[Sequence[Gone]]]) -> AsyncIterator[Sequence[Gone]]:
        """Give all that there is to remove once, one load after another: what stays does not hold up what follows."""
        load = await ask(None)
        yield load
        while len(load) == _AT_ONCE:
            await self._clock.sleep(_PAUSE)
            load = await ask(load[-1])
            yield load

    async def _sweep_upload(self, upload: Upload) -> int:
        blobs = [part.blob for part in await self._uploads.parts(upload.id)]
        if await self._remove(blobs, self._stuck) < len(blobs):
            return 0
        await self._uploads.forget_parts(upload)
        return 1

    async def sweep_orphans(self) -> int:
        """Remove blobs that nothing names and the logs of batches that have ended; say how many went."""
        removed = strangers = 0
        for keys in _chunks(await self._blobs.keys_before(self._clock.now() - _ORPHAN_AFTER)):
            needed = await self._needed(keys)
            removed += await self._remove((key for key in keys if key not in needed), self._stuck_orphans)
        for batch_ids in _chunks(await self._logs.batch_ids()):
            known = await self._batches.known(batch_ids)
            strangers += len(batch_ids) - len(known)
            for batch in known:
                if batch.ended:
                    await self._logs.delete(batch.id)
                    removed += 1
        self._stuck_orphans.tell()
        self._tell_strangers(strangers)
        return removed

    async def _remove(self, keys: Iterable[str], stuck: _Stuck) -> int:
        """Remove blobs, stepping over those that cannot be removed now."""
        removed = 0
        for key in keys:
            try:
                await self._blobs.delete(key)
                removed += 1
            except OSError as error:
                stuck.note(error)
        return removed

    def _tell_strangers(self, number: int) -> None:
        if number not in {0, self._strangers}:
            log.warning("sweep.unknown_logs", batches=number)
        self._strangers = number

    async def _needed(self, keys: Sequence[str]) -> set[str]:
        owners = {key: BatchId(key.split("/")[1]) for key in keys if key.startswith(_OF_BATCHES)}
        ended = [batch for batch in await self._batches.known(list(set(owners.values()))) if batch.ended]
        names = {batch.id for batch in ended}
        of_batches = {key for key, owner in owners.items() if owner not in names}
        asked = {owner for key, owner in owners.items() if key.endswith(PLACES)}
        places = await self._places([batch for batch in ended if batch.id in asked])
        return of_batches | places | await self._files.known_blobs(keys) | await self._uploads.known_blobs(keys)

    async def _places(self, batches: Sequence[Batch]) -> set[str]:
        """Give the places that say where something lies: they go with the last file of their batch."""
        if not batches:
            return set()
        files = {batch.id: (str(batch.input_blob), output_key(batch), error_key(batch)) for batch in batches}
        stored = await self._files.known_blobs([blob for blobs in files.values() for blob in blobs])
        return {places_key(batch) for batch in batches if not stored.isdisjoint(files[batch.id])}


class _Stuck:
    """Blobs that cannot be removed, which the log tells once, until a pass has removed all."""

    def __init__(self) -> None:
        self._problems = 0
        self._first = ""
        self._told = False

    def note(self, error: OSError) -> None:
        """Count a blob that stays."""
        self._first = self._first or str(error)
        self._problems += 1

    def tell(self) -> None:
        """End a pass."""
        if self._problems and not self._told:
            log.warning("sweep.stuck", blobs=self._problems, problem=self._first)
        self._told = self._problems > 0
        self._problems, self._first = 0, ""


def _chunks(things: Sequence[T]) -> Iterator[Sequence[T]]:
    return (things[start : start + _AT_ONCE] for start in range(0, len(things), _AT_ONCE))
