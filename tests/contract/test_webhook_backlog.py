"""Many webhooks that wait in SQL: what a claim costs must not grow with them."""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Engine, event, insert

from overnight.adapters.sql.database import Database, sqlite_file
from overnight.adapters.sql.rows import to_row
from overnight.adapters.sql.tables import webhook_deliveries, webhook_endpoints
from overnight.adapters.sql.webhooks import SqlWebhooks
from overnight.domain.ids import BatchId, EndpointId, EventId, ResourceId
from overnight.domain.webhook import Delivery, Endpoint, EventType

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

NOW = 1_700_000_000
RECEIVERS = ("we_1", "we_2", "we_3")
_STEP = 10


class Work:
    """How many steps the machine of SQLite made for its readers, in tens."""

    steps = 0

    def __call__(self) -> int:
        self.steps += 1
        return 0


@contextmanager
def counted() -> Iterator[Work]:
    """Count the steps of every connection that is opened meanwhile."""
    work = Work()

    def watch(connection: Any, _record: object) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.set_progress_handler(work, _STEP)

    event.listen(Engine, "connect", watch)
    try:
        yield work
    finally:
        event.remove(Engine, "connect", watch)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = Database(sqlite_file(tmp_path))
    await opened.migrate()
    yield opened
    await opened.close()


async def fill(database: Database, each: int) -> None:
    """Let so many deliveries wait for each receiver, all of them due."""
    ends = [
        Endpoint(
            id=EndpointId(name),
            resource=ResourceId("mine"),
            name="n",
            url="https://example.com",
            event_types=(EventType.FAILED,),
            secret="whsec_YQ==",
            created_at=NOW,
            updated_at=NOW,
        )
        for name in RECEIVERS
    ]
    waiting = [
        Delivery(
            endpoint_id=EndpointId(name),
            event_id=EventId(f"evt_{number}"),
            type=EventType.FAILED,
            batch_id=BatchId(f"batch_{number}"),
            created_at=NOW,
            due_at=NOW + number,
        )
        for number in range(each)
        for name in RECEIVERS
    ]
    async with database.transaction() as connection:
        await connection.execute(insert(webhook_endpoints), [to_row(one) for one in ends])
        await connection.execute(insert(webhook_deliveries), [to_row(one) for one in waiting])


@pytest.mark.parametrize("busy", [{}, dict.fromkeys(map(EndpointId, RECEIVERS), 2)], ids=["free", "busy"])
async def test_a_claim_does_not_read_all_that_waits(database: Database, busy: dict[EndpointId, int]) -> None:
    """It is made every second, while others want to write; receivers that have their fill do not change that."""
    with counted() as work:
        await fill(database, 2_000)
        claimed = await SqlWebhooks(database).claim(now=NOW + 9_999, until=NOW + 10_999, limit=64, each=2, busy=busy)

    assert len(claimed) == (0 if busy else 6)
    assert work.steps < 2_000 / _STEP
