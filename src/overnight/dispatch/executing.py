"""The second state of a batch: its requests run until none is left or a stop ends it."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from overnight.dispatch.keys import index_key
from overnight.dispatch.owned import LeaseLost
from overnight.dispatch.run import Run
from overnight.domain.batch import BatchStatus, StopCause
from overnight.domain.index import Index

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

    from overnight.dispatch.owned import Owned
    from overnight.domain.deployment import Deployment

log = structlog.get_logger()

# All in seconds.
_PROGRESS_EVERY = 0.5
_ASK_AGAIN = 2.0


async def execute(owned: Owned) -> None:
    """Run a batch that is ``in_progress``; raises ``LeaseLost``."""
    deployment = await _deployment(owned)
    if deployment is None:
        return
    batch = owned.batch
    async with _opened(owned, deployment) as run:
        owned.run = run
        try:
            async with owned.parts.logs.open(
                batch.id, epoch=batch.epoch, total=batch.total, on_durable=run.on_durable
            ) as results:
                run.start(results)
                if owned.cause is not None:
                    run.stop(owned.cause)
                await _work(owned, run, deployment)
                await _first(results.flush(), owned.left.wait())
        finally:
            owned.run = None
    if owned.cause is StopCause.LEASE_LOST:
        raise LeaseLost
    await _conclude(owned, run)


async def _deployment(owned: Owned) -> Deployment | None:
    """Wait until the deployment of the batch is there; ``None`` if the batch is stopped before."""
    batch, clock, deployments = owned.batch, owned.parts.clock, owned.parts.deployments
    known = deployments.known()
    while (deployment := known.find(str(batch.deployment))) is None:
        log.warning("batch.waits", batch_id=batch.id, deployment=batch.deployment)
        if await clock.wait(owned.stopping, _ASK_AGAIN):
            await owned.reload()
            return None
        if batch.overdue(clock.now()):
            await owned.save(batch.to(BatchStatus.FINALIZING, clock.now()))
            return None
        known = await deployments.refreshed()
    return deployment


@asynccontextmanager
async def _opened(owned: Owned, deployment: Deployment) -> AsyncIterator[Run]:
    batch, blobs = owned.batch, owned.parts.blobs
    async with blobs.local(str(batch.input_blob)) as source, blobs.local(index_key(batch)) as index:
        descriptor = await asyncio.to_thread(os.open, source, os.O_RDONLY)
        try:
            places = Index(await asyncio.to_thread(Path(index).read_bytes))
            yield Run(batch, deployment, places, descriptor)
        finally:
            os.close(descriptor)


async def _work(owned: Owned, run: Run, deployment: Deployment) -> None:
    pools = [owned.parts.pools[name] for name in deployment.upstreams]
    for pool in pools:
        pool.add(run)
    try:
        async with asyncio.TaskGroup() as group:
            showing = group.create_task(_show_progress(owned, run), name=f"progress of {owned.batch.id}")
            await _until_ended(owned, run)
            showing.cancel()
    finally:
        for pool in pools:
            pool.remove(run)


async def _until_ended(owned: Owned, run: Run) -> None:
    clock = owned.parts.clock
    deadline = owned.batch.deadline()
    if not await clock.wait(run.halted, None if deadline is None else deadline - clock.now()):
        run.stop(StopCause.EXPIRY)
    in_time = await clock.wait(run.settled, owned.parts.stop_grace)
    if owned.leaving:
        in_time = await clock.wait(run.ended, owned.leaving_grace)
    if not in_time:
        log.warning("batch.aborted", batch_id=owned.batch.id, cause=run.cause, in_flight=run.in_flight)
        run.abort()
    await run.ended.wait()


async def _first(*works: Coroutine[object, object, object]) -> None:
    """Return when one of them is done, and cancel the others."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(work) for work in works]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()


async def _show_progress(owned: Owned, run: Run) -> None:
    shown = run.tally
    while True:
        await owned.parts.clock.sleep(_PROGRESS_EVERY)
        if run.tally != shown:
            shown = run.tally
            await _show(owned, run)


async def _show(owned: Owned, run: Run) -> None:
    if not await owned.parts.batches.record_progress(owned.batch, run.tally):
        owned.stop(StopCause.LEASE_LOST)


async def _conclude(owned: Owned, run: Run) -> None:
    """Note what was done, and what the stop leads to."""
    await _show(owned, run)
    await owned.reload()
    if run.remaining and run.cause is not StopCause.EXPIRY:
        return
    if owned.batch.status is BatchStatus.IN_PROGRESS:
        await owned.save(owned.batch.to(BatchStatus.FINALIZING, owned.parts.clock.now()))
