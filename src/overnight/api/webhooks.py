"""Routes of webhooks (CONTRACT sections 1.1 row 15 and 5.9), and their wire types."""

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from overnight.api.context import Context, reply
from overnight.api.schemas import Taken
from overnight.domain.flavour import Flavour
from overnight.domain.ids import EndpointId
from overnight.domain.webhook import Attempt, DeliveryStatus, Endpoint, EventType, Logged
from overnight.ports.batches import Page
from overnight.services.webhooks import NewEndpoint

_DEFAULT_PAGE = 20
_LONGEST_PAGE = 100

Limit = Annotated[int, Query(ge=1, le=_LONGEST_PAGE)]


class CreateEndpointBody(Taken):
    """``POST webhook_endpoints``."""

    name: str = Field(description="A name for people.")
    url: str = Field(description="Where deliveries are sent, such as `https://example.com/hook`.")
    event_types: list[str] = Field(description="The types of events to be told of.")


class UpdateEndpointBody(Taken):
    """``POST webhook_endpoints/{id}``; what is left out stays."""

    name: str | None = None
    url: str | None = None
    event_types: list[str] | None = None


class RotateSecretBody(Taken):
    """``POST webhook_endpoints/{id}/rotate_secret``."""

    keep_old_secret_active_for_24_hours: bool | None = Field(
        default=None, description="Sign with the old secret, too, for another day."
    )


class TestEndpointBody(Taken):
    """``POST webhook_endpoints/{id}/test``."""

    event_type: str = Field(description="The type of the sample event.")


class EndpointObject(BaseModel):
    """A receiver of webhooks."""

    id: str
    object: Literal["webhook_endpoint", "webhook.endpoint"]
    created_at: int
    updated_at: int
    name: str
    url: str
    event_types: list[str]
    signing_secret_hint: str


class EndpointWithSecretObject(EndpointObject):
    """A receiver of webhooks with its secret, which is shown this once."""

    signing_secret: str = Field(repr=False)


class EndpointList(BaseModel):
    """A page of receivers."""

    object: Literal["list"] = "list"
    data: list[EndpointObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class DeletedEndpoint(BaseModel):
    """The receipt of a deletion."""

    id: str
    object: Literal["webhook_endpoint.deleted", "webhook.endpoint.deleted"]
    deleted: bool = True


class EndpointTest(BaseModel):
    """What a receiver answered to a sample event."""

    object: Literal["webhook_endpoint.test", "webhook.endpoint.test"]
    webhook_endpoint_id: str
    event_type: str
    status_code: int
    success: bool = True


class EventTypeList(BaseModel):
    """The types of events that there are."""

    object: Literal["list"] = "list"
    data: list[str]


class AttemptObject(BaseModel):
    """One attempt; ``error`` says why there is no status."""

    created_at: int
    seconds: float = Field(description="How long it took.")
    status_code: int | None
    error: str | None

    @classmethod
    def of(cls, attempt: Attempt) -> Self:
        """Put an attempt into its wire shape."""
        return cls(
            created_at=int(attempt.at),
            seconds=round(attempt.seconds, 3),
            status_code=attempt.status_code,
            error=attempt.error,
        )


class DeliveryObject(BaseModel):
    """What a receiver was told, or is to be told; ``id`` is that of the event, which is also the ``webhook-id``."""

    id: str
    object: Literal["webhook_endpoint.delivery"] = "webhook_endpoint.delivery"
    event_type: str
    created_at: int
    batch_id: str
    status: str
    next_attempt_at: int | None
    attempts: list[AttemptObject]

    @classmethod
    def of(cls, logged: Logged) -> Self:
        """Put a delivery into its wire shape."""
        delivery = logged.delivery
        pending = delivery.status is DeliveryStatus.PENDING
        return cls(
            id=delivery.event_id,
            event_type=delivery.type,
            created_at=delivery.created_at,
            batch_id=delivery.batch_id,
            status=delivery.status,
            next_attempt_at=int(delivery.due_at) if pending else None,
            attempts=[AttemptObject.of(attempt) for attempt in logged.attempts],
        )


class DeliveryList(BaseModel):
    """A page of deliveries."""

    object: Literal["list"] = "list"
    data: list[DeliveryObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class _Shapes:
    """Objects in the words of one vendor."""

    def __init__(self, flavour: Flavour) -> None:
        self.azure = flavour is Flavour.AZURE

    def endpoint(self, endpoint: Endpoint) -> EndpointObject:
        return EndpointObject(**self._members(endpoint))  # type: ignore[arg-type] # by name

    def with_secret(self, endpoint: Endpoint) -> EndpointWithSecretObject:
        members = self._members(endpoint)
        return EndpointWithSecretObject(**members, signing_secret=endpoint.secret)  # type: ignore[arg-type] # by name

    def page(self, page: Page[Endpoint]) -> EndpointList:
        data = [self.endpoint(endpoint) for endpoint in page.items]
        first, last = _ends([each.id for each in data])
        return EndpointList(data=data, first_id=first, last_id=last, has_more=page.has_more)

    def deleted(self, endpoint_id: str) -> DeletedEndpoint:
        kind: Literal["webhook_endpoint.deleted", "webhook.endpoint.deleted"]
        kind = "webhook.endpoint.deleted" if self.azure else "webhook_endpoint.deleted"
        return DeletedEndpoint(id=endpoint_id, object=kind)

    def test(self, endpoint_id: str, event_type: str, status_code: int) -> EndpointTest:
        kind: Literal["webhook_endpoint.test", "webhook.endpoint.test"]
        kind = "webhook.endpoint.test" if self.azure else "webhook_endpoint.test"
        return EndpointTest(
            object=kind, webhook_endpoint_id=endpoint_id, event_type=event_type, status_code=status_code
        )

    def _members(self, endpoint: Endpoint) -> dict[str, object]:
        return {
            "id": endpoint.id,
            "object": "webhook.endpoint" if self.azure else "webhook_endpoint",
            "created_at": endpoint.created_at,
            "updated_at": endpoint.updated_at,
            "name": endpoint.name,
            "url": endpoint.url,
            "event_types": list(endpoint.event_types),
            "signing_secret_hint": endpoint.hint,
        }


def webhook_routes(context: Context) -> APIRouter:
    """Make the routes of webhooks for one prefix."""
    routes = APIRouter()
    _manage(routes, context, _Shapes(context.prefix.flavour))
    _try(routes, context, _Shapes(context.prefix.flavour))
    return routes


def _manage(routes: APIRouter, context: Context, shapes: _Shapes) -> None:
    webhooks = context.services.webhooks

    @routes.post("/webhook_endpoints", response_model=EndpointWithSecretObject)
    async def create_webhook_endpoint(request: Request, body: CreateEndpointBody) -> Response:
        """Create a receiver of webhooks; its signing secret is shown this once."""
        new = NewEndpoint(name=body.name, url=body.url, event_types=body.event_types)
        return reply(shapes.with_secret(await webhooks.create(context.resource(request), new)))

    @routes.get("/webhook_endpoints", response_model=EndpointList)
    async def list_webhook_endpoints(
        request: Request, after: str | None = None, limit: Limit = _DEFAULT_PAGE
    ) -> Response:
        """List receivers, newest first."""
        cursor = EndpointId(after) if after else None
        return reply(shapes.page(await webhooks.page(context.resource(request), after=cursor, limit=limit)))

    @routes.get("/webhook_endpoints/{webhook_endpoint_id}", response_model=EndpointObject)
    async def get_webhook_endpoint(request: Request, webhook_endpoint_id: str) -> Response:
        """Get a receiver."""
        found = await webhooks.get(context.resource(request), EndpointId(webhook_endpoint_id))
        return reply(shapes.endpoint(found))

    @routes.post("/webhook_endpoints/{webhook_endpoint_id}", response_model=EndpointObject)
    async def update_webhook_endpoint(request: Request, webhook_endpoint_id: str, body: UpdateEndpointBody) -> Response:
        """Change a receiver; what is left out stays."""
        change = NewEndpoint(name=body.name, url=body.url, event_types=body.event_types)
        changed = await webhooks.update(context.resource(request), EndpointId(webhook_endpoint_id), change)
        return reply(shapes.endpoint(changed))

    @routes.delete("/webhook_endpoints/{webhook_endpoint_id}", response_model=DeletedEndpoint)
    async def delete_webhook_endpoint(request: Request, webhook_endpoint_id: str) -> Response:
        """Delete a receiver; it is told nothing any more."""
        await webhooks.delete(context.resource(request), EndpointId(webhook_endpoint_id))
        return reply(shapes.deleted(webhook_endpoint_id))

    @routes.post("/webhook_endpoints/{webhook_endpoint_id}/rotate_secret", response_model=EndpointWithSecretObject)
    async def rotate_webhook_secret(
        request: Request, webhook_endpoint_id: str, body: RotateSecretBody | None = None
    ) -> Response:
        """Replace the signing secret; the new one is shown this once."""
        keep = bool(body and body.keep_old_secret_active_for_24_hours)
        rotated = await webhooks.rotate(context.resource(request), EndpointId(webhook_endpoint_id), keep_old=keep)
        return reply(shapes.with_secret(rotated))


def _try(routes: APIRouter, context: Context, shapes: _Shapes) -> None:
    webhooks = context.services.webhooks

    @routes.post("/webhook_endpoints/{webhook_endpoint_id}/test", response_model=EndpointTest)
    async def test_webhook_endpoint(request: Request, webhook_endpoint_id: str, body: TestEndpointBody) -> Response:
        """Send a sample event at once."""
        endpoint_id = EndpointId(webhook_endpoint_id)
        status = await webhooks.test(context.resource(request), endpoint_id, body.event_type)
        return reply(shapes.test(webhook_endpoint_id, body.event_type, status))

    @routes.get("/webhook_endpoints/{webhook_endpoint_id}/deliveries", response_model=DeliveryList)
    async def list_webhook_deliveries(
        request: Request, webhook_endpoint_id: str, after: str | None = None, limit: Limit = _DEFAULT_PAGE
    ) -> Response:
        """List what a receiver was told, newest first, with each attempt; not part of the vendors' API."""
        endpoint_id = EndpointId(webhook_endpoint_id)
        page = await webhooks.deliveries(context.resource(request), endpoint_id, after=after or None, limit=limit)
        data = [DeliveryObject.of(logged) for logged in page.items]
        first, last = _ends([each.id for each in data])
        return reply(DeliveryList(data=data, first_id=first, last_id=last, has_more=page.has_more))

    @routes.get("/webhook_event_types", response_model=EventTypeList)
    async def list_webhook_event_types(request: Request) -> Response:
        """List the types of events that there are."""
        context.resource(request)
        return reply(EventTypeList(data=list(EventType)))


def _ends(names: Sequence[str]) -> tuple[str | None, str | None]:
    return (names[0], names[-1]) if names else (None, None)
