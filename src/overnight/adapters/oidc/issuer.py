"""The keys of an issuer of tokens: fetched, kept, and fetched again when they change."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import jwt
import msgspec
import structlog
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from pyreqwest.client import ClientBuilder
from pyreqwest.exceptions import PyreqwestError

from overnight.domain.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from overnight.ports.clock import Clock

log = structlog.get_logger()

# In seconds. Whoever sends tokens with invented key ids causes one fetch in `_APART`, not one for each of them.
_REFRESH_EVERY = 3_600.0
_APART = 30.0
_TIMEOUT = timedelta(seconds=5)

_DISCOVERY = "/.well-known/openid-configuration"
_OK = 200
_MOST_BYTES = 1 << 20
_LEAST_RSA_BITS = 2_048
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


class IssuerProblem(Exception):
    """The issuer did not give its keys."""


class IssuerKey(msgspec.Struct, frozen=True, kw_only=True):
    """A public key; ``algorithm`` is the only one that it is for, if the issuer says so."""

    public: Any
    algorithm: str | None


class IssuerKeys:
    """Keeps the keys by their ids; ``keep`` is for how many seconds they count while the issuer is silent."""

    def __init__(self, fetch: Callable[[], Awaitable[Mapping[str, IssuerKey]]], clock: Clock, *, keep: float) -> None:
        self._fetch = fetch
        self._clock = clock
        self._keep = keep
        self._keys: Mapping[str, IssuerKey] = {}
        self._fetched: float | None = None
        self._next_try = clock.ticks()
        self._problem: str | None = "it was not asked yet"
        self._fetching = asyncio.Lock()

    async def find(self, key_id: str) -> IssuerKey | None:
        """Give a key, ``None`` if the issuer has none of this id. Raises ``Unavailable``."""
        key = self._kept().get(key_id)
        if key is None and await self._refreshed():
            key = self._kept().get(key_id)
        if key is None and not self._kept():
            message = "Bearer tokens cannot be checked now: their issuer does not answer. Try again later."
            raise Unavailable(message)
        return key

    async def keep_fresh(self) -> None:
        """Fetch the keys now and then until cancelled; more often while the issuer is silent."""
        while True:
            await self._refreshed()
            await self._clock.sleep(_APART if self._problem else _REFRESH_EVERY)

    def _kept(self) -> Mapping[str, IssuerKey]:
        over = self._fetched is None or self._clock.ticks() - self._fetched > self._keep
        return {} if over else self._keys

    async def _refreshed(self) -> bool:
        """Fetch the keys, unless that was tried a moment ago; say whether they were, by this call or a parallel one."""
        before = self._fetched
        async with self._fetching:
            if self._clock.ticks() >= self._next_try:
                self._next_try = self._clock.ticks() + _APART
                await self._try()
        return self._fetched != before

    async def _try(self) -> None:
        try:
            self._keys = await self._fetch()
        except IssuerProblem as problem:
            if self._problem != str(problem):
                log.warning("issuer.silent", problem=str(problem))
            self._problem = str(problem)
        else:
            self._fetched = self._clock.ticks()
            self._problem = None


class _Discovered(msgspec.Struct):
    issuer: str
    jwks_uri: str


class _KeySet(msgspec.Struct):
    keys: list[dict[str, Any]]


_Found = TypeVar("_Found", _Discovered, _KeySet)


class Issuer:
    """Asks an issuer for its keys over HTTP; without ``jwks_url`` its discovery document says where they are."""

    def __init__(self, issuer: str, jwks_url: str | None) -> None:
        self._issuer = issuer
        self._jwks_url = jwks_url
        builder = (
            ClientBuilder()
            .user_agent("overnight")
            .timeout(_TIMEOUT)
            # What the settings name is asked, and nobody else.
            .follow_redirects(enable=False)
        )
        if urlsplit(jwks_url or issuer).hostname in _LOOPBACK:
            builder = builder.no_proxy()
        self._client = builder.build()

    async def fetch(self) -> Mapping[str, IssuerKey]:
        """Give the keys that can check signatures, by id. Raises ``IssuerProblem``."""
        url = self._jwks_url or await self._discover()
        found = await self._get(url, _KeySet)
        keys = dict(pair for each in found.keys if (pair := _usable(each)) is not None)
        if not keys:
            raise IssuerProblem(f"{url} has no key that can check signatures")
        return keys

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()

    async def _discover(self) -> str:
        url = self._issuer.rstrip("/") + _DISCOVERY
        found = await self._get(url, _Discovered)
        # As OpenID Connect Discovery 4.3 asks: else one issuer could speak for another.
        if found.issuer != self._issuer:
            raise IssuerProblem(f"{url} names the issuer {found.issuer!r}, not the one of the settings")
        if not is_safe(found.jwks_uri):
            raise IssuerProblem(f"{url} names keys at {found.jwks_uri!r}, which is not https")
        return found.jwks_uri

    async def _get(self, url: str, kind: type[_Found]) -> _Found:
        try:
            async with self._client.get(url).build_streamed() as response:
                if response.status != _OK:
                    raise IssuerProblem(f"{url} answers with status {response.status}")
                body = b""
                while (piece := await response.body_reader.read_chunk()) is not None:
                    body += bytes(piece)
                    if len(body) > _MOST_BYTES:
                        raise IssuerProblem(f"{url} answers with more than {_MOST_BYTES:,} bytes")
        except PyreqwestError as error:
            raise IssuerProblem(f"{url} does not answer ({type(error).__name__})") from error
        try:
            return msgspec.json.decode(body, type=kind)
        except msgspec.DecodeError as error:
            raise IssuerProblem(f"{url} answers with something else") from error


def is_safe(url: str) -> bool:
    """Say whether nobody on the way can exchange what a URL gives."""
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)


def _usable(entry: dict[str, Any]) -> tuple[str, IssuerKey] | None:
    """Read a key that is public and for signatures; anything else in the set is none of our business."""
    key_id, kind = entry.get("kid"), entry.get("kty")
    if not isinstance(key_id, str) or kind not in {"RSA", "EC", "OKP"} or "d" in entry:
        return None
    if entry.get("use") not in {None, "sig"}:
        return None
    try:
        public = jwt.PyJWK(entry).key
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    if isinstance(public, RSAPublicKey) and public.key_size < _LEAST_RSA_BITS:
        return None
    algorithm = entry.get("alg")
    return key_id, IssuerKey(public=public, algorithm=algorithm if isinstance(algorithm, str) else None)
