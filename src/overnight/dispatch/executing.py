"""The second state of a batch: its requests run until none is left or a stop ends it."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from overnight.dispatch.capping import stop_at_cap
from overnight.dispatch.filtering import open_run
from overnight.dispatch.owned import LeaseLost, NotYet
from overnight.domain.accounting import tally_of
from overnight.domain.batch import BatchStatus, StopCause
from overnight.domain.blob_keys import index_key
from overnight.domain.errors import Unavailable
from overnight.domain.index import Index

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

    from overnight.dispatch.owned import Owned
    from overnight.dispatch.run import Run
    from overnight.domain.deployment import Deployment

log = structlog.get_logger()

# In seconds.
_PROGRESS_EVERY = 0.5


async def execute(owned: Owned) -> None:
    """Run a batch that is ``in_progress``; raises ``LeaseLost``."""
    deployment = await _deployment(owned)
    if deployment is None:
        return
    batch = owned.batch
    async with _opened(owned, deployment) as run:
        owned.run = run
        # It may have been renewed while the files were opened.
        run.hold(owned.held_until)
        try:
            async with owned.parts.logs.open(
                batch.id, epoch=batch.epoch, total=batch.total, on_durable=run.on_durable
            ) as results:
                run.start(results)
                if owned.cause is not None:
                    run.stop(owned.cause)
                await _begin(owned, run)
                await _work(owned, run)
                await _first(results.flush(), owned.left.wait())
        finally:
            owned.run = None
    if owned.cause is StopCause.LEASE_LOST:
        raise LeaseLost
    if run.trouble is not None:
        raise run.trouble
    await _conclude(owned, run)


async def _begin(owned: Owned, run: Run) -> None:
    """Note what an owner before us recorded and did not note any more: a cap counts it before anything is started."""
    if run.tally != tally_of(owned.batch):
        await _show(owned, run)
    await stop_at_cap(owned, run)


async def _deployment(owned: Owned) -> Deployment | None:
    """Find the deployment of the batch; ``None`` if its window closed. Raises ``NotYet`` while it is not there."""
    batch, now = owned.batch, owned.parts.clock.now()
    deployment = owned.parts.deployments.known().find(str(batch.deployment))
    if deployment is None and batch.overdue(now):
        await owned.save(batch.to(BatchStatus.FINALIZING, now))
        return None
    if deployment is None:
        message = f"no upstream offers {batch.deployment}"
        raise NotYet(message)
    return deployment


@asynccontextmanager
async def _opened(owned: Owned, deployment: Deployment) -> AsyncIterator[Run]:
    batch, blobs = owned.batch, owned.parts.blobs
    async with blobs.local(str(batch.input_blob)) as source, blobs.local(index_key(batch)) as index:
        descriptor = await asyncio.to_thread(os.open, source, os.O_RDONLY)
        try:
            places = Index(await asyncio.to_thread(Path(index).read_bytes))
            yield open_run(batch, deployment, places, descriptor, held_until=owned.held_until)
        finally:
            os.close(descriptor)


async def _work(owned: Owned, run: Run) -> None:
    router = owned.parts.router
    for work, upstreams in run.works():
        router.add(work, upstreams)
    try:
        async with asyncio.TaskGroup() as group:
            showing = group.create_task(_show_progress(owned, run), name=f"progress of {owned.batch.id}")
            await _until_ended(owned, run)
            showing.cancel()
    finally:
        for work, upstreams in run.works():
            router.remove(work, upstreams)
        # Only after an error is anything still in flight here; its results would have no log to go to.
        run.stop(StopCause.TROUBLE)
        run.abort()


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
        await stop_at_cap(owned, run)


async def _show(owned: Owned, run: Run) -> None:
    try:
        recorded = await owned.parts.batches.record_progress(owned.batch, run.tally, now=owned.parts.clock.now())
    except Unavailable as error:
        # What is done stands in the log: the next note, or the last one, tells it as well.
        log.warning("progress.not_noted", batch_id=owned.batch.id, problem=error.message)
        return
    if not recorded:
        owned.stop(StopCause.LEASE_LOST)


async def _conclude(owned: Owned, run: Run) -> None:
    """Note what was done, and what the stop leads to."""
    await _show(owned, run)
    await owned.reload()
    if run.remaining and run.cause is not StopCause.EXPIRY:
        return
    if owned.batch.status is BatchStatus.IN_PROGRESS:
        await owned.save(owned.batch.to(BatchStatus.FINALIZING, owned.parts.clock.now()))
