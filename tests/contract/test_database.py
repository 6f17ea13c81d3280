"""The database when the disk is in trouble."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from overnight.adapters.sql import database as sql_database
from overnight.adapters.sql.database import Database, sqlite_file
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
