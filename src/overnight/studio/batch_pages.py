"""The page of a batch, and what is below it: its requests, one request, all results, and running some again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec
from starlette.responses import HTMLResponse, Response, StreamingResponse

from overnight.domain.errors import Conflict, InvalidRequest, NotFound
from overnight.domain.ids import BatchId, FileId
from overnight.domain.throughput import NO_THROUGHPUT
from overnight.studio import inside, one_request, view_models
from overnight.studio.batch_chart import batch_chart
from overnight.studio.excerpt import visible
from overnight.studio.pages import shell_for

if TYPE_CHECKING:
    from starlette.requests import Request

    from overnight.domain.batch import Batch
    from overnight.services.requests import RequestDetail
    from overnight.studio.context import Parts
    from overnight.studio.looking import Looking
    from overnight.studio.pages import Frame
    from overnight.studio.session import Sessions, Visitor
    from overnight.studio.templating import Templates

# Up to this size a line is read whole, to be shown as a conversation.
_MOST_PARSED = 8 * 1024 * 1024


class BatchPages:
    """The pages of one batch."""

    def __init__(self, parts: Parts, sessions: Sessions, looking: Looking, templates: Templates, frame: Frame) -> None:
        self._parts = parts
        self._sessions = sessions
        self._looking = looking
        self._templates = templates
        self._frame = frame

    async def batch(self, request: Request) -> Response:
        visitor = await self._sessions.visitor(request)
        resource = visitor.caller.resource
        batch, detail = await self._looking.batch(resource, BatchId(request.path_params["batch_id"]))
        wanted = inside.wanted_in(request.query_params)
        # The log of a batch that runs takes a moment to read at first: the page does not wait for that.
        later = not batch.ended and not request.query_params
        topics = () if batch.ended else (f"batch:{batch.id}", f"inside:{batch.id}")
        now = self._parts.clock.now()
        waiting = inside.Inside(loading=True, running=True)
        return await self._frame.page(
            request,
            "batch.html",
            shell_for(visitor, detail.title, "batches", *topics),
            detail=detail,
            details=view_models.details(batch, now),
            files=await self._files_of(visitor, batch),
            inside=waiting if later else await self._looking.inside(batch),
            requests=None if later else await self._looking.requests(batch, wanted),
            wait="the running requests get a moment to finish, and every result so far is kept",
        )

    async def requests(self, request: Request) -> Response:
        """Give the list of requests alone, for a page that did not wait for it, or asks for what is new."""
        visitor = await self._sessions.visitor(request)
        batch = await self._batch(request, visitor)
        told = request.query_params.get("told")
        if told and told == inside.told_while_validating(batch):
            return Response(status_code=204)
        found = await self._looking.requests(batch, inside.wanted_in(request.query_params))
        return HTMLResponse(await asyncio.to_thread(self._templates.render, "parts/requests.html", requests=found))

    async def throughput(self, request: Request) -> Response:
        visitor = await self._sessions.visitor(request, in_use=False)
        batch = await self._batch(request, visitor)
        try:
            found = await self._parts.requests.throughput(batch.resource, batch.id)
        except Conflict:
            # The panel of the failures says why.
            found = NO_THROUGHPUT
        now = None if batch.ended else self._parts.clock.now()
        drawn = await asyncio.to_thread(lambda: msgspec.json.encode(batch_chart(found, now)))
        return Response(drawn, media_type="application/json")

    async def results(self, request: Request) -> Response:
        visitor = await self._sessions.visitor(request)
        batch_id = BatchId(request.path_params["batch_id"])
        content = await self._parts.requests.results(visitor.caller.resource, batch_id)
        headers = {"content-disposition": f'attachment; filename="{batch_id}_results.jsonl"'}
        return StreamingResponse(content, media_type="application/octet-stream", headers=headers)

    async def request(self, request: Request) -> Response:
        visitor = await self._sessions.visitor(request)
        batch = await self._batch(request, visitor)
        full = "full" in request.query_params
        detail = await self._one(batch, request.path_params["name"], _line(request), full=full)
        target = self._target(batch) if visitor.caller.may_operate else None
        home = self._looking.home(batch)
        among = await self._among(batch, inside.wanted_in(request.query_params), detail.row.line)
        one = await asyncio.to_thread(one_request.view_of, detail, batch, home, target, among, full=full)
        if "panel" in request.query_params:
            return HTMLResponse(await asyncio.to_thread(self._templates.render, "parts/request_panel.html", one=one))
        shell = shell_for(visitor, one.row.name, "batches")
        return await self._frame.page(
            request, "request.html", shell, batch=view_models.name_of(batch), home=among.wanted.url(home), one=one
        )

    async def _among(self, batch: Batch, wanted: inside.Wanted, line: int) -> one_request.Among:
        if not wanted.filtered:
            return one_request.Among(wanted=wanted)
        neighbours = await self._parts.requests.neighbours(batch.resource, batch.id, wanted.query(), line)
        return one_request.Among(wanted=wanted, neighbours=neighbours)

    def _target(self, batch: Batch) -> one_request.Target | None:
        name = batch.deployment or batch.model
        deployment = None if name is None else self._parts.deployments.known().find(name)
        return one_request.target_of(deployment, self._parts.upstreams.health())

    async def _one(self, batch: Batch, name: str, line: int | None, *, full: bool) -> RequestDetail:
        read = self._parts.requests.one
        found = await read(batch.resource, batch.id, name, line, full=full)
        previews = [each for each in (found.asked, found.got) if each is not None]
        longer = any(each.truncated for each in previews)
        if longer and all(each.bytes <= _MOST_PARSED for each in previews):
            return await read(batch.resource, batch.id, name, found.row.line, full=True)
        return found

    async def _batch(self, request: Request, visitor: Visitor) -> Batch:
        return await self._parts.batches.get(visitor.caller.resource, BatchId(request.path_params["batch_id"]))

    async def _files_of(self, visitor: Visitor, batch: Batch) -> list[tuple[str, str, object]]:
        found: list[tuple[str, str, object]] = []
        ids = (batch.input_file_id, batch.output_file_id, batch.error_file_id)
        for word, file_id in zip(("Input", "Output", "Errors"), ids, strict=True):
            if file_id is None:
                continue
            try:
                file = await self._parts.files.get(visitor.caller.resource, FileId(file_id))
                row = view_models.file_row(file, self._parts.clock.now(), self._parts.root)
            except NotFound:
                row = None
            found.append((word, file_id, row))
        return found


def _line(request: Request) -> int | None:
    text = request.query_params.get("line")
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 11):  # noqa: PLR2004 - no file has more lines
        raise InvalidRequest(f"'{visible(text[:20])}' is no line. Lines are counted from 0.", param="line")
    return int(text)
