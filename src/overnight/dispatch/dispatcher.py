"""The supervisor: claims batches, drives each through its states, keeps the claims alive, and stops in order."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from overnight.dispatch.drive import drive
from overnight.dispatch.owned import LeaseLost, NotYet, Owned, Parts
from overnight.dispatch.seats import Seats
from overnight.domain.batch import Batch, BatchStatus, StopCause
from overnight.domain.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from overnight.domain.ids import BatchId, WorkerId
    from overnight.domain.lanes import Lane
    from overnight.services.retention import Sweeper

log = structlog.get_logger()

# All in seconds.
LEASE = 10.0
_RENEW_EVERY = LEASE / 4
_CLAIM_EVERY = 1.0
_SWEEP_EVERY = 60.0
_AFTER_TROUBLE = 2.0
_LAST_WORDS = 5.0

_MOST_DOUBLINGS = 6

_SWEEPS_AN_HOUR = 60


class Dispatcher:
    """Owns batches. One task for each owned batch, one that claims, one that renews, and the slots of the upstreams."""

    def __init__(self, parts: Parts, sweeper: Sweeper, worker: WorkerId, *, shutdown_grace: float) -> None:
        self._parts = parts
        self._sweeper = sweeper
        self._worker = worker
        self._shutdown_grace = shutdown_grace
        self._owned: dict[BatchId, Owned] = {}
        self._troubles: dict[BatchId, int] = {}
        self._waiting: set[BatchId] = set()
        self._driving: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._seats = Seats(parts, self._wake.set)
        self._stopping = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def batch_created(self) -> None:
        """Look for a batch to claim now (``ports/signals.py``)."""
        self._wake.set()

    def batch_changed(self, batch_id: BatchId) -> None:
        """Stop a batch of ours that was cancelled (``ports/signals.py``)."""
        owned = self._owned.get(batch_id)
        if owned is not None:
            owned.stop(StopCause.CANCEL)

    async def run(self) -> None:
        """Work until ``stop`` is called; returns when nothing of ours is in flight any more."""
        async with asyncio.TaskGroup() as group:
            loops = [group.create_task(self._parts.router.serve(), name="upstreams")]
            claiming = group.create_task(self._claim(group), name="claim batches")
            loops.append(group.create_task(self._renew(), name="renew leases"))
            loops.append(group.create_task(self._sweep(), name="sweep files"))
            await self._stopping.wait()
            # A claim that is under way may still bring a batch, which has to be given back.
            await claiming
            if not await self._parts.clock.wait(self._idle, self._shutdown_grace + _LAST_WORDS):
                # A disk that does not take the last results must not keep the service from stopping.
                log.warning("dispatcher.cut_short", batches=len(self._driving))
                loops += self._driving
            for task in loops:
                task.cancel()

    def stop(self) -> None:
        """Claim nothing more, give what is in flight a little time, then give the batches back."""
        self._stopping.set()
        self._wake.set()
        for owned in self._owned.values():
            owned.stop(StopCause.SHUTDOWN)

    async def _claim(self, group: asyncio.TaskGroup) -> None:
        while not self._stopping.is_set():
            self._wake.clear()
            await self._safely("claim", self._claim_free(group))
            await self._parts.clock.wait(self._wake, _CLAIM_EVERY)

    async def _claim_free(self, group: asyncio.TaskGroup) -> None:
        batches, now = self._parts.batches, self._parts.clock.now()
        until = now + LEASE
        with self._seats.granting(await batches.waiting(self._worker, now=now)) as granted:
            for lane, limit in granted.items():
                for batch in await batches.claim(self._worker, now=now, until=until, limit=limit, lane=lane):
                    self._take_over(batch, lane, until, group)

    def _take_over(self, batch: Batch, lane: Lane, until: float, group: asyncio.TaskGroup) -> None:
        owned = Owned(batch, self._parts, held_until=until, shutdown_grace=self._shutdown_grace)
        self._owned[batch.id] = owned
        self._seats.take(owned, lane)
        self._idle.clear()
        if self._stopping.is_set():
            owned.stop(StopCause.SHUTDOWN)
        task = group.create_task(self._supervise(owned), name=f"drive {batch.id}")
        self._driving.add(task)
        task.add_done_callback(self._ended)

    async def _supervise(self, owned: Owned) -> None:
        """Drive a batch; one that cannot go on, or is in trouble, is given back to be claimed again later."""
        batch_id = owned.batch.id
        went_well = await self._safely("drive", self._drive(owned), batch_id=batch_id)
        pause = 0.0 if went_well else self._pause_after_trouble(batch_id)
        # From here on the batch may be claimed again, by us too.
        self._seats.leave(owned)
        if self._owned.get(batch_id) is owned:
            del self._owned[batch_id]
        await self._give_back(owned, max(pause, owned.pause))
        self._wake.set()

    async def _give_back(self, owned: Owned, pause: float) -> None:
        clock = self._parts.clock
        until = clock.now() + pause if pause else 0.0
        while not await self._safely("release", self._parts.batches.release(owned.batch, self._worker, until=until)):
            if await clock.wait(self._stopping, _AFTER_TROUBLE):
                return

    def _pause_after_trouble(self, batch_id: BatchId) -> float:
        """Give a pause that doubles each time: a fault that stays must not fill the log."""
        seen = self._troubles[batch_id] = min(self._troubles.get(batch_id, 0) + 1, _MOST_DOUBLINGS)
        return _AFTER_TROUBLE * 2.0 ** (seen - 1)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._driving.discard(task)
        if not self._driving:
            self._idle.set()

    async def _drive(self, owned: Owned) -> None:
        batch_id = owned.batch.id
        try:
            await drive(owned)
        except LeaseLost:
            log.warning("batch.lost", batch_id=batch_id, epoch=owned.batch.epoch)
        except NotYet as reason:
            owned.pause = reason.pause
            if batch_id not in self._waiting:
                log.warning("batch.waits", batch_id=batch_id, problem=str(reason))
            self._waiting.add(batch_id)
            return
        except OSError as error:
            self._parts.troubles.note(batch_id, error)
            raise
        self._parts.troubles.over(batch_id)
        self._waiting.discard(batch_id)
        self._troubles.pop(batch_id, None)

    async def _renew(self) -> None:
        while True:
            await self._parts.clock.sleep(_RENEW_EVERY)
            for owned in tuple(self._owned.values()):
                await self._safely("renew", self._renew_one(owned), batch_id=owned.batch.id)

    async def _renew_one(self, owned: Owned) -> None:
        until = self._parts.clock.now() + LEASE
        stored = await self._parts.batches.renew(owned.batch, self._worker, until=until)
        if stored is None:
            owned.stop(StopCause.LEASE_LOST)
            return
        owned.hold(until)
        if stored.status is BatchStatus.CANCELLING:
            owned.stop(StopCause.CANCEL)

    async def _sweep(self) -> None:
        while True:
            await self._safely("sweep for orphans", self._sweeper.sweep_orphans())
            for _ in range(_SWEEPS_AN_HOUR):
                await self._safely("sweep", self._sweeper.sweep())
                await self._parts.clock.sleep(_SWEEP_EVERY)

    async def _safely(self, what: str, work: Awaitable[object], **fields: str) -> bool:
        return await safely(what, work, **fields)


async def safely(what: str, work: Awaitable[object], **fields: str) -> bool:
    """Do some work and say whether it went well."""
    try:
        await work
    except (Unavailable, OSError) as error:
        log.error("dispatcher.waits", during=what, problem=str(error), **fields)  # noqa: TRY400 - not our defect
        return False
    except Exception:  # supervisor: trouble with one batch or one query must not stop the others
        log.exception("dispatcher.trouble", during=what, **fields)
        return False
    return True
