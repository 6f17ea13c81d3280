"""An OpenAI-compatible server reached over HTTP."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import timedelta
from email.utils import parsedate_to_datetime
from math import isfinite
from typing import TYPE_CHECKING

import msgspec
from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import (
    BuilderError,
    ConnectError,
    ConnectTimeoutError,
    PyreqwestError,
    RequestTimeoutError,
)

from overnight.domain.endpoints import canonical
from overnight.domain.result import Answer
from overnight.domain.retry import Failure, Fault, Outcome

if TYPE_CHECKING:
    from pyreqwest.request import StreamRequest
    from pyreqwest.response import Response

    from overnight.domain.deployment import UpstreamName

_MODELS_TIMEOUT = timedelta(seconds=10)
_LONGEST_CONNECT = 10.0
_CONNECTING = "(Connect)"
_OS_ERROR = re.compile(r" \(os error \d+\)")
_BAD_GATEWAY = 502
_FIRST_ERROR = 400


class UpstreamProblem(Exception):
    """The upstream could not tell its models."""


class HttpSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How to talk to an upstream. ``timeout`` is for one request, in seconds; ``answer_bytes`` bounds an answer."""

    name: UpstreamName
    max_concurrency: int
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

    def __init__(self, settings: HttpSettings, base_url: Callable[[], str]) -> None:
        self.name = settings.name
        self.max_concurrency = settings.max_concurrency
        self._answer_bytes = settings.answer_bytes
        self._base_url = base_url
        self._client = _build_client(settings)

    @property
    def url(self) -> str:
        """Where the server is."""
        return self._base_url()

    async def send(self, endpoint: str, body: bytes) -> Outcome:
        url = self._base_url() + canonical(endpoint).removeprefix("/v1")
        try:
            request = self._client.post(url).body_bytes(body).build_streamed()
            return await self._answer(request)
        except PyreqwestError as error:
            return _failure(error)

    async def models(self) -> list[str]:
        """Ask which models there are. Raises ``UpstreamProblem``."""
        try:
            request = self._client.get(f"{self._base_url()}/models").timeout(_MODELS_TIMEOUT).build_streamed()
            async with request as response:
                body = await self._body(response)
        except PyreqwestError as error:
            raise UpstreamProblem(_cause(error)) from error
        if response.status != 200:  # noqa: PLR2004 - HTTP OK
            message = f"it answered GET /models with status {response.status}"
            raise UpstreamProblem(message)
        try:
            return [model.id for model in _models_decoder.decode(body or b"").data]
        except msgspec.DecodeError as error:
            message = "its answer to GET /models is not a list of models"
            raise UpstreamProblem(message) from error

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()

    async def _answer(self, request: StreamRequest) -> Outcome:
        async with request as response:
            body = await self._body(response)
            if body is None:
                detail = f"The upstream's answer is larger than {self._answer_bytes:,} bytes."
                return Failure(fault=Fault.TOO_LARGE, status=_BAD_GATEWAY, detail=detail)
            return Answer(
                status=response.status,
                body=body,
                request_id=response.get_header("x-request-id") or response.get_header("apim-request-id"),
                retry_after=None if response.status < _FIRST_ERROR else _retry_after(response),
            )

    async def _body(self, response: Response) -> bytes | None:
        """Read a body, or give ``None`` if it is over the bound."""
        announced = response.get_header("content-length")
        if announced is not None and announced.isdecimal() and response.get_header("content-encoding") is None:
            return bytes(await response.bytes()) if int(announced) <= self._answer_bytes else None
        pieces = []
        size = 0
        while (piece := await response.body_reader.read_chunk()) is not None:
            size += len(piece)
            if size > self._answer_bytes:
                return None
            pieces.append(bytes(piece))
        return b"".join(pieces)


def _build_client(settings: HttpSettings) -> Client:
    headers = {"content-type": "application/json"}
    if settings.api_key:
        # Azure reads `api-key`, all others the bearer token.
        headers |= {"authorization": f"Bearer {settings.api_key}", "api-key": settings.api_key}
    return (
        ClientBuilder()
        # Shorter than the whole, so that a server that cannot be reached is told from one that does not answer.
        .connect_timeout(timedelta(seconds=min(_LONGEST_CONNECT, settings.timeout / 2)))
        .timeout(timedelta(seconds=settings.timeout))
        .default_headers(headers)
        .user_agent("overnight")
        # A redirect would carry bodies and keys to a server that nobody named.
        .follow_redirects(enable=False)
        .no_proxy()
        .build()
    )


def _failure(error: PyreqwestError) -> Failure:
    if isinstance(error, (ConnectError, BuilderError)) or _never_connected(error):
        return Failure(fault=Fault.UNREACHABLE, detail=f"The upstream cannot be reached ({_cause(error)}).")
    if isinstance(error, RequestTimeoutError):
        return Failure(fault=Fault.TIMEOUT, detail="The upstream did not answer in time.")
    return Failure(fault=Fault.BROKEN_OFF, detail=f"The upstream broke off the connection ({_cause(error)}).")


def _never_connected(error: PyreqwestError) -> bool:
    # pyreqwest raises the same error when the whole request takes too long; its causes tell them apart.
    return isinstance(error, ConnectTimeoutError) and any(_CONNECTING in cause for cause in _causes(error))


def _cause(error: PyreqwestError) -> str:
    text = (_causes(error) or [error.message])[-1]
    return _OS_ERROR.sub("", text).lower()


def _causes(error: PyreqwestError) -> list[str]:
    return [str(cause["message"]) for cause in getattr(error, "details", {}).get("causes") or []]


def _retry_after(response: Response) -> float | None:
    """Read ``Retry-After`` (seconds or a date) or ``retry-after-ms``; anything else counts as absent."""
    in_ms = response.get_header("retry-after-ms")
    text = response.get_header("retry-after")
    try:
        wait = float(in_ms) / 1000 if in_ms is not None else _seconds(text or "")
    except (ValueError, TypeError, OverflowError):
        return None
    return wait if isfinite(wait) else None


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return parsedate_to_datetime(text).timestamp() - time.time()
