"""The keys of a key file and of a data folder."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

import structlog

from overnight.adapters.sql.database import sqlite_file
from overnight.adapters.sql.keys import SqlKeys
from overnight.adapters.system import SystemClock, SystemEntropy
from overnight.api.auth import parse_keys
from overnight.bootstrap.errors import StartupError
from overnight.bootstrap.storage import opened_database
from overnight.config import Settings
from overnight.domain.errors import Unavailable
from overnight.services.keys import KeyService

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from overnight.domain.ids import ResourceId
    from overnight.domain.key import Key

T = TypeVar("T")
log = structlog.get_logger()


def read_keys(settings: Settings) -> dict[str, ResourceId]:
    if settings.keys_file is None:
        return {}
    try:
        keys = parse_keys(settings.keys_file.read_text())
    except (OSError, ValueError) as error:
        message = f"the key file `{settings.keys_file}` cannot be read: {error}"
        raise StartupError(message, "each line holds a key, and after a space the resource it opens", 2) from error
    if not keys:
        message = f"the key file `{settings.keys_file}` holds no key"
        raise StartupError(message, "put a key on a line of its own, or leave --keys-file out", 2)
    return keys


async def adopt(service: KeyService) -> None:
    """Create the resources of the key file; they open theirs without that too, so a full disk stops no start."""
    try:
        await service.adopt_file()
    except Unavailable as error:
        log.warning("resources.not_created", problem=error.message)


def too_open(settings: Settings) -> StartupError:
    message = f"refusing to listen on {settings.host} without API keys: anybody could use the service"
    return StartupError(message, "`overnight keys create` makes one for this data folder; or use --host 127.0.0.1", 2)


async def stored_keys(settings: Settings) -> Sequence[Key]:
    if not sqlite_file(settings.data_dir).exists():
        return []
    async with opened_database(settings) as database:
        return await SqlKeys(database).all()


def with_keys(
    settings: Settings,
    work: Callable[[KeyService], Awaitable[T]],
    *,
    new: bool = False,
    in_file: Iterable[ResourceId] = (),
) -> T:
    """Work on the keys of a data folder, which may be ``new``; a service may run on it meanwhile.

    Raises:
        StartupError: the folder cannot be used, or there is none.
    """
    if not new:
        check_database(settings)
    return asyncio.run(_with_keys(settings, work, in_file))


def check_database(settings: Settings) -> None:
    """Raise ``StartupError`` if there is no database in the data folder."""
    if not sqlite_file(settings.data_dir).exists():
        message = f"there is no database in the data folder `{settings.data_dir}`"
        raise StartupError(message, "name the one of the service with `--data-dir`; `overnight serve` makes it")


async def _with_keys(
    settings: Settings, work: Callable[[KeyService], Awaitable[T]], in_file: Iterable[ResourceId]
) -> T:
    async with opened_database(settings) as database:
        return await work(KeyService(SqlKeys(database), SystemClock(), SystemEntropy(), in_file))
