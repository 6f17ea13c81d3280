"""A file that arrives in parts (CONTRACT section 1.6)."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from overnight.domain.errors import Conflict
from overnight.domain.file import Purpose
from overnight.domain.ids import FileId, PartId, ResourceId, UploadId


class UploadStatus(StrEnum):
    """Where an upload stands."""

    PENDING = "pending"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One piece of an upload; ``blob`` is the key of its bytes."""

    id: PartId
    upload_id: UploadId
    created_at: int
    bytes: int
    blob: str


class Upload(msgspec.Struct, frozen=True, kw_only=True):
    """A file to be put together from parts. Times are unix seconds."""

    id: UploadId
    resource: ResourceId
    filename: str
    purpose: Purpose
    mime_type: str
    bytes: int
    created_at: int
    expires_at: int
    status: UploadStatus = UploadStatus.PENDING
    file_id: FileId | None = None
    file_expires_after: int | None = None

    def seen_at(self, now: float) -> Upload:
        """Give the upload as it stands at ``now``: one that is past its life has expired."""
        if self.status is UploadStatus.PENDING and now >= self.expires_at:
            return msgspec.structs.replace(self, status=UploadStatus.EXPIRED)
        return self

    def require_pending(self) -> None:
        """Refuse to go on with an upload that has ended.

        Raises:
            Conflict: it is completed, cancelled or expired.
        """
        if self.status is not UploadStatus.PENDING:
            message = f"Upload {self.id} is {self.status}; create a new upload."
            raise Conflict(message, param="upload_id")
