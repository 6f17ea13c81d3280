"""The database when the disk is in trouble."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from msgspec.structs import replace
from sqlalchemy import bindparam, column, create_engine, insert, inspect, select, table, text
from sqlalchemy.exc import OperationalError
from tests.contract.test_batches import MINE, a_batch

from overnight.adapters.sql import database as sql_database
from overnight.adapters.sql.batches import SqlBatches
from overnight.adapters.sql.database import NEWEST_VERSION, Database, Lookup, sqlite_file
from overnight.adapters.sql.keys import SqlKeys
from overnight.adapters.sql.rows import to_row
from overnight.adapters.sql.tables import batches as batches_table
from overnight.adapters.sql.usage import SqlBooks
from overnight.domain.accounting import Days
from overnight.domain.errors import Unavailable
from overnight.domain.ids import BatchId
from overnight.domain.usage import Usage

alembic_version = table("alembic_version", column("version_num"))


async def test_a_database_that_cannot_be_written_says_so_until_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked often, it tries a write only after one has failed."""
    monkeypatch.setattr(sql_database, "_BUSY_MILLISECONDS", 1)
    database = Database(sqlite_file(tmp_path))
    await database.migrate()
    with closing(sqlite3.connect(sqlite_file(tmp_path), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        unseen = await database.problem()
        with pytest.raises(Unavailable):
            async with database.transaction() as connection:
                await connection.exec_driver_sql("UPDATE alembic_version SET version_num = version_num")
        seen = await database.problem()
        tried = await database.write_problem()
        other.execute("ROLLBACK")
    mended = await database.problem()
    await database.close()

    assert unseen is None
    assert seen == tried == "the database cannot be written: database is locked"
    assert mended is None


async def test_the_newest_version_is_that_of_the_newest_migration(tmp_path: Path) -> None:
    """A start that takes an old database for a new one would not bring it up to date."""
    database = Database(sqlite_file(tmp_path))
    await database.migrate()
    await database.close()
    with closing(sqlite3.connect(sqlite_file(tmp_path))) as found:
        (version,) = found.execute("SELECT version_num FROM alembic_version").fetchone()

    assert version == NEWEST_VERSION


async def test_a_database_of_the_first_version_is_brought_up_to_date(tmp_path: Path) -> None:
    """What was in it stays and is in the books, and no batch of then is taken for the repetition of another."""
    used = Usage(input_tokens=7, cached_tokens=1)
    first = replace(a_batch("batch_1"), deployment="m", in_progress_at=0, completed=2, failed=1, usage=used)
    ended = replace(first, id=BatchId("batch_2"), completed_at=90_000)
    olds = [first, ended, replace(ended, id=BatchId("batch_3")), a_batch("batch_4")]
    config = Config()
    config.set_main_option("script_location", str(Path(sql_database.__file__).parent / "migrations"))
    with create_engine(f"sqlite:///{sqlite_file(tmp_path)}").begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        columns = {column["name"] for column in inspect(connection).get_columns("batches")}
        for old in olds:
            row = {name: value for name, value in to_row(old).items() if name in columns}
            connection.execute(insert(batches_table).values(row))
    database = Database(sqlite_file(tmp_path))
    await database.migrate()
    batches = SqlBatches(database)

    found = [await batches.get(MINE, old.id) for old in olds]
    booked = await SqlBooks(database).days(MINE, Days(first="1970-01-01", last="1970-12-31"), limit=9)
    any_key = await SqlKeys(database).any()
    added = await batches.add_once(replace(a_batch("batch_5"), fingerprint="print"), since=0)
    await database.close()

    assert found == olds
    assert [(each.day, each.deployment, each.completed, each.failed, each.usage) for each in booked] == [
        ("1970-01-01", "m", 2, 1, used),
        ("1970-01-02", "m", 4, 2, used + used),
    ]
    assert added.id == "batch_5"
    assert not any_key


async def test_keys_that_cannot_be_read_are_unavailable(tmp_path: Path) -> None:
    """The caller is told to come back, not that the key is wrong."""
    database = Database(sqlite_file(tmp_path))
    await database.migrate()
    keys = SqlKeys(database)
    with closing(sqlite3.connect(sqlite_file(tmp_path))) as broken, broken:
        broken.execute("ALTER TABLE keys RENAME TO gone")
    with pytest.raises(Unavailable, match="keys cannot be read"):
        await keys.by_hash("x")
    with pytest.raises(Unavailable, match="keys cannot be read"):
        await keys.any()
    await database.close()


class _Held:
    """The connection of a database that somebody else holds for a moment."""

    def __init__(self) -> None:
        self.driver_connection = self

    def execute(self, *_: object) -> None:
        raise sqlite3.OperationalError("database is locked")


async def test_a_lookup_waits_elsewhere_while_the_database_is_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As every other read does."""
    database = Database(sqlite_file(tmp_path))
    await database.migrate()
    lookup = Lookup(select(alembic_version).where(alembic_version.c.version_num == bindparam("version")))
    free = await database.look_up(lookup, version=NEWEST_VERSION)
    none = await database.look_up(lookup, version="0000")
    monkeypatch.setattr(database, "_looking", _Held())
    held = await database.look_up(lookup, version=NEWEST_VERSION)
    monkeypatch.undo()
    await database.close()

    assert {"version_num": NEWEST_VERSION} == free == held
    assert none is None


async def test_a_long_read_waits_elsewhere_while_the_database_is_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a short one does: a sweep is not given up for a backup that takes a moment."""
    database = Database(sqlite_file(tmp_path))
    await database.migrate()
    free = await database.many_rows(select(alembic_version))

    def refuse(*_: object) -> None:
        raise OperationalError("SELECT", {}, sqlite3.OperationalError("database is locked"))

    monkeypatch.setattr(sql_database, "_rows", refuse)
    held = await database.many_rows(select(alembic_version))
    await database.close()

    assert [{"version_num": NEWEST_VERSION}] == free == held


async def test_those_who_write_at_the_same_time_come_in_the_order_of_asking(tmp_path: Path) -> None:
    """The database itself lets in whoever happens to try when it is free, and some never."""
    database = Database(sqlite_file(tmp_path))
    await database.migrate()
    order: list[int] = []

    async def write(number: int) -> None:
        async with database.transaction() as connection:
            await connection.execute(text("UPDATE alembic_version SET version_num = version_num"))
            order.append(number)

    async with asyncio.TaskGroup() as group:
        for number in range(50):
            group.create_task(write(number))
    await database.close()

    assert list(range(50)) == order


async def test_a_turn_that_does_not_come_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller is told; whoever comes later has a turn again."""
    monkeypatch.setattr(sql_database, "_BUSY_MILLISECONDS", 20)
    database = Database(sqlite_file(tmp_path))
    await database.migrate()

    async with database.transaction():
        with pytest.raises(Unavailable, match="others have been writing for too long"):
            async with database.transaction():
                pass
    problem = await database.write_problem()
    await database.close()

    assert problem is None
