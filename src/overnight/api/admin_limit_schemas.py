"""The wire types of quotas, caps and usage in the admin API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, Field

from overnight.api.schemas import Taken, UsageObject
from overnight.api.usage import CapObject, UsageCounts
from overnight.domain.price import money
from overnight.services.usage import cap_id, total_id

if TYPE_CHECKING:
    from overnight.domain.cap import CapState
    from overnight.domain.quota import Own
    from overnight.ports.batches import Page
    from overnight.services.usage import PricedTotal, TotalPage


class SetQuotaBody(Taken):
    """``POST /admin/resources/{resource_id}/quotas``."""

    deployment: str = Field(description="What requests name as their model; it need not be there yet.", min_length=1)
    enqueued_tokens: int | None = Field(description="Most enqueued tokens; null: no limit.", ge=0, lt=2**63)


class SetCapBody(Taken):
    """``POST /admin/resources/{resource_id}/caps``."""

    period: str = Field(description="How long it counts, in UTC: `day` or `month`.")
    measure: str = Field(description="What it bounds: `tokens`, input and output together, or `spend`.")
    limit: int | str = Field(description="Tokens, or money as a decimal number in a string, such as `12.50`.")


class OwnQuotaObject(BaseModel):
    """A number that was set for one deployment of one resource."""

    id: str = Field(description="`resource/deployment`.")
    object: Literal["quota.own"] = "quota.own"
    resource: str
    deployment: str
    enqueued_tokens: int | None = Field(description="Most enqueued tokens; null: no limit.")

    @classmethod
    def of(cls, own: Own) -> OwnQuotaObject:
        """Put a number into its wire shape."""
        return cls(
            id=f"{own.resource}/{own.deployment}",
            resource=own.resource,
            deployment=own.deployment,
            enqueued_tokens=own.tokens,
        )


class AdminCapObject(CapObject):
    """A cap of a resource, and how much of it is used in the day or month that runs."""

    id: str = Field(description="`resource/period/measure`.")
    resource: str

    @classmethod
    def of(cls, state: CapState) -> AdminCapObject:
        """Put the state of a cap into its wire shape."""
        return cls(id=cap_id(state.cap), resource=state.cap.resource, **CapObject.of(state).model_dump())


class UsageTotalObject(BaseModel):
    """What a resource used of a deployment on some days together."""

    id: str = Field(description="`resource/deployment`.")
    object: Literal["usage.total"] = "usage.total"
    resource: str
    deployment: str
    request_counts: UsageCounts
    usage: UsageObject
    cost: str | None = Field(description="Decimal number, in the currency of the reply; null where there is no price.")

    @classmethod
    def of(cls, priced: PricedTotal) -> UsageTotalObject:
        """Put a sum of the books into its wire shape."""
        total = priced.total
        return cls(
            id=total_id(priced),
            resource=total.resource,
            deployment=total.deployment,
            request_counts=UsageCounts(completed=total.completed, failed=total.failed),
            usage=UsageObject.of(total.usage),
            cost=None if priced.cost is None else money(priced.cost),
        )


class DeletedLimit(BaseModel):
    """What was taken away."""

    id: str
    object: Literal["quota.own", "usage.cap"]
    deleted: Literal[True] = True


class OwnQuotaPage(BaseModel):
    """A page of own numbers."""

    object: Literal["list"] = "list"
    data: list[OwnQuotaObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class CapPage(BaseModel):
    """A page of caps."""

    object: Literal["list"] = "list"
    data: list[AdminCapObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class UsageTotalPage(BaseModel):
    """A page of sums, by resource and deployment; both days are included."""

    object: Literal["list"] = "list"
    first_day: str
    last_day: str
    currency: str
    data: list[UsageTotalObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


def own_quota_page(page: Page[Own]) -> OwnQuotaPage:
    """Put own numbers into their wire shape."""
    data = [OwnQuotaObject.of(each) for each in page.items]
    first, last = (data[0].id, data[-1].id) if data else (None, None)
    return OwnQuotaPage(data=data, first_id=first, last_id=last, has_more=page.has_more)


def cap_page(page: Page[CapState]) -> CapPage:
    """Put caps into their wire shape."""
    data = [AdminCapObject.of(each) for each in page.items]
    first, last = (data[0].id, data[-1].id) if data else (None, None)
    return CapPage(data=data, first_id=first, last_id=last, has_more=page.has_more)


def usage_total_page(found: TotalPage) -> UsageTotalPage:
    """Put sums into their wire shape."""
    data = [UsageTotalObject.of(each) for each in found.page.items]
    first, last = (data[0].id, data[-1].id) if data else (None, None)
    return UsageTotalPage(
        first_day=found.days.first,
        last_day=found.days.last,
        currency=found.currency,
        data=data,
        first_id=first,
        last_id=last,
        has_more=found.page.has_more,
    )
