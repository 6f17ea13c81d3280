"""Receivers of webhooks and their deliveries in SQL; keeps the promises of ``ports/webhooks.py``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import Integer, and_, delete, exists, func, insert, literal, select, update

from overnight.adapters.sql.rows import changes, to_record, to_row
from overnight.adapters.sql.tables import webhook_attempts as attempts
from overnight.adapters.sql.tables import webhook_deliveries as deliveries
from overnight.adapters.sql.tables import webhook_endpoints as endpoints
from overnight.crash_points import reached
from overnight.domain.ids import EndpointId
from overnight.domain.webhook import Attempt, Claimed, Delivery, DeliveryStatus, Endpoint, Logged, event_of
from overnight.ports.batches import Page

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Select
    from sqlalchemy.ext.asyncio import AsyncConnection
    from sqlalchemy.sql.elements import ColumnElement

    from overnight.adapters.sql.database import Database
    from overnight.domain.batch import Batch
    from overnight.domain.ids import ResourceId

_FAILING_NAMED = 3

_PENDING = deliveries.c.status == DeliveryStatus.PENDING


class _Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A delivery that is due; ``turn`` counts those of its receiver."""

    seq: int
    endpoint_id: EndpointId
    turn: int


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How the deliveries of all receivers stand: how many ``waiting`` ones were ``tried`` in vain, for whom (a few).

    ``oldest_due`` (unix seconds) is that of the one that waits longest; ``None`` if none is due.
    """

    waiting: int
    tried: int
    given_up: int
    oldest_due: float | None
    failing: tuple[EndpointId, ...]


async def announce(connection: AsyncConnection, batch: Batch) -> None:
    """Store the deliveries of a batch that ends, in the transaction that says so; of any other, none."""
    event = event_of(batch)
    if event is None:
        return
    delivery = Delivery.of(event, EndpointId(""))
    values: dict[str, ColumnElement[Any]] = {
        name: literal(value, deliveries.c[name].type) for name, value in to_row(delivery).items()
    }
    values["endpoint_id"] = endpoints.c.id
    stored = exists().where(deliveries.c.endpoint_id == endpoints.c.id, deliveries.c.event_id == event.id)
    # A JSON list of names, none of which is part of another with its quotes.
    wanted = endpoints.c.event_types.like(f'%"{event.type}"%')
    receivers = select(*values.values()).where(endpoints.c.resource == batch.resource, wanted, ~stored)
    await connection.execute(insert(deliveries).from_select(list(values), receivers))


class SqlWebhooks:
    """Receivers and deliveries in the tables ``webhook_…``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, endpoint: Endpoint, *, most: int) -> bool:
        row = to_row(endpoint)
        count = select(func.count()).where(endpoints.c.resource == endpoint.resource).scalar_subquery()
        values = select(*(literal(value, endpoints.c[name].type) for name, value in row.items())).where(count < most)
        async with self._database.transaction() as connection:
            added = await connection.execute(insert(endpoints).from_select(list(row), values))
        return added.rowcount == 1

    async def get(self, resource: ResourceId, endpoint_id: EndpointId) -> Endpoint | None:
        row = await self._database.row(select(endpoints).where(*_owned(resource, endpoint_id)))
        return None if row is None else to_record(Endpoint, row)

    async def page(self, resource: ResourceId, *, after: EndpointId | None, limit: int) -> Page[Endpoint] | None:
        wanted = select(endpoints).where(endpoints.c.resource == resource)
        if after is not None:
            cursor = await self._database.row(select(endpoints.c.seq).where(*_owned(resource, after)))
            if cursor is None:
                return None
            wanted = wanted.where(endpoints.c.seq < cursor["seq"])
        rows = await self._database.rows(wanted.order_by(endpoints.c.seq.desc()).limit(limit + 1))
        return Page([to_record(Endpoint, row) for row in rows[:limit]], len(rows) > limit)

    async def save(self, new: Endpoint, *, expected: Endpoint) -> bool:
        writing = update(endpoints).where(endpoints.c.id == expected.id, endpoints.c.revision == expected.revision)
        async with self._database.transaction() as connection:
            written = await connection.execute(writing.values(changes(new, expected)))
        return written.rowcount == 1

    async def delete(self, resource: ResourceId, endpoint_id: EndpointId) -> bool:
        async with self._database.transaction() as connection:
            removed = await connection.execute(delete(endpoints).where(*_owned(resource, endpoint_id)))
            if removed.rowcount != 1:
                return False
            await connection.execute(delete(deliveries).where(deliveries.c.endpoint_id == endpoint_id))
            await connection.execute(delete(attempts).where(attempts.c.endpoint_id == endpoint_id))
        return True

    async def deliveries(self, endpoint_id: EndpointId, *, after: str | None, limit: int) -> Page[Logged] | None:
        of_endpoint = deliveries.c.endpoint_id == endpoint_id
        wanted = select(deliveries).where(of_endpoint)
        if after is not None:
            cursor = await self._database.row(
                select(deliveries.c.seq).where(of_endpoint, deliveries.c.event_id == after)
            )
            if cursor is None:
                return None
            wanted = wanted.where(deliveries.c.seq < cursor["seq"])
        found = await self._database.records(wanted.order_by(deliveries.c.seq.desc()).limit(limit + 1), Delivery)
        shown = found[:limit]
        tried = await self._attempts(endpoint_id, [delivery.event_id for delivery in shown])
        items = [Logged(delivery=each, attempts=tuple(tried.get(each.event_id, ()))) for each in shown]
        return Page(items, len(found) > limit)

    async def _attempts(self, endpoint_id: EndpointId, event_ids: Sequence[str]) -> Mapping[str, list[Attempt]]:
        of_these = (attempts.c.endpoint_id == endpoint_id) & attempts.c.event_id.in_(event_ids)
        found: dict[str, list[Attempt]] = {}
        for row in await self._database.rows(select(attempts).where(of_these).order_by(attempts.c.seq)):
            found.setdefault(row["event_id"], []).append(to_record(Attempt, row))
        return found

    async def claim(
        self, *, now: float, until: float, limit: int, each: int, busy: Mapping[EndpointId, int]
    ) -> Sequence[Claimed]:
        due = (_PENDING, deliveries.c.due_at <= now)
        # Asked every second, and nearly always the answer is no.
        if await self._database.row(select(literal(1)).select_from(deliveries).where(*due).limit(1)) is None:
            return []
        found = await self._database.records(_in_turn(due, _full(busy, each), each, limit), _Candidate)
        free = [one for one in found if one.turn + busy.get(one.endpoint_id, 0) <= each]
        if not free:
            return []
        async with self._database.transaction() as connection:
            claimed = await _take(connection, [one.seq for one in free], due, until)
        if claimed:
            reached("webhook.claimed")
        return claimed

    async def record(self, new: Delivery, attempt: Attempt) -> bool:
        values = {"status": new.status, "due_at": new.due_at, "attempts": new.attempts}
        key = {"endpoint_id": new.endpoint_id, "event_id": new.event_id}
        async with self._database.transaction() as connection:
            written = await connection.execute(update(deliveries).where(*_is(new)).values(values))
            if written.rowcount != 1:
                return False
            await connection.execute(insert(attempts).values(**key, **to_row(attempt)))
        reached("webhook.recorded")
        return True

    async def everyone(self) -> Sequence[Endpoint]:
        """Give the receivers of all resources."""
        rows = await self._database.rows(select(endpoints).order_by(endpoints.c.seq))
        return [to_record(Endpoint, row) for row in rows]

    async def standing(self, now: float) -> Standing:
        """Say how the deliveries of all receivers stand."""
        tried = and_(_PENDING, deliveries.c.attempts > 0)
        wanted: tuple[ColumnElement[Any], ...] = (
            func.count().filter(_PENDING).label("waiting"),
            func.count().filter(tried).label("tried"),
            func.count().filter(deliveries.c.status == DeliveryStatus.FAILED).label("given_up"),
            func.min(deliveries.c.due_at).filter(_PENDING, deliveries.c.due_at <= now).label("oldest_due"),
        )
        (counted,) = await self._database.rows(select(*wanted).select_from(deliveries))
        failing = select(deliveries.c.endpoint_id).where(tried).group_by(deliveries.c.endpoint_id)
        rows = await self._database.rows(failing.order_by(func.count().desc()).limit(_FAILING_NAMED))
        return Standing(**counted, failing=tuple(EndpointId(row["endpoint_id"]) for row in rows))

    async def forget(self, *, before: int, limit: int) -> int:
        over = select(deliveries.c.endpoint_id, deliveries.c.event_id).where(
            ~_PENDING, deliveries.c.created_at < before
        )
        rows = await self._database.rows(over.limit(limit))
        if rows:
            async with self._database.transaction() as connection:
                for row in rows:
                    for table in (attempts, deliveries):
                        same = (table.c.endpoint_id == row["endpoint_id"]) & (table.c.event_id == row["event_id"])
                        await connection.execute(delete(table).where(same))
        return len(rows)


def _owned(resource: ResourceId, endpoint_id: EndpointId) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return endpoints.c.resource == resource, endpoints.c.id == endpoint_id


def _is(seen: Delivery) -> tuple[ColumnElement[bool], ...]:
    """Name a pending delivery as its reader knows it: a raised epoch is another claim."""
    same = (deliveries.c.endpoint_id == seen.endpoint_id, deliveries.c.event_id == seen.event_id)
    return (*same, deliveries.c.epoch == seen.epoch, _PENDING)


def _full(busy: Mapping[EndpointId, int], each: int) -> list[EndpointId]:
    return [endpoint_id for endpoint_id, count in busy.items() if count >= each]


def _in_turn(
    due: tuple[ColumnElement[bool], ...], full: list[EndpointId], each: int, limit: int
) -> Select[tuple[int, str, int]]:
    """Find the first due deliveries of each receiver, in the order in which they are to be sent.

    Of each receiver the index gives these and no more, however many wait behind them.
    """
    order = (deliveries.c.due_at, deliveries.c.seq)
    of_receiver = deliveries.c.endpoint_id == endpoints.c.id
    first = select(deliveries.c.seq).where(of_receiver, *due).order_by(*order).limit(each).correlate(endpoints)
    turn = func.row_number().over(partition_by=deliveries.c.endpoint_id, order_by=order).cast(Integer).label("turn")
    numbered = (
        select(deliveries.c.seq, deliveries.c.endpoint_id, deliveries.c.due_at, turn)
        .select_from(endpoints)
        .join(deliveries, deliveries.c.seq.in_(first))
        .where(endpoints.c.id.not_in(full))
        .subquery()
    )
    columns = (numbered.c.seq, numbered.c.endpoint_id, numbered.c.turn)
    return select(*columns).order_by(numbered.c.turn, numbered.c.due_at, numbered.c.seq).limit(limit)


async def _take(
    connection: AsyncConnection, seqs: list[int], due: tuple[ColumnElement[bool], ...], until: float
) -> list[Claimed]:
    """Claim these deliveries, but those that another took meanwhile: they are due no more."""
    values = {"epoch": deliveries.c.epoch + 1, "due_at": until}
    taking = update(deliveries).where(deliveries.c.seq.in_(seqs), *due).values(values).returning(*deliveries.c)
    rows = {row["seq"]: dict(row) for row in (await connection.execute(taking)).mappings()}
    wanted = select(endpoints).where(endpoints.c.id.in_({row["endpoint_id"] for row in rows.values()}))
    receivers = {row["id"]: to_record(Endpoint, dict(row)) for row in (await connection.execute(wanted)).mappings()}
    taken = (rows[seq] for seq in seqs if seq in rows)
    return [Claimed(delivery=to_record(Delivery, row), endpoint=receivers[row["endpoint_id"]]) for row in taken]
