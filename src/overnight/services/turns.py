"""Whose turn it is at work that takes a worker process from the batches."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from overnight.domain.ids import ResourceId
    from overnight.ports.offload import Offload


class Turns:
    """One at a time in all, so that batches always have another process, and of each resource one that waits for it.

    Resources come in the order in which their first one came, however many more each of them has.
    """

    def __init__(self, offload: Offload) -> None:
        self._offload = offload
        self._all = asyncio.Lock()
        self._each: WeakValueDictionary[ResourceId, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def turn(self, resource: ResourceId) -> AsyncIterator[Offload]:
        """Wait for a turn, and have the place for work inside."""
        # Whoever waits keeps the lock alive, and nobody else needs it.
        own = self._each.get(resource)
        if own is None:
            own = self._each[resource] = asyncio.Lock()
        async with own, self._all:
            yield self._offload
