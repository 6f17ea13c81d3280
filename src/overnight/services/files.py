"""Files: receive, list, read, delete."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from overnight.domain import ids
from overnight.domain.errors import InvalidFileFormat, InvalidRequest, NotFound, QuotaExceeded, TooLarge
from overnight.domain.file import (
    NOT_JSONL,
    UPLOADABLE,
    ExpiresAfter,
    File,
    Purpose,
    check_batch_filename,
    parse_purpose,
)
from overnight.domain.flavour import Flavour
from overnight.domain.limits import FILENAME_CHARS
from overnight.domain.request import BOM
from overnight.ports.bounds import Bound, BoundReached
from overnight.services.lengths import check_length

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from overnight.domain.ids import FileId, ResourceId
    from overnight.domain.limits import Limits
    from overnight.ports.batches import Page
    from overnight.ports.blobs import Blobs, BlobWriter
    from overnight.ports.clock import Clock, Entropy
    from overnight.ports.files import Files

# Enough of a file to see whether its first line is JSON; a longer first line is judged by its start.
_PEEK_BYTES = 64 * 1024

# Of more deleted files that wait for a sweep, one more can wait as well.
_GONE_LOOKED_AT = 100

_raw_decoder = msgspec.json.Decoder(msgspec.Raw)


class NewFile(msgspec.Struct, frozen=True, kw_only=True):
    """What the caller says of a file besides its bytes."""

    filename: str
    purpose: str
    expires_after: ExpiresAfter | None = None


class FileQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which files to list."""

    after: FileId | None = None
    limit: int
    purpose: str | None = None
    oldest_first: bool = False


class Receiver:
    """Takes the bytes of one file as they arrive, and only then learns what they are for."""

    def __init__(self, service: FileService, writer: BlobWriter, file_id: FileId, limit: int) -> None:
        self._service = service
        self._writer = writer
        self._file_id = file_id
        self._limit = limit
        self._peek = bytearray()
        self.size = 0

    async def write(self, data: bytes) -> None:
        """Take more bytes.

        Raises:
            TooLarge: the file is over the largest size of any purpose.
        """
        self.size += len(data)
        if self.size > self._limit:
            raise _too_large("file", self._limit)
        if len(self._peek) < _PEEK_BYTES:
            self._peek += data[: _PEEK_BYTES - len(self._peek)]
        await self._writer.write(data)

    async def finish(self, resource: ResourceId, flavour: Flavour, new: NewFile) -> File:
        """Store the file: its bytes first, then its record.

        Raises:
            InvalidRequest: the purpose, the name, the expiry or the first line is wrong, or a quota is used up.
            TooLarge: a batch input file is over its limit.
        """
        return await self._service.admit(self, resource, flavour, new)

    async def prepare(self, resource: ResourceId, flavour: Flavour, new: NewFile) -> File:
        """Check and store the bytes as ``finish`` does, but leave it to the caller to add the record."""
        return await self._service.prepare(self, resource, flavour, new)

    async def commit(self) -> None:
        """Make the bytes durable and readable."""
        await self._writer.commit()

    @property
    def file_id(self) -> FileId:
        """The id that the file will have."""
        return self._file_id

    def looks_like_jsonl(self) -> bool:
        """Say whether the first line that is not blank is JSON, as far as it was kept."""
        text = bytes(self._peek).removeprefix(BOM).lstrip()
        first, newline, _ = text.partition(b"\n")
        if not newline and self.size > _PEEK_BYTES:
            return first.startswith(b"{")
        try:
            _raw_decoder.decode(first)
        except (msgspec.DecodeError, RecursionError):
            return False
        return True


class FileService:
    """The use cases of files."""

    def __init__(
        self,
        files: Files,
        blobs: Blobs,
        clock: Clock,
        entropy: Entropy,
        limits: Mapping[Flavour, Limits],
        *,
        strict_suffix: bool = False,
    ) -> None:
        self._files = files
        self._blobs = blobs
        self._clock = clock
        self._entropy = entropy
        self._limits = limits
        self._strict_suffix = strict_suffix

    @asynccontextmanager
    async def receiving(self, flavour: Flavour, *, limit: int | None = None) -> AsyncIterator[Receiver]:
        """Open a receiver for a file; what is not finished inside the context leaves no trace."""
        file_id = ids.file_id(self._entropy.hex())
        most = limit or max(self._limits[flavour].file_bytes, self._limits[flavour].input_file_bytes)
        async with self._blobs.writer(blob_key(file_id)) as writer:
            yield Receiver(self, writer, file_id, most)

    async def admit(self, received: Receiver, resource: ResourceId, flavour: Flavour, new: NewFile) -> File:
        """Check what was received and store it; see ``Receiver.finish``."""
        file = await self.prepare(received, resource, flavour, new)
        try:
            await self._files.add(file, bound=self.bound(flavour, file))
        except BoundReached as reached:
            await self._blobs.delete(file.blob)
            raise self.quota_exceeded(flavour, expiring=file.expires_at is not None) from reached
        return file

    def bound(self, flavour: Flavour, file: File) -> Bound | None:
        """Give the bound on files like this one."""
        most = self._most(flavour, expiring=file.expires_at is not None)
        return None if most is None else Bound(most=most, since=self._clock.now())

    def _most(self, flavour: Flavour, *, expiring: bool) -> int | None:
        limits = self._limits[flavour]
        return limits.files_with_expiry if expiring else limits.files_without_expiry

    async def prepare(self, received: Receiver, resource: ResourceId, flavour: Flavour, new: NewFile) -> File:
        """Check what was received and store its bytes; see ``Receiver.prepare``."""
        check_length("file", new.filename, FILENAME_CHARS)
        purpose = parse_purpose(new.purpose, UPLOADABLE)
        limits = self._limits[flavour]
        if purpose is Purpose.BATCH:
            self._check_input(received, flavour, new, limits)
        now = self._clock.now()
        life = check_expiry(new.expires_after, limits, "expires_after")
        if life is None and purpose is Purpose.BATCH:
            life = limits.input_life
        await self.check_quota(resource, flavour, expiring=life is not None)
        await received.commit()
        return File(
            id=received.file_id,
            resource=resource,
            purpose=purpose,
            filename=new.filename,
            bytes=received.size,
            created_at=int(now),
            blob=blob_key(received.file_id),
            expires_at=None if life is None else int(now) + life,
        )

    def _check_input(self, received: Receiver, flavour: Flavour, new: NewFile, limits: Limits) -> None:
        check_batch_filename(new.filename, flavour, strict=self._strict_suffix)
        if received.size > limits.input_file_bytes:
            raise _too_large("batch input file", limits.input_file_bytes)
        # Azure takes any bytes here and reports what is wrong with them when a batch is validated.
        if flavour is Flavour.OPENAI and not received.looks_like_jsonl():
            raise InvalidFileFormat(NOT_JSONL)

    async def check_quota(self, resource: ResourceId, flavour: Flavour, *, expiring: bool) -> None:
        """Refuse one file more than the flavour allows, before its bytes are stored; the last word has ``bound``.

        Raises:
            QuotaExceeded: the resource has as many files as it may.
        """
        most = self._most(flavour, expiring=expiring)
        if most is not None and await self._files.count(resource, expiring=expiring, now=self._clock.now()) >= most:
            raise self.quota_exceeded(flavour, expiring=expiring)

    async def check_input_quota(self, resource: ResourceId, flavour: Flavour) -> None:
        """Refuse one batch input more than the flavour allows. Raises ``QuotaExceeded``."""
        await self.check_quota(resource, flavour, expiring=self._limits[flavour].input_life is not None)

    def quota_exceeded(self, flavour: Flavour, *, expiring: bool) -> QuotaExceeded:
        """Say that there are as many files as there may be, in Azure's words."""
        kind, most = "with" if expiring else "without", self._most(flavour, expiring=expiring)
        message = f"The quota for files {kind} expiry is reached. The maximum is {most}. Delete files you do not need."
        return QuotaExceeded(message, code="quotaExceeded")

    async def get(self, resource: ResourceId, file_id: FileId) -> File:
        """Give a file. Raises ``NotFound``."""
        file = await self._files.get(resource, file_id, now=self._clock.now())
        if file is None:
            raise no_such_file(file_id)
        return file

    async def page(self, resource: ResourceId, query: FileQuery) -> Page[File]:
        """List files. Raises ``InvalidRequest`` for an unknown cursor."""
        if query.purpose is not None and query.purpose not in frozenset(Purpose):
            parse_purpose(query.purpose, frozenset(Purpose))
        page = await self._files.page(
            resource,
            after=query.after,
            limit=query.limit,
            purpose=Purpose(query.purpose) if query.purpose else None,
            oldest_first=query.oldest_first,
            now=self._clock.now(),
        )
        if page is None:
            raise unknown_cursor("file", str(query.after))
        return page

    async def content(self, resource: ResourceId, file_id: FileId) -> tuple[File, AsyncIterator[bytes]]:
        """Give a file and its bytes in pieces. Raises ``NotFound``."""
        file = await self.get(resource, file_id)
        if await self._blobs.size(file.blob) is None:
            raise no_such_file(file_id)
        return file, self._blobs.stream(file.blob)

    async def excerpt(self, resource: ResourceId, file_id: FileId, start: int, length: int) -> tuple[File, bytes]:
        """Give a file and up to ``length`` of its bytes from ``start`` on. Raises ``NotFound``."""
        file = await self.get(resource, file_id)
        try:
            async with self._blobs.local(file.blob) as path:
                return file, await asyncio.to_thread(_read, path, start, length)
        except FileNotFoundError as error:
            raise no_such_file(file_id) from error

    async def delete(self, resource: ResourceId, file_id: FileId) -> None:
        """Delete a file; its bytes stay until no active batch reads them. Raises ``NotFound``."""
        if not await self._files.delete(resource, file_id, now=self._clock.now()):
            raise no_such_file(file_id)

    async def discard(self, resource: ResourceId, file_id: FileId) -> None:
        """Delete a file that nobody was told of, and its bytes at once rather than when the next sweep comes to them.

        Should a batch have been made of it all the same, its bytes stay until that has ended. Raises ``Unavailable``.
        """
        await self._files.delete(resource, file_id, now=self._clock.now())
        for file in await self._files.gone(now=0, limit=_GONE_LOOKED_AT):
            if file.id == file_id:
                # The next sweep tries again.
                with suppress(OSError):
                    await self._blobs.delete(file.blob)
                    await self._files.forget_bytes([file])


def _read(path: Path, start: int, length: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.read(length)


def blob_key(file_id: FileId) -> str:
    """Say under which key the bytes of an uploaded file are stored."""
    return f"files/{file_id}"


def check_expiry(wish: ExpiresAfter | None, limits: Limits, param: str) -> int | None:
    """Give the life of a file in seconds, or ``None`` if it does not expire.

    Raises:
        InvalidRequest: the anchor is not ``created_at`` or the time is outside the flavour's range.
    """
    if wish is None:
        return None
    if wish.anchor != "created_at":
        message = f"Invalid value: '{wish.anchor}'. Value must be 'created_at'."
        raise InvalidRequest(message, param=f"{param}.anchor", code="invalid_value")
    if limits.shortest_expiry <= wish.seconds <= limits.longest_expiry:
        return wish.seconds
    above = wish.seconds > limits.longest_expiry
    bound, word = (limits.longest_expiry, "<=") if above else (limits.shortest_expiry, ">=")
    name = "maximum" if above else "minimum"
    message = (
        f"Invalid '{param}.seconds': integer {'above' if above else 'below'} {name} value."
        f" Expected a value {word} {bound}, but got {wish.seconds} instead."
    )
    code = "integer_above_max_value" if above else "integer_below_min_value"
    raise InvalidRequest(message, param=f"{param}.seconds", code=code)


def no_such_file(file_id: str) -> NotFound:
    """Say that there is no such file, in OpenAI's words."""
    return NotFound(f"No such File object: {file_id}", param="id")


def unknown_cursor(kind: str, after: str) -> InvalidRequest:
    """Refuse a cursor that names nothing: never the first page again."""
    message = f"Invalid 'after': there is no {kind} with the id '{after}'. Give the id of the last object that you got."
    return InvalidRequest(message, param="after", code="invalid_value")


def _too_large(what: str, limit: int) -> TooLarge:
    message = f"The {what} is larger than {limit:,} bytes, the most that this server accepts. Split it and try again."
    return TooLarge(message, param="file", code="file_too_large")
