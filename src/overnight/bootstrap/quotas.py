"""Puts the quotas together, and opens them for whoever hands them out."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

import msgspec

from overnight.adapters.sql.batches import SqlBatches
from overnight.adapters.sql.files import SqlFiles
from overnight.adapters.sql.keys import SqlKeys
from overnight.adapters.sql.quotas import SqlQuotas
from overnight.adapters.system import SystemClock, SystemEntropy, WorkerProcesses, WorkerThreads
from overnight.bootstrap.keys import check_database
from overnight.bootstrap.storage import opened_database
from overnight.bootstrap.tokens import token_counters
from overnight.dispatch.owned import QuotaParts
from overnight.services.gate import Gate
from overnight.services.quotas import Inputs, QuotaAdmin, QuotaService

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AsyncExitStack

    from overnight.adapters.sql.database import Database
    from overnight.config import Settings
    from overnight.ports.blobs import Blobs
    from overnight.ports.offload import Offload
    from overnight.ports.tokens import TokenCounters
    from overnight.ports.upstream import Deployments

T = TypeVar("T")


class QuotaWiring(msgspec.Struct, frozen=True, kw_only=True):
    """What of quotas the dispatcher, the creation of batches and the admin API work with.

    ``counters`` are the tokenizers of the deployments: loaded once, since their files may be large.
    """

    parts: QuotaParts
    gate: Gate
    admin: QuotaAdmin
    counters: TokenCounters


def open_quotas(
    settings: Settings,
    database: Database,
    blobs: Blobs,
    offload: Offload,
    deployments: Deployments,
    stack: AsyncExitStack,
) -> QuotaWiring:
    """Put the quotas of a service together. Raises ``ConfigError`` if a tokenizer cannot be used."""
    clock, entropy, counters = SystemClock(), SystemEntropy(), token_counters(settings)
    service = QuotaService(SqlQuotas(database), SqlBatches(database), deployments)
    # A process of its own, started when it is first needed: whoever creates a batch must not wait for a large file
    # that is being validated.
    quick = WorkerProcesses(workers=1)
    stack.callback(quick.close)
    early = Inputs(blobs, quick, WorkerThreads(), counters, entropy)
    gate = Gate(service, SqlFiles(database), early, deployments, clock)
    parts = QuotaParts(service=service, inputs=Inputs(blobs, offload, offload, counters, entropy))
    admin = QuotaAdmin(SqlQuotas(database), SqlKeys(database), clock)
    return QuotaWiring(parts=parts, gate=gate, admin=admin, counters=counters)


def with_quotas(settings: Settings, work: Callable[[QuotaAdmin], Awaitable[T]]) -> T:
    """Work on the quotas of a data folder; a service may run on it meanwhile.

    Raises:
        StartupError: the folder cannot be used, or there is none.
    """
    check_database(settings)
    return asyncio.run(_with_quotas(settings, work))


async def _with_quotas(settings: Settings, work: Callable[[QuotaAdmin], Awaitable[T]]) -> T:
    async with opened_database(settings) as database:
        return await work(QuotaAdmin(SqlQuotas(database), SqlKeys(database), SystemClock()))
