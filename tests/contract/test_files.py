"""The promises of ``ports/files.py``."""

import pytest
from msgspec.structs import replace
from tests.contract.records import Records, together
from tests.contract.test_batches import MINE, NOW, OTHERS, a_batch

from overnight.domain.batch import BatchStatus
from overnight.domain.file import File, Purpose
from overnight.domain.ids import FileId, PartId, ResourceId, UploadId
from overnight.domain.upload import Part, Upload, UploadStatus
from overnight.ports.files import Files, Uploads


def a_file(name: str, purpose: Purpose = Purpose.BATCH, expires_at: int | None = None) -> File:
    return File(
        id=FileId(name),
        resource=MINE,
        purpose=purpose,
        filename="ü\n.jsonl",
        bytes=2**40,
        created_at=int(NOW),
        blob=f"files/{name}",
        expires_at=expires_at,
    )


def an_upload(name: str = "upload_1", expires_at: int = int(NOW) + 100) -> Upload:
    return Upload(
        id=UploadId(name),
        resource=MINE,
        filename="f",
        purpose=Purpose.BATCH,
        mime_type="x/y",
        bytes=3,
        created_at=int(NOW),
        expires_at=expires_at,
    )


def a_part(name: str, upload: str = "upload_1") -> Part:
    return Part(id=PartId(name), upload_id=UploadId(upload), created_at=int(NOW), bytes=1, blob=f"p/{name}")


async def _names(files: Files, **query: object) -> tuple[list[str], bool]:
    asked = {"after": None, "limit": 10, "purpose": None, "oldest_first": False, "now": NOW} | query
    page = await files.page(MINE, **asked)  # type: ignore[arg-type]
    assert page is not None
    return [file.id for file in page.items], page.has_more


class TestFiles:
    """Records of files."""

    async def test_a_file_comes_back_as_it_was_stored(self, files: Files) -> None:
        """Every field."""
        file = replace(a_file("file-1", expires_at=int(NOW) + 5), status_details="d")
        await files.add(file)

        assert await files.get(MINE, file.id, now=NOW) == file

    async def test_unknown_foreign_deleted_and_expired_files_are_told_the_same(self, files: Files) -> None:
        """There is no such file."""
        await files.add(a_file("deleted"))
        await files.add(a_file("expired", expires_at=int(NOW)))
        await files.add(a_file("foreign"))
        assert await files.delete(MINE, FileId("deleted"), now=NOW)

        for resource, name in [(MINE, "x"), (OTHERS, "foreign"), (MINE, "deleted"), (MINE, "expired")]:
            assert await files.get(resource, FileId(name), now=NOW) is None
            assert await files.delete(resource, FileId(name), now=NOW) is False
        assert await _names(files) == (["foreign"], False)

    async def test_a_list_goes_both_ways_and_by_purpose(self, files: Files) -> None:
        """Cursor, limit and order together."""
        for number in range(6):
            await files.add(a_file(f"f{number}", Purpose.BATCH if number % 2 else Purpose.EVALS))

        assert await _names(files, limit=2) == (["f5", "f4"], True)
        assert await _names(files, after="f4", limit=4) == (["f3", "f2", "f1", "f0"], False)
        assert await _names(files, oldest_first=True, after="f1", limit=3) == (["f2", "f3", "f4"], True)
        assert await _names(files, purpose=Purpose.EVALS, limit=2) == (["f4", "f2"], True)
        assert await _names(files, purpose=Purpose.EVALS, oldest_first=True, after="f1") == (["f2", "f4"], False)

    async def test_a_deleted_file_keeps_its_place_as_a_cursor(self, files: Files) -> None:
        """A client that deletes while it lists loses nothing."""
        for number in range(4):
            await files.add(a_file(f"f{number}"))
        await files.delete(MINE, FileId("f2"), now=NOW)

        assert await _names(files, after="f2") == (["f1", "f0"], False)

    async def test_an_unknown_or_foreign_cursor_gives_no_list(self, files: Files) -> None:
        """Never the first page again."""
        await files.add(a_file("f0"))
        query = {"limit": 1, "purpose": None, "oldest_first": False, "now": NOW}

        assert await files.page(MINE, after=FileId("nope"), **query) is None  # type: ignore[arg-type]
        assert await files.page(OTHERS, after=FileId("f0"), **query) is None  # type: ignore[arg-type]

    async def test_only_uploaded_files_that_exist_are_counted(self, files: Files) -> None:
        """By whether they expire."""
        await files.add(a_file("a"))
        await files.add(a_file("b"))
        await files.add(a_file("c", expires_at=int(NOW) + 10))
        await files.add(a_file("d", expires_at=int(NOW) - 10))
        await files.add(a_file("e", Purpose.BATCH_OUTPUT))
        await files.delete(MINE, FileId("b"), now=NOW)

        assert await files.count(MINE, expiring=False, now=NOW) == 1
        assert await files.count(MINE, expiring=True, now=NOW) == 1
        assert await files.count(OTHERS, expiring=True, now=NOW) == 0

    async def test_gone_files_are_given_out_until_their_bytes_are_forgotten(self, files: Files) -> None:
        """So that a crash in between costs nothing."""
        await files.add(a_file("stays"))
        await files.add(a_file("deleted"))
        await files.add(a_file("expired", expires_at=int(NOW)))
        await files.delete(MINE, FileId("deleted"), now=NOW)

        gone = await files.gone(now=NOW, limit=10)

        assert {file.id for file in gone} == {"deleted", "expired"}
        await files.forget_bytes([])
        assert len(await files.gone(now=NOW, limit=1)) == 1
        await files.forget_bytes([gone[0]])
        assert [file.id for file in await files.gone(now=NOW, limit=10)] == [gone[1].id]
        await files.forget_bytes(gone)
        assert list(await files.gone(now=NOW, limit=10)) == []

    async def test_gone_files_come_in_the_order_of_their_creation(self, files: Files) -> None:
        """So that whoever removes them can step over one that cannot be removed now."""
        names = [f"file-{number}" for number in (3, 1, 4, 2, 5)]
        for name in names:
            await files.add(a_file(name, expires_at=int(NOW) if name == "file-4" else None))
        for name in ("file-5", "file-2", "file-1", "file-3"):
            await files.delete(MINE, FileId(name), now=NOW)

        first = await files.gone(now=NOW, limit=2)
        await files.forget_bytes([first[0]])
        second = await files.gone(now=NOW, limit=2, after=first[-1])
        third = await files.gone(now=NOW, limit=2, after=second[-1])

        assert names == [file.id for file in (*first, *second, *third)]
        assert list(await files.gone(now=NOW, limit=2, after=third[-1])) == []

    async def test_a_blob_is_known_until_its_bytes_are_forgotten(self, files: Files) -> None:
        """Also that of a deleted file."""
        for name in ("a", "b"):
            await files.add(a_file(name))
            await files.delete(MINE, FileId(name), now=NOW)
        keys = ["files/a", "files/b", "files/x"]

        assert await files.known_blobs(keys) == {"files/a", "files/b"}

        await files.forget_bytes([a_file("a")])
        assert await files.known_blobs(keys) == {"files/b"}
        assert await files.known_blobs([]) == set()

    @pytest.mark.parametrize("status", sorted(BatchStatus))
    async def test_a_gone_file_keeps_its_bytes_while_an_active_batch_reads_it(
        self, records: Records, status: BatchStatus
    ) -> None:
        """Deleting an input does no harm to its batch."""
        await records.files.add(a_file("file-1"))
        await records.batches.add(replace(a_batch(), status=status))
        await records.files.delete(MINE, FileId("file-1"), now=NOW)

        due = [file.id for file in await records.files.gone(now=NOW, limit=10)]

        active = status in {"validating", "in_progress", "finalizing", "cancelling"}
        assert due == ([] if active else ["file-1"])


class TestUploads:
    """Records of uploads and their parts."""

    async def test_an_upload_comes_back_as_it_was_stored(self, uploads: Uploads) -> None:
        """For its owner only."""
        upload = replace(an_upload(), file_expires_after=3_600)
        await uploads.add(upload)

        assert await uploads.get(MINE, upload.id) == upload
        assert await uploads.get(OTHERS, upload.id) is None
        assert await uploads.get(MINE, UploadId("upload_2")) is None

    async def test_an_upload_and_its_file_are_saved_together(self, records: Records) -> None:
        """Once."""
        upload = an_upload()
        await records.uploads.add(upload)
        done = replace(upload, status=UploadStatus.COMPLETED, file_id=FileId("file-1"))
        cancelled = replace(upload, status=UploadStatus.CANCELLED)

        assert await records.uploads.save(done, expected=upload, file=a_file("file-1"))
        assert await records.uploads.save(cancelled, expected=upload) is False
        assert await records.uploads.save(done, expected=upload, file=a_file("file-2")) is False

        assert await records.uploads.get(MINE, upload.id) == done
        assert await records.files.get(MINE, FileId("file-1"), now=NOW) is not None
        assert await records.files.get(MINE, FileId("file-2"), now=NOW) is None

    async def test_of_two_ends_at_once_one_wins(self, uploads: Uploads) -> None:
        """Complete and cancel may race."""
        upload = an_upload()
        await uploads.add(upload)

        outcomes = await together(
            uploads.save(replace(upload, status=UploadStatus.COMPLETED), expected=upload),
            uploads.save(replace(upload, status=UploadStatus.CANCELLED), expected=upload),
        )

        assert sorted(outcomes) == [False, True]

    async def test_parts_are_found_by_name(self, uploads: Uploads) -> None:
        """Those of their own upload only."""
        await uploads.add(an_upload())
        await uploads.add(an_upload("upload_2"))
        for part in (a_part("a"), a_part("b"), a_part("c", "upload_2")):
            assert await uploads.add_part(part)
        upload_id = UploadId("upload_1")

        assert {part.id for part in await uploads.parts(upload_id)} == {"a", "b"}
        named = await uploads.parts(upload_id, [PartId("b"), PartId("c"), PartId("x")])
        assert list(named) == [a_part("b")]
        assert list(await uploads.parts(upload_id, [])) == []
        assert await uploads.known_blobs(["p/a", "p/c", "p/x"]) == {"p/a", "p/c"}

    async def test_an_upload_that_has_ended_takes_no_part(self, uploads: Uploads) -> None:
        """Nor does one that there is not."""
        upload = an_upload()
        await uploads.add(upload)
        await uploads.save(replace(upload, status=UploadStatus.CANCELLED), expected=upload)

        assert await uploads.add_part(a_part("a")) is False
        assert await uploads.add_part(a_part("b", "upload_9")) is False
        assert list(await uploads.parts(upload.id)) == []

    async def test_ended_and_expired_uploads_are_given_out_until_their_parts_are_forgotten(
        self, uploads: Uploads
    ) -> None:
        """So that their bytes are freed."""
        for name, expires_at in (("pending", 100), ("ended", 100), ("expired", 0), ("empty", 0)):
            upload = an_upload(name, int(NOW) + expires_at)
            await uploads.add(upload)
            if name != "empty":
                await uploads.add_part(a_part(f"part of {name}", name))
            if name == "ended":
                await uploads.save(replace(upload, status=UploadStatus.COMPLETED), expected=upload)

        finished = await uploads.finished(now=NOW, limit=10)

        assert {upload.id for upload in finished} == {"ended", "expired"}
        for upload in finished:
            await uploads.forget_parts(upload)
        assert list(await uploads.finished(now=NOW, limit=10)) == []
        assert len(await uploads.parts(UploadId("pending"))) == 1

    async def test_ended_uploads_come_in_the_order_of_their_creation(self, uploads: Uploads) -> None:
        """As gone files do."""
        names = ["upload_3", "upload_1", "upload_2"]
        for name in names:
            await uploads.add(an_upload(name, int(NOW) + 1))
            await uploads.add_part(a_part(f"part of {name}", name))

        first = await uploads.finished(now=NOW + 1, limit=2)
        await uploads.forget_parts(first[-1])
        second = await uploads.finished(now=NOW + 1, limit=2, after=first[-1])

        assert names == [upload.id for upload in (*first, *second)]
        assert list(await uploads.finished(now=NOW + 1, limit=2, after=second[-1])) == []


def test_resources_differ() -> None:
    """The suite itself: it looks across a border."""
    assert ResourceId("mine") == MINE != OTHERS
