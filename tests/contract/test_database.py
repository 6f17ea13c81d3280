"""The database when the disk is in trouble."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import bindparam, select

from overnight.adapters.sql import database as sql_database
from overnight.adapters.sql.database import NEWEST_VERSION, Database, Lookup, sqlite_file
from overnight.adapters.sql.tables import batches
from overnight.domain.errors import Unavailable


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


async def test_a_lookup_waits_elsewhere_while_the_database_is_held(tmp_path: Path) -> None:
    """As every other read does."""
    database = Database(sqlite_file(tmp_path))
    await database.migrate()
    lookup = Lookup(select(batches).where(batches.c.id == bindparam("id")))
    none = await database.look_up(lookup, id="batch_1")
    with closing(sqlite3.connect(sqlite_file(tmp_path), isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode=EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        asked = asyncio.ensure_future(database.look_up(lookup, id="batch_1"))
        await asyncio.sleep(0.05)
        other.execute("ROLLBACK")
        found = await asked
    await database.close()

    assert none is found is None
