"""Where the quotas of resources are kept; what is used of them follows from the batches (``ports/batches.py``)."""

from collections.abc import Sequence
from typing import Protocol

from overnight.domain.ids import ResourceId
from overnight.domain.quota import Offer, Own, Terms


class Quotas(Protocol):
    """The offers of resources, and their own numbers."""

    async def terms(self, resource: ResourceId) -> Terms:
        """Give what was set for a resource; nothing for one that there is not."""

    async def own(self) -> Sequence[Own]:
        """Give the own numbers of all resources, those that were set first coming first."""

    async def put(self, own: Own) -> bool:
        """Set a number of a resource's own; ``False``, and nothing stored, if there is no such resource."""

    async def remove(self, resource: ResourceId, deployment: str) -> bool:
        """Forget a number; ``False`` if there was none."""

    async def put_offer(self, resource: ResourceId, offer: Offer | None) -> bool:
        """Put a resource on an offer, or on none; ``False`` if there is no such resource."""
