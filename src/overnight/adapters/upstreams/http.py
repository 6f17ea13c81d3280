"""An OpenAI-compatible server reached over HTTP."""

from __future__ import annotations

import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from math import isfinite
from typing import TYPE_CHECKING

import msgspec

from overnight.adapters.upstreams.wire import BrokenOff, Reply, TooLarge, TooLate, Unreachable, Wire, WireError
from overnight.domain.endpoints import canonical
from overnight.domain.result import Answer
from overnight.domain.retry import Failure, Fault, Outcome

if TYPE_CHECKING:
    from overnight.domain.deployment import Capacity, UpstreamName

# In seconds.
_MODELS_TIMEOUT = 10.0
_LONGEST_CONNECT = 10.0

_OK = 200
_BAD_GATEWAY = 502
_FIRST_ERROR = 400


class UpstreamProblem(Exception):
    """The upstream could not tell its models."""


class HttpSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How to talk to an upstream. ``timeout`` is for one request, in seconds; ``answer_bytes`` bounds an answer."""

    name: UpstreamName
    timeout: float
    answer_bytes: int
    api_key: str | None = msgspec.field(default=None)

    def __repr__(self) -> str:
        return f"HttpSettings(name={self.name!r})"


class _Model(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: list[_Model]


_models_decoder = msgspec.json.Decoder(_Models)


class HttpUpstream:
    """Sends bodies as they are; ``base_url`` is asked for at each request, since an embedded server may move."""

    def __init__(self, settings: HttpSettings, capacity: Capacity, base_url: Callable[[], str]) -> None:
        self.name = settings.name
        self.capacity = capacity
        self._answer_bytes = settings.answer_bytes
        self._base_url = base_url
        self._urls: dict[str, tuple[str, str]] = {}
        self._wire = _open_wire(settings)

    @property
    def url(self) -> str:
        """Where the server is."""
        return self._base_url()

    async def send(self, endpoint: str, body: bytes) -> Outcome:
        try:
            reply = await self._wire.post(self._url_of(endpoint), body)
        except WireError as error:
            return self._failure(error)
        headers = reply.headers
        request_id = headers.get(b"x-request-id") or headers.get(b"apim-request-id")
        return Answer(
            status=reply.status,
            body=reply.body,
            request_id=None if request_id is None else request_id.decode("latin-1"),
            retry_after=None if reply.status < _FIRST_ERROR else _retry_after(reply),
        )

    def _url_of(self, endpoint: str) -> str:
        base = self._base_url()
        known = self._urls.get(endpoint)
        if known is None or known[0] != base:
            known = self._urls[endpoint] = (base, base + canonical(endpoint).removeprefix("/v1"))
        return known[1]

    async def models(self) -> list[str]:
        """Ask which models there are. Raises ``UpstreamProblem``."""
        try:
            reply = await self._wire.get(f"{self._base_url()}/models", timeout=_MODELS_TIMEOUT)
        except WireError as error:
            raise UpstreamProblem(str(error)) from error
        if reply.status != _OK:
            message = f"it answered GET /models with status {reply.status}"
            raise UpstreamProblem(message)
        try:
            return [model.id for model in _models_decoder.decode(reply.body).data]
        except msgspec.DecodeError as error:
            message = "its answer to GET /models is not a list of models"
            raise UpstreamProblem(message) from error

    async def close(self) -> None:
        """Close all connections."""
        self._wire.close()

    def _failure(self, error: WireError) -> Failure:
        match error:
            case Unreachable():
                return Failure(fault=Fault.UNREACHABLE, detail=f"The upstream cannot be reached ({error}).")
            case TooLate():
                return Failure(fault=Fault.TIMEOUT, detail="The upstream did not answer in time.")
            case TooLarge():
                detail = f"The upstream's answer is larger than {self._answer_bytes:,} bytes."
                return Failure(fault=Fault.TOO_LARGE, status=_BAD_GATEWAY, detail=detail)
            case BrokenOff() | _:
                return Failure(fault=Fault.BROKEN_OFF, detail=f"The upstream broke off the connection ({error}).")


def _open_wire(settings: HttpSettings) -> Wire:
    headers = {"Content-Type": "application/json", "Accept": "*/*", "User-Agent": "overnight"}
    if settings.api_key:
        # Azure reads `api-key`, all others the bearer token.
        headers |= {"Authorization": f"Bearer {settings.api_key}", "api-key": settings.api_key}
    return Wire(
        headers,
        timeout=settings.timeout,
        # Shorter than the whole, so that a server that cannot be reached is told from one that does not answer.
        connect_timeout=min(_LONGEST_CONNECT, settings.timeout / 2),
        answer_bytes=settings.answer_bytes,
    )


def _retry_after(reply: Reply) -> float | None:
    """Read ``Retry-After`` (seconds or a date) or ``retry-after-ms``; anything else counts as absent."""
    in_ms = reply.headers.get(b"retry-after-ms")
    text = reply.headers.get(b"retry-after", b"").decode("latin-1")
    try:
        wait = _seconds(text) if in_ms is None else float(in_ms) / 1000
    except (ValueError, TypeError, OverflowError):
        return None
    return wait if isfinite(wait) else None


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return parsedate_to_datetime(text).timestamp() - time.time()
