"""Routes that show the enqueued-token quotas of whoever calls, and the headers that tell of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from overnight.api.context import Context, reply
from overnight.domain.quota import Basis, Offer, OverQuota

if TYPE_CHECKING:
    from overnight.services.quotas import QuotaState


class QuotaObject(BaseModel):
    """The quota of one deployment."""

    id: str = Field(description="The name of the deployment.")
    object: Literal["quota"] = "quota"
    deployment: str = Field(description="What requests name as their model.")
    model: str = Field(description="What the upstreams are asked for.")
    enqueued_tokens: int = Field(description="Prompt tokens of unfinished requests in batches that run.")
    maximum_enqueued_tokens: int | None = Field(description="Most of them; null: no limit.")
    available_tokens: int | None = Field(description="How many more fit now; null: no limit.")
    basis: Basis = Field(
        description="Where the limit comes from: a number of the resource's own, its offer, the deployment, or none."
    )
    offer: Offer | None = Field(description="The offer, if the limit comes from it.")
    over_quota: OverQuota = Field(description="What happens to a batch that does not fit.")

    @classmethod
    def of(cls, state: QuotaState) -> QuotaObject:
        """Show a quota."""
        return cls(
            id=state.deployment,
            deployment=state.deployment,
            model=state.model,
            enqueued_tokens=state.enqueued,
            maximum_enqueued_tokens=state.limit.tokens,
            available_tokens=state.available,
            basis=state.limit.basis,
            offer=state.limit.offer,
            over_quota=state.over_quota,
        )


class QuotaList(BaseModel):
    """The quotas of all deployments."""

    object: Literal["list"] = "list"
    data: list[QuotaObject]


def quota_routes(context: Context) -> APIRouter:
    """Make the routes of quotas for one prefix."""
    routes = APIRouter()
    quotas = context.services.quotas

    @routes.get("/quotas", response_model=QuotaList)
    async def list_quotas(request: Request) -> Response:
        """List the enqueued-token quota of each deployment, for the resource of the key."""
        states = await quotas.states(context.resource(request))
        return reply(QuotaList(data=[QuotaObject.of(state) for state in states]))

    @routes.get("/quotas/{deployment:path}", response_model=QuotaObject)
    async def get_quota(request: Request, deployment: str) -> Response:
        """Get the enqueued-token quota of a deployment."""
        return reply(QuotaObject.of(await quotas.state(context.resource(request), deployment)))

    return routes


def quota_headers(state: QuotaState | None) -> dict[str, str]:
    """Give Azure's headers on a created batch (CONTRACT section 1.9); none where there is no limit."""
    if state is None:
        return {}
    return {
        "deployment-enqueued-tokens": str(state.enqueued),
        "deployment-maximum-enqueued-tokens": str(state.limit.tokens),
    }
