"""Puts the service together from settings, runs it, and looks at its parts: the only module that names adapters."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import signal
import socket
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec
import structlog
import uvicorn
import uvloop
from sqlalchemy.exc import SQLAlchemyError

from overnight.adapters.blobs.local import LocalBlobs
from overnight.adapters.disk import try_out
from overnight.adapters.results.local import LocalResultLogs
from overnight.adapters.sql.batches import SqlBatches
from overnight.adapters.sql.database import Database, sqlite_file
from overnight.adapters.sql.files import SqlFiles, SqlUploads
from overnight.adapters.sql.keys import SqlKeys
from overnight.adapters.system import SystemClock, SystemEntropy, WorkerProcesses
from overnight.adapters.tokens.choice import ChosenCounters, by_setting
from overnight.adapters.tokens.huggingface import TokenizerUnusable
from overnight.adapters.upstreams.catalogue import Catalogue
from overnight.adapters.upstreams.embedded import (
    MODEL_NAME,
    EmbeddedFailed,
    EmbeddedMissing,
    EmbeddedServer,
    find_model,
)
from overnight.adapters.upstreams.http import HttpSettings, HttpUpstream, UpstreamProblem
from overnight.adapters.workplace import Workplace
from overnight.api.app import make_app
from overnight.api.auth import Keys, is_loopback, parse_keys
from overnight.api.context import Services
from overnight.api.middleware import Entrance
from overnight.config import ConfigError, Settings, UpstreamSettings
from overnight.dispatch.attempt import Attempts
from overnight.dispatch.dispatcher import Dispatcher
from overnight.dispatch.owned import Parts
from overnight.dispatch.pool import Pool
from overnight.dispatch.router import Router
from overnight.domain.deployment import Capacity, Deployment, UpstreamName
from overnight.domain.ids import WorkerId
from overnight.domain.retry import RetryPolicy
from overnight.observability import logs
from overnight.services.batches import BatchService
from overnight.services.files import FileService
from overnight.services.keys import Authenticator, KeyService
from overnight.services.retention import Sweeper
from overnight.services.troubles import TroublesInMind
from overnight.services.uploads import UploadService

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence

    from obstore.store import ObjectStore
    from starlette.types import ASGIApp

    from overnight.domain.ids import ResourceId
    from overnight.domain.key import Key
    from overnight.ports.results import ResultLogs
    from overnight.ports.tokens import TokenCounters
    from overnight.ports.troubles import Troubles

log = structlog.get_logger()

T = TypeVar("T")

_KEEP_ALIVE = 75
_LAST_ANSWERS = 5
_EMBEDDED_TIMEOUT = 600.0
_LEAST_FREE = 1_000_000_000
_EMBEDDED = UpstreamName("embedded")


class StartupError(Exception):
    """The service cannot start; ``hint`` says what to do, ``exit_code`` what to end with."""

    def __init__(self, message: str, hint: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.exit_code = exit_code


class ReadyInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What there is to tell once the service answers; a warning is a message and a hint."""

    url: str
    models: list[str]
    data_dir: Path
    upstreams: list[str]
    warnings: list[tuple[str, str]]


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """The finding of ``overnight doctor`` on one part."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """The parts that run; ``embedded`` is there if no other upstream is."""

    app: ASGIApp
    dispatcher: Dispatcher
    catalogue: Catalogue
    callers: Authenticator
    embedded: EmbeddedServer | None


def serve(settings: Settings, ready: Callable[[ReadyInfo], None] | None = None) -> None:
    """Run the service until it is told to stop. Raises ``StartupError`` and ``ConfigError``."""
    logs.configure(settings.log_level, settings.log_format)
    keys = _read_keys(settings)
    if not keys and not is_loopback(settings.host) and not asyncio.run(_stored_keys(settings)):
        raise _too_open(settings)
    with _listening(settings) as listener:
        uvloop.run(_serve(settings, keys, listener, ready))


async def _serve(
    settings: Settings,
    keys: Mapping[str, ResourceId],
    listener: socket.socket,
    ready: Callable[[ReadyInfo], None] | None,
) -> None:
    async with AsyncExitStack() as stack:
        service = await stack.enter_async_context(running_service(settings, keys))
        server = _Server(
            uvicorn.Config(
                service.app,
                http="httptools",
                log_config=None,
                access_log=False,
                server_header=False,
                lifespan="off",
                timeout_keep_alive=_KEEP_ALIVE,
                timeout_graceful_shutdown=_LAST_ANSWERS,
            )
        )
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        async with asyncio.TaskGroup() as group:
            group.create_task(server.serve(sockets=[listener]), name="http server")
            dispatching = group.create_task(service.dispatcher.run(), name="dispatcher")
            keeping = [
                group.create_task(_keep(service.embedded), name="embedded model"),
                group.create_task(service.catalogue.keep_fresh(), name="models of the upstreams"),
                group.create_task(service.callers.keep_noting(), name="use of the keys"),
            ]
            if ready is not None:
                ready(await _started(settings, service, listener))
            await stop.wait()
            # A second signal ends the process at once.
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().remove_signal_handler(number)
            log.info("service.stopping")
            service.dispatcher.stop()
            await dispatching
            for task in keeping:
                task.cancel()
            server.should_exit = True
    log.info("service.stopped")


async def _keep(embedded: EmbeddedServer | None) -> None:
    if embedded is not None:
        await embedded.keep()


class _Server(uvicorn.Server):
    """Leaves the signals to us, so that running requests get their grace."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def running_service(settings: Settings, keys: Mapping[str, ResourceId]) -> AsyncIterator[Service]:
    """Open the database, the stores and the upstreams, and put the service together."""
    clock, entropy = SystemClock(), SystemEntropy()
    async with AsyncExitStack() as stack:
        worker = WorkerId(f"{socket.gethostname()}-{os.getpid()}-{entropy.hex()[:8]}")
        troubles = TroublesInMind(clock)
        storage = await _open_storage(settings, worker, troubles, stack)
        offload = WorkerProcesses()
        stack.callback(offload.close)
        embedded = None if settings.upstreams else await _start_embedded(settings, stack)
        upstreams = _open_upstreams(settings, embedded, stack)
        catalogue = Catalogue(
            _configured(settings, upstreams, clock), {upstream.name: upstream for upstream in upstreams}, clock
        )
        await catalogue.refresh()
        database, blobs, results = storage.database, storage.blobs, storage.results
        files, uploads, batches = SqlFiles(database), SqlUploads(database), SqlBatches(database)
        for dead in storage.dead_workers:
            await batches.release_all(dead)
        limits = settings.limits_by_flavour()
        attempts = Attempts(RetryPolicy(), clock, entropy)
        router = Router([Pool(upstream, attempts, clock) for upstream in upstreams], clock)
        parts = Parts(
            batches=batches,
            files=files,
            blobs=blobs,
            logs=results,
            deployments=catalogue,
            router=router,
            offload=offload,
            clock=clock,
            entropy=entropy,
            limits=limits,
            troubles=troubles,
            stop_grace=settings.stop_grace,
        )
        sweeper = Sweeper(files, uploads, batches, blobs, results, clock)
        dispatcher = Dispatcher(parts, sweeper, worker, shutdown_grace=settings.shutdown_grace)
        file_service = FileService(files, blobs, clock, entropy, limits, strict_suffix=settings.strict_suffix)
        services = Services(
            files=file_service,
            uploads=UploadService(uploads, file_service, blobs, clock, entropy, limits),
            batches=BatchService(batches, clock, entropy, limits, dispatcher),
            deployments=catalogue,
            health=lambda: router.health(catalogue.health()),
            troubles=troubles.known,
        )
        app = make_app(services, limits, database.problem, root_path=settings.root_path)
        callers = Authenticator(SqlKeys(database), clock)
        stack.push_async_callback(callers.note_use)
        yield Service(
            app=Entrance(app, Keys(keys, callers), settings.root_path),
            dispatcher=dispatcher,
            catalogue=catalogue,
            callers=callers,
            embedded=embedded,
        )


class _Storage(msgspec.Struct, frozen=True, kw_only=True):
    """The stores of a data folder."""

    database: Database
    blobs: LocalBlobs
    results: ResultLogs
    dead_workers: list[WorkerId]


async def _open_storage(
    settings: Settings, worker: WorkerId, troubles: TroublesInMind, stack: AsyncExitStack
) -> _Storage:
    try:
        database = Database(sqlite_file(settings.data_dir))
        stack.push_async_callback(database.close)
        await database.migrate()
        workplace = Workplace(settings.data_dir, worker)
        stack.callback(workplace.close)
        blobs = LocalBlobs(settings.data_dir, workplace.temporary)
        results = _open_results(settings, workplace.temporary, troubles)
    except (OSError, SQLAlchemyError) as error:
        # A database that cannot be opened does not say that its disk is read-only.
        reason = _folder_problem(settings.data_dir) or getattr(error, "orig", None) or error
        message = f"the data folder `{settings.data_dir}` cannot be used: {reason}"
        raise StartupError(message, "`overnight doctor` checks each part; or name another with `--data-dir`") from error
    return _Storage(database=database, blobs=blobs, results=results, dead_workers=workplace.dead)


def _open_results(settings: Settings, scratch: Path, troubles: Troubles) -> ResultLogs:
    if settings.results_url is None:
        return LocalResultLogs(settings.data_dir, troubles)
    store = _open_store(settings.results_url)
    from overnight.adapters.results.objects import ObjectResultLogs

    return ObjectResultLogs(store, scratch, troubles)


def _open_store(url: str) -> ObjectStore:
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


def _open_upstreams(settings: Settings, embedded: EmbeddedServer | None, stack: AsyncExitStack) -> list[HttpUpstream]:
    upstreams = [_http_upstream(settings, upstream) for upstream in settings.upstreams]
    if embedded is not None:
        upstreams.append(_embedded_upstream(settings, embedded))
    for upstream in upstreams:
        stack.push_async_callback(upstream.close)
    return upstreams


def _http_upstream(settings: Settings, upstream: UpstreamSettings) -> HttpUpstream:
    http = HttpSettings(
        name=UpstreamName(upstream.label),
        timeout=upstream.timeout,
        answer_bytes=settings.answer_bytes,
        api_key=upstream.api_key(),
    )
    return HttpUpstream(http, upstream.capacity(), lambda: upstream.url)


async def _start_embedded(settings: Settings, stack: AsyncExitStack) -> EmbeddedServer:
    try:
        server = EmbeddedServer(find_model(), MODEL_NAME, settings.embedded_slots)
        stack.push_async_callback(server.stop)
        await server.start()
    except (EmbeddedMissing, EmbeddedFailed) as error:
        hint = "name a model server with `--upstream http://localhost:8000/v1`, or run `make install`"
        raise StartupError(str(error), hint) from error
    return server


def _embedded_upstream(settings: Settings, server: EmbeddedServer) -> HttpUpstream:
    http = HttpSettings(
        name=_EMBEDDED,
        timeout=_EMBEDDED_TIMEOUT,
        answer_bytes=settings.answer_bytes,
    )
    slots = settings.embedded_slots
    return HttpUpstream(http, Capacity(max_concurrency=slots, start_concurrency=slots), server.base_url)


def _configured(settings: Settings, upstreams: Sequence[HttpUpstream], clock: SystemClock) -> list[Deployment]:
    everyone = tuple(upstream.name for upstream in upstreams)
    return [
        Deployment(
            name=deployment.name,
            model=deployment.model or deployment.name,
            upstreams=tuple(UpstreamName(name) for name in deployment.upstreams) or everyone,
            created_at=int(clock.now()),
            expiry=deployment.expiry,
        )
        for deployment in settings.deployments
    ]


async def _started(settings: Settings, service: Service, listener: socket.socket) -> ReadyInfo:
    silent = [state for state in service.catalogue.health() if state.problem is not None]
    return ReadyInfo(
        url=_url(settings, listener),
        models=[deployment.name for deployment in service.catalogue.known().deployments],
        data_dir=settings.data_dir,
        upstreams=[state.url for state in service.catalogue.health()],
        warnings=[
            (
                f"the upstream `{state.url}` does not answer ({state.problem})",
                "start the model server, or name another with `--upstream`; batches wait until it answers",
            )
            for state in silent
        ],
    )


def _url(settings: Settings, listener: socket.socket) -> str:
    port = listener.getsockname()[1]
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{host}:{port}{settings.root_path}"


def _read_keys(settings: Settings) -> dict[str, ResourceId]:
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


def _too_open(settings: Settings) -> StartupError:
    message = f"refusing to listen on {settings.host} without API keys: anybody could use the service"
    return StartupError(message, "`overnight keys create` makes one for this data folder; or use --host 127.0.0.1", 2)


def with_keys(settings: Settings, work: Callable[[KeyService], Awaitable[T]], *, new: bool = False) -> T:
    """Work on the keys of a data folder, which may be ``new``; a service may run on it meanwhile.

    Raises:
        StartupError: the folder cannot be used, or there is none.
    """
    if not new and not sqlite_file(settings.data_dir).exists():
        message = f"there is no database in the data folder `{settings.data_dir}`"
        raise StartupError(message, "name the one of the service with `--data-dir`; `overnight serve` makes it")
    return asyncio.run(_with_keys(settings, work))


async def _with_keys(settings: Settings, work: Callable[[KeyService], Awaitable[T]]) -> T:
    async with _opened_database(settings) as database:
        return await work(KeyService(SqlKeys(database), SystemClock(), SystemEntropy()))


@asynccontextmanager
async def _opened_database(settings: Settings) -> AsyncIterator[Database]:
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


@contextmanager
def _listening(settings: Settings) -> Iterator[socket.socket]:
    """Take the port before anything else, so that a second service says so at once."""
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"the data folder `{settings.data_dir}` cannot be made ({error.strerror})"
        raise StartupError(message, "name another with `--data-dir`") from error
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        listener = socket.create_server((settings.host, settings.port), family=family, backlog=2048)
    except OSError as error:
        # What names could not be resolved has a negative number, and its own words.
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        message = f"cannot listen on {settings.host}:{settings.port} ({reason})"
        raise StartupError(message, "choose another port with `--port`, or `--port 0` for a free one") from error
    with listener:
        yield listener


def token_counters(settings: Settings, every: str | None = None) -> TokenCounters:
    """Choose the tokenizers: those of the deployments, or what ``every`` says for all models.

    Raises ``ConfigError`` if the file of a tokenizer cannot be used.
    """
    deployments = () if every else settings.deployments
    try:
        chosen = {each.name: by_setting(each.tokenizer, each.model or each.name) for each in deployments}
        return ChosenCounters(chosen, by_setting(every, "") if every not in (None, "auto") else None)
    except TokenizerUnusable as error:
        raise ConfigError(str(error), error.hint) from error


def diagnose(settings: Settings) -> list[Check]:
    """Look at every part that the service needs."""
    return asyncio.run(_diagnose(settings))


async def _diagnose(settings: Settings) -> list[Check]:
    return [
        _check_folder(settings),
        _check_disk(settings),
        await _check_database(settings),
        *await _check_results(settings),
        await _check_keys(settings),
        *await _check_upstreams(settings),
    ]


def _check_folder(settings: Settings) -> Check:
    folder = settings.data_dir
    error = _folder_problem(folder)
    if error is None:
        return Check(name="data folder", ok=True, detail=str(folder.resolve()))
    detail = f"{folder} cannot be written ({error.strerror})"
    return Check(name="data folder", ok=False, detail=detail, remedy=_folder_remedy(folder, error))


def _folder_problem(folder: Path) -> OSError | None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try_out(folder)
    except OSError as error:
        return error
    return None


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
        store = _open_store(url)
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
        in_file = _read_keys(settings)
        stored = await _stored_keys(settings)
        if not in_file and not stored and not is_loopback(settings.host):
            raise _too_open(settings)
    except (StartupError, SQLAlchemyError) as error:
        remedy = getattr(error, "hint", "see what is said of the database")
        return Check(name="keys", ok=False, detail=str(getattr(error, "orig", None) or error), remedy=remedy)
    count = len(in_file) + len(stored)
    detail = f"{count} keys" if count else f"none: any key is accepted on {settings.host}"
    return Check(name="keys", ok=True, detail=detail)


async def _stored_keys(settings: Settings) -> Sequence[Key]:
    if not sqlite_file(settings.data_dir).exists():
        return []
    async with _opened_database(settings) as database:
        return await SqlKeys(database).all()


async def _check_upstreams(settings: Settings) -> list[Check]:
    if not settings.upstreams:
        return [_check_embedded()]
    return [await _check_upstream(settings, upstream) for upstream in settings.upstreams]


def _check_embedded() -> Check:
    try:
        return Check(name="upstream embedded", ok=True, detail=f"{MODEL_NAME}, {find_model().name}")
    except EmbeddedMissing as error:
        remedy = "run `make install`, or name a model server with --upstream"
        return Check(name="upstream embedded", ok=False, detail=str(error), remedy=remedy)


async def _check_upstream(settings: Settings, upstream: UpstreamSettings) -> Check:
    name = f"upstream {upstream.label}"
    try:
        client = _http_upstream(settings, upstream)
    except ConfigError as error:
        return Check(name=name, ok=False, detail=error.message, remedy=error.hint)
    try:
        models = await client.models()
    except UpstreamProblem as problem:
        remedy = "start the model server, or name another with --upstream"
        return Check(name=name, ok=False, detail=f"{upstream.url} does not answer ({problem})", remedy=remedy)
    finally:
        await client.close()
    return Check(name=name, ok=True, detail=f"{upstream.url}: {', '.join(models) or 'no models'}")
