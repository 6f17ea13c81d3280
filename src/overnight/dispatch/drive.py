"""One claimed batch on its way through its states."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import structlog

from overnight.dispatch.finish import finish
from overnight.dispatch.keys import index_key
from overnight.dispatch.run import Run
from overnight.dispatch.validating import validate
from overnight.domain.batch import Batch, BatchStatus, StopCause
from overnight.domain.index import Index

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from overnight.dispatch.pool import Pool
    from overnight.domain.deployment import Deployment, UpstreamName
    from overnight.domain.file import File
    from overnight.domain.flavour import Flavour
    from overnight.domain.limits import Limits
    from overnight.ports.batches import Batches
    from overnight.ports.blobs import Blobs
    from overnight.ports.clock import Clock, Entropy
    from overnight.ports.files import Files
    from overnight.ports.offload import Offload
    from overnight.ports.results import ResultLogs
    from overnight.ports.upstream import Deployments

log = structlog.get_logger()

# All in seconds.
_PROGRESS_EVERY = 0.5
_ASK_AGAIN = 2.0


class LeaseLost(Exception):
    """Another worker has the batch now; nothing of ours may be written any more."""


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """What driving a batch needs. ``stop_grace`` is how long requests in flight may go on after a stop, in seconds."""

    batches: Batches
    files: Files
    blobs: Blobs
    logs: ResultLogs
    deployments: Deployments
    pools: Mapping[UpstreamName, Pool]
    offload: Offload
    clock: Clock
    entropy: Entropy
    limits: Mapping[Flavour, Limits]
    stop_grace: float = 30.0


class Drive:
    """Takes one batch from status to status until it ends or has to be left to others."""

    def __init__(self, batch: Batch, parts: Parts, *, shutdown_grace: float) -> None:
        self.batch = batch
        self.parts = parts
        self.stopping = asyncio.Event()
        self._shutdown_grace = shutdown_grace
        self._cause: StopCause | None = None
        self._run: Run | None = None

    def stop(self, cause: StopCause) -> None:
        """Go no further than the cause demands; what is in flight is given its grace."""
        if self._cause is None or cause in {StopCause.LEASE_LOST, StopCause.SHUTDOWN}:
            self._cause = cause
        self.stopping.set()
        if self._run is not None:
            self._run.stop(cause)

    @property
    def leaving(self) -> bool:
        """Whether the batch is to be left as it is."""
        return self._cause in {StopCause.LEASE_LOST, StopCause.SHUTDOWN}

    async def to_the_end(self) -> None:
        """Drive the batch. Raises ``LeaseLost``; any other error leaves it to be claimed again."""
        while not self.batch.ended and not self.leaving:
            match self.batch.status:
                case BatchStatus.VALIDATING:
                    await validate(self)
                case BatchStatus.IN_PROGRESS:
                    await self._execute()
                case _:
                    await finish(self)
        if self._cause is StopCause.LEASE_LOST:
            raise LeaseLost

    async def save(self, new: Batch, *, files: tuple[File, ...] = ()) -> bool:
        """Write the batch; if somebody else changed it, take over what is stored and return ``False``.

        Raises:
            LeaseLost: it belongs to another worker by now.
        """
        if await self.parts.batches.save(new, expected=self.batch, files=files):
            log.info("batch.moved", batch_id=new.id, status=new.status, before=self.batch.status)
            self.batch = new
            return True
        await self.reload()
        return False

    async def _execute(self) -> None:
        deployment = await self._deployment()
        if deployment is None:
            return
        async with self._opened(deployment) as run:
            self._run = run
            try:
                async with self.parts.logs.open(
                    self.batch.id, epoch=self.batch.epoch, total=self.batch.total, on_durable=run.on_durable
                ) as results:
                    run.start(results)
                    if self._cause is not None:
                        run.stop(self._cause)
                    await self._work(run, deployment)
                    await results.flush()
            finally:
                self._run = None
        if self._cause is StopCause.LEASE_LOST:
            raise LeaseLost
        await self._after(run)

    async def _after(self, run: Run) -> None:
        """Note what was done, and what the stop leads to."""
        await self._show(run)
        if run.cause is StopCause.SHUTDOWN and run.remaining:
            return
        if run.cause is StopCause.CANCEL:
            await self.reload()
        if self.batch.status is BatchStatus.IN_PROGRESS and (run.remaining == 0 or run.cause is StopCause.EXPIRY):
            tally = run.tally
            moved = self.batch.to(
                BatchStatus.FINALIZING,
                self.parts.clock.now(),
                completed=tally.completed,
                failed=tally.failed,
                usage=tally.usage,
            )
            await self.save(moved)

    async def _work(self, run: Run, deployment: Deployment) -> None:
        pools = [self.parts.pools[name] for name in deployment.upstreams]
        for pool in pools:
            pool.add(run)
        try:
            async with asyncio.TaskGroup() as group:
                showing = group.create_task(self._show_progress(run), name=f"progress of {self.batch.id}")
                await self._until_ended(run)
                showing.cancel()
        finally:
            for pool in pools:
                pool.remove(run)

    async def _until_ended(self, run: Run) -> None:
        clock = self.parts.clock
        deadline = self.batch.deadline()
        if not await clock.wait(run.halted, None if deadline is None else deadline - clock.now()):
            run.stop(StopCause.EXPIRY)
        if run.ended.is_set():
            return
        grace = self._shutdown_grace if self.leaving else self.parts.stop_grace
        if not await clock.wait(run.ended, grace):
            log.warning("batch.aborted", batch_id=self.batch.id, cause=run.cause, in_flight=run.in_flight)
            run.abort()
            await run.ended.wait()

    async def _show_progress(self, run: Run) -> None:
        shown = run.tally
        while True:
            await self.parts.clock.sleep(_PROGRESS_EVERY)
            if run.tally != shown:
                shown = run.tally
                await self._show(run)

    async def _show(self, run: Run) -> None:
        if not await self.parts.batches.record_progress(self.batch, run.tally):
            self.stop(StopCause.LEASE_LOST)

    async def reload(self) -> None:
        """Take over the batch as it is stored. Raises ``LeaseLost``."""
        stored = await self.parts.batches.get(self.batch.resource, self.batch.id)
        if stored is None or stored.epoch != self.batch.epoch:
            raise LeaseLost
        self.batch = stored

    async def _deployment(self) -> Deployment | None:
        """Wait until the deployment of the batch is there; ``None`` if the batch is stopped before."""
        known = self.parts.deployments.known()
        warned = False
        while True:
            deployment = known.find(str(self.batch.deployment))
            if deployment is not None:
                return deployment
            if not warned:
                log.warning("batch.waits", batch_id=self.batch.id, deployment=self.batch.deployment)
                warned = True
            if await self.parts.clock.wait(self.stopping, _ASK_AGAIN):
                await self.reload()
                return None
            if self.batch.overdue(self.parts.clock.now()):
                await self.save(self.batch.to(BatchStatus.FINALIZING, self.parts.clock.now()))
                return None
            known = await self.parts.deployments.refreshed()

    @asynccontextmanager
    async def _opened(self, deployment: Deployment) -> AsyncIterator[Run]:
        blobs = self.parts.blobs
        async with blobs.local(str(self.batch.input_blob)) as source, blobs.local(index_key(self.batch)) as index:
            descriptor = await asyncio.to_thread(os.open, source, os.O_RDONLY)
            try:
                places = Index(await asyncio.to_thread(Path(index).read_bytes))
                yield Run(self.batch, deployment, places, descriptor)
            finally:
                os.close(descriptor)

