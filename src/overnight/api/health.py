"""Routes for those who watch over the service: no key is needed, and nothing is told of anybody's work."""

from collections.abc import Awaitable, Callable, Sequence

from fastapi import APIRouter
from fastapi.responses import Response

from overnight import __version__
from overnight.api.context import Services, reply
from overnight.api.schemas import Health, UpstreamState, Waiting
from overnight.ports.troubles import Trouble


def health_routes(services: Services, problem: Callable[[], Awaitable[str | None]]) -> APIRouter:
    """Make the routes; ``problem`` says what keeps the database from working."""
    routes = APIRouter(tags=["Health"])

    @routes.get("/health", response_model=Health)
    async def health() -> Response:
        """Say that the process lives."""
        return reply(Health(status="ok", version=__version__))

    @routes.get("/ready", response_model=Health)
    async def ready() -> Response:
        """Say whether batches can be taken and recorded; they may still wait for an upstream that is down."""
        troubles = services.troubles()
        found = _in_words(await problem(), troubles)
        state = Health(
            status="not ready" if found else "ok",
            version=__version__,
            upstreams=[
                UpstreamState(
                    name=upstream.name,
                    answers=upstream.problem is None,
                    problem=upstream.problem,
                    in_flight=upstream.in_flight,
                    limit=upstream.limit,
                    paused=upstream.paused,
                )
                for upstream in services.upstreams.health()
            ],
            waiting=_add_up(troubles),
            problem=found,
        )
        return reply(state, status=503 if found else 200)

    return routes


def _in_words(problem: str | None, troubles: Sequence[Trouble]) -> str | None:
    problems = [] if problem is None else [problem]
    if troubles:
        reasons = ", ".join(sorted({trouble.problem for trouble in troubles}))
        batches = "1 batch waits" if len(troubles) == 1 else f"{len(troubles)} batches wait"
        problems.append(f"{batches} for the disk: {reasons}")
    return "; ".join(problems) or None


def _add_up(troubles: Sequence[Trouble]) -> Waiting | None:
    if not troubles:
        return None
    return Waiting(
        batches=len(troubles),
        since=int(min(trouble.since for trouble in troubles)),
        bytes=sum(trouble.bytes_waiting for trouble in troubles),
    )
