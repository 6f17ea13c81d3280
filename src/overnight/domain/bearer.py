"""What a bearer token of an identity provider opens: its claims name a resource and scopes."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from types import MappingProxyType

import msgspec

from overnight.domain.ids import ADMIN_RESOURCE, ResourceId
from overnight.domain.key import Scope, includes

Claims = Mapping[str, object]

SCOPES: Mapping[str, Scope] = MappingProxyType({f"overnight.{scope}": scope for scope in Scope})
"""The names under which an identity provider grants our scopes, unless the settings say otherwise."""


class BadBearer(Exception):
    """The token proves nothing here. ``reason`` is one word for the log; a caller is not told it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class BearerRules(msgspec.Struct, frozen=True, kw_only=True):
    """How claims are read.

    ``resources`` says which resource a value of ``resource_claim`` means; if it is empty, the value is the name.
    A token without any scope of ours gets ``default_scope``. ``leeway`` (seconds) is for clocks that differ.
    """

    resource_claim: str
    resources: Mapping[str, ResourceId] = {}
    scope_claims: tuple[str, ...] = ("roles", "scp", "scope")
    scopes: Mapping[str, Scope] = msgspec.field(default_factory=lambda: SCOPES)
    default_scope: Scope | None = None
    leeway: float = 60.0


class Bearer(msgspec.Struct, frozen=True, kw_only=True):
    """What a token opens, ``until`` a moment (unix seconds); ``resource`` is ``None`` if it names none."""

    resource: ResourceId | None
    scopes: tuple[Scope, ...]
    until: float

    def may(self, wanted: Scope) -> bool:
        """Whether one of its scopes is, or includes, the one that is wanted."""
        return includes(self.scopes, wanted)


def read_bearer(claims: Claims, rules: BearerRules, now: float) -> Bearer:
    """Read the claims of a token whose signature, issuer and audience are right. Raises ``BadBearer``."""
    expires = _moment(claims, "exp")
    if expires is None or now >= expires + rules.leeway:
        raise BadBearer("expired")
    for name in ("nbf", "iat"):
        begins = _moment(claims, name)
        if begins is not None and now < begins - rules.leeway:
            raise BadBearer("not yet valid")
    return Bearer(
        resource=_resource(claims.get(rules.resource_claim), rules),
        scopes=_scopes(claims, rules),
        until=expires + rules.leeway,
    )


def _moment(claims: Claims, name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise BadBearer("malformed time")
    return value


def _resource(value: object, rules: BearerRules) -> ResourceId | None:
    if not isinstance(value, str) or not value or value == ADMIN_RESOURCE:
        return None
    # A table is complete: a value that is not in it must not reach a resource that happens to have its name.
    return rules.resources.get(value) if rules.resources else ResourceId(value)


def _scopes(claims: Claims, rules: BearerRules) -> tuple[Scope, ...]:
    granted = {name for claim in rules.scope_claims for name in _words(claims.get(claim))}
    found = tuple(scope for name, scope in rules.scopes.items() if name in granted)
    return found or (() if rules.default_scope is None else (rules.default_scope,))


def _words(value: object) -> list[str]:
    """Give the words of a claim: a text with spaces in OAuth, a list in roles."""
    if isinstance(value, str):
        return value.split()
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []
