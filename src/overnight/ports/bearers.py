"""Who can tell that a bearer token is genuine."""

from collections.abc import Mapping
from typing import Protocol


class BearerVerifier(Protocol):
    """Knows the keys of an issuer of tokens."""

    async def verify(self, token: str) -> Mapping[str, object]:
        """Give the claims of a token that the issuer signed and meant for this service; its times are not looked at.

        Raises ``BadBearer`` for any other token, and ``Unavailable`` while the keys of the issuer are not known.
        """
