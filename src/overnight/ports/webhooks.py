"""Where receivers of webhooks and what they are to be told are kept, and how it is sent.

The deliveries of an event are stored by ``ports.batches.Batches.save``, together with the status that it tells of.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from overnight.domain.ids import EndpointId, ResourceId
from overnight.domain.webhook import Attempt, Claimed, Delivery, Endpoint, Logged
from overnight.ports.batches import Page


class Webhooks(Protocol):
    """The receivers of all resources, and their deliveries."""

    async def add(self, endpoint: Endpoint, *, most: int) -> bool:
        """Store a new receiver; ``False``, and nothing stored, if its resource has ``most`` already."""

    async def get(self, resource: ResourceId, endpoint_id: EndpointId) -> Endpoint | None:
        """Give a receiver of this resource; ``None`` for unknown and foreign ids alike."""

    async def page(self, resource: ResourceId, *, after: EndpointId | None, limit: int) -> Page[Endpoint] | None:
        """List a resource's receivers, newest first; ``None`` if there is none of the id ``after``."""

    async def save(self, new: Endpoint, *, expected: Endpoint) -> bool:
        """Write a receiver; ``False``, and nothing written, unless the stored one has the revision of ``expected``."""

    async def delete(self, resource: ResourceId, endpoint_id: EndpointId) -> bool:
        """Remove a receiver with its deliveries, of which none is sent any more; ``False`` if there is none."""

    async def deliveries(self, endpoint_id: EndpointId, *, after: str | None, limit: int) -> Page[Logged] | None:
        """List what a receiver was or is to be told, newest first; ``None`` if it has no event ``after``."""

    async def claim(
        self, *, now: float, until: float, limit: int, each: int, busy: Mapping[EndpointId, int]
    ) -> Sequence[Claimed]:
        """Take up to ``limit`` deliveries that are due at ``now``, each with its epoch raised.

        No receiver is given more than ``each``, less what is ``busy`` for it; all have their first before one has a
        second. Nobody is given the same delivery before ``until`` (unix seconds).
        """

    async def record(self, new: Delivery, attempt: Attempt) -> bool:
        """Write what became of a claimed delivery; ``False`` if it was taken over, or its receiver deleted.

        Then nothing is written, the attempt not either.
        """

    async def forget(self, *, before: int, limit: int) -> int:
        """Remove up to ``limit`` deliveries of events before this moment that are over; say how many."""


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """What came back: a status, or in a few words why none did."""

    status_code: int | None = None
    error: str | None = None


class Sender(Protocol):
    """Makes one attempt."""

    async def send(self, url: str, headers: Mapping[str, str], body: bytes, *, resource: ResourceId) -> Sent:
        """POST a body once, within ``SEND_SECONDS`` of real time, to an address that may be reached.

        Follows no redirect. Raises nothing that the receiver could cause. Names whose look-up takes long for one
        resource hold up no attempt of another.
        """
