"""The part of the admin API that shows upstreams and switches them, as the Studio's page of upstreams does.

It asks for an admin key like the rest, but stands open to callers from this machine where no call needs a key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from overnight.api.context import OPERATES, reply
from overnight.domain.errors import Forbidden
from overnight.ports.upstream import HealthState

if TYPE_CHECKING:
    from overnight.ports.upstream import Asked
    from overnight.services.meters import Figures, Tally
    from overnight.services.upstreams import UpstreamReport, UpstreamService


class AttemptCounts(BaseModel):
    """How attempts ended. An attempt is one try of a request; a request may have several."""

    total: int
    succeeded: int
    status_429: int
    status_5xx: int
    other_status: int = Field(description="Another status that is no success.")
    unanswered: int = Field(description="No usable answer: the server was away, too slow, or could not be understood.")

    @classmethod
    def of(cls, tally: Tally) -> AttemptCounts:
        """Put counts into their wire shape."""
        return cls(
            total=tally.total,
            succeeded=tally.succeeded,
            status_429=tally.refused,
            status_5xx=tally.broken,
            other_status=tally.rejected,
            unanswered=tally.unanswered,
        )


class RecentFigures(BaseModel):
    """How an upstream answered lately."""

    seconds: float = Field(description="How long the time is that this tells of: up to five minutes.")
    attempts: AttemptCounts
    p50_seconds: float | None = Field(description="Half of the successes took no longer; null: there was none.")
    p95_seconds: float | None = Field(description="95 % of the successes took no longer.")
    input_tokens_per_second: float
    output_tokens_per_second: float

    @classmethod
    def of(cls, figures: Figures) -> RecentFigures:
        """Put figures into their wire shape."""
        return cls(
            seconds=round(figures.seconds, 1),
            attempts=AttemptCounts.of(figures.recent),
            p50_seconds=_rounded(figures.p50),
            p95_seconds=_rounded(figures.p95),
            input_tokens_per_second=round(figures.tokens_in, 1),
            output_tokens_per_second=round(figures.tokens_out, 1),
        )


class UpstreamObject(BaseModel):
    """An upstream of this process, and how it does. Its id is the name in the settings."""

    id: str
    object: Literal["upstream"] = "upstream"
    url: str
    state: HealthState = Field(
        description="`answers`; `left_alone`, with the `problem`; or `paused`, whatever else there is."
    )
    problem: str | None = Field(description="Why it does not answer or is left alone; null if all is well.")
    paused: bool = Field(description="Nothing is sent to it until it is resumed, or the service restarts.")
    left_alone_seconds: float = Field(description="For how long nothing is sent, for trouble or to keep to a rate.")
    in_flight: int = Field(description="Requests that it has now.")
    limit: int = Field(description="Most of them now, as far as has been found out.")
    models: list[str] = Field(description="The names under which requests reach it.")
    recent: RecentFigures
    since_start: AttemptCounts = Field(description="Of all attempts since the service started.")

    @classmethod
    def of(cls, report: UpstreamReport) -> UpstreamObject:
        """Put what is known of an upstream into its wire shape."""
        health, figures = report.health, report.activity.figures
        return cls(
            id=health.name,
            url=health.url,
            state=health.state,
            problem=health.problem,
            paused=health.paused,
            left_alone_seconds=round(report.activity.left_alone, 1),
            in_flight=health.in_flight,
            limit=health.limit,
            models=list(report.models),
            recent=RecentFigures.of(figures),
            since_start=AttemptCounts.of(figures.since_start),
        )


class UpstreamList(BaseModel):
    """All upstreams, in the order of the settings."""

    object: Literal["list"] = "list"
    data: list[UpstreamObject]


class UpstreamTestObject(BaseModel):
    """What came of asking an upstream for its models."""

    id: str = Field(description="The name of the upstream.")
    object: Literal["upstream.test"] = "upstream.test"
    url: str = Field(description="What was asked for with GET.")
    answered: bool
    problem: str | None = Field(description="Why there was no usable answer; null if there was one.")
    seconds: float = Field(description="How long it took.")
    models: list[str] = Field(description="What it told; if it did not answer, what it told last.")

    @classmethod
    def of(cls, name: str, asked: Asked) -> UpstreamTestObject:
        """Put the outcome into its wire shape."""
        return cls(
            id=name,
            url=asked.url,
            answered=asked.problem is None,
            problem=asked.problem,
            seconds=round(asked.seconds, 3),
            models=list(asked.models),
        )


def upstream_routes(upstreams: UpstreamService) -> APIRouter:
    """Make the routes. A name may have slashes, so what is done with it stands behind it."""
    routes = APIRouter(dependencies=[Depends(_require_operator)])

    @routes.get("/upstreams", response_model=UpstreamList)
    async def list_upstreams() -> Response:
        """List the upstreams of this process, and how each does."""
        return reply(UpstreamList(data=[UpstreamObject.of(each) for each in upstreams.reports()]))

    @routes.get("/upstreams/{upstream_id:path}", response_model=UpstreamObject)
    async def get_upstream(upstream_id: str) -> Response:
        """Get an upstream."""
        return reply(UpstreamObject.of(upstreams.report(upstream_id)))

    @routes.post("/upstreams/{upstream_id:path}/pause", response_model=UpstreamObject)
    async def pause_upstream(upstream_id: str) -> Response:
        """Send nothing more to an upstream; what is in flight there ends. Lasts until it is resumed, or a restart."""
        return reply(UpstreamObject.of(upstreams.pause(upstream_id)))

    @routes.post("/upstreams/{upstream_id:path}/resume", response_model=UpstreamObject)
    async def resume_upstream(upstream_id: str) -> Response:
        """Send requests to an upstream again; also fine for one that is not paused."""
        return reply(UpstreamObject.of(upstreams.resume(upstream_id)))

    @routes.post("/upstreams/{upstream_id:path}/test", response_model=UpstreamTestObject)
    async def test_upstream(upstream_id: str) -> Response:
        """Ask an upstream for its models now, also a paused one."""
        return reply(UpstreamTestObject.of(upstream_id, await upstreams.test(upstream_id)))

    return routes


def _require_operator(request: Request) -> None:
    # The entrance has looked already (`api/middleware.py`); this holds if a path should ever get past it.
    if not request.scope.get(OPERATES):
        message = "Upstreams are for operators: use an admin key."
        raise Forbidden(message, code="forbidden")


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
