"""The use cases, on stores in memory."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from overnight.domain.batch import Batch, BatchStatus, Expiry
from overnight.domain.errors import (
    Conflict,
    InvalidFileFormat,
    InvalidFileName,
    InvalidRequest,
    NotFound,
    QuotaExceeded,
    ServiceError,
    TooLarge,
)
from overnight.domain.file import ExpiresAfter, File
from overnight.domain.flavour import Flavour
from overnight.domain.ids import BatchId, FileId, ResourceId, UploadId
from overnight.domain.limits import DAY, DEFAULTS
from overnight.domain.listing import BatchQuery, Condition
from overnight.domain.upload import Part, Upload, UploadStatus
from overnight.ports.blobs import StorageFull
from overnight.services.batches import BatchService, NewBatch
from overnight.services.files import FileQuery, FileService, NewFile
from overnight.services.retention import Sweeper
from overnight.services.uploads import NewUpload, UploadService
from overnight.testing.blobs import MemoryBlobs
from overnight.testing.clock import START, ManualClock
from overnight.testing.entropy import CountedEntropy
from overnight.testing.results import MemoryResultLogs
from overnight.testing.stores import MemoryBatches, MemoryFiles, MemoryUploads, Tables

OPENAI, AZURE = Flavour.OPENAI, Flavour.AZURE
MINE, OTHERS = ResourceId("mine"), ResourceId("others")
GOOD = b'{"custom_id":"a"}\n'
NOW = int(START)


class Desk:
    """The services on one set of stores; notes the nudges that the dispatcher would get."""

    def __init__(self, folder: Path, **limits: Any) -> None:
        self.clock, self.entropy, self.tables = ManualClock(), CountedEntropy(), Tables()
        self.limits = {flavour: replace(DEFAULTS[flavour], **limits) for flavour in Flavour}
        self.blobs = MemoryBlobs(folder, self.clock.now)
        self.logs = MemoryResultLogs(folder)
        self.nudges: list[str] = []
        self.stores = MemoryBatches(self.tables), MemoryFiles(self.tables), MemoryUploads(self.tables)
        batches, files, uploads = self.stores
        self.files = FileService(files, self.blobs, self.clock, self.entropy, self.limits)
        self.uploads = UploadService(uploads, self.files, self.blobs, self.clock, self.entropy, self.limits)
        self.batches = BatchService(batches, self.clock, self.entropy, self.limits, self)
        self.sweeper = Sweeper(files, uploads, batches, self.blobs, self.logs, self.clock)

    async def swept(self) -> int:
        """Sweep, whatever time that takes."""
        async with asyncio.TaskGroup() as group:
            sweeping = group.create_task(self.sweeper.sweep())
            await self.clock.run_until(sweeping.done)
        return sweeping.result()

    def batch_created(self) -> None:
        self.nudges.append("created")

    def batch_changed(self, batch_id: BatchId) -> None:
        self.nudges.append(batch_id)

    async def receive(
        self, *pieces: bytes, flavour: Flavour = OPENAI, resource: ResourceId = MINE, **about: Any
    ) -> File:
        new = NewFile(**{"filename": "in.jsonl", "purpose": "batch"} | about)
        async with self.files.receiving(flavour) as receiver:
            for piece in pieces:
                await receiver.write(piece)
            return await receiver.finish(resource, flavour, new)

    async def submit(self, flavour: Flavour = OPENAI, **changes: Any) -> Batch:
        given: dict[str, Any] = {
            "input_file_id": "file-x",
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
        }
        return await self.batches.create(MINE, flavour, NewBatch(**given | changes))


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Desk]:
    """A desk with other limits."""
    return lambda **limits: Desk(tmp_path, **limits)


def fault(raised: pytest.ExceptionInfo[ServiceError]) -> tuple[str | None, str | None]:
    return raised.value.param, raised.value.code


async def _read(pieces: AsyncIterator[bytes]) -> bytes:
    return b"".join([piece async for piece in pieces])


class TestFiles:
    """Receive, list, read, delete."""

    async def test_a_file_is_stored_and_can_be_read(self, desk: Desk) -> None:
        """Bytes and record."""
        file = await desk.receive(GOOD, GOOD)

        assert (file.bytes, file.created_at, file.expires_at, file.filename) == (36, NOW, NOW + 30 * DAY, "in.jsonl")
        assert await desk.files.get(MINE, file.id) == file
        again, pieces = await desk.files.content(MINE, file.id)
        assert again == file
        assert await _read(pieces) == GOOD + GOOD

    async def test_a_piece_of_a_file_can_be_read(self, desk: Desk) -> None:
        """From any byte on, and no more than there is."""
        file = await desk.receive(GOOD)

        again, middle = await desk.files.excerpt(MINE, file.id, 3, 5)
        _, end = await desk.files.excerpt(MINE, file.id, len(GOOD) - 2, 100)

        assert again == file
        assert (middle, end) == (GOOD[3:8], GOOD[-2:])

    async def test_a_piece_of_a_file_whose_bytes_are_gone_cannot_be_read(self, desk: Desk) -> None:
        """As if there were no file."""
        file = await desk.receive(GOOD)
        await desk.blobs.delete(file.blob)

        with pytest.raises(NotFound):
            await desk.files.excerpt(MINE, file.id, 0, 1)

    async def test_what_is_not_finished_leaves_no_trace(self, desk: Desk) -> None:
        """The caller went away."""
        async with desk.files.receiving(OPENAI) as receiver:
            await receiver.write(GOOD)

        assert desk.blobs.held == {}
        assert desk.tables.files == {}

    @pytest.mark.parametrize(
        "content",
        [b"", b"\n\n", b"hello\n", b"{\n", b"{'a':1}\n", b"[" * 70_000, b"x" * 70_000, b"{}{}\n", b"\xef\xbb\xbf"],
        ids=lambda content: repr(content[:8]),
    )
    async def test_openai_refuses_what_does_not_begin_with_json(self, desk: Desk, content: bytes) -> None:
        """CONTRACT 3.3; Azure takes it and says so when a batch is validated."""
        with pytest.raises(InvalidFileFormat, match=r"Must be \.jsonl") as raised:
            await desk.receive(content)

        assert fault(raised) == (None, None)
        assert desk.blobs.held == {}
        assert (await desk.receive(content, flavour=AZURE)).bytes == len(content)

    @pytest.mark.parametrize(
        "content",
        [
            GOOD,
            b"{}",
            b"\xef\xbb\xbf\r\n\r\n{}\r\nrubbish",
            b"[]\n",
            b'{"a":"' + b"x" * 100_000,
            b'{"a":"' + b"x" * 100_000 + b'"}\n',
            b'{"a":"\xff"}\n',
        ],
        ids=lambda content: repr(content[:8]),
    )
    async def test_openai_looks_at_the_first_line_only(self, desk: Desk, content: bytes) -> None:
        """Later bad lines are accepted."""
        pieces = [content[start : start + 1_000] for start in range(0, len(content), 1_000)]

        assert (await desk.receive(*pieces)).bytes == len(content)

    async def test_a_deep_first_line_is_refused_and_not_fatal(self, desk: Desk) -> None:
        """Within what is looked at."""
        with pytest.raises(InvalidFileFormat):
            await desk.receive(b"[" * 30_000 + b"]" * 30_000 + b"\n")

        assert desk.tables.files == {}

    async def test_a_wrong_name_is_refused_in_the_words_of_the_vendor(self, desk: Desk) -> None:
        """CONTRACT 3.3."""
        with pytest.raises(InvalidFileFormat):
            await desk.receive(GOOD, filename="in.txt")
        with pytest.raises(InvalidFileName):
            await desk.receive(GOOD, filename="in.txt", flavour=AZURE)

        assert (await desk.receive(b"anything", filename="in.txt", purpose="evals")).purpose == "evals"

    async def test_a_wrong_purpose_is_refused(self, desk: Desk) -> None:
        """Also one that only the service may use."""
        for purpose in ("batch_output", "x"):
            with pytest.raises(InvalidRequest) as raised:
                await desk.receive(GOOD, purpose=purpose)
            assert fault(raised) == ("purpose", "invalid_value")

    async def test_too_many_bytes_are_refused_as_they_arrive(self, make: Callable[..., Desk]) -> None:
        """Not after the last."""
        desk = make(file_bytes=40, input_file_bytes=30)
        async with desk.files.receiving(OPENAI) as receiver:
            await receiver.write(b"x" * 40)
            with pytest.raises(TooLarge) as raised:
                await receiver.write(b"x")

        assert fault(raised) == ("file", "file_too_large")
        with pytest.raises(TooLarge, match="batch input file is larger than 30 bytes"):
            await desk.receive(GOOD, GOOD)
        assert (await desk.receive(GOOD, GOOD, purpose="evals")).bytes == 36
        assert len(desk.blobs.held) == 1

    @pytest.mark.parametrize(
        ("flavour", "anchor", "seconds", "expected"),
        [
            (OPENAI, "created_at", 3_600, None),
            (OPENAI, "created_at", 30 * DAY, None),
            (OPENAI, "created_at", 3_599, ("expires_after.seconds", "integer_below_min_value")),
            (OPENAI, "created_at", 30 * DAY + 1, ("expires_after.seconds", "integer_above_max_value")),
            (OPENAI, "now", 3_600, ("expires_after.anchor", "invalid_value")),
            (AZURE, "created_at", 14 * DAY, None),
            (AZURE, "created_at", 14 * DAY - 1, ("expires_after.seconds", "integer_below_min_value")),
        ],
    )
    async def test_an_expiry_is_within_the_range_of_the_flavour(
        self, desk: Desk, flavour: Flavour, anchor: str, seconds: int, expected: tuple[str, str] | None
    ) -> None:
        """CONTRACT 1.4."""
        wish = ExpiresAfter(anchor=anchor, seconds=seconds)
        if expected is None:
            file = await desk.receive(GOOD, flavour=flavour, expires_after=wish)

            assert file.expires_at == NOW + seconds
            desk.clock.jump(seconds)
            with pytest.raises(NotFound):
                await desk.files.get(MINE, file.id)
            return
        with pytest.raises(InvalidRequest) as raised:
            await desk.receive(GOOD, flavour=flavour, expires_after=wish)
        assert fault(raised) == expected

    async def test_a_batch_input_expires_by_itself_as_the_flavour_says(self, make: Callable[..., Desk]) -> None:
        """CONTRACT 5.4: on OpenAI after 30 days; files of other purposes stay."""
        desk, other = make(), make(input_life=7)

        assert (await desk.receive(GOOD)).expires_at == NOW + 30 * DAY
        assert (await desk.receive(GOOD, purpose="evals")).expires_at is None
        assert (await desk.receive(GOOD, flavour=AZURE)).expires_at is None
        assert (await other.receive(GOOD, flavour=AZURE)).expires_at == NOW + 7
        assert (await make(input_life=None).receive(GOOD)).expires_at is None

    async def test_a_quota_counts_what_is_stored(self, make: Callable[..., Desk]) -> None:
        """CONTRACT 3.2: with and without expiry apart; deleted files make room."""
        desk = make(files_without_expiry=1, files_with_expiry=1, shortest_expiry=1, input_life=None)
        wish = ExpiresAfter(anchor="created_at", seconds=60)
        first = await desk.receive(GOOD)
        await desk.receive(GOOD, expires_after=wish)
        for expires_after in (None, wish):
            with pytest.raises(QuotaExceeded) as raised:
                await desk.receive(GOOD, expires_after=expires_after)
            assert fault(raised) == (None, "quotaExceeded")
        assert (await desk.receive(GOOD, resource=OTHERS)).resource == OTHERS

        await desk.files.delete(MINE, first.id)

        assert (await desk.receive(GOOD)).expires_at is None

    async def test_foreign_deleted_and_unknown_files_are_not_found(self, desk: Desk) -> None:
        """All the same."""
        file = await desk.receive(GOOD)
        await desk.files.delete(MINE, file.id)
        foreign = await desk.receive(GOOD, resource=OTHERS)
        for file_id in (file.id, foreign.id, FileId("file-x")):
            for call in (desk.files.get, desk.files.content, desk.files.delete):
                with pytest.raises(NotFound, match=f"No such File object: {file_id}") as raised:
                    await call(MINE, file_id)
                assert fault(raised) == ("id", None)

    async def test_a_file_whose_bytes_are_gone_is_not_found(self, desk: Desk) -> None:
        """Better than an answer that breaks off."""
        file = await desk.receive(GOOD)
        await desk.blobs.delete(file.blob)

        with pytest.raises(NotFound):
            await desk.files.content(MINE, file.id)

    async def test_files_are_listed(self, desk: Desk) -> None:
        """By purpose, in both orders, behind a cursor."""
        made = [await desk.receive(GOOD, purpose=purpose) for purpose in ("batch", "evals", "batch")]
        newest = await desk.files.page(MINE, FileQuery(limit=2))
        oldest = await desk.files.page(MINE, FileQuery(limit=2, purpose="batch", oldest_first=True))
        behind = await desk.files.page(MINE, FileQuery(limit=2, after=made[1].id))

        assert (list(newest.items), newest.has_more) == ([made[2], made[1]], True)
        assert (list(oldest.items), oldest.has_more) == ([made[0], made[2]], False)
        assert list(behind.items) == [made[0]]

    async def test_a_list_that_cannot_be_is_refused(self, desk: Desk) -> None:
        """Never the first page, never everything."""
        with pytest.raises(InvalidRequest) as raised:
            await desk.files.page(MINE, FileQuery(limit=2, after=FileId("file-x")))
        assert fault(raised) == ("after", "invalid_value")
        with pytest.raises(InvalidRequest) as raised:
            await desk.files.page(MINE, FileQuery(limit=2, purpose="x"))
        assert fault(raised) == ("purpose", "invalid_value")


class TestUploads:
    """A file in parts."""

    async def create(self, desk: Desk, size: int = len(GOOD) * 2, **changes: Any) -> Upload:
        given: dict[str, Any] = {"filename": "in.jsonl", "purpose": "batch", "bytes": size, "mime_type": "x/y"}
        return await desk.uploads.create(MINE, OPENAI, NewUpload(**given | changes))

    async def add(self, desk: Desk, upload: Upload, data: bytes = GOOD) -> Part:
        async def pieces() -> AsyncIterator[bytes]:
            for start in range(0, len(data), 7):
                yield data[start : start + 7]

        return await desk.uploads.add_part(MINE, OPENAI, upload.id, pieces())

    async def test_parts_become_a_file_in_the_order_that_is_named(self, desk: Desk) -> None:
        """Not in that of their arrival; the checksum is that of the whole."""
        upload = await self.create(desk, size=20)
        late, early = await self.add(desk, upload, b"1}\n" + b" " * 7), await self.add(desk, upload, b'{"abcdef":')
        md5 = hashlib.md5(b'{"abcdef":1}\n' + b" " * 7, usedforsecurity=False).hexdigest().upper()

        done, file = await desk.uploads.complete(MINE, OPENAI, upload.id, [early.id, late.id], md5)

        assert (done.status, done.file_id) == (UploadStatus.COMPLETED, file.id)
        assert await desk.uploads.get(MINE, upload.id) == done
        assert (file.filename, file.bytes, file.expires_at) == ("in.jsonl", 20, NOW + 30 * DAY)
        _, pieces = await desk.files.content(MINE, file.id)
        assert await _read(pieces) == b'{"abcdef":1}\n' + b" " * 7

    async def test_the_file_expires_as_was_wished(self, desk: Desk) -> None:
        """Counted from its own creation."""
        upload = await self.create(desk, len(GOOD), expires_after=ExpiresAfter(anchor="created_at", seconds=7_200))
        part = await self.add(desk, upload)
        desk.clock.jump(100)

        _, file = await desk.uploads.complete(MINE, OPENAI, upload.id, [part.id], None)

        assert file.expires_at == NOW + 7_300

    @pytest.mark.parametrize(
        ("changes", "error", "expected"),
        [
            ({"purpose": "evals"}, InvalidRequest, ("purpose", "invalid_value")),
            ({"bytes": 9 * 2**30}, TooLarge, ("bytes", "file_too_large")),
            (
                {"expires_after": ExpiresAfter(anchor="x", seconds=1)},
                InvalidRequest,
                ("expires_after.anchor", "invalid_value"),
            ),
        ],
    )
    async def test_a_wrong_announcement_is_refused(
        self, desk: Desk, changes: dict[str, Any], error: type[ServiceError], expected: tuple[str, str]
    ) -> None:
        """Before a byte was sent."""
        with pytest.raises(error) as raised:
            await self.create(desk, **changes)

        assert fault(raised) == expected
        assert desk.tables.uploads == {}

    async def test_a_part_that_is_too_large_leaves_no_trace(self, make: Callable[..., Desk]) -> None:
        """And is refused as it arrives."""
        desk = make(upload_part_bytes=10)
        upload = await self.create(desk)
        with pytest.raises(TooLarge) as raised:
            await self.add(desk, upload)

        assert fault(raised) == ("data", "file_too_large")
        assert (desk.blobs.held, desk.tables.parts) == ({}, {})

    async def test_wrong_parts_are_refused_and_the_upload_stays_open(self, desk: Desk) -> None:
        """So that the caller can put it right."""
        upload = await self.create(desk)
        first, second = await self.add(desk, upload), await self.add(desk, upload)
        foreign = await self.add(desk, await self.create(desk))
        for wrong, expected in (
            ([first.id], "add up to 18 bytes"),
            ([], "add up to 0 bytes"),
            ([first.id, first.id], "is named twice"),
            ([first.id, foreign.id], "is not a part"),
            ([first.id, "part_x"], "is not a part"),
        ):
            with pytest.raises(InvalidRequest, match=expected) as raised:
                await desk.uploads.complete(MINE, OPENAI, upload.id, wrong, None)
            assert fault(raised) == ("part_ids", "invalid_value")
        with pytest.raises(InvalidRequest) as raised:
            await desk.uploads.complete(MINE, OPENAI, upload.id, [first.id, second.id], "0" * 32)
        assert fault(raised) == ("md5", "invalid_value")

        assert desk.tables.files == {}
        assert (await desk.uploads.get(MINE, upload.id)).status is UploadStatus.PENDING
        assert len(desk.blobs.held) == 3

    async def test_an_upload_that_has_ended_is_a_conflict(self, desk: Desk) -> None:
        """Whatever ended it."""
        cancelled, expired = await self.create(desk), await self.create(desk)
        assert (await desk.uploads.cancel(MINE, cancelled.id)).status is UploadStatus.CANCELLED
        desk.clock.jump(3_600)
        assert (await desk.uploads.get(MINE, expired.id)).status is UploadStatus.EXPIRED
        for upload in (cancelled, expired):
            with pytest.raises(Conflict):
                await self.add(desk, upload)
            with pytest.raises(Conflict):
                await desk.uploads.complete(MINE, OPENAI, upload.id, [], None)
            with pytest.raises(Conflict):
                await desk.uploads.cancel(MINE, upload.id)

        assert desk.blobs.held == {}

    async def test_foreign_and_unknown_uploads_are_not_found(self, desk: Desk) -> None:
        """All the same."""
        upload = await self.create(desk)
        for resource, upload_id in ((OTHERS, upload.id), (MINE, UploadId("upload_x"))):
            with pytest.raises(NotFound) as raised:
                await desk.uploads.get(resource, upload_id)
            assert fault(raised) == ("id", None)

    async def test_a_part_that_loses_against_the_end_leaves_no_trace(self, desk: Desk) -> None:
        """Cancelled while its bytes arrived."""
        upload = await self.create(desk)

        async def pieces() -> AsyncIterator[bytes]:
            yield GOOD
            await desk.uploads.cancel(MINE, upload.id)

        with pytest.raises(Conflict):
            await desk.uploads.add_part(MINE, OPENAI, upload.id, pieces())

        assert (desk.blobs.held, desk.tables.parts) == ({}, {})

    async def test_a_completion_that_loses_against_a_cancel_leaves_no_file(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """And the other way round."""
        upload = await self.create(desk, len(GOOD))
        part = await self.add(desk, upload)
        stream = desk.blobs.stream

        async def cancel_first(key: str) -> AsyncIterator[bytes]:
            await desk.uploads.cancel(MINE, upload.id)
            async for piece in stream(key):
                yield piece

        monkeypatch.setattr(desk.blobs, "stream", cancel_first)
        with pytest.raises(Conflict):
            await desk.uploads.complete(MINE, OPENAI, upload.id, [part.id], None)

        assert desk.tables.files == {}
        assert list(desk.blobs.held) == [part.blob]

    async def test_a_cancel_that_loses_against_a_completion_is_a_conflict(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The file stays."""
        upload = await self.create(desk, len(GOOD))
        part = await self.add(desk, upload)
        _, _, uploads = desk.stores
        save = uploads.save

        async def complete_first(new: Upload, *, expected: Upload, file: File | None = None) -> bool:
            monkeypatch.setattr(uploads, "save", save)
            await desk.uploads.complete(MINE, OPENAI, upload.id, [part.id], None)
            return await save(new, expected=expected, file=file)

        monkeypatch.setattr(uploads, "save", complete_first)
        with pytest.raises(Conflict):
            await desk.uploads.cancel(MINE, upload.id)

        assert (await desk.uploads.get(MINE, upload.id)).status is UploadStatus.COMPLETED
        assert len(desk.tables.files) == 1


class TestBatches:
    """Create, look at, list, cancel."""

    @pytest.mark.parametrize(("flavour", "expiry"), [(OPENAI, Expiry.EXPIRE), (AZURE, Expiry.CONTINUE)])
    async def test_a_batch_is_created_in_validating(self, desk: Desk, flavour: Flavour, expiry: Expiry) -> None:
        """Nobody looks at its file yet; the dispatcher is told."""
        batch = await desk.submit(flavour, metadata={"a": "b"})

        assert (batch.status, batch.created_at, batch.expires_at) == (BatchStatus.VALIDATING, NOW, NOW + DAY)
        assert (batch.expiry, batch.total, batch.metadata) == (expiry, 0, {"a": "b"})
        assert await desk.batches.get(MINE, batch.id) == batch
        assert desk.nudges == ["created"]

    @pytest.mark.parametrize(
        ("changes", "expected"),
        [
            ({"endpoint": "/v1/x"}, ("endpoint", "invalid_value")),
            ({"endpoint": "/chat/completions"}, ("endpoint", "invalid_value")),
            ({"completion_window": "24"}, ("completion_window", "invalid_value")),
            ({"completion_window": "48h"}, ("completion_window", "invalid_value")),
            ({"metadata": {str(n): "" for n in range(17)}}, ("metadata", "object_above_max_properties")),
            ({"metadata": {"k" * 65: ""}}, (f"metadata.{'k' * 64}", "string_above_max_length")),
            ({"metadata": {"k": "v" * 513}}, ("metadata.k", "string_above_max_length")),
            (
                {"output_expires_after": ExpiresAfter(anchor="created_at", seconds=1)},
                ("output_expires_after.seconds", "integer_below_min_value"),
            ),
        ],
    )
    async def test_a_wrong_shape_is_refused(
        self, desk: Desk, changes: dict[str, Any], expected: tuple[str, str]
    ) -> None:
        """CONTRACT 3.5."""
        with pytest.raises(InvalidRequest) as raised:
            await desk.submit(**changes)

        assert fault(raised) == expected
        assert (desk.tables.batches, desk.nudges) == ({}, [])

    async def test_the_largest_metadata_passes(self, desk: Desk) -> None:
        """Sixteen pairs of 64 and 512 characters."""
        metadata = {f"{n:064}": "v" * 512 for n in range(16)}
        wish = ExpiresAfter(anchor="created_at", seconds=3_600)

        batch = await desk.submit(metadata=metadata, output_expires_after=wish)

        assert (batch.metadata, batch.output_expires_after) == (metadata, 3_600)

    async def test_the_same_request_with_the_same_key_makes_one_batch(self, desk: Desk) -> None:
        """The dispatcher hears of it once; what comes back is the batch as it stands."""
        first = await desk.submit(idempotency_key="key", metadata={"a": "1", "b": "2"})
        running = first.to(BatchStatus.IN_PROGRESS, START)
        desk.tables.batches[first.id] = running

        assert await desk.submit(idempotency_key="key", metadata={"b": "2", "a": "1"}) == running
        assert desk.nudges == ["created"]
        assert (await desk.submit(idempotency_key="other key")).id != first.id

    @pytest.mark.parametrize(
        "changes",
        [
            {"input_file_id": "file-y"},
            {"endpoint": "/v1/embeddings"},
            {"metadata": {}},
            {"output_expires_after": ExpiresAfter(anchor="created_at", seconds=3_600)},
            {"flavour": AZURE},
        ],
        ids=str,
    )
    async def test_a_key_cannot_be_used_for_another_request(self, desk: Desk, changes: dict[str, Any]) -> None:
        """And the first batch is named."""
        first = await desk.submit(idempotency_key="key")

        with pytest.raises(Conflict, match=first.id) as raised:
            await desk.submit(**{"idempotency_key": "key"} | changes)

        assert fault(raised) == ("Idempotency-Key", "idempotency_key_reused")
        assert list(desk.tables.batches) == [first.id]

    async def test_a_key_is_remembered_for_a_day(self, desk: Desk) -> None:
        """And a second more."""
        first = await desk.submit(idempotency_key="key")
        desk.clock.jump(DAY)
        again = await desk.submit(idempotency_key="key")
        desk.clock.jump(1)
        other = await desk.submit(idempotency_key="key", input_file_id="file-y")

        assert again == first
        assert other.id != first.id

    @pytest.mark.parametrize(
        ("key", "code"), [("", "invalid_value"), ("k" * 256, "string_above_max_length"), ("k" * 255, None)]
    )
    async def test_a_key_has_up_to_255_characters(self, desk: Desk, key: str, code: str | None) -> None:
        """An empty one is a mistake of the caller, who would not be safe."""
        if code is None:
            assert (await desk.submit(idempotency_key=key)).idempotency_key == key
            return
        with pytest.raises(InvalidRequest) as raised:
            await desk.submit(idempotency_key=key)

        assert fault(raised) == ("Idempotency-Key", code)

    async def test_what_a_client_sends_again_by_itself_makes_no_second_batch(self, desk: Desk) -> None:
        """Within a minute, and only if it asks for the same."""
        first = await desk.submit(metadata={"a": "b"})
        desk.clock.jump(60)

        assert await desk.submit(metadata={"a": "b"}, sent_again=True) == first
        assert (await desk.submit(metadata={"a": "c"}, sent_again=True)).id != first.id
        desk.clock.jump(1)
        assert (await desk.submit(metadata={"a": "b"}, sent_again=True)).id != first.id

    async def test_two_deliberate_requests_make_two_batches(self, desk: Desk) -> None:
        """Nor is one with a key taken for one without."""
        first, second = await desk.submit(), await desk.submit()
        with_key = await desk.submit(idempotency_key="key")

        assert len({first.id, second.id, with_key.id}) == 3
        assert await desk.submit(sent_again=True) == second

    async def test_batches_are_listed(self, desk: Desk) -> None:
        """Newest first, with conditions."""
        made = [await desk.submit() for _ in range(3)]
        page = await desk.batches.page(MINE, BatchQuery(limit=2))
        none = await desk.batches.page(MINE, BatchQuery(limit=2, conditions=(Condition("status", "eq", "failed"),)))

        assert (list(page.items), page.has_more) == ([made[2], made[1]], True)
        assert (list(none.items), none.has_more) == ([], False)
        with pytest.raises(InvalidRequest) as raised:
            await desk.batches.page(MINE, BatchQuery(limit=2, after=BatchId("batch_x")))
        assert fault(raised) == ("after", "invalid_value")

    async def test_foreign_and_unknown_batches_are_not_found(self, desk: Desk) -> None:
        """All the same."""
        batch = await desk.submit()
        for resource, batch_id in ((OTHERS, batch.id), (MINE, BatchId("batch_x"))):
            for call in (desk.batches.get, desk.batches.cancel):
                with pytest.raises(NotFound, match="No batch found") as raised:
                    await call(resource, batch_id)
                assert fault(raised) == (None, None)

    @pytest.mark.parametrize("status", BatchStatus)
    async def test_a_cancel_depends_on_the_status(self, desk: Desk, status: BatchStatus) -> None:
        """CONTRACT 3.5: idempotent, and a conflict where it ended another way."""
        batch = await desk.submit()
        desk.tables.batches[batch.id] = replace(batch, status=status)
        if status in {"failed", "completed", "expired"}:
            with pytest.raises(Conflict, match=f"Cannot cancel a batch with status '{status}'"):
                await desk.batches.cancel(MINE, batch.id)
            return

        cancelled = await desk.batches.cancel(MINE, batch.id)

        expected = BatchStatus.CANCELLED if status == "cancelled" else BatchStatus.CANCELLING
        assert cancelled.status is expected
        told = status not in {"cancelling", "cancelled"}
        assert desk.nudges == ["created", batch.id][: 1 + told]
        assert (cancelled.cancelling_at is not None) is told

    async def test_a_cancel_that_loses_a_race_looks_again(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        """Against a worker that moves the batch on."""
        batch = await desk.submit()
        store, _, _ = desk.stores
        save = store.save

        async def move_first(new: Batch, *, expected: Batch, files: tuple[File, ...] = ()) -> bool:
            monkeypatch.setattr(store, "save", save)
            await save(batch.to(BatchStatus.IN_PROGRESS, START, total=3), expected=batch)
            return await save(new, expected=expected, files=files)

        monkeypatch.setattr(store, "save", move_first)

        cancelled = await desk.batches.cancel(MINE, batch.id)

        assert (cancelled.status, cancelled.total) == (BatchStatus.CANCELLING, 3)


class TestSweeper:
    """Freeing storage."""

    async def test_the_bytes_of_gone_files_and_uploads_are_removed(self, desk: Desk) -> None:
        """Once; what exists stays."""
        stays, goes = await desk.receive(GOOD), await desk.receive(GOOD)
        await desk.files.delete(MINE, goes.id)
        uploads = TestUploads()
        open_one, ended = await uploads.create(desk), await uploads.create(desk)
        kept = await uploads.add(desk, open_one)
        await uploads.add(desk, ended)
        await uploads.add(desk, ended)
        await desk.uploads.cancel(MINE, ended.id)

        assert await desk.sweeper.sweep() == 2
        assert set(desk.blobs.held) == {stays.blob, kept.blob}
        assert await desk.sweeper.sweep() == 0

    async def test_an_expired_file_goes_a_minute_later_and_not_while_a_batch_needs_it(self, desk: Desk) -> None:
        """The batch may have been created in the very moment of the expiry."""
        wish = ExpiresAfter(anchor="created_at", seconds=3_600)
        free, needed = await desk.receive(GOOD, expires_after=wish), await desk.receive(GOOD, expires_after=wish)
        batch = await desk.submit(input_file_id=needed.id)
        desk.clock.jump(3_659)
        assert await desk.sweeper.sweep() == 0
        desk.clock.jump(1)
        assert await desk.sweeper.sweep() == 1
        assert await desk.sweeper.sweep_orphans() == 0
        assert (free.blob in desk.blobs.held, needed.blob in desk.blobs.held) == (False, True)
        desk.tables.batches[batch.id] = replace(batch, status=BatchStatus.EXPIRED)

        assert await desk.sweeper.sweep() == 1
        assert desk.blobs.held == {}

    async def test_what_nothing_names_is_removed_after_a_while(self, desk: Desk) -> None:
        """Left by a crash; what is young may be about to be named."""
        file = await desk.receive(GOOD)
        part = await TestUploads().add(desk, await TestUploads().create(desk))
        running, ended = await desk.submit(), await desk.submit()
        desk.tables.batches[ended.id] = replace(ended, status=BatchStatus.COMPLETED)
        for key in ("files/orphan", "uploads/u/orphan", f"batches/{running.id}/index", f"batches/{ended.id}/index"):
            desk.blobs.put(key, b"x")
        for batch in (running, ended):
            async with desk.logs.open(batch.id, epoch=1, total=1, on_durable=lambda _: None):
                pass

        assert await desk.sweeper.sweep_orphans() == 1
        assert list(desk.logs.logs) == [running.id]
        desk.clock.jump(4_000)
        desk.blobs.put("files/young", b"x")

        assert await desk.sweeper.sweep_orphans() == 3
        assert set(desk.blobs.held) == {file.blob, part.blob, f"batches/{running.id}/index", "files/young"}

    async def test_a_sweep_goes_on_until_all_is_gone(self, desk: Desk) -> None:
        """A hundred at once, with a pause for the others after each; orphans in portions."""
        for number in range(250):
            desk.blobs.put(f"files/{number}", b"x")
        for _ in range(250):
            file = await desk.receive(GOOD)
            await desk.files.delete(MINE, file.id)
        desk.clock.jump(4_000)
        before = desk.clock.ticks()

        assert await desk.swept() == 250
        assert 0.1 < desk.clock.ticks() - before < 1
        assert await desk.sweeper.sweep_orphans() == 250
        assert desk.blobs.held == {}

    async def test_what_cannot_be_removed_does_not_hold_up_what_follows(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """More of it than one load; it is told once, is tried again each time, and told again only if it comes back."""
        uploads = TestUploads()
        ended = await uploads.create(desk)
        stuck = {(await uploads.add(desk, ended)).blob}
        await uploads.add(desk, ended)
        await desk.uploads.cancel(MINE, ended.id)
        for number in range(103):
            file = await desk.receive(GOOD)
            await desk.files.delete(MINE, file.id)
            if number < 101:
                stuck.add(file.blob)
        delete = desk.blobs.delete

        async def refuse(key: str) -> None:
            if key in stuck:
                raise StorageFull(28, "no room")
            await delete(key)

        monkeypatch.setattr(desk.blobs, "delete", refuse)

        with capture_logs() as logged:
            assert [await desk.swept() for _ in range(3)] == [2, 0, 0]
        assert set(desk.blobs.held) == stuck
        assert logged == [
            {"log_level": "warning", "event": "sweep.stuck", "blobs": 102, "problem": "[Errno 28] no room"}
        ]
        stuck.clear()
        with capture_logs() as logged:
            assert [await desk.swept(), await desk.swept()] == [102, 0]
        assert logged == []
        assert desk.blobs.held == {}

    async def test_an_orphan_that_cannot_be_removed_is_stepped_over(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The others go, and so do the logs of ended batches."""
        for key in ("files/stuck", "files/other"):
            desk.blobs.put(key, b"x")
        desk.clock.jump(4_000)
        delete = desk.blobs.delete

        async def refuse(key: str) -> None:
            if key == "files/stuck":
                raise OSError(5, "input/output error")
            await delete(key)

        monkeypatch.setattr(desk.blobs, "delete", refuse)

        with capture_logs() as logged:
            assert [await desk.sweeper.sweep_orphans() for _ in range(2)] == [1, 0]
        assert set(desk.blobs.held) == {"files/stuck"}
        assert [each["event"] for each in logged] == ["sweep.stuck"]

    async def test_what_belongs_to_a_batch_that_is_not_known_stays(self, desk: Desk) -> None:
        """Another service's that has the same store, or one younger than a backup; the log says when there are more."""
        ended = await desk.submit()
        desk.tables.batches[ended.id] = replace(ended, status=BatchStatus.COMPLETED)
        strangers = [BatchId("batch_strange"), BatchId("batch_strange_too")]
        output = f"batches/{strangers[0]}/1.output.jsonl"
        desk.blobs.put(output, b"x")
        desk.clock.jump(4_000)

        with capture_logs() as logged:
            for batch_id in (ended.id, *strangers):
                async with desk.logs.open(batch_id, epoch=1, total=1, on_durable=lambda _: None):
                    pass
                await desk.sweeper.sweep_orphans()
            await desk.sweeper.sweep_orphans()

        assert list(desk.logs.logs) == strangers
        assert set(desk.blobs.held) == {output}
        assert [(each["event"], each["batches"]) for each in logged] == [
            ("sweep.unknown_logs", 1),
            ("sweep.unknown_logs", 2),
        ]
