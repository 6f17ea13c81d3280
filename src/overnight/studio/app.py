"""The Studio as an application: routes, errors as pages, and the headers of every answer."""

from __future__ import annotations

import asyncio
from math import ceil
from typing import TYPE_CHECKING
from urllib.parse import quote

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from overnight.domain import errors
from overnight.studio.actions import Actions
from overnight.studio.batch_pages import BatchPages
from overnight.studio.events import Hub
from overnight.studio.looking import Looking
from overnight.studio.pages import Pages, Shell
from overnight.studio.parts import LiveParts, topics_of
from overnight.studio.session import Sessions
from overnight.studio.templating import Templates

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from overnight.studio.context import Parts

log = structlog.get_logger()

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
    " font-src 'none'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
_HEADERS = (
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
)
_FOREVER = "public, max-age=31536000, immutable"

_STATUS: tuple[tuple[type[errors.ServiceError], int, str], ...] = (
    (errors.NotFound, 404, "Not found"),
    (errors.Forbidden, 403, "Not allowed"),
    (errors.Conflict, 409, "Not possible any more"),
    (errors.Unavailable, 503, "Not possible now"),
    (errors.TooLarge, 413, "Too large"),
    (errors.TooManyRequests, 429, "Too many at once"),
    (errors.ServiceError, 400, "Not understood"),
)


class Studio:
    """The pages at ``/studio``; ``keep_live`` has to run for them to stay up to date."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._templates = Templates(parts.root)
        self._sessions = Sessions(parts.callers, parts.clock, parts.entropy)
        looking = Looking(parts)
        self._looking = looking
        self._pages = Pages(parts, self._sessions, looking, self._templates)
        self._live = LiveParts(looking, self._templates)
        self._batch = BatchPages(parts, self._sessions, looking, self._templates, self._pages.frame)
        self.hub = Hub(self._live.render, parts.clock, parts.entropy)
        self.app: ASGIApp = _with_headers(self._make())

    async def keep_live(self) -> None:
        """Prepare the pages, and keep live parts up to date until cancelled."""
        await self.prepare()
        await self.hub.keep_live()

    async def prepare(self) -> None:
        """Compile all templates, one at a time: the service has better to do while it starts."""
        for name in self._templates.names:
            await asyncio.to_thread(self._templates.prepare, name)

    def _make(self) -> Starlette:
        pages, batch, actions = self._pages, self._batch, Actions(self._parts, self._sessions, self._pages)
        routes = [
            Route("/", self._home),
            Route("/studio", pages.overview),
            Route("/studio/batches", pages.batches),
            Route("/studio/batches/cancel", actions.bulk.ask_to_cancel),
            Route("/studio/batches/cancel", actions.cancel_many, methods=["POST"]),
            Route("/studio/batches/retry", actions.bulk.ask_to_retry),
            Route("/studio/batches/retry", actions.retry_many, methods=["POST"]),
            Route("/studio/batches/{batch_id}", batch.batch),
            Route("/studio/batches/{batch_id}/throughput", batch.throughput),
            Route("/studio/batches/{batch_id}/requests", batch.requests),
            Route("/studio/batches/{batch_id}/requests/{name:path}", batch.request),
            Route("/studio/batches/{batch_id}/results", batch.results),
            Route("/studio/batches/{batch_id}/retry", actions.retry, methods=["POST"]),
            Route("/studio/batches/{batch_id}/cancel", actions.cancel, methods=["POST"]),
            Route("/studio/new", pages.new),
            Route("/studio/new", actions.create, methods=["POST"]),
            Route("/studio/recipes", actions.as_code, methods=["POST"]),
            Route("/studio/upload", actions.upload, methods=["POST"]),
            Route("/studio/files", pages.files),
            Route("/studio/files/delete", actions.bulk.ask_to_delete),
            Route("/studio/files/delete", actions.delete_many, methods=["POST"]),
            Route("/studio/files/{file_id}", pages.file),
            Route("/studio/files/{file_id}/content", pages.content),
            Route("/studio/files/{file_id}/check", pages.check),
            Route("/studio/files/{file_id}/delete", actions.delete_file, methods=["POST"]),
            Route("/studio/upstreams", pages.upstreams),
            Route("/studio/upstreams/pause", actions.pause, methods=["POST"]),
            Route("/studio/upstreams/resume", actions.resume, methods=["POST"]),
            Route("/studio/upstreams/test", actions.test, methods=["POST"]),
            Route("/studio/traffic", pages.traffic),
            Route("/studio/system", pages.system),
            Route("/studio/sign-in", actions.sign_in_page),
            Route("/studio/sign-in", actions.sign_in, methods=["POST"]),
            Route("/studio/sign-out", actions.sign_out, methods=["POST"]),
            Route("/studio/events", self._events),
            Route("/studio/parts", self._once),
            Route("/studio/static/{name:path}", self._static),
        ]
        if self._parts.gallery:
            routes.append(Route("/studio/_gallery", pages.gallery))
            routes.append(Route("/studio/_gallery/traffic/{name}", pages.made_up_traffic))
        handlers = {
            errors.ServiceError: self._refused,
            HTTPException: self._http_error,
            ClientDisconnect: _gone,
            Exception: _broke,
        }
        app = Starlette(routes=routes, exception_handlers=handlers)
        app.router.redirect_slashes = True
        return app

    async def _home(self, _request: Request) -> Response:
        return RedirectResponse(f"{self._parts.root}/studio")

    async def _events(self, request: Request) -> Response:
        visitor = await self._sessions.visitor(request, in_use=False)
        topics = topics_of(request.query_params.get("topics", ""), visitor)

        async def allowed() -> bool:
            try:
                return (await self._sessions.visitor(request, in_use=False)).caller == visitor.caller
            except errors.Unauthorized:
                return False
            except errors.Unavailable:
                return True

        self.hub.check_room(visitor.caller.resource)
        stream = self.hub.stream(topics, request.headers.get("last-event-id", ""), allowed)
        return StreamingResponse(stream, media_type="text/event-stream", headers={"cache-control": "no-store"})

    async def _once(self, request: Request) -> Response:
        """Give all parts once, for browsers whose stream has broken off."""
        visitor = await self._sessions.visitor(request, in_use=False)
        html: list[str] = []
        for topic in topics_of(request.query_params.get("topics", ""), visitor):
            parts = await self._live.render(topic)
            html.extend(
                f'<hx-partial hx-target="#{part_id}" hx-swap="outerMorph">{part}</hx-partial>'
                for part_id, part in parts.items()
            )
        return HTMLResponse("".join(html))

    async def _static(self, request: Request) -> Response:
        asset = self._templates.assets.get(request.path_params["name"])
        if asset is None:
            raise HTTPException(404)
        lasting = request.query_params.get("v") == asset.version
        headers = {"cache-control": _FOREVER if lasting else "no-cache"}
        return Response(asset.body, media_type=asset.media_type, headers=headers)

    async def _refused(self, request: Request, error: Exception) -> Response:
        if isinstance(error, errors.Unauthorized):
            return await self._to_sign_in(request)
        if not isinstance(error, errors.ServiceError):
            raise error
        status, title = next((status, title) for kind, status, title in _STATUS if isinstance(error, kind))
        if "hx-request" in request.headers:
            return Response(error.message, status_code=status)
        response = await self._error_page(request, status, title, error.message)
        if isinstance(error, errors.TooManyRequests):
            response.headers["retry-after"] = str(max(1, ceil(error.wait)))
        return response

    async def _to_sign_in(self, request: Request) -> Response:
        """Ask whoever looks at a page to sign in; a script and a download must not take the form for what they want."""
        if request.method == "GET" and request.scope["endpoint"] in self._no_pages():
            return Response("Sign in again.", status_code=401)
        if "hx-request" in request.headers or "x-csrf-token" in request.headers:
            return Response("Sign in again.", status_code=401)
        if request.method != "GET":
            message = "Your sign-in has ended, so nothing was done. Sign in, and repeat it."
            return await self._error_page(request, 401, "Signed out", message)
        sign_in = f"{self._parts.root}/studio/sign-in"
        wanted = f"{self._parts.root}{request.url.path.removeprefix(self._parts.root)}"
        query = f"?{request.url.query}" if request.url.query else ""
        return RedirectResponse(f"{sign_in}?next={quote(wanted + query, safe='')}", 303)

    def _no_pages(self) -> tuple[Callable[..., object], ...]:
        """Give what a page asks for, or a browser stores."""
        pages, batch = self._pages, self._batch
        parts = (self._events, self._once, batch.requests, batch.throughput, pages.check, pages.traffic)
        return (*parts, pages.content, batch.results)

    async def _http_error(self, request: Request, error: Exception) -> Response:
        if not isinstance(error, HTTPException):
            raise error
        if error.status_code == 404:  # noqa: PLR2004 - no route
            return await self._error_page(request, 404, "Not found", "There is no such page.")
        return await self._error_page(request, error.status_code, "Not possible", str(error.detail))

    async def _error_page(self, request: Request, status: int, title: str, message: str) -> Response:
        try:
            visitor = await self._sessions.visitor(request, in_use=False)
            shell = Shell(title=title, section="", csrf=visitor.csrf, signed_in=visitor.signed_in)
        except errors.ServiceError:
            shell = Shell(title=title, section="", rail=())
        signed_out = status == 401  # noqa: PLR2004 - as HTTP has it
        return await self._pages.frame.page(
            request, "error.html", shell, status=status, message=message, signed_out=signed_out
        )


async def _gone(_request: Request, _error: Exception) -> Response:
    # Nobody reads it, and nothing is wrong with the service.
    return Response(status_code=499)


async def _broke(request: Request, error: Exception) -> Response:
    log.error("studio.broke", method=request.method, path=request.url.path, exc_info=error)
    return Response("The Studio met an error that is its own. The log of the service tells more.", status_code=500)


def _with_headers(app: ASGIApp) -> ASGIApp:
    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [*message.get("headers", ()), *_HEADERS]
                if not any(name == b"cache-control" for name, _ in headers):
                    headers.append((b"cache-control", b"no-store"))
                message = {**message, "headers": headers}
            await send(message)

        await app(scope, receive, sent)

    return guarded
