"""The settings of bearer tokens: whose tokens are accepted, and what their claims mean here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

from overnight.domain.ids import ADMIN_RESOURCE
from overnight.domain.key import Scope

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})

Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]


class OidcSettings(BaseModel):
    """An OpenID Connect provider, such as Entra ID, whose bearer tokens are accepted beside keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    issuer: str = Field(description="Claim `iss` of the tokens, to the letter.")
    audience: tuple[str, ...] = Field(min_length=1, description="Claims `aud` that are meant for this service.")
    jwks_url: str | None = Field(
        default=None, description="Where the keys of the issuer are; its discovery document says so if left out."
    )
    algorithms: tuple[Algorithm, ...] = Field(
        default=("RS256", "ES256"), min_length=1, description="Algorithms that a signature may have."
    )
    resource_claim: str = Field(default="azp", min_length=1, description="Claim that names the resource.")
    resources: Mapping[str, str] = Field(
        default={}, description="Resource for each value of that claim; the value itself is the name if left out."
    )
    create_resources: bool = Field(
        default=False, description="Create a resource that a token names; its calls are refused if not."
    )
    scope_claims: tuple[str, ...] = Field(
        default=("roles", "scp", "scope"), description="Claims that grant scopes: texts with spaces, or lists."
    )
    scopes: Mapping[str, Scope] = Field(
        default={},
        description="Scope for each role: read, submit or admin; overnight.read and so on if left out.",
    )
    default_scope: Literal["read", "submit"] | None = Field(
        default=None, description="Scope of tokens that have none of these roles; they are refused if left out."
    )
    leeway: float = Field(default=60.0, ge=0, le=600, description="Seconds by which clocks may differ.")
    keep_keys: float = Field(
        default=86_400.0, ge=60, description="Seconds that the keys of the issuer count while it does not answer."
    )

    @field_validator("audience", mode="before")
    @classmethod
    def _one_or_more(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @field_validator("issuer", "jwks_url")
    @classmethod
    def _safe(cls, url: str | None) -> str | None:
        parts = urlsplit(url or "")
        on_loopback = parts.scheme == "http" and parts.hostname in _LOOPBACK
        if url is not None and not (parts.scheme == "https" and parts.hostname) and not on_loopback:
            message = "not an https URL: whoever can exchange the keys of the issuer can make tokens"
            raise ValueError(message)
        return url

    @field_validator("resources")
    @classmethod
    def _no_admin(cls, resources: Mapping[str, str]) -> Mapping[str, str]:
        if ADMIN_RESOURCE in resources.values():
            message = f"`{ADMIN_RESOURCE}` is no resource that a token can open; grant the scope admin instead"
            raise ValueError(message)
        return resources
