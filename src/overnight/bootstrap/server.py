"""Runs the service until it is told to stop."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
from collections.abc import Mapping
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import structlog
import uvicorn
import uvloop

from overnight.adapters.upstreams.embedded import EmbeddedServer
from overnight.api.auth import is_loopback
from overnight.bootstrap.errors import StartupError
from overnight.bootstrap.http import connections
from overnight.bootstrap.keys import read_keys, stored_keys, too_open
from overnight.bootstrap.service import Service, running_service
from overnight.config import Settings
from overnight.observability import logs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from overnight.domain.ids import ResourceId

log = structlog.get_logger()
_LAST_ANSWERS = 5
# Besides connections: those to the upstreams, the database, uploads and the segments of running batches.
_OTHER_OPEN_FILES = 4096
_UNKNOWN: Mapping[str, str] = {}


class ReadyInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What there is to tell once the service answers; a warning is a message and a hint."""

    url: str
    models: list[str]
    data_dir: Path
    upstreams: list[str]
    warnings: list[tuple[str, str]]


def serve(
    settings: Settings, ready: Callable[[ReadyInfo], None] | None = None, sources: Mapping[str, str] = _UNKNOWN
) -> None:
    """Run the service until it is told to stop; ``sources`` says where each setting comes from.

    Raises:
        StartupError: it cannot run.
        ConfigError: a key of an upstream cannot be read.
    """
    logs.configure(settings.log_level, settings.log_format)
    keys = read_keys(settings)
    asks = bool(keys) or settings.oidc is not None
    if not asks and not is_loopback(settings.host) and not asyncio.run(stored_keys(settings)):
        raise too_open(settings)
    _allow_open_files(settings.connections.most + _OTHER_OPEN_FILES)
    with _listening(settings) as listener:
        uvloop.run(_serve(settings, keys, sources, listener, ready))


async def _serve(
    settings: Settings,
    keys: Mapping[str, ResourceId],
    sources: Mapping[str, str],
    listener: socket.socket,
    ready: Callable[[ReadyInfo], None] | None,
) -> None:
    async with AsyncExitStack() as stack:
        service = await stack.enter_async_context(running_service(settings, keys, sources))
        server = _Server(
            uvicorn.Config(
                service.app,
                http=connections(settings.connections),
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                lifespan="off",
                forwarded_allow_ips=list(settings.connections.proxies),
                timeout_keep_alive=settings.connections.idle_seconds,
                timeout_graceful_shutdown=_LAST_ANSWERS,
            )
        )
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        async with asyncio.TaskGroup() as group:
            group.create_task(server.serve(sockets=[listener]), name="http server")
            dispatching = group.create_task(service.dispatcher.run(), name="dispatcher")
            group.create_task(service.webhooks.run(), name="webhooks")
            keeping = [
                group.create_task(_keep(service.embedded), name="embedded model"),
                group.create_task(service.catalogue.keep_fresh(), name="models of the upstreams"),
                group.create_task(service.callers.keep_noting(), name="use of the keys"),
                group.create_task(_keep_keys(service), name="keys of the issuer"),
                group.create_task(service.studio.keep_live(), name="live parts of the Studio"),
            ]
            if ready is not None:
                ready(await _started(settings, service, listener))
            await stop.wait()
            # A second signal ends the process at once.
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().remove_signal_handler(number)
            log.info("service.stopping")
            service.dispatcher.stop()
            service.webhooks.stop()
            await dispatching
            for task in keeping:
                task.cancel()
            server.should_exit = True
    log.info("service.stopped")


def _allow_open_files(wanted: int) -> None:
    """Raise the soft limit, often 1,024, as far as the hard one lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


async def _keep(embedded: EmbeddedServer | None) -> None:
    if embedded is not None:
        await embedded.keep()


async def _keep_keys(service: Service) -> None:
    if service.issuer is not None:
        await service.issuer.issuer_keys.keep_fresh()


class _Server(uvicorn.Server):
    """Leaves the signals to us, so that running requests get their grace."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


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
