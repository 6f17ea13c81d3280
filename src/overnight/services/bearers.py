"""Callers who come with a bearer token of an identity provider instead of a key of ours."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import TYPE_CHECKING

import structlog

from overnight.domain.bearer import BadBearer, Bearer, BearerRules, read_bearer
from overnight.domain.errors import Forbidden, Unauthorized
from overnight.domain.key import Resource, Scope, is_resource_name

if TYPE_CHECKING:
    from overnight.domain.ids import ResourceId
    from overnight.ports.bearers import BearerVerifier
    from overnight.ports.clock import Clock
    from overnight.ports.keys import Keys

log = structlog.get_logger()

_MOST_REMEMBERED = 4_096
# In seconds. A token is looked at again after so long, so that a key that its issuer took back ends it.
_REMEMBERED = 300.0
# Those of Entra have 1 to 6 KB, with many groups a little more.
_LONGEST = 16_384


class Bearers:
    """Says what a token opens, and remembers it for a while: a signature is checked once, not at every request."""

    def __init__(
        self, verifier: BearerVerifier, rules: BearerRules, keys: Keys, clock: Clock, *, create_resources: bool
    ) -> None:
        self._verifier = verifier
        self._rules = rules
        self._keys = keys
        self._clock = clock
        self._create_resources = create_resources
        # By hash: a token that lies in memory is one that a core dump gives away.
        self._known: OrderedDict[bytes, tuple[Bearer, float]] = OrderedDict()
        self._existing: set[ResourceId] = set()

    async def resource_of(self, token: str, wanted: Scope) -> ResourceId:
        """Say whose token it is, if it may do what is wanted.

        Raises:
            Unauthorized: the token proves nothing; the answer does not say why.
            Forbidden: it is genuine, but may not do that, or there is no resource for it.
            Unavailable: the keys of the issuer or the resources cannot be read.
        """
        bearer = await self.require(token, wanted)
        if bearer.resource is None:
            message = (
                f"This token opens no resource here: its claim '{self._rules.resource_claim}' is missing, or assigned"
                " to none. Ask the operator."
            )
            raise Forbidden(message, code="forbidden")
        await self._see_that_there_is(bearer.resource)
        return bearer.resource

    async def require(self, token: str, wanted: Scope) -> Bearer:
        """Give what a token opens, if it may do what is wanted. Raises as ``resource_of`` does."""
        bearer = await self._genuine(token)
        if not bearer.may(wanted):
            message = f"This token may not do that: it needs the scope '{wanted}'. Ask for a role that grants it."
            raise Forbidden(message, code="forbidden")
        return bearer

    async def _genuine(self, token: str) -> Bearer:
        digest, now = hashlib.sha256(token.encode()).digest(), self._clock.now()
        known = self._known.get(digest)
        if known is not None and now < known[1]:
            self._known.move_to_end(digest)
            return known[0]
        try:
            bearer = await self._read(token)
        except BadBearer as error:
            self._known.pop(digest, None)
            log.debug("bearer.refused", reason=error.reason)
            message = (
                "The bearer token is not valid here, or not any more. Get a new one from the identity provider of this"
                " service, for the audience that its operator names."
            )
            raise Unauthorized(message, code="invalid_api_key") from error
        self._remember(digest, bearer, min(bearer.until, now + _REMEMBERED))
        return bearer

    async def _read(self, token: str) -> Bearer:
        if len(token) > _LONGEST:
            raise BadBearer("too long")
        return read_bearer(await self._verifier.verify(token), self._rules, self._clock.now())

    def _remember(self, digest: bytes, bearer: Bearer, until: float) -> None:
        self._known[digest] = (bearer, until)
        self._known.move_to_end(digest)
        if len(self._known) > _MOST_REMEMBERED:
            self._known.popitem(last=False)

    async def _see_that_there_is(self, resource: ResourceId) -> None:
        # Resources are never removed, so one that is there needs no second look.
        if resource in self._existing:
            return
        if await self._keys.resource(resource) is None:
            if not self._create_resources or not is_resource_name(resource):
                message = f"There is no resource '{resource}', which this token names. Ask the operator to create it."
                raise Forbidden(message, code="forbidden")
            await self._keys.add_resource(Resource(name=resource, created_at=int(self._clock.now())))
        self._existing.add(resource)
