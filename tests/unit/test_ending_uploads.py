"""Uploads that end while their parts are put together: the answer is what became of the upload."""

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from tests.unit.test_services import GOOD, MINE, OPENAI, Desk, desk
from tests.unit.test_services import TestUploads as _Uploads

from overnight.domain.errors import Conflict, InvalidRequest
from overnight.domain.upload import Part, Upload, UploadStatus

# Pytest finds fixtures in the module that uses them.
__all__ = ("desk",)

LIFE = 3_600
KEPT = 600

_made_by = _Uploads()

Ending = Callable[[], Awaitable[object]]


@pytest.fixture
async def upload(desk: Desk) -> Upload:
    return await _made_by.create(desk)


@pytest.fixture
async def parts(desk: Desk, upload: Upload) -> list[Part]:
    return [await _made_by.add(desk, upload) for _ in range(2)]


async def complete(desk: Desk, upload: Upload, parts: list[Part]) -> Upload:
    """Put the parts together."""
    done, _ = await desk.uploads.complete(MINE, OPENAI, upload.id, [part.id for part in parts], None)
    return done


def meanwhile(desk: Desk, ending: Ending, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let something happen, and a sweep, before the second part is read."""
    stream, read = desk.blobs.stream, list[str]()

    async def interrupted(key: str) -> AsyncIterator[bytes]:
        read.append(key)
        if len(read) == 2:
            await ending()
            await desk.sweeper.sweep()
        async for piece in stream(key):
            yield piece

    monkeypatch.setattr(desk.blobs, "stream", interrupted)


async def test_an_upload_that_was_cancelled_says_so(
    desk: Desk, upload: Upload, parts: list[Part], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though its parts are gone."""
    meanwhile(desk, lambda: desk.uploads.cancel(MINE, upload.id), monkeypatch)
    with pytest.raises(Conflict, match="is cancelled"):
        await complete(desk, upload, parts)

    assert (desk.blobs.held, desk.tables.files) == ({}, {})


async def test_of_two_completions_the_second_is_told_of_the_first(
    desk: Desk, upload: Upload, parts: list[Part], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An SDK sends one again that it saw no answer to."""
    meanwhile(desk, lambda: complete(desk, upload, parts), monkeypatch)
    with pytest.raises(Conflict, match="is completed"):
        await complete(desk, upload, parts)

    assert (await desk.uploads.get(MINE, upload.id)).status is UploadStatus.COMPLETED
    assert len(desk.blobs.held) == len(desk.tables.files) == 1


async def test_a_completion_that_was_in_time_has_some_minutes(
    desk: Desk, upload: Upload, parts: list[Part], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parts stay until then."""

    async def nearly() -> None:
        desk.clock.jump(LIFE + KEPT - 1)

    meanwhile(desk, nearly, monkeypatch)
    done = await complete(desk, upload, parts)

    assert done.status is UploadStatus.COMPLETED


async def test_a_completion_that_takes_longer_is_told_of_the_end(
    desk: Desk, upload: Upload, parts: list[Part], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the clock, for nobody wrote it down."""

    async def fully() -> None:
        desk.clock.jump(LIFE + KEPT)

    meanwhile(desk, fully, monkeypatch)
    with pytest.raises(Conflict, match="is expired"):
        await complete(desk, upload, parts)

    assert desk.blobs.held == {}


async def test_parts_that_are_gone_by_the_time_they_are_looked_up_are_no_fault_of_the_caller(
    desk: Desk, upload: Upload, parts: list[Part], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They were parts of this upload when they were named."""
    _, _, uploads = desk.stores
    look_up = uploads.parts

    async def too_late(*about: object) -> object:
        monkeypatch.setattr(uploads, "parts", look_up)
        await desk.uploads.cancel(MINE, upload.id)
        await desk.sweeper.sweep()
        return []

    monkeypatch.setattr(uploads, "parts", too_late)
    with pytest.raises(Conflict, match="is cancelled"):
        await complete(desk, upload, parts)
    with pytest.raises(InvalidRequest, match="not a part"):
        await complete(desk, await _made_by.create(desk), parts)


async def test_a_part_that_is_lost_is_a_fault_of_ours(desk: Desk, upload: Upload, parts: list[Part]) -> None:
    """Nothing that the caller did explains it."""
    await desk.blobs.delete(parts[1].blob)
    with pytest.raises(FileNotFoundError):
        await complete(desk, upload, parts)

    assert (await desk.uploads.get(MINE, upload.id)).status is UploadStatus.PENDING
    assert len(GOOD) * 2 == upload.bytes
