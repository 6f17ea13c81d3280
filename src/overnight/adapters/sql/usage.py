"""The books and the caps in SQL; keeps the promises of ``ports/usage.py``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import structs
from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.sqlite import Insert, insert

from overnight.adapters.sql.rows import to_record, to_row
from overnight.adapters.sql.tables import batches, caps, usage_days
from overnight.domain.accounting import UsageDay, UsageTotal, account_of, day_of, difference, tally_of
from overnight.domain.batch import Batch
from overnight.domain.cap import Cap, Measure, Period
from overnight.domain.result import Tally
from overnight.domain.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection
    from sqlalchemy.sql.elements import ColumnElement

    from overnight.adapters.sql.database import Database
    from overnight.domain.accounting import Days
    from overnight.domain.ids import ResourceId

_COUNTS = ("completed", "failed", "input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens")
_KEY = ("resource", "day", "deployment")


def _raising() -> Insert:
    adding = insert(usage_days)
    raised = {name: usage_days.c[name] + adding.excluded[name] for name in _COUNTS}
    return adding.on_conflict_do_update(index_elements=_KEY, set_=raised)


_RAISE = _raising()


async def held(connection: AsyncConnection, *where: ColumnElement[bool]) -> Batch | None:
    """Give a batch as it stays until the transaction ends; ``None`` if there is none of this kind.

    It is read by a write that changes nothing: only that takes the lock, and what is read before may be old.
    """
    holding = update(batches).where(*where).values(epoch=batches.c.epoch).returning(batches)
    row = (await connection.execute(holding)).mappings().first()
    return None if row is None else to_record(Batch, dict(row))


async def book(connection: AsyncConnection, stored: Batch, tally: Tally, now: float) -> None:
    """Raise the books by what a batch counts more than was stored of it, in the transaction that stores it."""
    more = difference(tally, tally_of(stored))
    if more == Tally():
        return
    entry = {"completed": more.completed, "failed": more.failed, **structs.asdict(more.usage)}
    key = {"resource": stored.resource, "day": day_of(now), "deployment": account_of(stored)}
    await connection.execute(_RAISE, {**key, **entry})


class SqlBooks:
    """The books in the table ``usage_days``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def days(
        self, resource: ResourceId, days: Days, *, deployment: str | None = None, limit: int
    ) -> Sequence[UsageDay]:
        query = select(usage_days).where(*_within(days, resource, deployment))
        rows = await self._database.rows(query.order_by(usage_days.c.day, usage_days.c.deployment).limit(limit))
        return [UsageDay(**_key_in(row), day=row["day"], usage=_usage_in(row)) for row in rows]

    async def totals(
        self, days: Days, *, resource: ResourceId | None = None, deployment: str | None = None
    ) -> Sequence[UsageTotal]:
        owner = (usage_days.c.resource, usage_days.c.deployment)
        sums = [func.sum(usage_days.c[name]).label(name) for name in _COUNTS]
        query = select(*owner, *sums).where(*_within(days, resource, deployment)).group_by(*owner).order_by(*owner)
        rows = await self._database.rows(query)
        return [UsageTotal(**_key_in(row), usage=_usage_in(row)) for row in rows]


class SqlCaps:
    """Caps in the table ``caps``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def all(self, resource: ResourceId | None = None) -> Sequence[Cap]:
        query = select(caps).order_by(caps.c.resource, caps.c.period, caps.c.measure)
        if resource is not None:
            query = query.where(caps.c.resource == resource)
        return [to_record(Cap, row) for row in await self._database.rows(query)]

    async def put(self, cap: Cap) -> None:
        adding = insert(caps).values(to_row(cap))
        key = ("resource", "period", "measure")
        async with self._database.transaction() as connection:
            await connection.execute(
                adding.on_conflict_do_update(index_elements=key, set_={"amount": adding.excluded.amount})
            )

    async def remove(self, resource: ResourceId, period: Period, measure: Measure) -> bool:
        removing = delete(caps).where(caps.c.resource == resource, caps.c.period == period, caps.c.measure == measure)
        async with self._database.transaction() as connection:
            return (await connection.execute(removing)).rowcount == 1


def _within(days: Days, resource: ResourceId | None, deployment: str | None) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = [usage_days.c.day.between(days.first, days.last)]
    if resource is not None:
        found.append(usage_days.c.resource == resource)
    if deployment is not None:
        found.append(usage_days.c.deployment == deployment)
    return found


def _key_in(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in ("resource", "deployment", "completed", "failed")}


def _usage_in(row: Mapping[str, Any]) -> Usage:
    return Usage(**{name: row[name] for name in Usage.__struct_fields__})
