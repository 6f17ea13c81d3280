"""Which upstream gets a request: of those that serve its deployment and have room, the one with the least load."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec
import structlog

from overnight.domain.deployment import UpstreamName
from overnight.domain.errors import NotFound
from overnight.services.meters import Activity

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from overnight.dispatch.pool import Pool
    from overnight.dispatch.work import Work
    from overnight.ports.clock import Clock
    from overnight.ports.upstream import UpstreamHealth

log = structlog.get_logger()


class Router:
    """All pools. While there is more to do than they can take, each serves itself as soon as it has room."""

    def __init__(self, pools: Iterable[Pool], clock: Clock) -> None:
        self._pools: Mapping[UpstreamName, Pool] = {pool.name: pool for pool in pools}
        self._clock = clock
        self._rearm = asyncio.Event()

    async def serve(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            for pool in self._pools.values():
                pool.open(group, self._rearm.set)
            await self._keep_offering()

    def add(self, run: Work, upstreams: Iterable[UpstreamName]) -> None:
        """Let some upstreams work on a batch."""
        run.on_put_back = self._rearm.set
        for name in upstreams:
            self._pools[name].add(run)
        self._rearm.set()

    def remove(self, run: Work, upstreams: Iterable[UpstreamName]) -> None:
        """Take a batch away."""
        for name in upstreams:
            self._pools[name].remove(run)

    def health(self, answered: Iterable[UpstreamHealth]) -> list[UpstreamHealth]:
        """Add to how upstreams answered when they were asked for their models what their requests tell."""
        return [self._seen(state) for state in answered]

    def _seen(self, state: UpstreamHealth) -> UpstreamHealth:
        pool = self._pools[state.name]
        problem = state.problem or pool.problem
        return msgspec.structs.replace(
            state, problem=problem, in_flight=pool.in_flight, limit=pool.limit, paused=pool.paused
        )

    def activity(self) -> Mapping[UpstreamName, Activity]:
        """Tell how each upstream answers, and for how long it is left alone."""
        now = self._clock.ticks()
        return {
            name: Activity(figures=pool.meter.figures(now), left_alone=pool.left_alone)
            for name, pool in self._pools.items()
        }

    def rests(self, upstreams: Iterable[UpstreamName]) -> bool:
        """Whether each of some upstreams is paused, left alone, or on trial."""
        return all(self._pools[name].rests for name in upstreams)

    def pause(self, name: str) -> None:
        """Send nothing more to an upstream; what is in flight there ends. Lasts until ``resume`` or a restart.

        Raises:
            NotFound: there is no such upstream.
        """
        self._set_paused(name, paused=True)

    def resume(self, name: str) -> None:
        """Send requests to an upstream again. Raises ``NotFound``."""
        self._set_paused(name, paused=False)

    def _set_paused(self, name: str, *, paused: bool) -> None:
        pool = self._pools.get(UpstreamName(name))
        if pool is None:
            raise NotFound(f"No upstream found with name '{name}'.", param="upstream")
        if pool.paused != paused:
            pool.paused = paused
            log.warning("upstream.paused" if paused else "upstream.resumed", upstream=name)
        self._rearm.set()

    async def _keep_offering(self) -> None:
        """Hand out requests when there is room that no pool fills by itself: new batches, retries, ends of pauses."""
        while True:
            self._rearm.clear()
            self._offer()
            due = self._next_due()
            await self._clock.wait(self._rearm, None if due is None else due - self._clock.ticks())

    def _offer(self) -> None:
        pools = list(self._pools.values())
        while pools:
            pool = min(pools, key=_load)
            if not pool.start_one():
                pools.remove(pool)

    def _next_due(self) -> float | None:
        return min((due for pool in self._pools.values() if (due := pool.due_at()) is not None), default=None)


def _load(pool: Pool) -> float:
    return pool.load
