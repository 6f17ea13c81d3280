"""Batches in SQL; keeps the promises of ``ports/batches.py``."""

from __future__ import annotations

from operator import eq, ge, gt, le, lt, ne
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import bindparam, case, func, insert, not_, select, update

from overnight.adapters.sql.database import Lookup
from overnight.adapters.sql.rows import changes, to_record, to_row
from overnight.adapters.sql.tables import batches
from overnight.adapters.sql.tables import files as files_table
from overnight.adapters.sql.usage import book, held
from overnight.adapters.sql.webhooks import announce
from overnight.crash_points import reached
from overnight.domain.accounting import tally_after, tally_of
from overnight.domain.batch import ACTIVE, Batch, BatchStatus, Expiry
from overnight.domain.ids import ResourceId
from overnight.domain.lanes import Lane
from overnight.domain.result import Tally
from overnight.ports.batches import Admission, Page, Verdict
from overnight.ports.bounds import BoundReached

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Select
    from sqlalchemy.ext.asyncio import AsyncConnection
    from sqlalchemy.sql.elements import ColumnElement

    from overnight.adapters.sql.database import Database
    from overnight.domain.file import File
    from overnight.domain.ids import BatchId, WorkerId
    from overnight.domain.listing import BatchQuery, Condition
    from overnight.ports.bounds import Bound

_ACTIVE = tuple(sorted(ACTIVE))
_ONE = Lookup(select(batches).where(batches.c.id == bindparam("id"), batches.c.resource == bindparam("resource")))


class _Waiting(msgspec.Struct, frozen=True, kw_only=True):
    resource: ResourceId
    deployment_of_lane: str | None
    count: int


class SqlBatches:
    """Batches in the tables ``batches`` and ``files``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, batch: Batch, *, bound: Bound | None = None) -> None:
        async with self._database.transaction() as connection:
            await _insert(connection, batch, bound)
        reached("batch.added")

    async def add_once(self, batch: Batch, *, since: int, bound: Bound | None = None) -> Batch:
        equal = _repeated_by(batch)
        forgetting = update(batches).where(*equal, batches.c.created_at < since).values(idempotency_key=None)
        finding = _repeat_of(batch, since)
        async with self._database.transaction() as connection:
            # This first, though it seldom changes anything: it takes the write lock, so that of equal ones at once
            # each finds the one before it.
            await connection.execute(forgetting)
            row = (await connection.execute(finding)).mappings().first()
            if row is not None:
                return to_record(Batch, dict(row))
            await _insert(connection, batch, bound)
        reached("batch.added")
        return batch

    async def get(self, resource: ResourceId, batch_id: BatchId) -> Batch | None:
        row = await self._database.look_up(_ONE, id=batch_id, resource=resource)
        return None if row is None else to_record(Batch, row)

    async def page(self, resource: ResourceId, query: BatchQuery) -> Page[Batch] | None:
        seq = batches.c.seq
        wanted = select(batches).where(batches.c.resource == resource, *map(_holds, query.conditions))
        if query.after is not None:
            cursor = select(seq).where(batches.c.resource == resource, batches.c.id == query.after)
            found = await self._database.row(cursor)
            if found is None:
                return None
            wanted = wanted.where(seq > found["seq"] if query.oldest_first else seq < found["seq"])
        order = seq.asc() if query.oldest_first else seq.desc()
        rows = await self._database.rows(wanted.order_by(order).limit(query.limit + 1))
        return Page([to_record(Batch, row) for row in rows[: query.limit]], len(rows) > query.limit)

    async def save(self, new: Batch, *, expected: Batch, files: Sequence[File] = ()) -> bool:
        known = (*_is(expected), batches.c.status == expected.status)
        statement = update(batches).where(*known)
        async with self._database.transaction() as connection:
            stored = await held(connection, *known) if tally_of(new) != tally_of(expected) else None
            written = await connection.execute(statement.values(changes(new, expected)))
            if written.rowcount != 1:
                return False
            if stored is not None:
                await book(connection, stored, tally_after(stored, new, expected), new.moved_at)
            for file in files:
                await connection.execute(insert(files_table).values(to_row(file)))
            await announce(connection, new)
        reached(f"batch.{new.status}")
        return True

    async def admit(self, new: Batch, *, expected: Batch, limit: int, in_turn: bool) -> Admission:
        statement = update(batches).where(*_is(expected), batches.c.status == expected.status)
        async with self._database.transaction() as connection:
            # Written before it is known to fit: this takes the write lock, so that of several at once each sees those
            # that were let in before it.
            if (await connection.execute(statement.values(changes(new, expected)))).rowcount != 1:
                return Admission(verdict=Verdict.LOST)
            rest = select(_HELD).where(*_enqueued_for(new), batches.c.id != new.id)
            enqueued = (await connection.execute(rest)).scalar_one()
            ahead = (await connection.execute(_ahead_of(new))).scalar_one() if in_turn else 0
            if ahead or enqueued + new.reserved_tokens > limit:
                await connection.rollback()
                return Admission(verdict=Verdict.FULL, enqueued=enqueued, ahead=ahead)
        reached(f"batch.{new.status}")
        return Admission(verdict=Verdict.ADMITTED, enqueued=enqueued)

    async def enqueued(self, resource: ResourceId, deployments: Sequence[str]) -> Mapping[str, int]:
        query = (
            select(batches.c.deployment, _HELD)
            .where(batches.c.resource == resource, batches.c.deployment.in_(deployments), batches.c.status.in_(_ACTIVE))
            .group_by(batches.c.deployment)
        )
        found = {row["deployment"]: row["held"] for row in await self._database.rows(query)}
        return {name: found.get(name, 0) for name in deployments}

    async def repeated(self, batch: Batch, *, since: int) -> Batch | None:
        row = await self._database.row(_repeat_of(batch, since))
        return None if row is None else to_record(Batch, row)

    async def record_progress(self, batch: Batch, tally: Tally, *, now: float) -> bool:
        async with self._database.transaction() as connection:
            stored = await held(connection, *_is(batch))
            if stored is not None:
                await connection.execute(update(batches).where(*_is(batch)).values(to_row(tally)))
                await book(connection, stored, tally, now)
        reached("batch.progress_recorded")
        return stored is not None

    async def waiting(self, worker: WorkerId, *, now: float) -> Mapping[Lane, int]:
        deployment = case((_runs(now), batches.c.deployment), else_=None).label("deployment_of_lane")
        query = (
            select(batches.c.resource, deployment, func.count().label("count"))
            .where(batches.c.status.in_(_ACTIVE), _free(worker, now))
            .group_by(batches.c.resource, deployment)
            .order_by(func.min(batches.c.seq))
        )
        # Of thousands that wait, all are counted.
        found = await self._database.records(query, _Waiting)
        return {Lane(each.resource, each.deployment_of_lane): each.count for each in found}

    async def claim(
        self, worker: WorkerId, *, now: float, until: float, limit: int, lane: Lane | None = None
    ) -> Sequence[Batch]:
        free = _free(worker, now)
        query = select(batches).where(batches.c.status.in_(_ACTIVE), free, *_in_lane(lane, now))
        aside = lane is not None and lane.deployment is None
        order = (batches.c.lease_until, batches.c.seq) if aside else (batches.c.seq,)
        rows = await self._database.rows(query.order_by(*order).limit(limit))
        claimed = []
        for row in rows:
            batch = await self._take(to_record(Batch, row), free, worker, until)
            if batch is not None:
                claimed.append(batch)
        return claimed

    async def _take(self, seen: Batch, free: ColumnElement[bool], worker: WorkerId, until: float) -> Batch | None:
        taking = (
            update(batches)
            .where(*_is(seen), batches.c.status.in_(_ACTIVE), free)
            .values(epoch=seen.epoch + 1, worker=worker, lease_until=until)
        )
        async with self._database.transaction() as connection:
            if (await connection.execute(taking)).rowcount != 1:
                return None
            row = (await connection.execute(select(batches).where(batches.c.id == seen.id))).mappings().one()
        reached("batch.claimed")
        return to_record(Batch, dict(row))

    async def renew(self, batch: Batch, worker: WorkerId, *, until: float) -> Batch | None:
        renewing = update(batches).where(*_is(batch), batches.c.worker == worker).values(lease_until=until)
        async with self._database.transaction() as connection:
            if (await connection.execute(renewing)).rowcount != 1:
                return None
            row = (await connection.execute(select(batches).where(batches.c.id == batch.id))).mappings().one()
        reached("batch.renewed")
        return to_record(Batch, dict(row))

    async def release(self, batch: Batch, worker: WorkerId, *, until: float = 0.0) -> None:
        giving_back = update(batches).where(*_is(batch), batches.c.worker == worker)
        releasing = giving_back.values(worker=None, lease_until=until)
        async with self._database.transaction() as connection:
            await connection.execute(releasing)
        reached("batch.released")

    async def known(self, batch_ids: Sequence[BatchId]) -> Sequence[Batch]:
        return await self._database.records(select(batches).where(batches.c.id.in_(batch_ids)), Batch)

    async def release_all(self, worker: WorkerId) -> None:
        async with self._database.transaction() as connection:
            await connection.execute(
                update(batches).where(batches.c.worker == worker).values(worker=None, lease_until=0)
            )
        reached("worker.claims_released")


async def _insert(connection: AsyncConnection, batch: Batch, bound: Bound | None) -> None:
    # First the row, which takes the write lock, and then the look at how many there are: so they are counted one by
    # one. What goes over the bound is rolled back.
    await connection.execute(insert(batches).values(to_row(batch)))
    if bound is None:
        return
    created = batches.c.created_at
    counting = select(created).where(
        batches.c.resource == batch.resource, batches.c.flavour == batch.flavour, created > bound.since
    )
    newest_first = (await connection.execute(counting.order_by(created.desc()).limit(bound.most + 1))).scalars().all()
    if len(newest_first) > bound.most:
        # With this row, one more than there may be: the batch that has to leave the window for it is the last of them.
        raise BoundReached(newest_first[-1])


def _is(batch: Batch) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    """Name a batch as its reader knows it: a raised epoch is another owner's."""
    return batches.c.id == batch.id, batches.c.epoch == batch.epoch


def _free(worker: WorkerId, now: float) -> ColumnElement[bool]:
    """Say what a worker may claim."""
    left = batches.c.worker.is_(None) & ((batches.c.lease_until <= now) | (batches.c.status == BatchStatus.CANCELLING))
    return left | ((batches.c.lease_until < now) & (batches.c.worker != worker))


def _runs(now: float) -> ColumnElement[bool]:
    """Say, as ``lane_of`` does, which active batches need an upstream."""
    overdue = (batches.c.expiry == Expiry.EXPIRE) & (batches.c.expires_at <= now)
    return (batches.c.status == BatchStatus.IN_PROGRESS) & not_(overdue)


def _in_lane(lane: Lane | None, now: float) -> tuple[ColumnElement[bool], ...]:
    if lane is None:
        return ()
    if lane.deployment is None:
        # Not by the index of the resource: that would read all of its batches that have ended.
        return batches.c.resource.concat("") == lane.resource, not_(_runs(now))
    return batches.c.resource == lane.resource, batches.c.deployment == lane.deployment, _runs(now)


def _repeated_by(batch: Batch) -> tuple[ColumnElement[bool], ...]:
    """Name the batches that a new one repeats, whatever their age."""
    same_key = batches.c.idempotency_key == batch.idempotency_key
    if batch.idempotency_key is None:
        # A comparison with no key is one with NULL.
        return batches.c.resource == batch.resource, same_key, batches.c.fingerprint == batch.fingerprint
    return batches.c.resource == batch.resource, same_key


def _repeat_of(batch: Batch, since: int) -> Select[Any]:
    """Ask for the newest that a new one repeats."""
    repeats = select(batches).where(*_repeated_by(batch), batches.c.created_at >= since)
    return repeats.order_by(batches.c.seq.desc()).limit(1)


_UNFINISHED = batches.c.total - batches.c.completed - batches.c.failed
# As ``domain/quota.py`` has it in ``held``; adding the divisor less one rounds up.
_HELD = func.coalesce(
    func.sum(
        case(
            (batches.c.total > 0, (batches.c.reserved_tokens * _UNFINISHED + batches.c.total - 1) // batches.c.total),
            else_=0,
        )
    ),
    0,
).label("held")


def _enqueued_for(batch: Batch) -> tuple[ColumnElement[bool], ...]:
    """Name the active batches that share the quota of one."""
    return (
        batches.c.resource == batch.resource,
        batches.c.deployment == batch.deployment,
        batches.c.status.in_(_ACTIVE),
    )


def _ahead_of(batch: Batch) -> Select[Any]:
    """Count the batches that wait for the same quota and are older."""
    own = select(batches.c.seq).where(batches.c.id == batch.id).scalar_subquery()
    return (
        select(func.count())
        .select_from(batches)
        .where(
            batches.c.resource == batch.resource,
            batches.c.deployment == batch.deployment,
            batches.c.status == BatchStatus.VALIDATING,
            batches.c.prompt_tokens.is_not(None),
            batches.c.seq < own,
        )
    )


_OPERATORS = {"eq": eq, "ne": ne, "gt": gt, "ge": ge, "lt": lt, "le": le}


def _holds(condition: Condition) -> ColumnElement[bool]:
    compared: ColumnElement[bool] = _OPERATORS[condition.operator](batches.c[condition.field], condition.value)
    return compared
