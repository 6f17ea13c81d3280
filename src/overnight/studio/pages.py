"""Whole pages."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import msgspec
from starlette.responses import HTMLResponse, Response, StreamingResponse

from overnight import human
from overnight.domain.endpoints import ENDPOINTS
from overnight.domain.errors import NotFound
from overnight.domain.flavour import Flavour
from overnight.domain.ids import BatchId, FileId
from overnight.services.files import FileQuery
from overnight.services.traffic import Span
from overnight.studio import checking, dashboard, excerpt, filters, gallery, recipes, specimens, view_models
from overnight.studio.session import READ_ONLY

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request

    from overnight.domain.file import File
    from overnight.ports.upstream import Asked
    from overnight.studio.context import Parts
    from overnight.studio.looking import BatchList, Looking
    from overnight.studio.session import Sessions, Visitor
    from overnight.studio.templating import Templates

_RAIL = (
    ("overview", "Overview", "", "o"),
    ("batches", "Batches", "/batches", "b"),
    ("files", "Files", "/files", "f"),
    ("upstreams", "Upstreams", "/upstreams", "u"),
    ("system", "System", "/system", "s"),
)
_VIEWS = (("all", "All"), ("active", "Active"), ("attention", "Needs attention"))
_THEMES = ("system", "light", "dark")
_PICKED = 20


class Shell(msgspec.Struct, frozen=True, kw_only=True):
    """What stands around a page."""

    title: str
    section: str
    rail: tuple[tuple[str, str, str, str], ...] = _RAIL
    theme: str = "system"
    csrf: str = ""
    once: str = ""
    resource: str = ""
    signed_in: bool = False
    read_only: str = ""
    topics: str = ""


class Frame:
    """Puts a page into its shell."""

    def __init__(self, templates: Templates) -> None:
        self.templates = templates

    async def page(
        self, request: Request, template: str, shell: Shell, *, status: int = 200, **models: object
    ) -> Response:
        """Render a page; the event loop goes on meanwhile."""
        theme = request.cookies.get("overnight_theme", "system")
        shell = msgspec.structs.replace(shell, theme=theme if theme in _THEMES else "system")
        html = await asyncio.to_thread(self.templates.render, template, shell=shell, **models)
        return HTMLResponse(html, status_code=status)


def shell_for(visitor: Visitor, title: str, section: str, *topics: str) -> Shell:
    """Make the shell of a page for a visitor; the page is kept up to date by ``topics``."""
    return Shell(
        title=title,
        section=section,
        csrf=visitor.csrf,
        once=visitor.once,
        resource=visitor.caller.resource,
        signed_in=visitor.signed_in,
        read_only="" if visitor.caller.may_submit else READ_ONLY,
        topics=",".join(topics),
    )


class Pages:
    """The pages that show something; what changes something is in ``actions.py``."""

    def __init__(self, parts: Parts, sessions: Sessions, looking: Looking, templates: Templates) -> None:
        self._parts = parts
        self._sessions = sessions
        self._looking = looking
        self.frame = Frame(templates)

    async def overview(self, request: Request) -> Response:
        visitor = await self._sessions.visitor(request)
        caller = visitor.caller
        overview = await self._looking.overview(caller.resource, may_operate=caller.may_operate)
        return await self.frame.page(
            request,
            "overview.html",
            shell_for(visitor, "Overview", "overview", "overview", "allowance"),
            overview=overview,
            allowance=await self._looking.allowance(caller.resource),
            traffic=dashboard.Traffic(
                source=f"{self._parts.root}/studio/traffic?span={_span(request)}",
                span=_span(request),
                whose="the whole service" if caller.may_operate else caller.resource,
            ),
            example=self._example(request),
        )

    def _example(self, request: Request) -> str:
        models = [deployment.name for deployment in self._parts.deployments.known().deployments]
        return recipes.first_batch(server_url(request), models)

    async def traffic(self, request: Request) -> Response:
        caller = (await self._sessions.visitor(request, in_use=False)).caller
        # What others have done is for whoever runs the service.
        points = self._parts.traffic.points(_span(request), None if caller.may_operate else caller.resource)
        chart = dashboard.chart(points, self._parts.clock.now())
        return Response(msgspec.json.encode(chart), media_type="application/json")

    async def batches(self, request: Request) -> Response:
        visitor = await self._sessions.visitor(request)
        text, view = request.query_params.get("q", ""), request.query_params.get("view", "all")
        after = request.query_params.get("after")
        first = request.query_params.get("first") == "active"
        wanted = filters.parse(text, view, active_first=first)
        found = await self._looking.batches(visitor.caller.resource, wanted, after)
        first_page = after is None
        filtered = bool(text or view != "all" or first)
        kept = {"q": text, "first": "active" if first else ""}
        return await self.frame.page(
            request,
            "batches.html",
            shell_for(visitor, "Batches", "batches", *_topics(found, whole=first_page and not filtered)),
            list=found,
            q=text,
            view=view,
            tabs=[(value, name, _query(kept | {"view": _named(value)})) for value, name in _VIEWS],
            problem=wanted.problem,
            matching=_matching(len(found.rows), whole=first_page and found.after is None)
            if (text or view != "all") and not wanted.problem
            else "",
            filtered=filtered,
            first_page=first_page,
            first=first,
            newest=_query(kept | {"view": _named(view)}),
            older=_query(kept | {"view": _named(view), "after": found.after or ""}),
            example=self._example(request),
            qualifiers=filters.QUALIFIERS,
        )

    async def new(self, request: Request) -> Response:
        visitor = await self._sessions.visitor(request)
        return await self.new_form(request, visitor, await self._wishes(request, visitor))

    async def _wishes(self, request: Request, visitor: Visitor) -> recipes.Wishes:
        """Give what the form starts with: a file that was chosen, or what another batch was made with."""
        params = request.query_params
        if "from" in params:
            batch = await self._parts.batches.get(visitor.caller.resource, BatchId(params["from"]))
            return recipes.wishes_of(batch)
        return recipes.Wishes(file_id=params.get("file", ""), endpoint="")

    async def new_form(
        self,
        request: Request,
        visitor: Visitor,
        wishes: recipes.Wishes,
        *,
        error: str = "",
        field: str = "",
        status: int = 200,
    ) -> Response:
        """Show the form of a new batch, with what was filled in already."""
        page = await self._parts.files.page(visitor.caller.resource, FileQuery(limit=_PICKED, purpose="batch"))
        now = self._parts.clock.now()
        picked = await self._picked(visitor, wishes.file_id)
        first = await self._first(visitor, picked)
        shown = await asyncio.to_thread(checking.first_of, first)
        if not wishes.endpoint:
            named = "" if first is None else checking.endpoint_of(first)
            wishes = msgspec.structs.replace(wishes, endpoint=named or recipes.Wishes().endpoint)
        rows = [view_models.file_row(file, now, self._parts.root) for file in page.items]
        known = self._parts.deployments.known().deployments
        return await self.frame.page(
            request,
            "new.html",
            shell_for(visitor, "New batch", "batches"),
            status=status,
            wishes=wishes,
            files=rows,
            picked=None if picked is None else view_models.file_row(picked, now, self._parts.root),
            first=shown,
            check=await self._checked(visitor, picked, wishes.flavour) if "check" in request.query_params else None,
            endpoints=ENDPOINTS,
            models=[deployment.name for deployment in known],
            checked=_query({"from": request.query_params.get("from", ""), "file": wishes.file_id, "check": "1"}),
            recipes=recipes.all_of(wishes, server_url(request)),
            error=error,
            field=field,
        )

    async def _picked(self, visitor: Visitor, file_id: str) -> File | None:
        if not file_id:
            return None
        try:
            return await self._parts.files.get(visitor.caller.resource, FileId(file_id))
        except NotFound:
            return None

    async def _first(self, visitor: Visitor, file: File | None) -> excerpt.Excerpt | None:
        if file is None:
            return None
        _, raw = await self._parts.files.excerpt(visitor.caller.resource, file.id, 0, excerpt.WINDOW)
        return await asyncio.to_thread(excerpt.lines_of, raw, 0, file.bytes, most=3)

    async def files(self, request: Request) -> Response:
        visitor = await self._sessions.visitor(request)
        purpose, after = request.query_params.get("purpose", ""), request.query_params.get("after")
        query = FileQuery(after=FileId(after) if after else None, limit=50, purpose=purpose or None)
        page = await self._parts.files.page(visitor.caller.resource, query)
        now = self._parts.clock.now()
        rows = [view_models.file_row(file, now, self._parts.root) for file in page.items]
        older = urlencode({"after": rows[-1].id, **({"purpose": purpose} if purpose else {})}) if page.has_more else ""
        return await self.frame.page(
            request,
            "files.html",
            shell_for(visitor, "Files", "files"),
            rows=rows,
            purpose=purpose,
            purposes=(("", "All"), ("batch", "Inputs"), ("batch_output", "Results")),
            older=older,
            matching=_matching(len(rows), whole=after is None and not older) if purpose else "",
            first_page=after is None,
            server=recipes.base_of(server_url(request)),
        )

    async def file(self, request: Request) -> Response:
        visitor = await self._sessions.visitor(request)
        start = excerpt.offset_of(request.query_params.get("offset", ""))
        file_id = FileId(request.path_params["file_id"])
        file, raw = await self._parts.files.excerpt(visitor.caller.resource, file_id, start, excerpt.WINDOW)
        return await self.frame.page(
            request,
            "file.html",
            shell_for(visitor, file.filename, "files"),
            file=view_models.file_row(file, self._parts.clock.now(), self._parts.root),
            check=await self._checked(visitor, file, Flavour.OPENAI) if "check" in request.query_params else None,
            users=await self._looking.batches(visitor.caller.resource, filters.parse(f"file:{file.id}"), None),
            excerpt=await asyncio.to_thread(excerpt.lines_of, raw, start, file.bytes),
        )

    async def check(self, request: Request) -> Response:
        """Give the report on a file alone, for the form of a new batch, with what it says of the form's button."""
        visitor = await self._sessions.visitor(request)
        file = await self._parts.files.get(visitor.caller.resource, FileId(request.path_params["file_id"]))
        flavour = Flavour.AZURE if request.query_params.get("flavour") == Flavour.AZURE else Flavour.OPENAI
        check = await checking.check(self._parts, visitor.caller.resource, file, flavour)
        html = await asyncio.to_thread(self.frame.templates.render, "parts/check.html", check=check)
        button = await asyncio.to_thread(
            self.frame.templates.render, "parts/submit.html", why=check.why or shell_for(visitor, "", "").read_only
        )
        return HTMLResponse(f'{html}<hx-partial hx-target="#submit" hx-swap="outerMorph">{button}</hx-partial>')

    async def _checked(self, visitor: Visitor, file: File | None, flavour: Flavour) -> checking.Check | None:
        if file is None:
            return None
        return await checking.check(self._parts, visitor.caller.resource, file, flavour)

    async def recipes(self, request: Request, wishes: recipes.Wishes) -> Response:
        """Give the commands and the code alone."""
        found = recipes.all_of(wishes, server_url(request))
        html = await asyncio.to_thread(self.frame.templates.render, "parts/recipes.html", recipes=found)
        return HTMLResponse(html)

    async def content(self, request: Request) -> Response:
        visitor = await self._sessions.visitor(request)
        file_id = FileId(request.path_params["file_id"])
        file, content = await self._parts.files.content(visitor.caller.resource, file_id)
        headers = excerpt.as_attachment(file)
        return StreamingResponse(content, media_type="application/octet-stream", headers=headers)

    async def upstreams(self, request: Request) -> Response:
        return await self.upstreams_page(request, await self._sessions.visitor(request))

    async def upstreams_page(self, request: Request, visitor: Visitor, tried: Asked | None = None) -> Response:
        """Show the upstreams, and what came of asking one of them."""
        rows = self._looking.upstreams(may_operate=visitor.caller.may_operate)
        shell = shell_for(visitor, "Upstreams", "upstreams", "upstreams")
        operator, took = visitor.caller.may_operate, human.took(tried.seconds if tried else None)
        return await self.frame.page(
            request, "upstreams.html", shell, rows=rows, operator=operator, tried=tried, took=took
        )

    async def system(self, request: Request) -> Response:
        visitor = await self._sessions.visitor(request)
        operator = visitor.caller.may_operate
        operations = self._parts.operations
        checks = await operations.checks() if operator and "checks" in request.query_params else None
        return await self.frame.page(
            request,
            "system.html",
            shell_for(visitor, "System", "system"),
            operator=operator,
            facts=operations.facts() if operator else (),
            settings=operations.settings() if operator else (),
            checks=checks,
            problem=await self._parts.problem(),
        )

    async def gallery(self, request: Request) -> Response:
        visitor = await self._sessions.visitor(request)
        now = self._parts.clock.now()
        return await self.frame.page(
            request,
            "gallery.html",
            shell_for(visitor, "Gallery", "system"),
            examples=gallery.examples(now, self._parts.root),
            upstreams=gallery.upstreams(),
            excerpt=gallery.lines(),
            tones=gallery.tones(),
            requests=specimens.requests(now),
            insides=specimens.insides(),
            strips=specimens.strips(),
            allowances=specimens.allowances(),
            traffics=specimens.traffics(self._parts.root),
            server=recipes.base_of(server_url(request)),
            example=self._example(request),
        )

    async def made_up_traffic(self, request: Request) -> Response:
        chart = specimens.chart(request.path_params["name"], self._parts.clock.now())
        return Response(msgspec.json.encode(chart), media_type="application/json")


def _named(view: str) -> str:
    return "" if view == "all" else view


def _query(parameters: Mapping[str, str]) -> str:
    return urlencode({name: value for name, value in parameters.items() if value})


def _span(request: Request) -> Span:
    wanted = request.query_params.get("span", "")
    return Span(wanted) if wanted in set(Span) else Span.HOUR


def _topics(shown: BatchList, *, whole: bool) -> list[str]:
    """Say what of a list changes: on the first page of the ``whole`` list whatever is new, else what it shows."""
    active = [row.id for row in shown.rows if row.active]
    if whole:
        return ["batches"]
    return [f"rows:{'.'.join(active)}"] if active else []


def _matching(count: int, *, whole: bool) -> str:
    """Name everything that a filter matches; how many that is is known where one page holds it."""
    return f"All matching ({count:,})" if whole else "All matching"


def server_url(request: Request) -> str:
    """Give the address under which the visitor reached the service."""
    root = request.scope.get("root_path", "")
    return f"{request.url.scheme}://{request.headers.get('host', 'localhost')}{root}"
