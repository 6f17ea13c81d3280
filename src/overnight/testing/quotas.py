"""Quotas in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from overnight.domain.quota import Offer, Own, Terms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from overnight.domain.ids import ResourceId
    from overnight.testing.stores import Tables


class MemoryQuotas:
    """Keeps the promises of ``ports/quotas.py``; the resources are those of the tables."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._own: dict[tuple[ResourceId, str], Own] = {}

    async def terms(self, resource: ResourceId) -> Terms:
        stored = self._tables.resources.get(resource)
        if stored is None:
            return Terms()
        own = {each.deployment: each.tokens for each in self._own.values() if each.resource == resource}
        return Terms(offer=stored.offer, own=own)

    async def own(self) -> Sequence[Own]:
        return list(self._own.values())

    async def put(self, own: Own) -> bool:
        if own.resource not in self._tables.resources:
            return False
        self._own[own.resource, own.deployment] = own
        return True

    async def remove(self, resource: ResourceId, deployment: str) -> bool:
        return self._own.pop((resource, deployment), None) is not None

    async def put_offer(self, resource: ResourceId, offer: Offer | None) -> bool:
        stored = self._tables.resources.get(resource)
        if stored is None:
            return False
        self._tables.resources[resource] = msgspec.structs.replace(stored, offer=offer)
        return True
