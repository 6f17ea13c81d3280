"""The books: what was used on which day; and the caps on it.

The books are raised by the writes of ``ports/batches.py``, in the same transaction as the counts of a batch.
"""

from collections.abc import Sequence
from typing import Protocol

from overnight.domain.accounting import Days, UsageDay, UsageTotal
from overnight.domain.cap import Cap, Measure, Period
from overnight.domain.ids import ResourceId


class Books(Protocol):
    """What was used, by resource, deployment and day. Reading only."""

    async def days(
        self, resource: ResourceId, days: Days, *, deployment: str | None = None, limit: int
    ) -> Sequence[UsageDay]:
        """Give up to ``limit`` entries of a resource, the oldest day first, then by deployment."""

    async def totals(
        self, days: Days, *, resource: ResourceId | None = None, deployment: str | None = None
    ) -> Sequence[UsageTotal]:
        """Give the sums over some days, by resource and deployment in this order; of one resource or of all."""


class Caps(Protocol):
    """The caps: at most one for each resource, period and measure."""

    async def all(self, resource: ResourceId | None = None) -> Sequence[Cap]:
        """Give the caps of a resource or of all, in order."""

    async def put(self, cap: Cap) -> None:
        """Set a cap, in place of the one that there may be. Durable on return."""

    async def remove(self, resource: ResourceId, period: Period, measure: Measure) -> bool:
        """Take a cap away; ``False`` if there was none. Durable on return."""
