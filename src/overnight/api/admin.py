"""The admin API: resources and keys, for whoever hands them out. No file, batch or request can be reached from here."""

import structlog
from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from overnight.api.admin_limits import Limit, admin_limit_routes, choice
from overnight.api.admin_schemas import (
    CreatedKeyObject,
    CreateKeyBody,
    CreateResourceBody,
    KeyObject,
    KeyPage,
    ResourceObject,
    ResourcePage,
    UpdateResourceBody,
    key_page,
    resource_page,
)
from overnight.api.context import MANAGES, Services, reply
from overnight.domain.errors import Forbidden
from overnight.domain.key import Scope
from overnight.domain.limits import ADMIN_PAGE
from overnight.domain.quota import Offer
from overnight.services.keys import KeyService, NewKey

log = structlog.get_logger()


def admin_routes(services: Services) -> APIRouter:
    """Make the routes; each further part of the admin API is a router of its own, included here."""
    routes = APIRouter(dependencies=[Depends(_require_admin)])
    routes.include_router(_resource_routes(services))
    routes.include_router(_key_routes(services.keys))
    routes.include_router(admin_limit_routes(services))
    return routes


def _require_admin(request: Request) -> None:
    # The entrance has looked already (`api/middleware.py`); this holds if a path should ever get past it.
    if not request.scope.get(MANAGES):
        message = "The admin API needs an admin key."
        raise Forbidden(message, code="forbidden")


def _resource_routes(services: Services) -> APIRouter:
    routes = APIRouter()
    keys = services.keys

    @routes.get("/resources", response_model=ResourcePage)
    async def list_resources(after: str | None = None, limit: Limit = ADMIN_PAGE) -> Response:
        """List resources, oldest first."""
        page = await keys.resource_page(after=after, limit=limit)
        return reply(resource_page(page.items, has_more=page.has_more))

    @routes.post("/resources", response_model=ResourceObject)
    async def create_resource(body: CreateResourceBody) -> Response:
        """Create a resource."""
        created = await keys.create_resource(body.name, _offer(body.offer))
        log.info("resource.created", resource=created.name)
        return reply(ResourceObject.of(await keys.resource(created.name)))

    @routes.get("/resources/{resource_id}", response_model=ResourceObject)
    async def get_resource(resource_id: str) -> Response:
        """Get a resource."""
        return reply(ResourceObject.of(await keys.resource(resource_id)))

    @routes.post("/resources/{resource_id}", response_model=ResourceObject)
    async def update_resource(resource_id: str, body: UpdateResourceBody) -> Response:
        """Put a resource on an offer, or on none."""
        changed = await services.quota_admin.put_offer(resource_id, _offer(body.offer))
        log.info("resource.changed", resource=changed.name, offer=changed.offer)
        return reply(ResourceObject.of(await keys.resource(changed.name)))

    return routes


def _key_routes(keys: KeyService) -> APIRouter:
    routes = APIRouter()

    @routes.get("/keys", response_model=KeyPage)
    async def list_keys(resource: str | None = None, after: str | None = None, limit: Limit = ADMIN_PAGE) -> Response:
        """List keys, oldest first, of one resource or of all; revoked and expired ones too."""
        page = await keys.page(resource, after=after, limit=limit)
        return reply(key_page(page.items, has_more=page.has_more))

    @routes.post("/keys", response_model=CreatedKeyObject)
    async def create_key(body: CreateKeyBody) -> Response:
        """Create a key. Its text is in this answer and nowhere else: only its hash is kept."""
        new = NewKey(resource=body.resource, scopes=(choice(Scope, body.scope, "scope"),), life=body.expires_in)
        created = await keys.create(new)
        log.info("key.created", key_id=created.key.id, resource=created.key.resource, scope=body.scope)
        return reply(CreatedKeyObject.created(created), headers={"cache-control": "no-store"})

    @routes.get("/keys/{key_id}", response_model=KeyObject)
    async def get_key(key_id: str) -> Response:
        """Get a key, without its text."""
        return reply(KeyObject.of(await keys.get(key_id)))

    @routes.post("/keys/{key_id}/revoke", response_model=KeyObject)
    async def revoke_key(key_id: str) -> Response:
        """Let a key open nothing any more, within 5 seconds; asking again is fine."""
        revoked = await keys.revoke(key_id)
        log.info("key.revoked", key_id=revoked.id, resource=revoked.resource)
        return reply(KeyObject.of(revoked))

    return routes


def _offer(text: str | None) -> Offer | None:
    return None if text is None else choice(Offer, text, "offer")
