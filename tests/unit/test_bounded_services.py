"""What the use cases refuse because there is too much of it already, on stores in memory."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from tests.unit.test_services import AZURE, GOOD, MINE, OPENAI, Desk, desk, fault, make

from overnight.domain.errors import InvalidRequest, QuotaExceeded, ServiceError, TooManyRequests
from overnight.domain.file import File
from overnight.domain.upload import Part, Upload
from overnight.services.uploads import NewUpload

# Pytest finds fixtures in the module that uses them.
__all__ = ("desk", "make")

Made = Callable[..., Desk]


async def announce(desk: Desk, **changes: Any) -> Upload:
    given: dict[str, Any] = {"filename": "in.jsonl", "purpose": "batch", "bytes": len(GOOD), "mime_type": "text/plain"}
    return await desk.uploads.create(MINE, OPENAI, NewUpload(**given | changes))


async def add(desk: Desk, upload: Upload, data: bytes = GOOD) -> Part:
    async def pieces() -> Any:
        yield data

    return await desk.uploads.add_part(MINE, OPENAI, upload.id, pieces())


class TestBatches:
    """Batches in an hour."""

    async def test_one_too_many_is_refused_until_there_is_room(self, make: Made) -> None:
        """And the refusal says for how long."""
        desk = make(batches_per_hour=2)
        await desk.submit()
        desk.clock.jump(100)
        await desk.submit()
        desk.clock.jump(500)

        with pytest.raises(TooManyRequests) as raised:
            await desk.submit()

        assert (raised.value.code, raised.value.wait) == ("rate_limit_exceeded", 3_000.0)
        assert "2 batches created within an hour is reached. The next one can be created in 3,000 seconds." in str(
            raised.value
        )
        assert len(desk.tables.batches) == 2
        desk.clock.jump(raised.value.wait)
        await desk.submit()

    @pytest.mark.parametrize("how", [{"idempotency_key": "key"}, {"sent_again": True}])
    async def test_a_request_that_is_repeated_is_answered(self, make: Made, how: dict[str, Any]) -> None:
        """It makes no batch, so it does not count."""
        desk = make(batches_per_hour=1)
        first = await desk.submit(**how)

        assert (await desk.submit(**how)).id == first.id
        with pytest.raises(TooManyRequests):
            await desk.submit(**how | {"idempotency_key": "other"})

    async def test_the_flavours_have_the_limits_of_their_vendors(self, desk: Desk) -> None:
        """Azure documents none."""
        assert [desk.limits[flavour].batches_per_hour for flavour in (OPENAI, AZURE)] == [2_000, None]


class TestFiles:
    """Files that arrive at the same time."""

    async def test_of_those_that_race_at_the_edge_the_bytes_of_the_losers_go(self, make: Made) -> None:
        """The count in the store has the last word."""
        desk = make(files_without_expiry=3, input_life=None)
        results = await asyncio.gather(*(desk.receive(GOOD) for _ in range(16)), return_exceptions=True)

        assert sum(isinstance(result, File) for result in results) == 3
        assert sum(isinstance(result, QuotaExceeded) for result in results) == 13
        assert len(desk.blobs.held) == 3

    async def test_the_loser_of_a_race_is_told_as_any_other(self, make: Made, monkeypatch: pytest.MonkeyPatch) -> None:
        """The first look saw room, the last one did not."""
        desk = make(files_without_expiry=1, input_life=None)
        await desk.receive(GOOD)
        monkeypatch.setattr(desk.files, "check_quota", _see_room)
        upload = await announce(desk)
        part = await add(desk, upload)
        desk.tables.parts[part.id] = part

        for losing in (desk.receive(GOOD), desk.uploads.complete(MINE, OPENAI, upload.id, [part.id], None)):
            with pytest.raises(QuotaExceeded, match=r"without expiry is reached\. The maximum is 1") as raised:
                await losing
            assert fault(raised) == (None, "quotaExceeded")
        assert len([key for key in desk.blobs.held if key.startswith("files/")]) == 1
        assert (await desk.uploads.get(MINE, upload.id)).status == "pending"

    async def test_a_name_has_so_many_characters(self, desk: Desk) -> None:
        """It is in every list of files."""
        await desk.receive(GOOD, filename="x" * 506 + ".jsonl")
        with pytest.raises(InvalidRequest) as raised:
            await desk.receive(GOOD, filename="x" * 507 + ".jsonl")

        assert fault(raised) == ("file", "string_above_max_length")


class TestUploads:
    """Uploads that are begun and not ended."""

    @pytest.mark.parametrize("param", ["filename", "mime_type"])
    async def test_what_is_announced_has_so_many_characters(self, desk: Desk, param: str) -> None:
        """Each text."""
        with pytest.raises(InvalidRequest) as raised:
            await announce(desk, **{param: "x" * 513})

        assert fault(raised) == (param, "string_above_max_length")

    async def test_one_too_many_is_refused(self, make: Made) -> None:
        """Until one has ended or expired."""
        desk = make(pending_uploads=1)
        upload = await announce(desk)
        with pytest.raises(QuotaExceeded, match="1 uploads that have not ended") as raised:
            await announce(desk)

        assert fault(raised) == (None, "quotaExceeded")
        await desk.uploads.cancel(MINE, upload.id)
        await announce(desk)
        desk.clock.jump(3_600)
        await announce(desk)

    async def test_without_a_bound_there_may_be_any_number(self, make: Made) -> None:
        """Of uploads and of bytes."""
        desk = make(pending_uploads=None, pending_bytes=None)
        for _ in range(3):
            await add(desk, await announce(desk))

        assert len(desk.tables.parts) == 3

    async def test_parts_that_do_not_fit_leave_no_trace(self, make: Made) -> None:
        """Whether the room was used up before they came or while they came."""
        desk = make(pending_bytes=len(GOOD) + 1)
        upload = await announce(desk)
        first = await add(desk, upload)
        with pytest.raises(QuotaExceeded, match="or send larger parts") as raised:
            await add(desk, upload)
        assert fault(raised) == (None, "quotaExceeded")
        await add(desk, upload, b"x")

        error: type[ServiceError] = QuotaExceeded
        with pytest.raises(error):
            await add(desk, upload, b"x")
        assert len(desk.tables.parts) == len(desk.blobs.held) == 2
        await desk.uploads.complete(MINE, OPENAI, upload.id, [first.id], None)
        await add(desk, await announce(desk))


async def _see_room(*_: object, **__: object) -> None:
    return
