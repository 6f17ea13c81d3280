"""Opens what a data folder holds: the database, the blobs and the result logs."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from sqlalchemy.exc import SQLAlchemyError

from overnight.adapters.blobs.local import LocalBlobs
from overnight.adapters.disk import try_out
from overnight.adapters.results.local import LocalResultLogs
from overnight.adapters.sql.database import Database, sqlite_file
from overnight.adapters.workplace import Workplace
from overnight.bootstrap.errors import StartupError
from overnight.config import Settings
from overnight.domain.ids import WorkerId
from overnight.services.troubles import TroublesInMind

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from obstore.store import ObjectStore

    from overnight.ports.results import ResultLogs
    from overnight.ports.troubles import Troubles


class Storage(msgspec.Struct, frozen=True, kw_only=True):
    """The stores of a data folder."""

    database: Database
    blobs: LocalBlobs
    results: ResultLogs
    dead_workers: list[WorkerId]


async def open_storage(
    settings: Settings, worker: WorkerId, troubles: TroublesInMind, stack: AsyncExitStack
) -> Storage:
    try:
        database = Database(sqlite_file(settings.data_dir))
        stack.push_async_callback(database.close)
        await database.migrate()
        workplace = Workplace(settings.data_dir, worker)
        stack.callback(workplace.close)
        blobs = LocalBlobs(settings.data_dir, workplace.temporary)
        results = open_results(settings, workplace.temporary, troubles)
    except (OSError, SQLAlchemyError) as error:
        # A database that cannot be opened does not say that its disk is read-only.
        reason = folder_problem(settings.data_dir) or getattr(error, "orig", None) or error
        message = f"the data folder `{settings.data_dir}` cannot be used: {reason}"
        raise StartupError(message, "`overnight doctor` checks each part; or name another with `--data-dir`") from error
    return Storage(database=database, blobs=blobs, results=results, dead_workers=workplace.dead)


def open_results(settings: Settings, scratch: Path, troubles: Troubles) -> ResultLogs:
    if settings.results_url is None:
        return LocalResultLogs(settings.data_dir, troubles)
    store = open_store(settings.results_url)
    from overnight.adapters.results.objects import ObjectResultLogs

    return ObjectResultLogs(store, scratch, troubles)


def open_store(url: str) -> ObjectStore:
    try:
        from overnight.adapters.results.objects import open_store
    except ImportError as error:
        message = "the package `obstore`, which reaches object stores, is not installed"
        raise StartupError(message, "pip install 'overnight[objects]', or leave results_url out") from error
    try:
        return open_store(url)
    except ValueError as error:
        message = f"the store `{url}` of the results cannot be used: {error}"
        raise StartupError(message, "check results_url, and what the environment says of the store") from error


@asynccontextmanager
async def opened_database(settings: Settings) -> AsyncIterator[Database]:
    async with AsyncExitStack() as stack:
        try:
            settings.data_dir.mkdir(parents=True, exist_ok=True)
            database = Database(sqlite_file(settings.data_dir))
            stack.push_async_callback(database.close)
            await database.migrate()
        except (OSError, SQLAlchemyError) as error:
            reason = getattr(error, "orig", None) or error
            message = f"the data folder `{settings.data_dir}` cannot be used: {reason}"
            raise StartupError(message, "name the one of the service with `--data-dir`") from error
        yield database


def folder_problem(folder: Path) -> OSError | None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try_out(folder)
    except OSError as error:
        return error
    return None
