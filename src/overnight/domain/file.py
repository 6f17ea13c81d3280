"""A stored file: its purpose, its status and its record (CONTRACT sections 1.7, 2.1, 2.2)."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from overnight.domain.errors import InvalidFileFormat, InvalidFileName, InvalidPurpose
from overnight.domain.flavour import Flavour
from overnight.domain.ids import FileId, ResourceId


class Purpose(StrEnum):
    """What a file is for; callers may name all but the two that the service writes."""

    ASSISTANTS = "assistants"
    BATCH = "batch"
    FINE_TUNE = "fine-tune"
    VISION = "vision"
    USER_DATA = "user_data"
    EVALS = "evals"
    BATCH_OUTPUT = "batch_output"


UPLOADABLE = frozenset(Purpose) - {Purpose.BATCH_OUTPUT}
UPLOAD_PURPOSES = frozenset({Purpose.ASSISTANTS, Purpose.BATCH, Purpose.FINE_TUNE, Purpose.VISION})


class FileStatus(StrEnum):
    """A file is shown only once its bytes can be read, so it is ``processed`` from the first reply on."""

    PROCESSED = "processed"
    ERROR = "error"


class File(msgspec.Struct, frozen=True, kw_only=True):
    """A stored file. Times are unix seconds; ``blob`` is the key of its bytes in the blob store."""

    id: FileId
    resource: ResourceId
    purpose: Purpose
    filename: str
    bytes: int
    created_at: int
    blob: str
    expires_at: int | None = None
    status: FileStatus = FileStatus.PROCESSED
    status_details: str | None = None
    deleted_at: int | None = None

    def visible(self, now: float) -> bool:
        """Say whether the file still exists for its owner."""
        return self.deleted_at is None and (self.expires_at is None or self.expires_at > now)


class ExpiresAfter(msgspec.Struct, frozen=True, kw_only=True):
    """A wish for expiry, counted from the creation of the file; ``seconds`` as the flavour allows."""

    anchor: str
    seconds: int


def parse_purpose(wanted: str, allowed: frozenset[Purpose]) -> Purpose:
    """Read a purpose.

    Raises:
        InvalidPurpose: it is none of the ``allowed`` ones.
    """
    if wanted in allowed:
        return Purpose(wanted)
    choices = ", ".join(f"'{purpose}'" for purpose in sorted(allowed))
    message = f"Invalid value for purpose: '{wanted}'. Supported values are: {choices}."
    raise InvalidPurpose(message, param="purpose", code="invalid_value")


def check_batch_filename(filename: str, flavour: Flavour, *, strict: bool) -> None:
    """Refuse a batch file whose name does not end in ``.jsonl``.

    A name without any suffix passes unless ``strict``: the SDK calls raw bytes just ``upload`` (CONTRACT 6.2).

    Raises:
        InvalidFileName: Azure's answer to a wrong suffix.
        InvalidFileFormat: OpenAI's answer to it.
    """
    name = filename.lower()
    if name.endswith(".jsonl") or (not strict and "." not in name):
        return
    if flavour is Flavour.AZURE:
        message = "fileName contains an invalid filename: wrong suffix. Name the file with the suffix .jsonl."
        raise InvalidFileName(message, param="file")
    raise InvalidFileFormat(NOT_JSONL)


NOT_JSONL = "Invalid file format for Batch API. Must be .jsonl"
