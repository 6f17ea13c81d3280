"""Routes for those who watch over the service: no key is needed, and nothing is told of anybody's work."""

from collections.abc import Awaitable, Callable

from fastapi import APIRouter
from fastapi.responses import Response

from overnight import __version__
from overnight.api.context import Services, reply
from overnight.api.schemas import Health, UpstreamState


def health_routes(services: Services, problem: Callable[[], Awaitable[str | None]]) -> APIRouter:
    """Make the routes; ``problem`` says what keeps the service from working."""
    routes = APIRouter(tags=["Health"])

    @routes.get("/health", response_model=Health)
    async def health() -> Response:
        """Say that the process lives."""
        return reply(Health(status="ok", version=__version__))

    @routes.get("/ready", response_model=Health)
    async def ready() -> Response:
        """Say whether batches can be taken; an upstream that is down makes them wait, but does not change this."""
        upstreams = [
            UpstreamState(name=upstream.name, answers=upstream.problem is None, problem=upstream.problem)
            for upstream in services.health()
        ]
        found = await problem()
        state = Health(status="not ready" if found else "ok", version=__version__, upstreams=upstreams, problem=found)
        return reply(state, status=503 if found else 200)

    return routes
