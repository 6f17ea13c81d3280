"""One attempt of a webhook over HTTP, to an address that is checked in the moment of the connection.

The name of a receiver is looked up once for each attempt, each address that comes out is put to the policy, and the
connection goes to that very address: a name that leads elsewhere a moment later leads nowhere. TLS still checks the
certificate against the name. Parsing, TLS and timeouts are httpcore2's.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from ipaddress import ip_address
from typing import TYPE_CHECKING

import anyio
import httpcore2
from httpcore2 import AnyIOBackend, AsyncConnectionPool, AsyncNetworkBackend

from overnight.domain.addresses import Policy, parse_url
from overnight.domain.webhook import SEND_SECONDS
from overnight.ports.webhooks import Sent

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from httpcore2 import SOCKET_OPTION, AsyncNetworkStream

    from overnight.domain.addresses import Target
    from overnight.domain.ids import ResourceId

    Resolve = Callable[[str, ResourceId], Awaitable[Sequence[str]]]

_MOST_ADDRESSES = 4


class _Refused(Exception):
    """No address of the host may be connected to, or it has none."""


class _CheckedNetwork(AsyncNetworkBackend):
    """Connects, for one attempt, to an address that the policy lets through, and to no other."""

    def __init__(self, policy: Policy, resolve: Resolve, resource: ResourceId) -> None:
        self._policy = policy
        self._resolve = resolve
        self._resource = resource
        self._network = AnyIOBackend()
        self._opened: list[AsyncNetworkStream] = []

    async def close(self) -> None:
        """Close what is open: a handshake that is broken off leaves its connection to nobody."""
        for stream in self._opened:
            await stream.aclose()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore2's own signature
        local_address: str | None = None,
        socket_options: Iterable[SOCKET_OPTION] | None = None,
    ) -> AsyncNetworkStream:
        problem = "the host has no address"
        for text in (await self._resolve(host, self._resource))[:_MOST_ADDRESSES]:
            refusal = self._policy.problem(host, ip_address(text.partition("%")[0]))
            if refusal is not None:
                problem = f"the host leads to {refusal}, which webhooks may not reach"
                continue
            try:
                stream = await self._network.connect_tcp(text, port, timeout, local_address, socket_options)
            except httpcore2.ConnectError as error:
                problem = _reason(error)
                continue
            self._opened.append(stream)
            return stream
        raise _Refused(problem)


class HttpSender:
    """Keeps the promise of ``ports/webhooks.py``; makes a connection for each attempt, and knows no proxy."""

    def __init__(self, policy: Policy, resolve: Resolve, *, seconds: float = SEND_SECONDS) -> None:
        self._policy = policy
        self._resolve = resolve
        self._seconds = seconds
        self._tls: ssl.SSLContext | None = None

    async def send(self, url: str, headers: Mapping[str, str], body: bytes, *, resource: ResourceId) -> Sent:
        try:
            target = parse_url(url)
            async with asyncio.timeout(self._seconds):
                return await self._post(target, headers, body, resource)
        except TimeoutError:
            return Sent(error=f"no answer within {self._seconds:g} seconds")
        except _Refused as error:
            return Sent(error=str(error))
        except (OSError, httpcore2.NetworkError, httpcore2.TimeoutException) as error:
            return Sent(error=_reason(error))
        except (httpcore2.ProtocolError, UnicodeError):
            return Sent(error="it does not speak HTTP")
        except ValueError as error:
            return Sent(error=f"the URL cannot be used: {error}")

    async def _post(self, target: Target, headers: Mapping[str, str], body: bytes, resource: ResourceId) -> Sent:
        tls = await self._tls_context() if target.secure else None
        network = _CheckedNetwork(self._policy, self._resolve, resource)
        try:
            async with (
                AsyncConnectionPool(ssl_context=tls, network_backend=network) as pool,
                # The head of the answer says all: of its body nothing is read, however long it is.
                pool.stream("POST", _url(target), headers=_headers(target, headers, body), content=body) as response,
            ):
                return Sent(status_code=response.status)
        finally:
            await network.close()

    async def _tls_context(self) -> ssl.SSLContext:
        if self._tls is None:
            # Reading the certificates of the system takes tens of milliseconds.
            self._tls = await asyncio.to_thread(ssl.create_default_context)
        return self._tls


def _url(target: Target) -> httpcore2.URL:
    scheme = b"https" if target.secure else b"http"
    return httpcore2.URL(scheme=scheme, host=target.host.encode(), port=target.port, target=target.path.encode())


def _headers(target: Target, headers: Mapping[str, str], body: bytes) -> list[tuple[bytes, bytes]]:
    host = f"[{target.host}]" if ":" in target.host else target.host
    if target.port != (443 if target.secure else 80):
        host = f"{host}:{target.port}"
    own = {"host": host, "content-length": str(len(body)), "connection": "close"}
    return [(name.encode(), value.encode()) for name, value in {**own, **headers}.items()]


def _reason(error: BaseException) -> str:
    """Give the innermost cause in a few words, without an address."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not valid: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {error.reason or 'failed'}".lower()
    if isinstance(error, socket.gaierror):
        return "the host name is not known"
    if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
        return os.strerror(error.errno).lower()
    if isinstance(error, (anyio.BrokenResourceError, anyio.EndOfStream, httpcore2.NetworkError)):
        return "the connection was closed"
    return "the connection failed"
