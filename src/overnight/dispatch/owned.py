"""A batch that this process owns: what is known of it, what it may use, and how it is written."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec
import structlog

from overnight.crash_points import reached
from overnight.domain.batch import LEAVING, Batch, StopCause
from overnight.domain.blob_keys import index_key
from overnight.ports.batches import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from overnight.dispatch.router import Router
    from overnight.dispatch.run import Run
    from overnight.domain.file import File
    from overnight.domain.flavour import Flavour
    from overnight.domain.limits import Limits
    from overnight.ports.batches import Admission, Batches
    from overnight.ports.blobs import Blobs
    from overnight.ports.clock import Clock, Entropy
    from overnight.ports.files import Files
    from overnight.ports.offload import Offload
    from overnight.ports.results import ResultLogs
    from overnight.ports.troubles import Troubles
    from overnight.ports.upstream import Deployments
    from overnight.services.quotas import Inputs, QuotaService
    from overnight.services.usage import UsageService

log = structlog.get_logger()

ASK_AGAIN = 3.0
"""After how many seconds a batch that cannot go on is looked at again, unless something else is said."""


class LeaseLost(Exception):
    """Another worker has the batch now; nothing of ours may be written any more."""


class NotYet(Exception):
    """The batch cannot go on now; it is left to be claimed again a little later, after ``pause`` seconds."""

    def __init__(self, reason: str, *, pause: float = ASK_AGAIN) -> None:
        super().__init__(reason)
        self.pause = pause


class QuotaParts(msgspec.Struct, frozen=True, kw_only=True):
    """What reserving tokens needs."""

    service: QuotaService
    inputs: Inputs


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """What driving a batch needs. ``stop_grace`` is how long requests in flight may go on after a stop, in seconds.

    Without ``quotas`` there are no limits.
    """

    batches: Batches
    files: Files
    blobs: Blobs
    logs: ResultLogs
    deployments: Deployments
    router: Router
    offload: Offload
    clock: Clock
    entropy: Entropy
    limits: Mapping[Flavour, Limits]
    troubles: Troubles
    usage: UsageService
    stop_grace: float = 30.0
    quotas: QuotaParts | None = None


class Owned:
    """One claimed batch."""

    def __init__(self, batch: Batch, parts: Parts, *, held_until: float, shutdown_grace: float) -> None:
        self.batch = batch
        self.parts = parts
        self.cause: StopCause | None = None
        self.stopping = asyncio.Event()
        self.left = asyncio.Event()
        self.run: Run | None = None
        self.pause = 0.0
        self.may_run: Callable[[], bool] = _at_once
        self.held_until = held_until
        self._shutdown_grace = shutdown_grace

    def stop(self, cause: StopCause) -> None:
        """Go no further than the cause demands; what is in flight is given its grace."""
        if self.cause is None or (cause in LEAVING and self.cause is not StopCause.LEASE_LOST):
            self.cause = cause
        self.stopping.set()
        if self.leaving:
            self.left.set()
        if self.run is not None:
            self.run.stop(cause)

    def hold(self, until: float) -> None:
        """Note that the lease was renewed until then (unix seconds)."""
        self.held_until = until
        if self.run is not None:
            self.run.hold(until)

    @property
    def leaving(self) -> bool:
        """Whether the batch is to be left as it is."""
        return self.cause in LEAVING

    @property
    def leaving_grace(self) -> float:
        """How long requests in flight may still run once the batch is to be left, in seconds."""
        return 0.0 if self.cause is StopCause.LEASE_LOST else self._shutdown_grace

    async def save(self, new: Batch, *, files: tuple[File, ...] = ()) -> bool:
        """Write the batch; if somebody else changed it, take over what is stored and return ``False``.

        Raises:
            LeaseLost: it belongs to another worker by now.
        """
        if await self.parts.batches.save(new, expected=self.batch, files=files):
            self._moved(new)
            return True
        await self.reload()
        return False

    async def end_early(self, new: Batch) -> None:
        """Write the end of a batch that was never let in, and remove the index that checking it may have left.

        Raises:
            LeaseLost: it belongs to another worker by now.
        """
        if await self.save(new):
            await self.parts.blobs.delete(index_key(new))
            reached("index.deleted")

    async def admit(self, new: Batch, *, limit: int, in_turn: bool) -> Admission:
        """Write the batch within a quota (``ports/batches.py``); if it changed, take over what is stored.

        Raises:
            LeaseLost: it belongs to another worker by now.
        """
        admission = await self.parts.batches.admit(new, expected=self.batch, limit=limit, in_turn=in_turn)
        if admission.verdict is Verdict.ADMITTED:
            self._moved(new)
        elif admission.verdict is Verdict.LOST:
            await self.reload()
        return admission

    async def note(self, new: Batch) -> bool:
        """Write what was found out of a batch whose status stays; otherwise as ``save``. Raises ``LeaseLost``."""
        if await self.parts.batches.save(new, expected=self.batch):
            self.batch = new
            return True
        await self.reload()
        return False

    def _moved(self, new: Batch) -> None:
        log.info("batch.moved", batch_id=new.id, status=new.status, before=self.batch.status)
        self.batch = new

    async def reload(self) -> None:
        """Take over the batch as it is stored. Raises ``LeaseLost``."""
        stored = await self.parts.batches.get(self.batch.resource, self.batch.id)
        if stored is None or stored.epoch != self.batch.epoch:
            raise LeaseLost
        self.batch = stored


def _at_once() -> bool:
    """Stand in where nobody counts seats."""
    return True
