"""Puts the parts together."""

from __future__ import annotations

import os
import socket
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import msgspec

from overnight.adapters.sql.batches import SqlBatches
from overnight.adapters.sql.files import SqlFiles, SqlUploads
from overnight.adapters.sql.keys import SqlKeys
from overnight.adapters.system import SystemClock, SystemEntropy, WorkerProcesses
from overnight.adapters.upstreams.catalogue import Catalogue
from overnight.adapters.upstreams.embedded import EmbeddedServer
from overnight.api.app import make_app
from overnight.api.auth import Keys
from overnight.api.context import Services
from overnight.api.middleware import Entrance
from overnight.bootstrap.storage import open_storage
from overnight.bootstrap.studio import Beside, KeyHolders, Operations, make_studio
from overnight.bootstrap.upstreams import configured, open_upstreams, start_embedded
from overnight.config import Settings
from overnight.dispatch.attempt import Attempts
from overnight.dispatch.dispatcher import Dispatcher
from overnight.dispatch.owned import Parts
from overnight.dispatch.pool import Pool
from overnight.dispatch.router import Router
from overnight.domain.ids import WorkerId
from overnight.domain.retry import RetryPolicy
from overnight.services.batches import BatchService
from overnight.services.files import FileService
from overnight.services.keys import Authenticator
from overnight.services.retention import Sweeper
from overnight.services.troubles import TroublesInMind
from overnight.services.uploads import UploadService
from overnight.studio.app import Studio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from starlette.types import ASGIApp

    from overnight.domain.ids import ResourceId


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """The parts that run; ``embedded`` is there if no other upstream is."""

    app: ASGIApp
    dispatcher: Dispatcher
    catalogue: Catalogue
    callers: Authenticator
    studio: Studio
    embedded: EmbeddedServer | None


@asynccontextmanager
async def running_service(
    settings: Settings, keys: Mapping[str, ResourceId], sources: Mapping[str, str]
) -> AsyncIterator[Service]:
    """Open the database, the stores and the upstreams, and put the service together."""
    clock, entropy = SystemClock(), SystemEntropy()
    async with AsyncExitStack() as stack:
        worker = WorkerId(f"{socket.gethostname()}-{os.getpid()}-{entropy.hex()[:8]}")
        troubles = TroublesInMind(clock)
        storage = await open_storage(settings, worker, troubles, stack)
        offload = WorkerProcesses()
        stack.callback(offload.close)
        embedded = None if settings.upstreams else await start_embedded(settings, stack)
        upstreams = open_upstreams(settings, embedded, stack)
        catalogue = Catalogue(
            configured(settings, upstreams, clock), {upstream.name: upstream for upstream in upstreams}, clock
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
        holders, operations = KeyHolders(keys, callers), Operations(settings, sources)
        studio = make_studio(services, database.problem, holders, operations, settings)
        entrance = Entrance(app, Keys(keys, callers), settings.root_path)
        yield Service(
            app=Beside(studio.app, entrance, settings.root_path),
            studio=studio,
            dispatcher=dispatcher,
            catalogue=catalogue,
            callers=callers,
            embedded=embedded,
        )
