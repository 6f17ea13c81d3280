"""Bearer tokens, where the settings ask for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overnight.bootstrap.errors import StartupError
from overnight.config_oidc import OidcSettings
from overnight.domain.bearer import SCOPES, BearerRules
from overnight.domain.ids import ResourceId
from overnight.domain.key import Scope
from overnight.services.bearers import Bearers

if TYPE_CHECKING:
    from contextlib import AsyncExitStack

    from overnight.adapters.oidc.issuer import Issuer, IssuerKeys
    from overnight.ports.clock import Clock
    from overnight.ports.keys import Keys


class OpenBearers:
    """The callers with tokens, and the keys of their issuer, which have to be kept fresh."""

    def __init__(self, bearers: Bearers, issuer_keys: IssuerKeys) -> None:
        self.bearers = bearers
        self.issuer_keys = issuer_keys


def open_bearers(settings: OidcSettings, keys: Keys, clock: Clock, stack: AsyncExitStack) -> OpenBearers:
    """Get ready to check tokens; the issuer is not asked yet. Raises ``StartupError``."""
    issuer = open_issuer(settings)
    stack.push_async_callback(issuer.close)
    from overnight.adapters.oidc.issuer import IssuerKeys
    from overnight.adapters.oidc.verifier import OidcVerifier

    issuer_keys = IssuerKeys(issuer.fetch, clock, keep=settings.keep_keys)
    verifier = OidcVerifier(issuer_keys, settings.issuer, settings.audience, settings.algorithms)
    bearers = Bearers(verifier, _rules(settings), keys, clock, create_resources=settings.create_resources)
    return OpenBearers(bearers, issuer_keys)


def open_issuer(settings: OidcSettings) -> Issuer:
    """Get ready to ask the issuer for its keys. Raises ``StartupError``."""
    try:
        from overnight.adapters.oidc.issuer import Issuer
    except ImportError as error:
        message = f"the settings name an issuer of tokens, but a library to check them is missing ({error.name})"
        raise StartupError(message, "pip install 'overnight[oidc]', or leave [oidc] out", 2) from error
    return Issuer(settings.issuer, settings.jwks_url)


def _rules(settings: OidcSettings) -> BearerRules:
    return BearerRules(
        resource_claim=settings.resource_claim,
        resources={value: ResourceId(name) for value, name in settings.resources.items()},
        scope_claims=settings.scope_claims,
        scopes=settings.scopes or SCOPES,
        default_scope=None if settings.default_scope is None else Scope(settings.default_scope),
        leeway=settings.leeway,
    )
