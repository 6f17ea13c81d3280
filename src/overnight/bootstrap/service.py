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
from overnight.api.limits import allowances_of, failures_of, guarded
from overnight.api.middleware import Entrance
from overnight.bootstrap.keys import adopt
from overnight.bootstrap.oidc import OpenBearers, open_bearers
from overnight.bootstrap.quotas import QuotaWiring, open_quotas
from overnight.bootstrap.storage import Storage, open_storage
from overnight.bootstrap.studio import Beside, KeyHolders, Operations, make_studio
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
from overnight.services.traffic import Traffic
from overnight.services.troubles import TroublesInMind
from overnight.services.turns import Turns
from overnight.services.uploads import UploadService
from overnight.services.upstreams import UpstreamService
from overnight.studio.app import Studio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from starlette.types import ASGIApp

    from overnight.domain.flavour import Flavour
    from overnight.domain.ids import ResourceId
    from overnight.domain.limits import Limits
    from overnight.services.usage import UsageService
    from overnight.services.webhooks import WebhookService


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


class _Base(msgspec.Struct, frozen=True, kw_only=True):
    """What dispatching and serving work on."""

    settings: Settings
    clock: SystemClock
    entropy: SystemEntropy
    storage: Storage
    files: SqlFiles
    uploads: SqlUploads
    batches: SqlBatches
    limits: Mapping[Flavour, Limits]
    offload: WorkerProcesses
    embedded: EmbeddedServer | None
    catalogue: Catalogue
    router: Router
    traffic: Traffic
    troubles: TroublesInMind
    quotas: QuotaWiring
    usage: UsageService


@asynccontextmanager
async def running_service(
    settings: Settings, keys: Mapping[str, ResourceId], sources: Mapping[str, str]
) -> AsyncIterator[Service]:
    """Open the database, the stores and the upstreams, and put the service together."""
    async with AsyncExitStack() as stack:
        worker = WorkerId(f"{socket.gethostname()}-{os.getpid()}-{SystemEntropy().hex()[:8]}")
        base = await _open(settings, worker, stack)
        clock, entropy = base.clock, base.entropy
        database = base.storage.database
        dispatcher = _dispatcher(base, worker)
        stored_keys = SqlKeys(database)
        key_service = KeyService(stored_keys, clock, entropy, keys.values())
        await adopt(key_service)
        callers = Authenticator(stored_keys, clock)
        stack.push_async_callback(callers.note_use)
        tokens = None if settings.oidc is None else open_bearers(settings.oidc, stored_keys, clock, stack)
        webhook_service, webhook_dispatcher = open_webhooks(settings, SqlWebhooks(database), clock, entropy, stack)
        services = _services(base, dispatcher, key_service, webhook_service)
        holders = KeyHolders(keys, callers, bearers=tokens is not None)
        studio = make_studio(services, database.problem, holders, Operations(settings, sources), base.traffic, settings)
        accepted = Keys(keys, callers, None if tokens is None else tokens.bearers)
        yield Service(
            app=_app(base, services, accepted, studio),
            studio=studio,
            dispatcher=dispatcher,
            catalogue=base.catalogue,
            callers=callers,
            issuer=tokens,
            webhooks=webhook_dispatcher,
            embedded=base.embedded,
        )


async def _open(settings: Settings, worker: WorkerId, stack: AsyncExitStack) -> _Base:
    clock, entropy = SystemClock(), SystemEntropy()
    troubles = TroublesInMind(clock)
    storage = await open_storage(settings, worker, troubles, stack)
    database = storage.database
    offload = WorkerProcesses()
    stack.callback(offload.close)
    embedded = None if settings.upstreams else await start_embedded(settings, stack)
    upstreams = open_upstreams(settings, embedded, stack)
    catalogue = Catalogue(
        configured(settings, upstreams, clock), {upstream.name: upstream for upstream in upstreams}, clock
    )
    await catalogue.refresh()
    batches = SqlBatches(database)
    for dead in storage.dead_workers:
        await batches.release_all(dead)
    traffic = Traffic(clock)
    attempts = Attempts(RetryPolicy(), clock, entropy, traffic)
    return _Base(
        settings=settings,
        clock=clock,
        entropy=entropy,
        storage=storage,
        files=SqlFiles(database),
        uploads=SqlUploads(database),
        batches=batches,
        limits=settings.limits_by_flavour(),
        offload=offload,
        embedded=embedded,
        catalogue=catalogue,
        router=Router([Pool(upstream, attempts, clock) for upstream in upstreams], clock),
        traffic=traffic,
        troubles=troubles,
        quotas=open_quotas(settings, database, storage.blobs, offload, catalogue, stack),
        usage=usage_service(settings, database, clock),
    )


def _dispatcher(base: _Base, worker: WorkerId) -> Dispatcher:
    blobs, results = base.storage.blobs, base.storage.results
    parts = Parts(
        batches=base.batches,
        files=base.files,
        blobs=blobs,
        logs=results,
        deployments=base.catalogue,
        router=base.router,
        offload=base.offload,
        clock=base.clock,
        entropy=base.entropy,
        limits=base.limits,
        troubles=base.troubles,
        usage=base.usage,
        stop_grace=base.settings.stop_grace,
        quotas=base.quotas.parts,
    )
    sweeper = Sweeper(base.files, base.uploads, base.batches, blobs, results, base.clock)
    return Dispatcher(parts, sweeper, worker, shutdown_grace=base.settings.shutdown_grace)


def _services(
    base: _Base, dispatcher: Dispatcher, key_service: KeyService, webhook_service: WebhookService
) -> Services:
    clock, entropy, limits = base.clock, base.entropy, base.limits
    blobs, settings, quotas = base.storage.blobs, base.settings, base.quotas
    files = FileService(base.files, blobs, clock, entropy, limits, strict_suffix=settings.strict_suffix)
    batches = BatchService(base.batches, clock, entropy, limits, dispatcher, quotas.gate)
    requests = RequestService(base.batches, base.files, blobs, base.storage.results, clock)
    allowances, turns = allowances_of(settings.rate, limits, clock), Turns(base.offload)
    return Services(
        files=files,
        uploads=UploadService(base.uploads, files, blobs, clock, entropy, limits),
        batches=batches,
        requests=requests,
        retries=RetryService(requests, batches, files, allowances),
        checks=CheckService(files, blobs, base.catalogue, turns, limits),
        keys=key_service,
        usage=base.usage,
        estimates=EstimateService(files, base.batches, blobs, turns, quotas.counters, base.usage.prices),
        webhooks=webhook_service,
        deployments=base.catalogue,
        upstreams=UpstreamService(base.catalogue, base.router),
        troubles=base.troubles.known,
        quotas=quotas.parts.service,
        quota_admin=quotas.admin,
        gate=quotas.gate,
        allowances=allowances,
    )


def _app(base: _Base, services: Services, accepted: Keys, studio: Studio) -> ASGIApp:
    root_path = base.settings.root_path

    def entrance(inner: ASGIApp) -> ASGIApp:
        return Beside(studio.app, Entrance(inner, accepted, root_path), root_path)

    app = make_app(services, base.limits, base.storage.database.problem, root_path=root_path)
    failures = failures_of(base.settings.rate, base.clock)
    return guarded(app, entrance, failures, services.allowances, base.limits, root_path=root_path)
