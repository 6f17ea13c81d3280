"""Looks at every part that the service needs."""

from __future__ import annotations

import asyncio
import errno
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from overnight.adapters.sql.batches import SqlBatches
from overnight.adapters.sql.database import Database, sqlite_file
from overnight.adapters.system import SystemClock
from overnight.adapters.upstreams.embedded import MODEL_NAME, EmbeddedMissing, find_model, library_problem
from overnight.adapters.upstreams.http import UpstreamProblem
from overnight.api.auth import is_loopback
from overnight.bootstrap.checkup import Check, look_at_database, look_at_logs, look_at_settings
from overnight.bootstrap.errors import StartupError
from overnight.bootstrap.keys import read_keys, stored_keys, too_open
from overnight.bootstrap.oidc import open_issuer
from overnight.bootstrap.storage import folder_problem, open_results, open_store, opened_database
from overnight.bootstrap.upstreams import http_upstream
from overnight.config import ConfigError, Settings, UpstreamSettings
from overnight.domain.errors import Unavailable
from overnight.services.troubles import TroublesInMind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from overnight.bootstrap.checkup import Offers

    _Asked = tuple[str, Sequence[str] | None, Check]
    """An upstream by its name, the models that it has, and the finding on it."""

_LEAST_FREE = 1_000_000_000


def diagnose(settings: Settings) -> list[Check]:
    """Look at every part that the service needs."""
    return asyncio.run(examine(settings))


async def examine(settings: Settings) -> list[Check]:
    """Look at every part, from a running event loop."""
    # The folder is made where there is none, so it comes first.
    folder = _check_folder(settings)
    stored = await _check_database(settings)
    asked = await _ask_upstreams(settings)
    offers = {label: models for label, models, _ in asked}
    return [
        folder,
        _check_disk(settings),
        stored,
        *await _check_results(settings),
        await _check_keys(settings),
        *await _check_issuer(settings),
        *(check for _, _, check in asked),
        *look_at_settings(settings, offers),
        *(await _check_contents(settings, offers) if stored.ok else []),
    ]


def _check_folder(settings: Settings) -> Check:
    folder = settings.data_dir
    error = folder_problem(folder)
    if error is None:
        return Check(name="data folder", ok=True, detail=str(folder.resolve()))
    detail = f"{folder} cannot be written ({error.strerror})"
    return Check(name="data folder", ok=False, detail=detail, remedy=_folder_remedy(folder, error))


def _folder_remedy(folder: Path, error: OSError) -> str:
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return "free some space: batches that wait for it go on by themselves"
        case errno.EROFS:
            return "mount the disk for writing (`mount -o remount,rw`); the log of the kernel says why it is read-only"
        case errno.EIO:
            return "the disk fails: look into the log of the kernel, and take a backup"
    return f"chmod u+rwx {folder}, or use --data-dir"


def _check_disk(settings: Settings) -> Check:
    folder = settings.data_dir if settings.data_dir.is_dir() else Path()
    free = shutil.disk_usage(folder).free
    detail = f"{free / 1e9:,.1f} GB free"
    if free >= _LEAST_FREE:
        return Check(name="disk", ok=True, detail=detail)
    return Check(name="disk", ok=False, detail=detail, remedy="free some space, or use --data-dir on another disk")


async def _check_database(settings: Settings) -> Check:
    database = Database(sqlite_file(settings.data_dir))
    try:
        await database.migrate()
        reason = await database.write_problem()
    except (SQLAlchemyError, OSError) as error:
        reason = str(getattr(error, "orig", None) or error)
    finally:
        await database.close()
    if reason is not None:
        remedy = "free some space, stop other programs that hold the database, or use another --data-dir"
        return Check(name="database", ok=False, detail=reason, remedy=remedy)
    return Check(name="database", ok=True, detail="SQLite, schema up to date")


async def _check_results(settings: Settings) -> list[Check]:
    url = settings.results_url
    if url is None:
        return []
    try:
        store = open_store(url)
    except StartupError as error:
        return [Check(name="results", ok=False, detail=error.message, remedy=error.hint)]
    from overnight.adapters.results.objects import probe

    try:
        await probe(store)
    except OSError as error:
        remedy = "check results_url, the credentials in the environment, and that they may put, read and delete"
        return [Check(name="results", ok=False, detail=f"{url} cannot be used: {error}", remedy=remedy)]
    return [Check(name="results", ok=True, detail=f"{url} can be written")]


async def _check_keys(settings: Settings) -> Check:
    try:
        in_file = read_keys(settings)
        stored = await stored_keys(settings)
        if not in_file and not stored and settings.oidc is None and not is_loopback(settings.host):
            raise too_open(settings)
    except (StartupError, SQLAlchemyError) as error:
        remedy = getattr(error, "hint", "see what is said of the database")
        return Check(name="keys", ok=False, detail=str(getattr(error, "orig", None) or error), remedy=remedy)
    count = len(in_file) + len(stored)
    accepted = f"any key is accepted on {settings.host}" if settings.oidc is None else "only bearer tokens are accepted"
    detail = f"{count} keys" if count else f"none: {accepted}"
    return Check(name="keys", ok=True, detail=detail)


async def _check_issuer(settings: Settings) -> list[Check]:
    if settings.oidc is None:
        return []
    try:
        issuer = open_issuer(settings.oidc)
    except StartupError as error:
        return [Check(name="issuer", ok=False, detail=error.message, remedy=error.hint)]
    from overnight.adapters.oidc.issuer import IssuerProblem

    try:
        keys = await issuer.fetch()
    except IssuerProblem as problem:
        remedy = "check issuer and jwks_url under [oidc], and that this machine may reach them"
        return [Check(name="issuer", ok=False, detail=str(problem), remedy=remedy)]
    finally:
        await issuer.close()
    return [Check(name="issuer", ok=True, detail=f"{settings.oidc.issuer}: {len(keys)} keys")]


async def _check_contents(settings: Settings, offers: Offers) -> list[Check]:
    try:
        async with opened_database(settings) as database:
            found = await look_at_database(settings, offers, database, SystemClock().now())
            return [*found, *await _check_logs(settings, database)]
    except SQLAlchemyError as error:
        detail = f"it cannot be read: {getattr(error, 'orig', None) or error}"
        return [Check(name="database", ok=False, detail=detail, remedy="the database may be damaged: see the backups")]
    except StartupError as error:
        return [Check(name="database", ok=False, detail=error.message, remedy=error.hint)]


async def _check_logs(settings: Settings, database: Database) -> list[Check]:
    try:
        logs = open_results(settings, settings.data_dir, TroublesInMind(SystemClock()))
        return await look_at_logs(logs, SqlBatches(database))
    except (StartupError, Unavailable, OSError):
        # What can be wrong here is said of the store, or of the folder, already.
        return []


async def _ask_upstreams(settings: Settings) -> list[_Asked]:
    if not settings.upstreams:
        return [("embedded", [MODEL_NAME], await _check_embedded())]
    return [await _ask_upstream(settings, upstream) for upstream in settings.upstreams]


async def _check_embedded() -> Check:
    name = "upstream embedded"
    try:
        model = find_model()
    except EmbeddedMissing as error:
        remedy = "run `make install`, or name a model server with --upstream"
        return Check(name=name, ok=False, detail=str(error), remedy=remedy)
    problem = await library_problem()
    if problem:
        remedy = "install what is missing (libgomp.so.1: Debian's libgomp1), or name a model server with --upstream"
        return Check(name=name, ok=False, detail=problem, remedy=remedy)
    return Check(name=name, ok=True, detail=f"{MODEL_NAME}, {model.name}")


async def _ask_upstream(settings: Settings, upstream: UpstreamSettings) -> _Asked:
    name = f"upstream {upstream.label}"
    try:
        client = http_upstream(settings, upstream)
    except ConfigError as error:
        return upstream.label, None, Check(name=name, ok=False, detail=error.message, remedy=error.hint)
    try:
        models = await client.models()
    except UpstreamProblem as problem:
        remedy = "start the model server, or name another with --upstream"
        detail = f"{upstream.url} does not answer ({problem})"
        return upstream.label, None, Check(name=name, ok=False, detail=detail, remedy=remedy)
    finally:
        await client.close()
    detail = f"{upstream.url}: {', '.join(models) or 'no models'}"
    return upstream.label, models, Check(name=name, ok=True, detail=detail)
