"""What a resource used and what it cost, and the caps on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from overnight.domain.accounting import Days, UsageDay, UsageTotal, parse_days
from overnight.domain.cap import Cap, CapState, Measure, Period, days_of, problem_of, used
from overnight.domain.errors import InvalidRequest
from overnight.domain.limits import USAGE_ROWS
from overnight.domain.price import Prices
from overnight.ports.batches import Page
from overnight.services.pages import page_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from overnight.domain.batch import Problem
    from overnight.domain.ids import ResourceId
    from overnight.ports.clock import Clock
    from overnight.ports.usage import Books, Caps

# In seconds: for so long a new cap may go unnoticed where there was none.
_LOOK_EVERY = 1.0


class PricedDay(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of the books with its cost in millionths; ``None`` where its deployment has no price."""

    entry: UsageDay
    cost: int | None


class PricedTotal(msgspec.Struct, frozen=True, kw_only=True):
    """A sum of the books with its cost in millionths; ``None`` where its deployment has no price."""

    total: UsageTotal
    cost: int | None


class UsageReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a resource used in a range of days, and how its caps stand now."""

    days: Days
    entries: Sequence[PricedDay]
    caps: Sequence[CapState]
    currency: str


class TotalPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of the sums of a range of days."""

    days: Days
    page: Page[PricedTotal]
    currency: str


class UsageQuery(msgspec.Struct, frozen=True, kw_only=True):
    """What to tell of: days as they were written (YYYY-MM-DD), one deployment or all."""

    first: str | None = None
    last: str | None = None
    deployment: str | None = None


def cap_id(cap: Cap) -> str:
    """Name a cap among those of all resources."""
    return f"{cap.resource}/{cap.period}/{cap.measure}"


def total_id(priced: PricedTotal) -> str:
    """Name a sum among those of some days."""
    return f"{priced.total.resource}/{priced.total.deployment}"


class UsageService:
    """The use cases of whoever looks at the books or bounds what is used."""

    def __init__(self, books: Books, caps: Caps, prices: Prices, clock: Clock) -> None:
        self._books = books
        self._caps = caps
        self._prices = prices
        self._clock = clock
        self._capped: frozenset[ResourceId] = frozenset()
        self._looked_at: float | None = None

    @property
    def prices(self) -> Prices:
        """The prices that costs are told by."""
        return self._prices

    async def report(self, resource: ResourceId, query: UsageQuery) -> UsageReport:
        """Tell what a resource used, day by day.

        Raises:
            InvalidRequest: the days are wrong, or there are more entries than one report holds.
        """
        days = parse_days(query.first, query.last, self._clock.now())
        entries = await self._books.days(resource, days, deployment=query.deployment, limit=USAGE_ROWS + 1)
        if len(entries) > USAGE_ROWS:
            message = f"There are more than {USAGE_ROWS:,} entries in these days. Ask for fewer days or one deployment."
            raise InvalidRequest(message, param="from", code="invalid_value")
        return UsageReport(
            days=days,
            entries=[
                PricedDay(entry=entry, cost=self._prices.cost(entry.deployment, entry.usage)) for entry in entries
            ],
            caps=await self.caps(resource),
            currency=self._prices.currency,
        )

    async def totals(self, query: UsageQuery) -> Sequence[PricedTotal]:
        """Tell what each resource used of each deployment. Raises ``InvalidRequest``."""
        days = parse_days(query.first, query.last, self._clock.now())
        return self._priced(await self._books.totals(days, deployment=query.deployment))

    async def total_page(
        self, query: UsageQuery, resource: ResourceId | None, *, after: str | None, limit: int
    ) -> TotalPage:
        """Tell the same page by page, of one resource or of all. Raises ``InvalidRequest``."""
        days = parse_days(query.first, query.last, self._clock.now())
        found = self._priced(await self._books.totals(days, resource=resource, deployment=query.deployment))
        page = page_of(found, total_id, kind="total", after=after, limit=limit)
        return TotalPage(days=days, page=page, currency=self._prices.currency)

    def _priced(self, totals: Sequence[UsageTotal]) -> list[PricedTotal]:
        return [PricedTotal(total=total, cost=self._prices.cost(total.deployment, total.usage)) for total in totals]

    async def caps(self, resource: ResourceId | None = None) -> list[CapState]:
        """Tell how the caps of a resource, or of all, stand now."""
        return [await self._state(cap) for cap in await self._caps.all(resource)]

    async def cap_page(self, resource: ResourceId | None, *, after: str | None, limit: int) -> Page[CapState]:
        """Tell the same page by page. Raises ``InvalidRequest`` for an unknown cursor."""
        page = page_of(await self._caps.all(resource), cap_id, kind="cap", after=after, limit=limit)
        return Page([await self._state(cap) for cap in page.items], page.has_more)

    async def set_cap(self, cap: Cap) -> CapState:
        """Set a cap, and tell how it stands. Raises ``InvalidRequest`` for a cap on money where nothing has a price."""
        if cap.measure is Measure.SPEND and not self._prices.by_deployment:
            message = "A cap on money needs prices: give a deployment its 'price' in the settings first."
            raise InvalidRequest(message, param="spend", code="invalid_value")
        await self._caps.put(cap)
        return await self._state(cap)

    async def remove_cap(self, resource: ResourceId, period: Period, measure: Measure) -> bool:
        """Take a cap away; ``False`` if there was none."""
        return await self._caps.remove(resource, period, measure)

    async def why_stopped(self, resource: ResourceId) -> Problem | None:
        """Say why a resource may start nothing more now; ``None`` while it may.

        Cheap enough to be asked for each batch with each of its progress notes. A first cap is noticed within a second,
        a changed one at once. Raises ``Unavailable``.
        """
        if resource not in await self._capped_resources():
            return None
        for state in await self.caps(resource):
            if state.reached:
                return problem_of(state, self._prices.currency)
        return None

    async def _capped_resources(self) -> frozenset[ResourceId]:
        ticks = self._clock.ticks()
        if self._looked_at is None or ticks - self._looked_at >= _LOOK_EVERY:
            self._capped = frozenset(cap.resource for cap in await self._caps.all())
            self._looked_at = ticks
        return self._capped

    async def _state(self, cap: Cap) -> CapState:
        days = days_of(cap.period, self._clock.now())
        totals = await self._books.totals(days, resource=cap.resource)
        return CapState(cap=cap, used=used(cap.measure, totals, self._prices))
