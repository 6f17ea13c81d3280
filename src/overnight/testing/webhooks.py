"""Webhooks without a database and without a network."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import msgspec

from overnight.domain.webhook import Claimed, Delivery, DeliveryStatus, Logged, event_of
from overnight.ports.batches import Page
from overnight.ports.webhooks import Sent

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from overnight.domain.batch import Batch
    from overnight.domain.ids import EndpointId, EventId, ResourceId
    from overnight.domain.webhook import Attempt, Endpoint

T = TypeVar("T")


class WebhookTables:
    """What the stores share; records stand in the order of their creation."""

    def __init__(self) -> None:
        self.endpoints: dict[EndpointId, Endpoint] = {}
        self.deliveries: dict[tuple[EndpointId, EventId], Delivery] = {}
        self.attempts: dict[tuple[EndpointId, EventId], list[Attempt]] = {}

    def announce(self, batch: Batch) -> None:
        """Store the deliveries of a batch that ends; of any other, none."""
        event = event_of(batch)
        if event is None:
            return
        for endpoint in self.endpoints.values():
            if endpoint.resource == batch.resource and event.type in endpoint.event_types:
                self.deliveries.setdefault((endpoint.id, event.id), Delivery.of(event, endpoint.id))


class MemoryWebhooks:
    """Keeps the promises of ``ports/webhooks.py`` but that of outliving the process."""

    def __init__(self, tables: WebhookTables) -> None:
        self._tables = tables

    async def add(self, endpoint: Endpoint, *, most: int) -> bool:
        if len(self._owned(endpoint.resource)) >= most:
            return False
        self._tables.endpoints[endpoint.id] = endpoint
        return True

    async def get(self, resource: ResourceId, endpoint_id: EndpointId) -> Endpoint | None:
        endpoint = self._tables.endpoints.get(endpoint_id)
        return endpoint if endpoint is not None and endpoint.resource == resource else None

    async def page(self, resource: ResourceId, *, after: EndpointId | None, limit: int) -> Page[Endpoint] | None:
        owned = self._owned(resource)[::-1]
        return _page(owned, [endpoint.id for endpoint in owned], after, limit)

    async def save(self, new: Endpoint, *, expected: Endpoint) -> bool:
        stored = self._tables.endpoints.get(expected.id)
        if stored is None or stored.revision != expected.revision:
            return False
        self._tables.endpoints[new.id] = new
        return True

    async def delete(self, resource: ResourceId, endpoint_id: EndpointId) -> bool:
        if await self.get(resource, endpoint_id) is None:
            return False
        del self._tables.endpoints[endpoint_id]
        for key in [key for key in self._tables.deliveries if key[0] == endpoint_id]:
            self._remove(key)
        return True

    async def deliveries(self, endpoint_id: EndpointId, *, after: str | None, limit: int) -> Page[Logged] | None:
        keys = [key for key in self._tables.deliveries if key[0] == endpoint_id][::-1]
        logged = [
            Logged(delivery=self._tables.deliveries[key], attempts=tuple(self._tables.attempts.get(key, ())))
            for key in keys
        ]
        return _page(logged, [key[1] for key in keys], after, limit)

    async def claim(
        self, *, now: float, until: float, limit: int, each: int, busy: Mapping[EndpointId, int]
    ) -> Sequence[Claimed]:
        turns: dict[EndpointId, int] = {}
        found = []
        for delivery in sorted(self._due(now), key=lambda delivery: delivery.due_at):
            turn = turns[delivery.endpoint_id] = turns.get(delivery.endpoint_id, 0) + 1
            if turn + busy.get(delivery.endpoint_id, 0) <= each:
                found.append((turn, delivery))
        chosen = sorted(found, key=lambda pair: (pair[0], pair[1].due_at))[:limit]
        return [self._take(delivery, until) for _, delivery in chosen]

    async def record(self, new: Delivery, attempt: Attempt) -> bool:
        key = (new.endpoint_id, new.event_id)
        stored = self._tables.deliveries.get(key)
        if stored is None or stored.epoch != new.epoch or stored.status is not DeliveryStatus.PENDING:
            return False
        self._tables.deliveries[key] = new
        self._tables.attempts.setdefault(key, []).append(attempt)
        return True

    async def forget(self, *, before: int, limit: int) -> int:
        over = [
            key
            for key, delivery in self._tables.deliveries.items()
            if delivery.status is not DeliveryStatus.PENDING and delivery.created_at < before
        ][:limit]
        for key in over:
            self._remove(key)
        return len(over)

    def _owned(self, resource: ResourceId) -> list[Endpoint]:
        return [endpoint for endpoint in self._tables.endpoints.values() if endpoint.resource == resource]

    def _due(self, now: float) -> list[Delivery]:
        stored = self._tables.deliveries.values()
        return [each for each in stored if each.status is DeliveryStatus.PENDING and each.due_at <= now]

    def _take(self, seen: Delivery, until: float) -> Claimed:
        taken = msgspec.structs.replace(seen, epoch=seen.epoch + 1, due_at=until)
        self._tables.deliveries[seen.endpoint_id, seen.event_id] = taken
        return Claimed(delivery=taken, endpoint=self._tables.endpoints[seen.endpoint_id])

    def _remove(self, key: tuple[EndpointId, EventId]) -> None:
        del self._tables.deliveries[key]
        self._tables.attempts.pop(key, None)


class Posted(msgspec.Struct, frozen=True, kw_only=True):
    """What a receiver got; ``at`` is the time on the clock."""

    url: str
    headers: Mapping[str, str]
    body: bytes
    at: float


class ScriptedReceivers:
    """Keeps the promise of ``ports/webhooks.py``'s sender: every receiver answers what ``answer`` says."""

    def __init__(self, now: Callable[[], float], answer: Callable[[Posted], Awaitable[Sent]] | None = None) -> None:
        self.posted: list[Posted] = []
        self.answer = answer or _take_it
        self._now = now

    async def send(self, url: str, headers: Mapping[str, str], body: bytes, *, resource: ResourceId) -> Sent:
        del resource
        posted = Posted(url=url, headers=headers, body=body, at=self._now())
        self.posted.append(posted)
        return await self.answer(posted)


async def _take_it(_: Posted) -> Sent:
    return Sent(status_code=200)


def _page(items: Sequence[T], names: Sequence[str], after: str | None, limit: int) -> Page[T] | None:
    if after is not None and after not in names:
        return None
    start = 0 if after is None else names.index(after) + 1
    return Page(items[start : start + limit], start + limit < len(items))
