"""Resources and keys in SQL; keeps the promises of ``ports/keys.py``."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

from sqlalchemy import bindparam, insert, literal, select, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from overnight.adapters.sql.database import Lookup
from overnight.adapters.sql.rows import to_record, to_row
from overnight.adapters.sql.tables import keys, resources
from overnight.domain.errors import Unavailable
from overnight.domain.ids import ADMIN_RESOURCE
from overnight.domain.key import Key, Resource
from overnight.ports.batches import Page

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from overnight.adapters.sql.database import Database
    from overnight.domain.ids import KeyId, ResourceId

_RESOURCES = select(resources).where(resources.c.name != ADMIN_RESOURCE)
_BY_HASH = Lookup(select(keys).where(keys.c.hash == bindparam("hash")))


class SqlKeys:
    """Resources and keys in the tables ``resources`` and ``keys``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add_resource(self, resource: Resource) -> bool:
        try:
            async with self._database.transaction() as connection:
                await connection.execute(insert(resources).values(to_row(resource)))
        except IntegrityError:
            return False
        return True

    async def add_resources(self, new: Sequence[Resource]) -> None:
        if not new:
            return
        adding = insert(resources).prefix_with("OR IGNORE")
        async with self._database.transaction() as connection:
            await connection.execute(adding, [to_row(resource) for resource in new])

    async def resource(self, name: ResourceId) -> Resource | None:
        try:
            row = await self._database.row(select(resources).where(resources.c.name == name))
        except SQLAlchemyError as error:
            raise _unreadable() from error
        return None if row is None else to_record(Resource, row)

    async def resources(self) -> Sequence[Resource]:
        rows = await self._database.rows(_RESOURCES.order_by(resources.c.seq))
        return [to_record(Resource, row) for row in rows]

    async def resource_page(self, *, after: ResourceId | None, limit: int) -> Page[Resource] | None:
        query = _RESOURCES
        if after is not None:
            cursor = await self._database.row(_RESOURCES.where(resources.c.name == after))
            if cursor is None:
                return None
            query = query.where(resources.c.seq > cursor["seq"])
        found = await self._database.records(query.order_by(resources.c.seq).limit(limit + 1), Resource)
        return Page(found[:limit], len(found) > limit)

    async def add(self, key: Key) -> bool:
        owner = select(literal(1)).where(resources.c.name == key.resource)
        async with self._database.transaction() as connection:
            if (await connection.execute(owner)).first() is None:
                return False
            await connection.execute(insert(keys).values(to_row(key)))
        return True

    async def get(self, key_id: KeyId) -> Key | None:
        row = await self._database.row(select(keys).where(keys.c.id == key_id))
        return None if row is None else to_record(Key, row)

    async def page(self, resource: ResourceId | None, *, after: KeyId | None, limit: int) -> Page[Key] | None:
        query = select(keys) if resource is None else select(keys).where(keys.c.resource == resource)
        if after is not None:
            cursor = await self._database.row(query.where(keys.c.id == after))
            if cursor is None:
                return None
            query = query.where(keys.c.seq > cursor["seq"])
        found = await self._database.records(query.order_by(keys.c.seq).limit(limit + 1), Key)
        return Page(found[:limit], len(found) > limit)

    async def by_hash(self, digest: str) -> Key | None:
        try:
            row = await self._database.look_up(_BY_HASH, hash=digest)
        except (SQLAlchemyError, sqlite3.Error) as error:
            raise _unreadable() from error
        return None if row is None else to_record(Key, row)

    async def all(self) -> Sequence[Key]:
        return [to_record(Key, row) for row in await self._database.rows(select(keys).order_by(keys.c.seq))]

    async def any(self) -> bool:
        try:
            return await self._database.row(select(keys.c.id).limit(1)) is not None
        except SQLAlchemyError as error:
            raise _unreadable() from error

    async def revoke(self, key_id: KeyId, *, now: float) -> Key | None:
        revoking = update(keys).where(keys.c.id == key_id, keys.c.revoked_at.is_(None)).values(revoked_at=int(now))
        async with self._database.transaction() as connection:
            await connection.execute(revoking)
        return await self.get(key_id)

    async def note_use(self, uses: Mapping[KeyId, int]) -> None:
        async with self._database.transaction() as connection:
            for key_id, moment in uses.items():
                await connection.execute(update(keys).where(keys.c.id == key_id).values(last_used_at=moment))


def _unreadable() -> Unavailable:
    return Unavailable("The keys cannot be read now. Try again later, or ask the operator.")
