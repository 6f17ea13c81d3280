"""The books, the prices and the caps of a data folder."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from overnight.adapters.sql.database import sqlite_file
from overnight.adapters.sql.usage import SqlBooks, SqlCaps
from overnight.adapters.system import SystemClock
from overnight.bootstrap.errors import StartupError
from overnight.bootstrap.storage import opened_database
from overnight.config import Settings
from overnight.domain.price import Prices
from overnight.services.usage import UsageService

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from overnight.adapters.sql.database import Database
    from overnight.ports.clock import Clock

T = TypeVar("T")


def prices(settings: Settings) -> Prices:
    """Give the prices that the settings name."""
    priced = {each.name: each.price.to_price() for each in settings.deployments if each.price is not None}
    return Prices(currency=settings.currency, by_deployment=priced)


def usage_service(settings: Settings, database: Database, clock: Clock) -> UsageService:
    return UsageService(SqlBooks(database), SqlCaps(database), prices(settings), clock)


def with_usage(settings: Settings, work: Callable[[UsageService], Awaitable[T]]) -> T:
    """Work on the books and caps of a data folder; a service may run on it meanwhile.

    Raises:
        StartupError: the folder cannot be used, or there is no database in it.
    """
    if not sqlite_file(settings.data_dir).exists():
        message = f"there is no database in the data folder `{settings.data_dir}`"
        raise StartupError(message, "name the one of the service with `--data-dir`; `overnight serve` makes it")
    return asyncio.run(_with_usage(settings, work))


async def _with_usage(settings: Settings, work: Callable[[UsageService], Awaitable[T]]) -> T:
    async with opened_database(settings) as database:
        return await work(usage_service(settings, database, SystemClock()))
