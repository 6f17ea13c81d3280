"""Who is calling: a key names a resource (CONTRACT section 1.2)."""

from __future__ import annotations

import hashlib
import hmac
import re
from contextlib import suppress
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from overnight.domain.errors import Forbidden, Unauthorized, Unavailable
from overnight.domain.flavour import Flavour
from overnight.domain.ids import ADMIN_RESOURCE, DEFAULT_RESOURCE, ResourceId
from overnight.domain.key import Scope, is_secret

if TYPE_CHECKING:
    from collections.abc import Mapping

    from overnight.domain.key import Key
    from overnight.services.bearers import Bearers
    from overnight.services.keys import Authenticator

_SHOWN = 4
_COMMENT = re.compile(r"(^|\s)#.*")


class Keys:
    """The keys that are accepted: those of the key file, as hashes, and those of the database.

    Without any, every caller is the default resource.
    """

    def __init__(
        self, resources: Mapping[str, ResourceId], stored: Authenticator, bearers: Bearers | None = None
    ) -> None:
        self._resources = {_digest(key): resource for key, resource in resources.items()}
        self._stored = stored
        self._bearers = bearers

    async def resource_of(self, headers: Mapping[bytes, bytes], flavour: Flavour, wanted: Scope) -> ResourceId:
        """Say who calls, if the key may do what is wanted; the names of the headers are in lower case.

        Raises:
            Unauthorized: the key is missing, unknown, revoked or expired: the answer does not say which.
            Forbidden: the key may not do that, or there are no keys and the call is from elsewhere.
            Unavailable: the keys cannot be read.
        """
        if await self._open():
            _require_local(headers)
            return DEFAULT_RESOURCE
        given = key_in(headers)
        if (resource := self._in_file(given)) is not None:
            return resource
        if self._bearers is not None and (token := _token_in(headers)) is not None:
            return await self._bearers.resource_of(token, wanted)
        return (await self._stored_key(given, flavour, wanted)).resource

    async def check_again(self, headers: Mapping[bytes, bytes], flavour: Flavour, wanted: Scope) -> None:
        """Refuse a call that has been going on for a while if its key was revoked meanwhile.

        A token that was good when the call began is good for all of it, and so is a key while keys cannot be read.
        Raises ``Unauthorized``.
        """
        if self._bearers is not None and _token_in(headers) is not None:
            return
        with suppress(Unavailable):
            await self.resource_of(headers, flavour, wanted)

    async def require_admin(self, headers: Mapping[bytes, bytes]) -> None:
        """Let nobody but an admin through, also where other calls need no key.

        Whoever can reach a service without keys could otherwise make one, and lock out everybody else.
        Raises as ``resource_of`` does.
        """
        given = key_in(headers)
        if self._in_file(given) is not None:
            raise _lacks(Scope.ADMIN)
        if self._bearers is not None and (token := _token_in(headers)) is not None:
            await self._bearers.require(token, Scope.ADMIN)
            return
        await self._stored_key(given, Flavour.OPENAI, Scope.ADMIN)

    async def require_operator(self, headers: Mapping[bytes, bytes]) -> None:
        """Let an admin through, and where no call needs a key whoever calls from this machine, as the Studio does.

        What operators do locks nobody out. Raises as ``resource_of`` does.
        """
        if await self._open():
            _require_local(headers)
        else:
            await self.require_admin(headers)

    async def _open(self) -> bool:
        return not self._resources and self._bearers is None and not await self._stored.needed()

    async def _stored_key(self, given: str, flavour: Flavour, wanted: Scope) -> Key:
        key = await self._stored.authenticate(given)
        if key is None:
            raise _refusal(given, flavour)
        if not key.may(wanted):
            raise _lacks(wanted)
        return key

    def _in_file(self, key: str) -> ResourceId | None:
        given = _digest(key)
        found: ResourceId | None = None
        # Every key is compared, in constant time, so that the time taken says nothing about any of them.
        for digest, resource in self._resources.items():
            if hmac.compare_digest(digest, given):
                found = resource
        return found


def parse_keys(text: str) -> dict[str, ResourceId]:
    """Read a key file: a key on each line, and after it the resource that it opens if that is not the default one.

    Raises:
        ValueError: a line has more than two words, or names the resource of admin keys.
    """
    keys = {}
    for number, line in enumerate(text.splitlines(), start=1):
        words = _COMMENT.sub("", line).split()
        if len(words) > 2:  # noqa: PLR2004 - key and resource
            message = f"line {number} has more than a key and a resource"
            raise ValueError(message)
        if words[1:] == [ADMIN_RESOURCE]:
            message = f"line {number} names `{ADMIN_RESOURCE}`, which no key of a file opens"
            raise ValueError(message)
        if words:
            keys[words[0]] = ResourceId(words[1]) if len(words) > 1 else DEFAULT_RESOURCE
    return keys


def _require_local(headers: Mapping[bytes, bytes]) -> None:
    """Keep web pages out of a service that asks for no key: their browser tells where they come from."""
    host = headers.get(b"host", b"localhost").decode("latin-1")
    origin = headers.get(b"origin")
    if is_loopback(_hostname(f"//{host}")) and (origin is None or is_loopback(_hostname(origin.decode("latin-1")))):
        return
    message = "Without API keys this server answers only calls to and from this machine. Make a key to open it."
    raise Forbidden(message, code="forbidden")


def _hostname(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def is_loopback(host: str) -> bool:
    """Say whether a host is this machine seen from itself."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def key_in(headers: Mapping[bytes, bytes]) -> str:
    """Give the key of a request, empty if there is none."""
    # Old Azure clients send both headers; the Azure key is the one that is meant.
    key = headers.get(b"api-key", b"").decode("latin-1")
    if key:
        return key
    scheme, _, token = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _token_in(headers: Mapping[bytes, bytes]) -> str | None:
    """Give the bearer token, if there is one that counts: it looks like a JWT, and there is no ``api-key``."""
    if headers.get(b"api-key"):
        return None
    given = key_in(headers)
    return given if given.count(".") == 2 and not is_secret(given) else None  # noqa: PLR2004 - three parts


def _lacks(scope: Scope) -> Forbidden:
    message = f"This key may not do that: it needs the scope '{scope}'. Use another key."
    return Forbidden(message, code="forbidden")


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def _refusal(key: str, flavour: Flavour) -> Unauthorized:
    if flavour is Flavour.AZURE:
        return Unauthorized(
            "Access denied due to invalid subscription key or wrong API endpoint."
            " Provide a valid key in the api-key header.",
            code="invalid_api_key",
        )
    if not key:
        message = "You didn't provide an API key. Provide it as 'Authorization: Bearer KEY'."
        return Unauthorized(message, code="invalid_api_key")
    shown = f"…{key[-_SHOWN:]}" if len(key) > 4 * _SHOWN else "that was sent"
    return Unauthorized(f"Incorrect API key provided: the key {shown} is not known here.", code="invalid_api_key")
