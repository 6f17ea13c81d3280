"""Checks that a token was signed by the issuer, for this service; keeps the promises of ``ports/bearers.py``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jwt

from overnight.domain.bearer import BadBearer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from overnight.adapters.oidc.issuer import IssuerKeys

# Times are looked at where the clock can be moved (`domain/bearer.py`).
_OPTIONS: Any = {
    "require": ["exp", "iss", "aud"],
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
}
_REASONS: tuple[tuple[type[Exception], str], ...] = (
    (jwt.InvalidSignatureError, "signature"),
    (jwt.InvalidAudienceError, "audience"),
    (jwt.InvalidIssuerError, "issuer"),
    (jwt.MissingRequiredClaimError, "claim missing"),
)


class OidcVerifier:
    """Knows one issuer; ``algorithms`` are those that a signature may have, whatever a token says."""

    def __init__(self, keys: IssuerKeys, issuer: str, audience: Sequence[str], algorithms: Sequence[str]) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = list(audience)
        self._algorithms = frozenset(algorithms)

    async def verify(self, token: str) -> Mapping[str, object]:
        algorithm, key_id = self._head(token)
        key = await self._keys.find(key_id)
        if key is None:
            raise BadBearer("unknown key")
        if key.algorithm not in {None, algorithm}:
            raise BadBearer("algorithm of another key")
        try:
            claims: dict[str, object] = jwt.decode(
                token,
                key.public,
                algorithms=[algorithm],
                audience=self._audience,
                issuer=self._issuer,
                options=_OPTIONS,
            )
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
            raise BadBearer(_reason(error)) from error
        return claims

    def _head(self, token: str) -> tuple[str, str]:
        """Read what a token says of its signature, before anything of it is believed."""
        try:
            head = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
            raise BadBearer("malformed") from error
        algorithm, key_id = head.get("alg"), head.get("kid")
        if algorithm not in self._algorithms:
            raise BadBearer("algorithm")
        if not isinstance(key_id, str):
            raise BadBearer("no key id")
        return str(algorithm), key_id


def _reason(error: Exception) -> str:
    return next((reason for kind, reason in _REASONS if isinstance(error, kind)), "malformed")
