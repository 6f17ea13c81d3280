"""The database when the disk is in trouble."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import bindparam, column, select, table

from overnight.adapters.sql import database as sql_database
from overnight.adapters.sql.database import NEWEST_VERSION, Database, Lookup, sqlite_file
from overnight.adapters.sql.keys import SqlKeys
from overnight.domain.errors import Unavailable

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
    """What it holds stays."""
    database = Database(sqlite_file(tmp_path))
    await database.migrate()
    await database.close()
    with closing(sqlite3.connect(sqlite_file(tmp_path))) as older, older:
        older.executescript("DROP TABLE keys; DROP TABLE resources; UPDATE alembic_version SET version_num = '0001'")
        older.execute("INSERT INTO parts VALUES ('part_1', 'upload_1', 1, 1, 'b')")
    database = Database(sqlite_file(tmp_path))
    await database.migrate()
    any_key = await SqlKeys(database).any()
    kept = await database.rows(select(column("id")).select_from(table("parts")))
    await database.close()

    assert not any_key
    assert kept == [{"id": "part_1"}]


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
