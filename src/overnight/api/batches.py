"""Routes of batches (CONTRACT sections 1.1 rows 1-4, 1.4 and 1.8)."""

from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import Response

from overnight.api.context import Context, Prefix, reply
from overnight.api.quotas import quota_headers
from overnight.api.schemas import AzureBatchObject, AzureBatchPage, BatchObject, BatchPage, CreateBatchBody
from overnight.api.uploads import to_expires_after
from overnight.domain.errors import InvalidRequest
from overnight.domain.file import ExpiresAfter
from overnight.domain.flavour import Flavour
from overnight.domain.ids import BatchId
from overnight.domain.listing import BatchQuery, parse_filter, parse_order
from overnight.services.batches import NewBatch

_DEFAULT_PAGE = 20

ABOUT_KEY = "Your name for this request: sent again with the same key within 24 hours, it makes no second batch."

# SDKs count here how often they have sent a request again by themselves (CONTRACT section 6.4).
_RETRY_COUNT = "x-stainless-retry-count"


def batch_routes(context: Context) -> APIRouter:
    """Make the routes of batches for one prefix."""
    routes = APIRouter()
    batches, prefix, limits = context.services.batches, context.prefix, context.limits
    gate = context.services.gate
    azure = prefix.flavour is Flavour.AZURE
    one, many = (AzureBatchObject, AzureBatchPage) if azure else (BatchObject, BatchPage)

    @routes.post("/batches", response_model=one, status_code=prefix.batch_created)
    async def create_batch(
        request: Request,
        body: CreateBatchBody,
        idempotency_key: Annotated[str | None, Header(alias="Idempotency-Key", description=ABOUT_KEY)] = None,
    ) -> Response:
        """Create a batch; its input is checked after this has answered."""
        resource = context.resource(request)
        new = _new_batch(body, idempotency_key, sent_again=is_sent_again(request))
        batch = await batches.create(resource, prefix.flavour, new)
        headers = quota_headers(await gate.state(batch)) if azure else None
        return reply(one.of(batch), status=prefix.batch_created, headers=headers)

    @routes.get("/batches", response_model=many)
    async def list_batches(
        request: Request,
        after: str | None = None,
        limit: Annotated[int, Query(ge=0, le=limits.batches_page)] = _DEFAULT_PAGE,
    ) -> Response:
        """List batches, newest first unless Azure's ``$orderby`` asks otherwise."""
        resource = context.resource(request)
        page = await batches.page(resource, _query(request, prefix, after, limit))
        return reply(many.of(page.items, has_more=page.has_more))

    @routes.get("/batches/{batch_id}", response_model=one)
    async def get_batch(request: Request, batch_id: str) -> Response:
        """Get a batch."""
        return reply(one.of(await batches.get(context.resource(request), BatchId(batch_id))))

    @routes.post("/batches/{batch_id}/cancel", response_model=one)
    async def cancel_batch(request: Request, batch_id: str) -> Response:
        """Stop a batch; what is done stays."""
        return reply(one.of(await batches.cancel(context.resource(request), BatchId(batch_id))))

    return routes


def _query(request: Request, prefix: Prefix, after: str | None, limit: int) -> BatchQuery:
    cursor = BatchId(after) if after else None
    if prefix.flavour is Flavour.OPENAI:
        return BatchQuery(after=cursor, limit=limit)
    return BatchQuery(
        after=cursor,
        limit=limit,
        conditions=parse_filter(request.query_params.get("$filter")),
        oldest_first=parse_order(request.query_params.get("$orderby")),
    )


def is_sent_again(request: Request) -> bool:
    """Say whether the client has sent this request before and saw no answer."""
    # Anything can be written into a header, and only a count above 0 means something.
    return request.headers.get(_RETRY_COUNT, "").strip().lstrip("0").isdecimal()


def _new_batch(body: CreateBatchBody, key: str | None, *, sent_again: bool) -> NewBatch:
    if body.input_file_id is None or not body.input_file_id:
        if body.input_blob:
            message = "This server reads its input from files: upload the file and pass its id as 'input_file_id'."
            raise InvalidRequest(message, param="input_blob", code="invalid_value")
        message = "Missing required parameter: 'input_file_id'."
        raise InvalidRequest(message, param="input_file_id", code="missing_required_parameter")
    return NewBatch(
        input_file_id=body.input_file_id,
        endpoint=body.endpoint,
        completion_window=body.completion_window,
        metadata=body.metadata,
        output_expires_after=_output_expiry(body),
        idempotency_key=key,
        sent_again=sent_again,
    )


def _output_expiry(body: CreateBatchBody) -> ExpiresAfter | None:
    wish = to_expires_after(body.output_expires_after)
    # One of Azure's samples puts the anchor beside the member that it belongs to (CONTRACT section 1.4).
    if wish is not None and body.anchor is not None:
        return ExpiresAfter(anchor=body.anchor, seconds=wish.seconds)
    return wish
