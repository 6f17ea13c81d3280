"""Routes that look into batches and files, and the retry: additions of ours to the API of the vendors."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import Response, StreamingResponse

from overnight.api.batches import ABOUT_KEY, is_sent_again
from overnight.api.context import Context, reply
from overnight.api.quotas import quota_headers
from overnight.api.request_schemas import (
    MOST_REQUESTS,
    FailureGroupObject,
    FailureGroups,
    FileCheckObject,
    NewestResults,
    RequestDetailObject,
    RequestFilter,
    RequestObject,
    RequestPageObject,
    RetryBody,
    ThroughputObject,
)
from overnight.api.schemas import AzureBatchObject, BatchObject
from overnight.domain.flavour import Flavour
from overnight.domain.ids import BatchId, FileId
from overnight.services.live import NEWEST_KEPT
from overnight.services.retry import NewRetry


def request_routes(context: Context) -> APIRouter:
    """Make the routes of requests for one prefix."""
    routes = APIRouter()
    requests = context.services.requests

    @routes.get("/batches/{batch_id}/requests", response_model=RequestPageObject)
    async def list_requests(request: Request, batch_id: str, wanted: Annotated[RequestFilter, Query()]) -> Response:
        """List the requests of a batch in the order of the input, while it runs and afterwards."""
        query = wanted.to_query()
        page = await requests.page(context.resource(request), BatchId(batch_id), query)
        return await asyncio.to_thread(lambda: reply(RequestPageObject.of(page)))

    @routes.get("/batches/{batch_id}/requests/{custom_id:path}", response_model=RequestDetailObject)
    async def get_request(
        request: Request,
        batch_id: str,
        custom_id: str,
        line: Annotated[int | None, Query(ge=0, le=MOST_REQUESTS, description="Finds it at once.")] = None,
        full: Annotated[bool, Query(description="All of its line and result, not their first 64 KB.")] = False,  # noqa: FBT002 - a query parameter
    ) -> Response:
        """Get one request with its line and its result; with `line` its `custom_id` may be left out of the path."""
        detail = await requests.one(context.resource(request), BatchId(batch_id), custom_id, line, full=full)
        return await asyncio.to_thread(lambda: reply(RequestDetailObject.of_detail(detail)))

    @routes.get("/batches/{batch_id}/failures", response_model=FailureGroups)
    async def list_failures(request: Request, batch_id: str) -> Response:
        """Group the requests without success by their reason and upstream, the most frequent first."""
        groups = await requests.failures(context.resource(request), BatchId(batch_id))
        return reply(FailureGroups(data=[FailureGroupObject.of(group) for group in groups]))

    @routes.get("/batches/{batch_id}/throughput", response_model=ThroughputObject)
    async def get_throughput(request: Request, batch_id: str) -> Response:
        """Say how a batch got on over time: what ended, how long it took, and its tokens."""
        found = await requests.throughput(context.resource(request), BatchId(batch_id))
        return await asyncio.to_thread(lambda: reply(ThroughputObject.of(found)))

    @routes.get("/batches/{batch_id}/newest", response_model=NewestResults)
    async def list_newest_results(
        request: Request, batch_id: str, limit: Annotated[int, Query(ge=1, le=NEWEST_KEPT)] = 20
    ) -> Response:
        """List the newest results of a batch that runs, newest first; none once it has ended."""
        rows = await requests.newest(context.resource(request), BatchId(batch_id), limit)
        return reply(NewestResults(data=[RequestObject.of(row) for row in rows]))

    @routes.get("/batches/{batch_id}/results", response_class=StreamingResponse)
    async def get_results(request: Request, batch_id: str) -> Response:
        """Get the lines of the output and the error file as one, in the order of the input."""
        content = await requests.results(context.resource(request), BatchId(batch_id))
        name = f'attachment; filename="{batch_id}_results.jsonl"'
        return StreamingResponse(content, media_type="application/octet-stream", headers={"content-disposition": name})

    _add_actions(routes, context)
    return routes


def _add_actions(routes: APIRouter, context: Context) -> None:
    prefix, services = context.prefix, context.services
    azure = prefix.flavour is Flavour.AZURE
    one = AzureBatchObject if azure else BatchObject

    @routes.post("/batches/{batch_id}/retry", response_model=one, status_code=prefix.batch_created)
    async def retry_batch(
        request: Request,
        batch_id: str,
        body: RetryBody | None = None,
        idempotency_key: Annotated[str | None, Header(alias="Idempotency-Key", description=ABOUT_KEY)] = None,
    ) -> Response:
        """Create a batch from requests of an ended one that had no success; its metadata says `retry_of`."""
        new = NewRetry(
            which=(body or RetryBody()).to_which(),
            idempotency_key=idempotency_key,
            sent_again=is_sent_again(request),
        )
        batch = await services.retries.retry(context.resource(request), BatchId(batch_id), new)
        headers = quota_headers(await services.gate.state(batch)) if azure else None
        return reply(one.of(batch), status=prefix.batch_created, headers=headers)

    @routes.post("/files/{file_id}/check", response_model=FileCheckObject)
    async def check_file(request: Request, file_id: str) -> Response:
        """Say what a batch would say of a file; nothing is changed by it."""
        check = await services.checks.check(context.resource(request), prefix.flavour, FileId(file_id))
        return reply(FileCheckObject.of(file_id, check))
