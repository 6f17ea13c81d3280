"""What ``ports/files.py`` promises about the records of files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overnight.domain.file import File, Purpose
from overnight.domain.ids import FileId, ResourceId
from overnight.testing.contracts.expect import expect

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from overnight.ports.files import Files

_NOW = 1_700_000_000
_MINE, _OTHERS = ResourceId("mine"), ResourceId("others")


async def a_file_belongs_to_its_resource(files: Files) -> None:
    """A foreign id is an unknown one, to read, to delete and as a cursor."""
    file = await _added(files, 1)
    expect(file, await files.get(_MINE, file.id, now=_NOW))
    expect(None, await files.get(_OTHERS, file.id, now=_NOW))
    expect(False, await files.delete(_OTHERS, file.id, now=_NOW))
    expect(None, await _page(files, _OTHERS, after=file.id))
    expect(file, await files.get(_MINE, file.id, now=_NOW))


async def a_deleted_file_is_gone_once(files: Files) -> None:
    """It can still be a cursor, so that a list being walked goes on."""
    added = [await _added(files, number) for number in range(3)]
    expect(True, await files.delete(_MINE, added[1].id, now=_NOW))
    expect(False, await files.delete(_MINE, added[1].id, now=_NOW))
    expect(None, await files.get(_MINE, added[1].id, now=_NOW))
    expect([added[2].id, added[0].id], await _page(files, _MINE))
    expect([added[0].id], await _page(files, _MINE, after=added[1].id))


async def an_expired_file_is_gone_at_its_second(files: Files) -> None:
    """And not before."""
    file = await _added(files, 1, expires_at=_NOW + 10)
    expect(file, await files.get(_MINE, file.id, now=_NOW + 9.9))
    expect(None, await files.get(_MINE, file.id, now=_NOW + 10))


async def gone_files_come_in_the_order_of_their_creation(files: Files) -> None:
    """Until their bytes are forgotten, and from behind one that stays where it is."""
    added = [await _added(files, number) for number in (3, 1, 2, 4)]
    for file in added[:0:-1]:
        await files.delete(_MINE, file.id, now=_NOW)
    gone = await files.gone(now=_NOW, limit=2)
    expect([added[1].id, added[2].id], [file.id for file in gone])
    await files.forget_bytes([gone[1]])
    expect([added[3].id], [file.id for file in await files.gone(now=_NOW, limit=2, after=gone[1])])
    expect([added[1].id, added[3].id], [file.id for file in await files.gone(now=_NOW, limit=9)])


async def files_are_counted_by_whether_they_expire(files: Files) -> None:
    """For the limits on their number; those that are gone do not count."""
    await _added(files, 1)
    await _added(files, 2, expires_at=_NOW + 10)
    expect(1, await files.count(_MINE, expiring=False, now=_NOW))
    expect(1, await files.count(_MINE, expiring=True, now=_NOW))
    expect(0, await files.count(_MINE, expiring=True, now=_NOW + 10))
    expect(0, await files.count(_OTHERS, expiring=False, now=_NOW))


FILES: tuple[Callable[[Files], Awaitable[None]], ...] = (
    a_file_belongs_to_its_resource,
    a_deleted_file_is_gone_once,
    an_expired_file_is_gone_at_its_second,
    gone_files_come_in_the_order_of_their_creation,
    files_are_counted_by_whether_they_expire,
)
"""What ``ports/files.py`` promises."""


async def _added(files: Files, number: int, *, expires_at: int | None = None) -> File:
    file = File(
        id=FileId(f"file-{number}"),
        resource=_MINE,
        purpose=Purpose.BATCH,
        filename="in.jsonl",
        bytes=number,
        created_at=_NOW,
        blob=f"files/{number}",
        expires_at=expires_at,
    )
    await files.add(file)
    return file


async def _page(files: Files, resource: ResourceId, *, after: FileId | None = None) -> list[FileId] | None:
    page = await files.page(resource, after=after, limit=10, purpose=None, oldest_first=False, now=_NOW)
    return None if page is None else [file.id for file in page.items]
