"""The application: every route on every prefix."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import FastAPI
from fastapi.routing import APIRoute

from overnight import __version__
from overnight.api import errors
from overnight.api.admin import admin_routes
from overnight.api.admin_upstreams import upstream_routes
from overnight.api.batches import batch_routes
from overnight.api.context import PREFIXES, Context, Services
from overnight.api.files import file_routes
from overnight.api.health import health_routes
from overnight.api.models import deployment_routes, model_routes
from overnight.api.quotas import quota_routes
from overnight.api.requests import request_routes
from overnight.api.schemas import ErrorObject
from overnight.api.uploads import upload_routes
from overnight.api.usage import usage_routes
from overnight.api.webhooks import webhook_routes

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from overnight.domain.flavour import Flavour
    from overnight.domain.limits import Limits

_DESCRIPTION = (
    "A batch inference service that speaks the OpenAI Batch API under `/v1` and the Azure OpenAI Batch API under"
    " `/openai?api-version=…` and `/openai/v1`."
)


def make_app(
    services: Services,
    limits: Mapping[Flavour, Limits],
    problem: Callable[[], Awaitable[str | None]],
    *,
    root_path: str = "",
) -> FastAPI:
    """Make the application; ``problem`` says what keeps the service from working, for ``/ready``."""
    app = FastAPI(
        title="overnight",
        version=__version__,
        description=_DESCRIPTION,
        root_path=root_path,
        redirect_slashes=False,
        # Their pages load scripts from elsewhere; `/openapi.json` is there for any viewer.
        docs_url=None,
        redoc_url=None,
        strict_content_type=False,
        generate_unique_id_function=_operation_id,
        responses={"4XX": {"model": ErrorObject, "description": "The request cannot be fulfilled."}},
    )
    errors.install(app)
    # Routes are tried one after the other, so what is asked most stands first: how batches do.
    for prefix in PREFIXES:
        _mount(app, Context(services=services, prefix=prefix, limits=limits[prefix.flavour]))
    app.include_router(health_routes(services, problem))
    app.include_router(admin_routes(services), prefix="/admin", tags=["Admin"])
    app.include_router(upstream_routes(services.upstreams), prefix="/admin", tags=["Admin"])
    return app


def _mount(app: FastAPI, context: Context) -> None:
    prefix = context.prefix
    makers = [batch_routes, file_routes, upload_routes, request_routes, usage_routes]
    if prefix.documented:
        makers += [model_routes, quota_routes]
    if prefix.path == "/openai":
        makers.append(deployment_routes)
    for make in makers:
        app.include_router(make(context), prefix=prefix.path, tags=[prefix.tag], include_in_schema=prefix.documented)
    if prefix.webhooks is not None:
        app.include_router(webhook_routes(context), prefix=prefix.webhooks, tags=[prefix.tag])


def _operation_id(route: APIRoute) -> str:
    return f"{_slug(route)}_{route.name}" if route.tags else route.name


def _slug(route: APIRoute) -> str:
    return str(route.tags[0]).lower().replace(" ", "_")
