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
from overnight.adapters.sql.webhooks import SqlWebhooks
from overnight.adapters.system import SystemClock, SystemEntropy, WorkerProcesses
from overnight.adapters.upstreams.catalogue import Catalogue
from overnight.adapters.upstreams.embedded import EmbeddedServer
from overnight.api.app import make_app
from overnight.api.auth import Keys
from overnight.api.context import Services
from overnight.api.limits import guarded
from overnight.api.middleware import Entrance
from overnight.bootstrap.keys import adopt
from overnight.bootstrap.oidc import OpenBearers, open_bearers
from overnight.bootstrap.quotas import open_quotas
from overnight.bootstrap.storage import open_storage
from overnight.bootstrap.studio import Beside, KeyHolders, Operations, make_studio
from overnight.bootstrap.tokens import token_counters
from overnight.bootstrap.upstreams import configured, open_upstreams, start_embedded
from overnight.bootstrap.usage import usage_service
from overnight.bootstrap.webhooks import open_webhooks
from overnight.config import Settings
from overnight.dispatch.attempt import Attempts
from overnight.dispatch.dispatcher import Dispatcher
from overnight.dispatch.owned import Parts
from overnight.dispatch.pool import Pool
from overnight.dispatch.router import Router
from overnight.dispatch.webhooks import WebhookDispatcher
from overnight.domain.ids import WorkerId
from overnight.domain.retry import RetryPolicy
from overnight.services.batches import BatchService
from overnight.services.check import CheckService
from overnight.services.estimates import EstimateService
from overnight.services.files import FileService
from overnight.services.keys import Authenticator, KeyService
from overnight.services.requests import RequestService
from overnight.services.retention import Sweeper
from overnight.services.retry import RetryService
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
    issuer: OpenBearers | None
    webhooks: WebhookDispatcher
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
        quotas = open_quotas(settings, database, blobs, offload, catalogue, stack)
        usage = usage_service(settings, database, clock)
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
            usage=usage,
            stop_grace=settings.stop_grace,
            quotas=quotas.parts,
        )
        sweeper = Sweeper(files, uploads, batches, blobs, results, clock)
        dispatcher = Dispatcher(parts, sweeper, worker, shutdown_grace=settings.shutdown_grace)
        file_service = FileService(files, blobs, clock, entropy, limits, strict_suffix=settings.strict_suffix)
        stored_keys = SqlKeys(database)
        key_service = KeyService(stored_keys, clock, entropy, keys.values())
        await adopt(key_service)
        callers = Authenticator(stored_keys, clock)
        tokens = None if settings.oidc is None else open_bearers(settings.oidc, stored_keys, clock, stack)
        webhook_service, webhook_dispatcher = open_webhooks(settings, SqlWebhooks(database), clock, entropy, stack)
        batch_service = BatchService(batches, clock, entropy, limits, dispatcher, quotas.gate)
        requests = RequestService(batches, files, blobs, results, clock)
        services = Services(
            files=file_service,
            uploads=UploadService(uploads, file_service, blobs, clock, entropy, limits),
            batches=batch_service,
            requests=requests,
            retries=RetryService(requests, batch_service, file_service),
            checks=CheckService(file_service, blobs, catalogue, offload, limits),
            keys=key_service,
            usage=usage,
            estimates=EstimateService(file_service, blobs, offload, token_counters(settings), usage.prices),
            webhooks=webhook_service,
            deployments=catalogue,
            health=lambda: router.health(catalogue.health()),
            troubles=troubles.known,
            quotas=quotas.parts.service,
            gate=quotas.gate,
        )
        app = make_app(services, limits, database.problem, root_path=settings.root_path)
        stack.push_async_callback(callers.note_use)
        bearers = None if tokens is None else tokens.bearers
        accepted, root_path = Keys(keys, callers, bearers), settings.root_path
        holders, operations = KeyHolders(keys, callers), Operations(settings, sources)
        studio = make_studio(services, database.problem, holders, operations, settings)

        def entrance(inner: ASGIApp) -> ASGIApp:
            return Beside(studio.app, Entrance(inner, accepted, root_path), root_path)

        yield Service(
            app=guarded(app, entrance, settings.rate, limits, clock, root_path=root_path),
            studio=studio,
            dispatcher=dispatcher,
            catalogue=catalogue,
            callers=callers,
            issuer=tokens,
            webhooks=webhook_dispatcher,
            embedded=embedded,
        )
