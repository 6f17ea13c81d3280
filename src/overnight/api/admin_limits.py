"""The part of the admin API that bounds what resources may use, and tells what they used."""

import asyncio
from enum import StrEnum
from typing import Annotated, TypeVar

import structlog
from fastapi import APIRouter, Query
from fastapi.responses import Response

from overnight.api.admin_limit_schemas import (
    AdminCapObject,
    CapPage,
    DeletedLimit,
    OwnQuotaObject,
    OwnQuotaPage,
    SetCapBody,
    SetQuotaBody,
    UsageTotalPage,
    cap_page,
    own_quota_page,
    usage_total_page,
)
from overnight.api.context import Services, reply
from overnight.api.quotas import QuotaList, QuotaObject
from overnight.api.usage import UsageReportObject
from overnight.domain.cap import Cap, Measure, Period, parse_amount
from overnight.domain.errors import InvalidRequest, NotFound
from overnight.domain.limits import ADMIN_PAGE, LARGEST_ADMIN_PAGE
from overnight.services.usage import UsageQuery

log = structlog.get_logger()

E = TypeVar("E", bound=StrEnum)

Limit = Annotated[int, Query(ge=1, le=LARGEST_ADMIN_PAGE)]
From = Annotated[
    str | None, Query(alias="from", description="First day (UTC), YYYY-MM-DD; 30 days in all if left out.")
]
To = Annotated[str | None, Query(alias="to", description="Last day (UTC), YYYY-MM-DD; today if left out.")]
Only = Annotated[str | None, Query(alias="deployment", description="Only this one.")]
Owner = Annotated[str | None, Query(description="Only this resource; all if left out.")]


def admin_limit_routes(services: Services) -> APIRouter:
    """Make the routes; whoever includes them sees to it that only an admin gets to them."""
    routes = APIRouter()
    routes.include_router(_quota_routes(services))
    routes.include_router(_cap_routes(services))
    routes.include_router(_usage_routes(services))
    return routes


def choice(kind: type[E], text: str, param: str) -> E:
    """Read one of several words. Raises ``InvalidRequest``, which names them all."""
    if text not in frozenset(kind):
        message = f"Invalid value: '{text[:80]}'. Supported values are: {', '.join(repr(str(each)) for each in kind)}."
        raise InvalidRequest(message, param=param, code="invalid_value")
    return kind(text)


def _quota_routes(services: Services) -> APIRouter:
    routes = APIRouter()
    keys, quotas, admin = services.keys, services.quotas, services.quota_admin

    @routes.get("/quotas", response_model=OwnQuotaPage)
    async def list_own_quotas(resource: Owner = None, after: str | None = None, limit: Limit = ADMIN_PAGE) -> Response:
        """List the numbers that resources have of their own, those that were set first coming first."""
        if resource is not None:
            await keys.limited(resource)
        page = await admin.own_page(resource, after=after, limit=limit)
        return reply(own_quota_page(page))

    @routes.get("/resources/{resource_id}/quotas", response_model=QuotaList)
    async def list_resource_quotas(resource_id: str) -> Response:
        """List the quota of each deployment for a resource: its limit, where that comes from, and what is left."""
        states = await quotas.states(await keys.limited(resource_id))
        return reply(QuotaList(data=[QuotaObject.of(state) for state in states]))

    @routes.get("/resources/{resource_id}/quotas/{deployment:path}", response_model=QuotaObject)
    async def get_resource_quota(resource_id: str, deployment: str) -> Response:
        """Get the quota of a deployment for a resource."""
        return reply(QuotaObject.of(await quotas.state(await keys.limited(resource_id), deployment)))

    @routes.post("/resources/{resource_id}/quotas", response_model=OwnQuotaObject)
    async def set_resource_quota(resource_id: str, body: SetQuotaBody) -> Response:
        """Set a resource's own number for a deployment, in place of the one that there may be."""
        own = await admin.put(await keys.limited(resource_id), body.deployment, body.enqueued_tokens)
        log.info("quota.set", resource=own.resource, deployment=own.deployment, tokens=own.tokens)
        return reply(OwnQuotaObject.of(own))

    @routes.delete("/resources/{resource_id}/quotas/{deployment:path}", response_model=DeletedLimit)
    async def remove_resource_quota(resource_id: str, deployment: str) -> Response:
        """Forget a resource's own number: its offer applies again, or the deployment's setting."""
        owner = await keys.limited(resource_id)
        await admin.remove(owner, deployment)
        log.info("quota.removed", resource=owner, deployment=deployment)
        return reply(DeletedLimit(id=f"{owner}/{deployment}", object="quota.own"))

    return routes


def _cap_routes(services: Services) -> APIRouter:
    routes = APIRouter()
    keys, usage = services.keys, services.usage

    @routes.get("/caps", response_model=CapPage)
    async def list_caps(resource: Owner = None, after: str | None = None, limit: Limit = ADMIN_PAGE) -> Response:
        """List caps by resource, and how much of each is used."""
        owner = None if resource is None else await keys.limited(resource)
        return reply(cap_page(await usage.cap_page(owner, after=after, limit=limit)))

    @routes.get("/resources/{resource_id}/caps", response_model=CapPage)
    async def list_resource_caps(resource_id: str) -> Response:
        """List the caps of a resource, four at most, and how much of each is used."""
        owner = await keys.limited(resource_id)
        return reply(cap_page(await usage.cap_page(owner, after=None, limit=ADMIN_PAGE)))

    @routes.post("/resources/{resource_id}/caps", response_model=AdminCapObject)
    async def set_resource_cap(resource_id: str, body: SetCapBody) -> Response:
        """Set a cap, in place of the one of its period and measure that there may be."""
        period, measure = choice(Period, body.period, "period"), choice(Measure, body.measure, "measure")
        amount = _amount(str(body.limit), measure)
        cap = Cap(resource=await keys.limited(resource_id), period=period, measure=measure, amount=amount)
        state = await usage.set_cap(cap)
        log.info("cap.set", resource=cap.resource, period=period, measure=measure, limit=str(body.limit))
        return reply(AdminCapObject.of(state))

    @routes.delete("/resources/{resource_id}/caps/{period}/{measure}", response_model=DeletedLimit)
    async def remove_resource_cap(resource_id: str, period: str, measure: str) -> Response:
        """Take a cap away."""
        owner = await keys.limited(resource_id)
        counted, what = choice(Period, period, "period"), choice(Measure, measure, "measure")
        if not await usage.remove_cap(owner, counted, what):
            message = f"The resource '{owner}' has no cap on its {what} a {counted}."
            raise NotFound(message, param="measure")
        log.info("cap.removed", resource=owner, period=counted, measure=what)
        return reply(DeletedLimit(id=f"{owner}/{counted}/{what}", object="usage.cap"))

    return routes


def _usage_routes(services: Services) -> APIRouter:
    routes = APIRouter()
    keys, usage = services.keys, services.usage

    @routes.get("/usage", response_model=UsageTotalPage)
    async def get_total_usage(
        first: From = None,
        last: To = None,
        only: Only = None,
        resource: Owner = None,
        after: str | None = None,
        limit: Limit = ADMIN_PAGE,
    ) -> Response:
        """Tell what each resource used of each deployment, all days together, and its cost."""
        query = UsageQuery(first=first, last=last, deployment=only)
        owner = None if resource is None else await keys.limited(resource)
        return reply(usage_total_page(await usage.total_page(query, owner, after=after, limit=limit)))

    @routes.get("/resources/{resource_id}/usage", response_model=UsageReportObject)
    async def get_resource_usage(resource_id: str, first: From = None, last: To = None, only: Only = None) -> Response:
        """Tell what a resource used, by day and deployment: at most 366 days and 10,000 entries in one reply."""
        query = UsageQuery(first=first, last=last, deployment=only)
        report = await usage.report(await keys.limited(resource_id), query)
        # Ten thousand entries take a while to write out.
        return await asyncio.to_thread(lambda: reply(UsageReportObject.of(report)))

    return routes


def _amount(text: str, measure: Measure) -> int:
    try:
        return parse_amount(text, measure)
    except ValueError as error:
        what = "a number of tokens" if measure is Measure.TOKENS else "an amount with at most 6 decimal places"
        message = f"Invalid limit: '{text[:40]}' is not {what}."
        raise InvalidRequest(message, param="limit", code="invalid_value") from error
