"""Files and uploads in SQL; keeps the promises of ``ports/files.py``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import delete, exists, func, insert, or_, select, update

from overnight.adapters.sql.rows import changes, to_record, to_row
from overnight.adapters.sql.tables import batches, files, parts, uploads
from overnight.crash_points import reached
from overnight.domain.batch import ACTIVE
from overnight.domain.file import File, Purpose
from overnight.domain.upload import Part, Upload, UploadStatus
from overnight.ports.batches import Page
from overnight.ports.bounds import BoundReached

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Select
    from sqlalchemy.ext.asyncio import AsyncConnection
    from sqlalchemy.sql.elements import ColumnElement

    from overnight.adapters.sql.database import Database
    from overnight.domain.ids import FileId, PartId, ResourceId, UploadId
    from overnight.ports.bounds import Bound
    from overnight.ports.files import PartRoom


class SqlFiles:
    """Files in the table ``files``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, file: File, *, bound: Bound | None = None) -> None:
        async with self._database.transaction() as connection:
            await _insert(connection, file, bound)
        reached("file.added")

    async def get(self, resource: ResourceId, file_id: FileId, *, now: float) -> File | None:
        query = select(files).where(files.c.id == file_id, files.c.resource == resource, *_visible(now))
        row = await self._database.row(query)
        return None if row is None else to_record(File, row)

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
        query = select(files).where(files.c.resource == resource, *_visible(now))
        if purpose is not None:
            query = query.where(files.c.purpose == purpose)
        if after is not None:
            cursor = select(files.c.seq).where(files.c.resource == resource, files.c.id == after)
            found = await self._database.row(cursor)
            if found is None:
                return None
            query = query.where(files.c.seq > found["seq"] if oldest_first else files.c.seq < found["seq"])
        order = files.c.seq.asc() if oldest_first else files.c.seq.desc()
        records = await self._database.records(query.order_by(order).limit(limit + 1), File)
        return Page(records[:limit], len(records) > limit)

    async def delete(self, resource: ResourceId, file_id: FileId, *, now: float) -> bool:
        deleting = (
            update(files)
            .where(files.c.id == file_id, files.c.resource == resource, *_visible(now))
            .values(deleted_at=int(now))
        )
        async with self._database.transaction() as connection:
            deleted = (await connection.execute(deleting)).rowcount == 1
        reached("file.deleted")
        return deleted

    async def count(self, resource: ResourceId, *, expiring: bool, now: float) -> int:
        found = await self._database.row(_counting(resource, expiring=expiring, now=now))
        return int(found["number"]) if found else 0

    async def gone(self, *, now: float, limit: int, after: File | None = None) -> Sequence[File]:
        in_use = exists().where(batches.c.input_file_id == files.c.id, batches.c.status.in_(tuple(sorted(ACTIVE))))
        due = or_(files.c.deleted_at.is_not(None), files.c.expires_at <= now)
        query = select(files).where(files.c.bytes_removed == 0, due, ~in_use)
        if after is not None:
            query = query.where(files.c.seq > select(files.c.seq).where(files.c.id == after.id).scalar_subquery())
        return await self._database.records(query.order_by(files.c.seq).limit(limit), File)

    async def known_blobs(self, keys: Sequence[str]) -> set[str]:
        query = select(files.c.blob).where(files.c.blob.in_(keys), files.c.bytes_removed == 0)
        return {row["blob"] for row in await self._database.many_rows(query)}

    async def forget_bytes(self, gone: Sequence[File]) -> None:
        forgetting = update(files).where(files.c.id.in_([file.id for file in gone])).values(bytes_removed=1)
        async with self._database.transaction() as connection:
            await connection.execute(forgetting)
        reached("file.bytes_forgotten")


def _visible(now: float) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return files.c.deleted_at.is_(None), or_(files.c.expires_at.is_(None), files.c.expires_at > now)


def _counting(resource: ResourceId, *, expiring: bool, now: float) -> Select[int]:
    return select(func.count().label("number")).where(
        files.c.resource == resource,
        files.c.purpose != Purpose.BATCH_OUTPUT,
        files.c.expires_at.is_not(None) if expiring else files.c.expires_at.is_(None),
        *_visible(now),
    )


async def _insert(connection: AsyncConnection, file: File, bound: Bound | None) -> None:
    # First the row, which takes the write lock, and then the count: so they are counted one by one. What goes over the
    # bound is rolled back.
    await connection.execute(insert(files).values(to_row(file)))
    if bound is not None:
        counting = _counting(file.resource, expiring=file.expires_at is not None, now=bound.since)
        if (await connection.execute(counting)).scalar_one() > bound.most:
            raise BoundReached


class SqlUploads:
    """Uploads in the tables ``uploads`` and ``parts``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, upload: Upload, *, bound: Bound | None = None) -> None:
        async with self._database.transaction() as connection:
            await connection.execute(insert(uploads).values(to_row(upload)))
            if bound is not None:
                counting = select(func.count()).where(*_pending_of(upload.resource), uploads.c.expires_at > bound.since)
                if (await connection.execute(counting)).scalar_one() > bound.most:
                    raise BoundReached
        reached("upload.added")

    async def get(self, resource: ResourceId, upload_id: UploadId) -> Upload | None:
        query = select(uploads).where(uploads.c.id == upload_id, uploads.c.resource == resource)
        row = await self._database.row(query)
        return None if row is None else to_record(Upload, row)

    async def save(
        self, new: Upload, *, expected: Upload, file: File | None = None, bound: Bound | None = None
    ) -> bool:
        saving = update(uploads).where(uploads.c.id == expected.id, uploads.c.status == expected.status)
        async with self._database.transaction() as connection:
            if (await connection.execute(saving.values(changes(new, expected)))).rowcount != 1:
                return False
            if file is not None:
                await _insert(connection, file, bound)
        reached(f"upload.{new.status}")
        return True

    async def add_part(self, part: Part, *, room: PartRoom | None = None) -> bool:
        # An update that changes nothing takes the write lock, so that the upload cannot end before the part is in.
        pending = uploads.c.id == part.upload_id, uploads.c.status == UploadStatus.PENDING
        async with self._database.transaction() as connection:
            locking = update(uploads).where(*pending).values(status=UploadStatus.PENDING)
            if (await connection.execute(locking)).rowcount != 1:
                return False
            await connection.execute(insert(parts).values(to_row(part)))
            if room is not None and await _is_over(connection, part, room):
                raise BoundReached
        reached("upload.part_added")
        return True

    async def stored_bytes(self, resource: ResourceId) -> int:
        found = await self._database.row(_adding_up(resource))
        return int(found["size"]) if found else 0

    async def parts(self, upload_id: UploadId, part_ids: Sequence[PartId] | None = None) -> Sequence[Part]:
        found = await self._database.records(select(parts).where(parts.c.upload_id == upload_id), Part)
        wanted = None if part_ids is None else set(part_ids)
        return [part for part in found if wanted is None or part.id in wanted]

    async def known_blobs(self, keys: Sequence[str]) -> set[str]:
        query = select(parts.c.blob).where(parts.c.blob.in_(keys))
        return {row["blob"] for row in await self._database.many_rows(query)}

    async def finished(self, *, now: float, limit: int, after: Upload | None = None) -> Sequence[Upload]:
        over = or_(uploads.c.status != UploadStatus.PENDING, uploads.c.expires_at <= now)
        has_parts = uploads.c.id.in_(select(parts.c.upload_id))
        query = select(uploads).where(over, has_parts)
        if after is not None:
            query = query.where(uploads.c.seq > select(uploads.c.seq).where(uploads.c.id == after.id).scalar_subquery())
        return await self._database.records(query.order_by(uploads.c.seq).limit(limit), Upload)

    async def forget_parts(self, upload: Upload) -> None:
        async with self._database.transaction() as connection:
            await connection.execute(delete(parts).where(parts.c.upload_id == upload.id))
        reached("upload.parts_forgotten")


def _pending_of(resource: ResourceId) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return uploads.c.resource == resource, uploads.c.status == UploadStatus.PENDING


def _adding_up(resource: ResourceId) -> Select[int]:
    size = func.coalesce(func.sum(parts.c.bytes), 0).label("size")
    return select(size).join_from(uploads, parts, parts.c.upload_id == uploads.c.id).where(*_pending_of(resource))


async def _is_over(connection: AsyncConnection, part: Part, room: PartRoom) -> bool:
    number = select(func.count()).where(parts.c.upload_id == part.upload_id)
    if (await connection.execute(number)).scalar_one() > room.parts:
        return True
    resource = select(uploads.c.resource).where(uploads.c.id == part.upload_id)
    stored = _adding_up((await connection.execute(resource)).scalar_one())
    return (await connection.execute(stored)).scalar_one() > room.bytes
