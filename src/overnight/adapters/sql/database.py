"""Opening the database, bringing its schema up to date, reading and writing."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, create_engine, event, inspect, literal, select, text
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from overnight.adapters.sql.rows import Record, to_record
from overnight.domain.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from sqlalchemy import Connection, Select

NEWEST_VERSION = "0009"
"""The newest of the migrations; with a database of this version there is nothing to do at the start."""

_BUSY_MILLISECONDS = 10_000


def sqlite_file(data_dir: Path) -> Path:
    """Say where the database of a data folder is."""
    return data_dir / "overnight.db"


class Lookup:
    """A query for one row by its keys, which are its ``bindparam``s, put into SQL once: it is asked again and again."""

    def __init__(self, query: Select[Any]) -> None:
        compiled = query.compile(dialect=sqlite.dialect(paramstyle="named"))
        self.query = query
        self.sql = str(compiled)
        self.columns = tuple(column.name for column in query.selected_columns)


class Database:
    """An SQLite database.

    Writes go through the driver's thread, since they wait for the disk. Reads of a few rows are made on the event loop:
    in WAL mode they wait for nobody, and one takes a tenth of a millisecond where the way through the thread takes five
    turns of a busy loop.
    """

    def __init__(self, path: Path) -> None:
        self._writer = create_async_engine(f"sqlite+aiosqlite:///{path}", hide_parameters=True)
        event.listen(self._writer.sync_engine, "connect", _prepare_writer)
        self._reader = create_engine(
            f"sqlite:///{path}", isolation_level="AUTOCOMMIT", pool_reset_on_return=None, hide_parameters=True
        )
        event.listen(self._reader, "connect", _prepare_reader)
        self._looking: Any = None
        self._write_failed = False
        # Whoever finds an SQLite database locked naps and tries again, so of many writers one may never have its turn.
        self._turn = asyncio.Lock()

    async def migrate(self) -> None:
        """Bring the schema to the newest version."""
        async with self._writer.begin() as connection:
            await connection.run_sync(_upgrade)

    async def close(self) -> None:
        """Close all connections."""
        if self._looking is not None:
            self._looking.close()
        self._reader.dispose()
        await self._writer.dispose()

    async def rows(self, query: Select[Any]) -> Sequence[Mapping[str, Any]]:
        """Read some rows."""
        try:
            return _rows(self._reader, query)
        except OperationalError:
            return await self._rows_in_time(query)

    async def many_rows(self, query: Select[Any]) -> Sequence[Mapping[str, Any]]:
        """Read what may be thousands of rows, or takes a look at as many, off the event loop."""
        try:
            return await asyncio.to_thread(_rows, self._reader, query)
        except OperationalError:
            return await self._rows_in_time(query)

    async def _rows_in_time(self, query: Select[Any]) -> Sequence[Mapping[str, Any]]:
        # Somebody holds the whole database for a moment, a backup perhaps: wait for it elsewhere.
        async with self._writer.connect() as connection:
            return [dict(row) for row in (await connection.execute(query)).mappings()]

    async def records(self, query: Select[Any], kind: type[Record]) -> Sequence[Record]:
        """Read what may be thousands of rows, off the event loop."""
        rows = await self.many_rows(query)
        return await asyncio.to_thread(lambda: [to_record(kind, row) for row in rows])

    async def row(self, query: Select[Any]) -> Mapping[str, Any] | None:
        """Read the first row."""
        return next(iter(await self.rows(query)), None)

    async def look_up(self, lookup: Lookup, **keys: str) -> Mapping[str, Any] | None:
        """Read one row in a tenth of the time that ``row`` takes."""
        if self._looking is None:
            self._looking = self._reader.raw_connection()
        try:
            row = self._looking.driver_connection.execute(lookup.sql, keys).fetchone()
        except sqlite3.OperationalError:
            return await self.row(lookup.query.params(**keys))
        return None if row is None else dict(zip(lookup.columns, row, strict=True))

    async def problem(self) -> str | None:
        """Say why nothing can be read or written now; ``None`` if all is well.

        A write is tried only if the last one failed, so that this can be asked often.
        """
        try:
            await self.rows(select(literal(1)))
        except SQLAlchemyError as error:
            return f"the database cannot be read: {_reason(error)}"
        return await self.write_problem() if self._write_failed else None

    async def write_problem(self) -> str | None:
        """Try a small write, and say why it fails."""
        try:
            async with self.transaction() as connection:
                await connection.execute(text("UPDATE alembic_version SET version_num = version_num"))
        except Unavailable as error:
            return f"the database cannot be written: {_reason(error.__cause__)}"
        return None

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """Write, in the order of asking; committed and durable when the context ends well. Raises ``Unavailable``."""
        await self._wait_for_turn()
        try:
            async with self._writer.begin() as connection:
                yield connection
        except OperationalError as error:
            # Locked, full or read-only: the fault is the machine's, and what was asked for may work later.
            raise self._cannot_write(error.orig) from error
        finally:
            self._turn.release()
        self._write_failed = False

    async def _wait_for_turn(self) -> None:
        try:
            async with asyncio.timeout(_BUSY_MILLISECONDS / 1000):
                await self._turn.acquire()
        except TimeoutError:
            crowd = TimeoutError("others have been writing for too long")
            raise self._cannot_write(crowd) from crowd

    def _cannot_write(self, reason: object) -> Unavailable:
        self._write_failed = True
        return Unavailable(f"The database cannot be written now ({reason}). Try again later, or ask the operator.")


def _reason(error: BaseException | None) -> object:
    return getattr(error, "orig", None) or error


def _rows(engine: Engine, query: Select[Any]) -> Sequence[Mapping[str, Any]]:
    with engine.connect() as connection:
        return [dict(row) for row in connection.execute(query).mappings()]


def _upgrade(connection: Connection) -> None:
    if _version(connection) == NEWEST_VERSION:
        return
    # Heavy, and seldom needed.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _version(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _prepare_writer(connection: Any, _record: object) -> None:  # noqa: ANN401 - a driver's connection
    # A batch or a file that was acknowledged must survive a power cut: hence FULL, not WAL's default.
    _set(connection, "journal_mode=WAL", "synchronous=FULL", f"busy_timeout={_BUSY_MILLISECONDS}", "foreign_keys=ON")


def _prepare_reader(connection: Any, _record: object) -> None:  # noqa: ANN401 - a driver's connection
    _set(connection, "busy_timeout=0", "query_only=ON")


def _set(connection: Any, *pragmas: str) -> None:  # noqa: ANN401 - a driver's connection
    cursor = connection.cursor()
    for pragma in pragmas:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
