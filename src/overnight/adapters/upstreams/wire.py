"""HTTP/1.1 to a model server: one request at a time on each kept connection, every answer bounded in bytes and time.

Parsing is ``httptools``', TLS and sockets are the event loop's. Why not a whole client: ADR 0008.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import zlib
from collections import deque
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httptools
import msgspec

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping

# In seconds. A server may drop a connection without a word that the network forgot: older ones are not trusted.
_LONGEST_IDLE = 30.0
_SHORTEST_LOOK = 0.02
_LONGEST_LOOK = 0.25
_PROBE_AFTER = 30
_PROBES = 3
# Heads, chunk sizes and trailers beside a body; what is over that is no answer of a model server.
_OVERHEAD = 1024 * 1024
_WRITTEN_AT_ONCE = 64 * 1024
# What follows from an answer takes some 50 microseconds.
_ANSWERS_A_TURN = 24
_MOST_TARGETS = 256
_FIRST_FINAL = 200
_BODILESS = frozenset({204, 304})

_KEPT = frozenset({b"content-encoding", b"retry-after", b"retry-after-ms", b"x-request-id", b"apim-request-id"})
_FRAMING = frozenset({b"content-length", b"transfer-encoding"})
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS
_COMPRESSED = frozenset({b"gzip", b"x-gzip", b"deflate"})


class Reply(msgspec.Struct, frozen=True):
    """An answer; ``headers`` has those that we know, by their names in lower case."""

    status: int
    headers: Mapping[bytes, bytes]
    body: bytes


class WireError(Exception):
    """A request brought no answer; the text says why in a few words."""


class Unreachable(WireError):
    """No connection could be made: nothing was sent."""


class BrokenOff(WireError):
    """The connection ended, or what came is not HTTP, before the answer was whole."""


class TooLate(WireError):
    """The time for the request is over."""


class TooLarge(WireError):
    """The answer has more bytes than are accepted."""


class _Target(msgspec.Struct, frozen=True):
    """Where a URL leads: ``head`` lacks only the length of the body."""

    origin: tuple[str, int, bool]
    head: bytes


class _Turns:
    """Hands out some answers in each turn of the event loop: those who ask the API must not wait for a hundred."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[asyncio.Future[Reply], Reply]] = deque()
        self._left = _ANSWERS_A_TURN
        self._armed = False

    def hand_out(self, waiter: asyncio.Future[Reply], reply: Reply) -> None:
        """Give an answer to whoever waits for it, in this turn or in a later one."""
        if not self._armed:
            self._armed = True
            waiter.get_loop().call_soon(self._begin, waiter.get_loop())
        if self._left:
            self._left -= 1
            waiter.set_result(reply)
        else:
            self._waiting.append((waiter, reply))

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        self._armed = False
        self._left = _ANSWERS_A_TURN
        while self._waiting and self._left:
            waiter, reply = self._waiting.popleft()
            if not waiter.done():
                self._left -= 1
                waiter.set_result(reply)
        if self._waiting:
            self._armed = True
            loop.call_soon(self._begin, loop)


class Wire:
    """Connections to servers, kept open and used again. ``timeout`` and ``connect_timeout`` are in seconds."""

    def __init__(
        self, headers: Mapping[str, str], *, timeout: float, connect_timeout: float, answer_bytes: int
    ) -> None:
        self._headers = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._timeout = timeout
        self._connect_timeout = connect_timeout
        self._answer_bytes = answer_bytes
        self._targets: dict[tuple[str, str], _Target] = {}
        self._idle: dict[tuple[str, int, bool], list[_Connection]] = {}
        self._open: set[_Connection] = set()
        self._turns = _Turns()
        self._look: asyncio.TimerHandle | None = None
        self._tls: ssl.SSLContext | None = None

    def post(self, url: str, body: bytes) -> Coroutine[None, None, Reply]:
        """Send a body and give the answer. Raises ``WireError``."""
        return self._exchange("POST", url, body, self._timeout)

    def get(self, url: str, *, timeout: float) -> Coroutine[None, None, Reply]:
        """Ask and give the answer. Raises ``WireError``."""
        return self._exchange("GET", url, b"", timeout)

    def close(self) -> None:
        """Close all connections; requests in flight end as ``BrokenOff``."""
        for connection in tuple(self._open):
            connection.abort()
        self._idle.clear()
        if self._look is not None:
            self._look.cancel()

    async def _exchange(self, method: str, url: str, body: bytes, seconds: float) -> Reply:
        target = self._targets.get((method, url)) or self._aim(method, url)
        loop = asyncio.get_running_loop()
        began = loop.time()
        connection = self._take(target.origin, began)
        if connection is None:
            connection = await self._connect(loop, target.origin, min(self._connect_timeout, seconds))
        connection.deadline = began + seconds
        if self._look is None:
            self._look_again(loop, seconds)
        try:
            return await connection.send(loop, target.head, body)
        finally:
            connection.rest()
            if connection.reusable:
                connection.idle_since = loop.time()
                self._idle[target.origin].append(connection)
            else:
                connection.abort()

    def _look_again(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        """Watch over the deadlines: one timer for all requests costs a twentieth of one for each."""
        self._look = loop.call_later(min(max(seconds / 10, _SHORTEST_LOOK), _LONGEST_LOOK), self._end_overdue, loop)

    def _end_overdue(self, loop: asyncio.AbstractEventLoop) -> None:
        self._look = None
        now = loop.time()
        busy = [connection for connection in self._open if connection.busy]
        for connection in busy:
            if now >= connection.deadline:
                connection.time_out()
        if busy:
            self._look_again(loop, min(connection.deadline for connection in busy) - now)

    def _take(self, origin: tuple[str, int, bool], now: float) -> _Connection | None:
        """Give the connection that was used last: the others may then grow old and be closed."""
        idle = self._idle.get(origin)
        while idle:
            connection = idle.pop()
            if connection.reusable and now - connection.idle_since < _LONGEST_IDLE:
                return connection
            connection.abort()
        return None

    async def _connect(
        self, loop: asyncio.AbstractEventLoop, origin: tuple[str, int, bool], seconds: float
    ) -> _Connection:
        host, port, secure = origin
        self._idle.setdefault(origin, [])
        make = partial(_Connection, self._answer_bytes, self._open, self._turns)
        try:
            async with asyncio.timeout(seconds):
                _, connection = await loop.create_connection(
                    make, host, port, ssl=self._tls_context() if secure else None
                )
        except TimeoutError as error:
            raise Unreachable("the connection could not be made in time") from error
        except OSError as error:
            raise Unreachable(_reason(error)) from error
        return connection

    def _tls_context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls

    def _aim(self, method: str, url: str) -> _Target:
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        head = f"{method} {path or '/'} HTTP/1.1\r\nHost: {parts.netloc}\r\n{self._headers}Content-Length: "
        origin = (parts.hostname or "", parts.port or (443 if secure else 80), secure)
        if len(self._targets) >= _MOST_TARGETS:
            self._targets.clear()
        target = self._targets[method, url] = _Target(origin=origin, head=head.encode("latin-1"))
        return target


class _Connection(asyncio.Protocol):
    """One connection with at most one request on it."""

    def __init__(self, answer_bytes: int, opened: set[_Connection], turns: _Turns) -> None:
        self.idle_since = 0.0
        self.deadline = 0.0
        self._answer_bytes = answer_bytes
        self._opened = opened
        self._turns = turns
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[Reply] | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._kept = False
        self._lost = False
        self._clear()

    def _clear(self) -> None:
        self._head_read = False
        self._framed = False
        self._answered = False
        self._headers: dict[bytes, bytes] = {}
        self._body: bytes | bytearray = b""
        self._received = 0

    @property
    def reusable(self) -> bool:
        """Whether another request may be sent."""
        return self._kept and not self._lost and self._waiter is None

    @property
    def busy(self) -> bool:
        """Whether a request is under way."""
        return self._waiter is not None

    def send(self, loop: asyncio.AbstractEventLoop, head: bytes, body: bytes) -> asyncio.Future[Reply]:
        """Send one request; its answer, or a ``WireError``, comes later. ``rest`` follows in any case."""
        self._clear()
        self._kept = False
        waiter = self._waiter = loop.create_future()
        transport = self._transport
        if transport is None or self._lost:
            waiter.set_exception(BrokenOff("connection closed"))
        elif len(body) <= _WRITTEN_AT_ONCE:
            transport.write(b"%b%d\r\n\r\n%b" % (head, len(body), body))
        else:
            transport.write(b"%b%d\r\n\r\n" % (head, len(body)))
            transport.write(body)
        return waiter

    def rest(self) -> None:
        """Have no request under way any more."""
        self._waiter = None

    def time_out(self) -> None:
        """End the request: its time is over."""
        self._fail(TooLate("the answer took too long"))

    def abort(self) -> None:
        """Close the connection at once."""
        self._fail(BrokenOff("connection closed"))

    # --- what the event loop calls ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not derived from asyncio's.
        self._transport = transport  # type: ignore[assignment]
        self._opened.add(self)
        _keep_alive(transport.get_extra_info("socket"))

    def data_received(self, data: bytes) -> None:
        self._received += len(data)
        if self._waiter is None or self._answered or self._received > 2 * self._answer_bytes + _OVERHEAD:
            self._fail(TooLarge("the answer has no end"))
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail(BrokenOff("it switched protocols"))
        except httptools.HttpParserError:
            self._fail(BrokenOff("it does not speak HTTP"))

    def eof_received(self) -> None:
        if self._head_read and not self._framed:
            # The end of the connection is the end of a body without a length.
            self._finish(kept=False)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(BrokenOff(_reason(exc) if isinstance(exc, OSError) else "connection closed"))
        self._opened.discard(self)

    # --- what the parser calls ---

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name in _KEPT:
            self._headers.setdefault(name, value)
        elif name in _FRAMING:
            self._framed = True
            if name == b"content-length" and value.isdigit() and int(value) > self._answer_bytes:
                self._fail(TooLarge("the answer is too large"))

    def on_headers_complete(self) -> None:
        self._head_read = True

    def on_body(self, piece: bytes) -> None:
        if not self._body:
            self._body = piece
        elif isinstance(self._body, bytearray):
            self._body += piece
        else:
            self._body = bytearray(self._body) + piece
        if len(self._body) > self._answer_bytes:
            self._fail(TooLarge("the answer is too large"))

    def on_message_complete(self) -> None:
        if self._parser.get_status_code() >= _FIRST_FINAL:
            self._finish(kept=self._parser.should_keep_alive())
        else:
            self._head_read = False

    def _finish(self, *, kept: bool) -> None:
        waiter = self._waiter
        if waiter is None or waiter.done() or self._answered:
            # An answer that nobody asked for.
            self._kept = False
            return
        self._answered = True
        # What is not sent yet is of no use to a server that has answered.
        self._kept = kept and self._transport is not None and not self._transport.get_write_buffer_size()
        try:
            body = _plain(self._headers.get(b"content-encoding"), bytes(self._body), self._answer_bytes)
            self._body = b""
        except WireError as error:
            waiter.set_exception(error)
        else:
            self._turns.hand_out(waiter, Reply(self._parser.get_status_code(), self._headers, body))

    def _fail(self, error: WireError) -> None:
        self._lost = True
        # A whole answer that waits for its turn stays one, whatever becomes of the connection.
        if self._waiter is not None and not self._waiter.done() and not self._answered:
            self._waiter.set_exception(error)
        if self._transport is not None:
            self._transport.abort()


def _plain(encoding: bytes | None, body: bytes, most: int) -> bytes:
    """Decompress a body: some servers compress though nobody asked. Raises ``BrokenOff`` and ``TooLarge``."""
    if encoding is None or encoding.lower() not in _COMPRESSED:
        return body
    unpacker = zlib.decompressobj(_GZIP_OR_ZLIB)
    try:
        plain = unpacker.decompress(body, most + 1)
    except zlib.error as error:
        raise BrokenOff("its compressed answer is damaged") from error
    if len(plain) > most:
        raise TooLarge("the answer is too large")
    if not unpacker.eof:
        raise BrokenOff("its compressed answer is cut off")
    return plain


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return f"TLS: {error.reason or error}".lower()
    known = error.errno is not None and error.errno > 0
    return (os.strerror(error.errno) if known and error.errno is not None else error.strerror or str(error)).lower()


def _keep_alive(link: socket.socket | None) -> None:
    """Have the kernel notice a dead peer: a model may be silent for minutes, and so may a broken network."""
    if link is None or link.family not in {socket.AF_INET, socket.AF_INET6}:
        return
    link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _PROBE_AFTER)
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _PROBE_AFTER // _PROBES)
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _PROBES)
