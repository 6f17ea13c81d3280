"""Where the records of files and uploads are kept; their bytes are in the blob store."""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from overnight.domain.file import File, Purpose
from overnight.domain.ids import FileId, PartId, ResourceId, UploadId
from overnight.domain.upload import Part, Upload
from overnight.ports.batches import Page
from overnight.ports.bounds import Bound


class PartRoom(msgspec.Struct, frozen=True, kw_only=True):
    """How many parts an upload may have, and how many bytes the parts of all pending uploads of a resource."""

    parts: int
    bytes: int


class Files(Protocol):
    """The records of files. A deleted or expired file is not given out, but keeps its place in the order."""

    async def add(self, file: File, *, bound: Bound | None = None) -> None:
        """Store the record of a file whose bytes can already be read; durable on return.

        Raises:
            BoundReached: ``count`` at the bound's ``since``, for files that expire as this one does, is at the bound.
                Of several at once, no more than that are stored.
        """

    async def get(self, resource: ResourceId, file_id: FileId, *, now: float) -> File | None:
        """Give a file of this resource; ``None`` for unknown, foreign, deleted and expired ones alike."""

    async def page(
        self,
        resource: ResourceId,
        *,
        after: FileId | None,
        limit: int,
        purpose: Purpose | None,
        oldest_first: bool,
        now: float,
    ) -> Page[File] | None:
        """List a resource's files from behind ``after``; ``None`` if there never was such a file."""

    async def delete(self, resource: ResourceId, file_id: FileId, *, now: float) -> bool:
        """Mark a file as deleted; ``False`` if there is none to delete."""

    async def count(self, resource: ResourceId, *, expiring: bool, now: float) -> int:
        """Count the files that the resource uploaded, with or without an expiry."""

    async def gone(self, *, now: float, limit: int, after: File | None = None) -> Sequence[File]:
        """Give deleted and expired files whose bytes are still stored and that no active batch reads.

        They come in the order of their creation, from behind ``after``.
        """

    async def known_blobs(self, keys: Sequence[str]) -> set[str]:
        """Give those of the keys under which the bytes of a file are stored."""

    async def forget_bytes(self, gone: Sequence[File]) -> None:
        """Note that the bytes of gone files are no longer stored."""


class Uploads(Protocol):
    """The records of uploads and their parts."""

    async def add(self, upload: Upload, *, bound: Bound | None = None) -> None:
        """Store a new upload; durable on return.

        Raises:
            BoundReached: the resource has as many uploads that are pending, and not expired at ``since``, as it may.
        """

    async def get(self, resource: ResourceId, upload_id: UploadId) -> Upload | None:
        """Give an upload of this resource; ``None`` for unknown and foreign ids alike."""

    async def save(
        self, new: Upload, *, expected: Upload, file: File | None = None, bound: Bound | None = None
    ) -> bool:
        """Write an upload, and the file that it became, unless the stored status is not the expected one any more.

        Raises:
            BoundReached: as ``Files.add`` does for the file; the upload is then as it was.
        """

    async def add_part(self, part: Part, *, room: PartRoom | None = None) -> bool:
        """Store the record of a part; ``False`` if its upload is not pending any more.

        Raises:
            BoundReached: with this part the upload, or all pending uploads of its resource, would be over ``room``.
        """

    async def stored_bytes(self, resource: ResourceId) -> int:
        """Add up the parts of the resource's uploads that are pending, though they may be about to expire."""

    async def parts(self, upload_id: UploadId, part_ids: Sequence[PartId] | None = None) -> Sequence[Part]:
        """Give the named parts of an upload, in no particular order; all of them without names."""

    async def known_blobs(self, keys: Sequence[str]) -> set[str]:
        """Give those of the keys under which the bytes of a part are stored."""

    async def finished(self, *, now: float, limit: int, after: Upload | None = None) -> Sequence[Upload]:
        """Give uploads that have ended or expired and still have parts stored.

        They come in the order of their creation, from behind ``after``.
        """

    async def forget_parts(self, upload: Upload) -> None:
        """Drop the records of an upload's parts."""
