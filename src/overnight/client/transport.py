"""How bytes get to the server and back: one attempt, retries, redirects, and Ctrl-C."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from typing import TypeVar
from urllib.parse import SplitResult, parse_qsl, urlencode, urljoin, urlsplit

import msgspec
from pyreqwest.client import SyncClient, SyncClientBuilder
from pyreqwest.exceptions import DetailedPyreqwestError, PyreqwestError
from pyreqwest.multipart import FormBuilder
from pyreqwest.request import SyncRequestBuilder
from pyreqwest.response import SyncResponse

from overnight.client.errors import ApiError, InvalidUrl, NotAuthorised, NotFound, RetryAdvice, Unreachable

T = TypeVar("T")

CHUNK = 1 << 20
CONNECT_TIMEOUT = timedelta(seconds=10)
# Longer than the official SDK waits for a whole answer is never useful; this is per read.
READ_TIMEOUT = timedelta(seconds=300)
MAX_REDIRECTS = 5
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """What happened on the wire, for a caller that wants to show it: no key, no body."""

    method: str
    url: str
    status: int | None
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """When a call is made again: reads, and what the server knows again by its key, so that nothing is made twice."""

    attempts: int = 4
    first_pause: float = 0.2
    longest_pause: float = 8.0
    longest_asked: float = 60.0

    def pause(self, error: ApiError | Unreachable, attempt: int) -> float | None:
        """Seconds until the next attempt, or None to give up."""
        if attempt >= self.attempts or not _transient(error):
            return None
        asked = error.advice.after if isinstance(error, ApiError) else None
        if asked is not None:
            return asked if asked <= self.longest_asked else None
        backoff = min(self.first_pause * 2.0 ** (attempt - 1), self.longest_pause)
        return backoff * random.uniform(0.75, 1.0)  # noqa: S311 - jitter is no secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call, before it is sent. The ``idempotency_key`` names it, so that the server does it once."""

    method: str
    path: str
    query: Mapping[str, str | int] = field(default_factory=dict)
    body: bytes | None = None
    form: Callable[[], FormBuilder] | None = None
    beside: bool = False
    idempotency_key: str | None = None

    @property
    def reads(self) -> bool:
        return self.method in {"GET", "HEAD"}

    @property
    def repeatable(self) -> bool:
        return self.reads or self.idempotency_key is not None


class Base:
    """The address of the API: where its paths hang, and the query each call carries along."""

    def __init__(self, url: str) -> None:
        parts = _split(url)
        # A bare host means the usual place; anything with a path is taken as it stands.
        path = parts.path.rstrip("/") or "/v1"
        self.origin = f"{parts.scheme}://{parts.netloc}"
        self.host = parts.hostname or ""
        self.path = path
        self.query = tuple(parse_qsl(parts.query))

    @property
    def url(self) -> str:
        return self.origin + self.path

    def beside(self, path: str) -> str:
        """Give the URL of a page of the server that stands beside the API, not below it."""
        return f"{self.origin}{self.path.removesuffix('/v1').removesuffix('/openai')}/{path}"

    def join(self, path: str, query: Mapping[str, str | int]) -> str:
        """Give the URL of a path, which may carry a query of its own or repeat the base's path."""
        relative = "/" + path.lstrip("/")
        if relative.startswith(self.path + "/"):
            relative = relative.removeprefix(self.path)
        encoded = urlencode([*self.query, *query.items()])
        separator = "&" if "?" in relative else "?"
        return self.url + relative + (separator + encoded if encoded else "")


class Transport:
    """Sends calls with the key filled in; answers are 2xx bodies, everything else is raised."""

    def __init__(
        self,
        url: str,
        api_key: str | None,
        *,
        patience: Patience | None = None,
        observe: Callable[[Exchange], None] | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.base = Base(url)
        self._api_key = api_key
        self._patience = patience or Patience()
        self._observe = observe
        self._sleep = sleep
        self._client = _build_client(self.base)

    def close(self) -> None:
        self._client.close()

    def fetch(self, call: Call) -> bytes:
        """The whole body of the answer, for answers that are known to be small."""
        for attempt in count(1):
            try:
                return b"".join(self._once(call, skip=0))
            except (ApiError, Unreachable) as error:
                self._pause_or_raise(call, error, attempt)
        raise AssertionError  # the loop above only ends by return or raise

    def stream(self, call: Call) -> Iterator[bytes]:
        """The body in pieces; a broken read goes on where it stopped, for files never change."""
        received = 0
        for attempt in count(1):
            try:
                for chunk in self._once(call, skip=received):
                    received += len(chunk)
                    yield chunk
            except (ApiError, Unreachable) as error:
                self._pause_or_raise(call, error, attempt)
            else:
                return

    def _pause_or_raise(self, call: Call, error: ApiError | Unreachable, attempt: int) -> None:
        pause = self._patience.pause(error, attempt) if call.repeatable else None
        if pause is None:
            raise error
        self._sleep(pause)

    def _once(self, call: Call, *, skip: int) -> Iterator[bytes]:
        with self._answer(call, skip=skip) as response:
            _raise_for_status(response)
            # 206: the server honoured the range. 200: it sends everything again.
            left_to_skip = 0 if response.status == 206 else skip  # noqa: PLR2004
            for chunk in _pieces(response):
                fresh = chunk[left_to_skip:]
                left_to_skip = max(0, left_to_skip - len(chunk))
                if fresh:
                    yield fresh

    @contextmanager
    def _answer(self, call: Call, *, skip: int) -> Iterator[SyncResponse]:
        url = self.base.beside(call.path) if call.beside else self.base.join(call.path, call.query)
        for _ in range(MAX_REDIRECTS):
            with self._opened(call, url, skip=skip) as response:
                target = response.get_header("location")
                if not (300 <= response.status < 400 and target and call.reads):  # noqa: PLR2004
                    yield response
                    return
                url = urljoin(url, target)
        raise Unreachable(self.base.url, "too many redirects")

    @contextmanager
    def _opened(self, call: Call, url: str, *, skip: int) -> Iterator[SyncResponse]:
        started = time.monotonic()
        status = None
        try:
            request = self._request(call, url, skip=skip).build_streamed()
            response = interruptible(request.__enter__)
            status = response.status
            try:
                yield response
            finally:
                interruptible(lambda: request.__exit__(None, None, None))
        except PyreqwestError as error:
            raise Unreachable(self.base.url, _reason(error)) from error
        finally:
            self._report(call, url, status, time.monotonic() - started)

    def _request(self, call: Call, url: str, *, skip: int) -> SyncRequestBuilder:
        request = self._client.request(call.method, url)
        if self._api_key and url.startswith(self.base.origin + "/"):
            # Both spellings, for OpenAI and Azure; never to another host behind a redirect.
            request = request.header("Authorization", f"Bearer {self._api_key}", is_sensitive=True).header(
                "api-key", self._api_key, is_sensitive=True
            )
        if call.idempotency_key is not None:
            request = request.header("Idempotency-Key", call.idempotency_key)
        if skip:
            request = request.header("Range", f"bytes={skip}-")
        if call.form is not None:
            return request.multipart(call.form())
        if call.body is not None:
            return request.header("Content-Type", "application/json").body_bytes(call.body)
        return request

    def _report(self, call: Call, url: str, status: int | None, seconds: float) -> None:
        if self._observe is not None:
            self._observe(Exchange(method=call.method, url=url, status=status, seconds=seconds))


def interruptible(act: Callable[[], T]) -> T:
    """Run `act` so that Ctrl-C is heard while it blocks.

    The HTTP library waits outside Python, where a signal is only noticed once the call is over
    (measured: 20 s late for a 20 s answer). So the call runs on a helper thread and the main
    thread waits in Python.
    """
    if threading.current_thread() is not threading.main_thread():
        return act()
    values: list[T] = []
    errors: list[Exception] = []
    done = threading.Event()

    def run() -> None:
        try:
            values.append(act())
        except (PyreqwestError, OSError) as error:
            errors.append(error)
        finally:
            done.set()

    threading.Thread(target=run, name="overnight-http", daemon=True).start()
    done.wait()
    if errors:
        raise errors[0]
    return values[0]


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise InvalidUrl(url) from None
    if not usable:
        raise InvalidUrl(url)
    return parts


def _build_client(base: Base) -> SyncClient:
    builder = (
        SyncClientBuilder()
        .user_agent("overnight-client")
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT)
        # Followed by hand: the library would take the `api-key` header along to another host.
        .follow_redirects(enable=False)
    )
    if base.host in LOOPBACK:
        builder = builder.no_proxy()
    return builder.build()


def _pieces(response: SyncResponse) -> Iterator[bytes]:
    reader = response.body_reader
    while (chunk := interruptible(reader.read_chunk)) is not None:
        yield bytes(chunk)


def _transient(error: ApiError | Unreachable) -> bool:
    if isinstance(error, Unreachable):
        return True
    return not error.advice.never and (error.status == 429 or error.status >= 500)  # noqa: PLR2004


def _reason(error: PyreqwestError) -> str:
    """The innermost cause, as people know it: `connection refused`."""
    causes = (error.details.get("causes") if isinstance(error, DetailedPyreqwestError) else None) or []
    message = causes[-1]["message"] if causes else error.message
    return message.partition(" (os error")[0].rstrip(".").lower()


def _raise_for_status(response: SyncResponse) -> None:
    if 200 <= response.status < 300:  # noqa: PLR2004
        return
    kind = {401: NotAuthorised, 403: NotAuthorised, 404: NotFound}.get(response.status, ApiError)
    body = b"".join(_pieces(response))
    said = _error_fields(body)
    raise kind(
        said.message or f"the server answered {response.status} without saying why",
        status=response.status,
        code=None if said.code is None else str(said.code),
        param=said.param or said.target,
        body=body,
        advice=RetryAdvice(after=_retry_after(response), never=response.get_header("x-should-retry") == "false"),
    )


class _Said(msgspec.Struct, frozen=True):
    """An error body, in the words of either flavour."""

    message: str | None = None
    code: str | int | None = None
    param: str | None = None
    target: str | None = None


class _Envelope(msgspec.Struct, frozen=True):
    error: _Said | str | None = None
    message: str | None = None


def _error_fields(body: bytes) -> _Said:
    try:
        envelope = msgspec.json.decode(body, type=_Envelope)
    except msgspec.MsgspecError:
        return _Said()
    if isinstance(envelope.error, _Said):
        return envelope.error
    return _Said(message=envelope.error or envelope.message)


def _retry_after(response: SyncResponse) -> float | None:
    milliseconds = response.get_header("retry-after-ms")
    seconds = response.get_header("retry-after")
    try:
        if milliseconds:
            return max(0.0, float(milliseconds) / 1000)
        return max(0.0, float(seconds)) if seconds else None
    except ValueError:  # an HTTP date: the ordinary back-off serves as well
        return None
