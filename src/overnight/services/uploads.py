"""Uploads: a file in parts, put together in the order that the caller names."""

from __future__ import annotations

import hashlib
import sys
from typing import TYPE_CHECKING

import msgspec

from overnight.domain import ids
from overnight.domain.errors import InvalidRequest, NotFound, QuotaExceeded, TooLarge
from overnight.domain.file import UPLOAD_PURPOSES, ExpiresAfter, File, Purpose, parse_purpose
from overnight.domain.ids import PartId
from overnight.domain.limits import FILENAME_CHARS, MIME_TYPE_CHARS
from overnight.domain.upload import Part, Upload, UploadStatus
from overnight.ports.bounds import Bound, BoundReached
from overnight.ports.files import PartRoom
from overnight.services.files import NewFile, check_expiry
from overnight.services.lengths import check_length

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from overnight.domain.flavour import Flavour
    from overnight.domain.ids import ResourceId, UploadId
    from overnight.domain.limits import Limits
    from overnight.ports.blobs import Blobs
    from overnight.ports.clock import Clock, Entropy
    from overnight.ports.files import Uploads
    from overnight.services.files import FileService, Receiver


class NewUpload(msgspec.Struct, frozen=True, kw_only=True):
    """What the caller announces."""

    filename: str
    purpose: str
    bytes: int
    mime_type: str
    expires_after: ExpiresAfter | None = None


class UploadService:
    """The use cases of uploads."""

    def __init__(
        self,
        uploads: Uploads,
        files: FileService,
        blobs: Blobs,
        clock: Clock,
        entropy: Entropy,
        limits: Mapping[Flavour, Limits],
    ) -> None:
        self._uploads = uploads
        self._files = files
        self._blobs = blobs
        self._clock = clock
        self._entropy = entropy
        self._limits = limits

    async def create(self, resource: ResourceId, flavour: Flavour, new: NewUpload) -> Upload:
        """Announce a file. Raises ``InvalidRequest``, ``TooLarge``, and ``QuotaExceeded`` for one too many."""
        limits = self._limits[flavour]
        check_length("filename", new.filename, FILENAME_CHARS)
        check_length("mime_type", new.mime_type, MIME_TYPE_CHARS)
        purpose = parse_purpose(new.purpose, UPLOAD_PURPOSES)
        most = limits.input_file_bytes if purpose is Purpose.BATCH else limits.upload_bytes
        if new.bytes > most:
            message = f"An upload for {purpose} may have {most:,} bytes at most, not {new.bytes:,}."
            raise TooLarge(message, param="bytes", code="file_too_large")
        now = int(self._clock.now())
        upload = Upload(
            id=ids.upload_id(self._entropy.hex()),
            resource=resource,
            filename=new.filename,
            purpose=purpose,
            mime_type=new.mime_type,
            bytes=new.bytes,
            created_at=now,
            expires_at=now + limits.upload_life,
            file_expires_after=check_expiry(new.expires_after, limits, "expires_after"),
        )
        pending = limits.pending_uploads
        try:
            await self._uploads.add(upload, bound=None if pending is None else Bound(most=pending, since=now))
        except BoundReached as reached:
            message = (
                f"There are {pending:,} uploads that have not ended, as many as there may be. Complete or cancel some."
            )
            raise QuotaExceeded(message, code="quotaExceeded") from reached
        return upload

    async def get(self, resource: ResourceId, upload_id: UploadId) -> Upload:
        """Give an upload as it stands now. Raises ``NotFound``."""
        upload = await self._uploads.get(resource, upload_id)
        if upload is None:
            message = f"No such Upload object: {upload_id}"
            raise NotFound(message, param="id")
        return upload.seen_at(self._clock.now())

    async def add_part(
        self, resource: ResourceId, flavour: Flavour, upload_id: UploadId, data: AsyncIterator[bytes]
    ) -> Part:
        """Store a part.

        Raises:
            NotFound: no such upload.
            Conflict: it has ended already.
            TooLarge: the part is.
            QuotaExceeded: there are too many parts, or too many bytes in the resource's unfinished uploads.
        """
        upload = await self.get(resource, upload_id)
        upload.require_pending()
        room = _room(self._limits[flavour])
        if await self._uploads.stored_bytes(resource) >= room.bytes:
            raise _no_room(room)
        part_id = ids.part_id(self._entropy.hex())
        key = f"uploads/{upload_id}/{part_id}"
        most = self._limits[flavour].upload_part_bytes
        size = 0
        async with self._blobs.writer(key) as writer:
            async for piece in data:
                size += len(piece)
                if size > most:
                    message = f"A part may have {most:,} bytes at most. Send smaller parts."
                    raise TooLarge(message, param="data", code="file_too_large")
                await writer.write(piece)
            await writer.commit()
        part = Part(id=part_id, upload_id=upload_id, created_at=int(self._clock.now()), bytes=size, blob=key)
        try:
            added = await self._uploads.add_part(part, room=room)
        except BoundReached as reached:
            await self._blobs.delete(key)
            raise _no_room(room) from reached
        if not added:
            await self._blobs.delete(key)
            (await self.get(resource, upload_id)).require_pending()
        return part

    async def complete(
        self, resource: ResourceId, flavour: Flavour, upload_id: UploadId, part_ids: Sequence[str], md5: str | None
    ) -> tuple[Upload, File]:
        """Put the parts together in the order of ``part_ids``.

        Raises:
            NotFound: no such upload.
            Conflict: it has ended already.
            InvalidRequest: a part is unknown or named twice, the size or the checksum is not the announced one,
                or the file is refused as any uploaded file may be.
        """
        upload = await self.get(resource, upload_id)
        upload.require_pending()
        parts = await self._ordered(upload, part_ids)
        async with self._files.receiving(flavour, limit=upload.bytes) as receiver:
            try:
                digest = await self._join(parts, receiver)
            except FileNotFoundError:
                await self._still_pending(upload)
                raise
            if md5 is not None and digest != md5.lower():
                message = f"The MD5 of the {receiver.size:,} bytes received is {digest}, not {md5}."
                raise InvalidRequest(message, param="md5", code="invalid_value")
            file = await receiver.prepare(resource, flavour, _as_file(upload))
        done = msgspec.structs.replace(upload, status=UploadStatus.COMPLETED, file_id=file.id)
        try:
            saved = await self._uploads.save(done, expected=upload, file=file, bound=self._files.bound(flavour, file))
        except BoundReached as reached:
            await self._blobs.delete(file.blob)
            raise self._files.quota_exceeded(flavour, expiring=file.expires_at is not None) from reached
        if not saved:
            await self._blobs.delete(file.blob)
            await self._still_pending(upload)
        return done, file

    async def cancel(self, resource: ResourceId, upload_id: UploadId) -> Upload:
        """End an upload without a file. Raises ``NotFound`` and ``Conflict``."""
        upload = await self.get(resource, upload_id)
        upload.require_pending()
        cancelled = msgspec.structs.replace(upload, status=UploadStatus.CANCELLED)
        if not await self._uploads.save(cancelled, expected=upload):
            (await self.get(resource, upload_id)).require_pending()
        return cancelled

    async def _still_pending(self, upload: Upload) -> None:
        """Look again: the parts of an upload go once it has ended. Raises ``Conflict`` and ``NotFound``."""
        (await self.get(upload.resource, upload.id)).require_pending()

    async def _ordered(self, upload: Upload, part_ids: Sequence[str]) -> list[Part]:
        wanted = [PartId(part_id) for part_id in part_ids]
        known = {part.id: part for part in await self._uploads.parts(upload.id, wanted)}
        seen: set[PartId] = set()
        for part_id in wanted:
            if part_id not in known or part_id in seen:
                await self._still_pending(upload)
                fault = "is named twice" if part_id in known else "is not a part of this upload"
                message = f"The part '{part_id}' {fault}."
                raise InvalidRequest(message, param="part_ids", code="invalid_value")
            seen.add(part_id)
        size = sum(known[part_id].bytes for part_id in wanted)
        if size != upload.bytes:
            message = f"The parts add up to {size:,} bytes, but the upload was announced with {upload.bytes:,}."
            raise InvalidRequest(message, param="part_ids", code="invalid_value")
        return [known[part_id] for part_id in wanted]

    async def _join(self, parts: Sequence[Part], receiver: Receiver) -> str:
        digest = hashlib.md5(usedforsecurity=False)
        for part in parts:
            async for piece in self._blobs.stream(part.blob):
                digest.update(piece)
                await receiver.write(piece)
        return digest.hexdigest()


def _room(limits: Limits) -> PartRoom:
    return PartRoom(parts=limits.parts_per_upload, bytes=limits.pending_bytes or sys.maxsize)


def _no_room(room: PartRoom) -> QuotaExceeded:
    message = (
        f"An upload may have {room.parts:,} parts, and all that have not ended {room.bytes:,} bytes together."
        " Complete or cancel some, or send larger parts."
    )
    return QuotaExceeded(message, code="quotaExceeded")


def _as_file(upload: Upload) -> NewFile:
    wish = upload.file_expires_after
    return NewFile(
        filename=upload.filename,
        purpose=upload.purpose,
        expires_after=None if wish is None else ExpiresAfter(anchor="created_at", seconds=wish),
    )
