"""An HTTP upstream never raises for a fault of its server, and says what kind of fault it was."""

import asyncio
import gzip
import ssl
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from overnight.adapters.upstreams import wire
from overnight.adapters.upstreams.http import HttpSettings, HttpUpstream, UpstreamProblem
from overnight.domain.deployment import Capacity, UpstreamName
from overnight.domain.result import Answer
from overnight.domain.retry import Failure, Fault, Outcome

Reader = asyncio.StreamReader
Writer = asyncio.StreamWriter
Handler = Callable[[bytes, Writer], Awaitable[None]]

CHAT = "/v1/chat/completions"
MOST = 1000
BODY = b'{"ok": true}'


class Server:
    """Answers each request as its handler says, and counts connections and requests."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.connections = 0
        self.requests: list[tuple[bytes, bytes]] = []
        self.writers: list[Writer] = []

    async def serve(self, reader: Reader, writer: Writer) -> None:
        """Read requests and let them be answered until the other side is gone."""
        self.connections += 1
        self.writers.append(writer)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(
                    int(row[15:]) for row in head.split(b"\r\n") if row.lower().startswith(b"content-length:")
                )
                body = await reader.readexactly(length)
                self.requests.append((head, body))
                await self.handler(body, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving(handler: Handler, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[tuple[Server, int]]:
    """Serve on loopback."""
    server = Server(handler)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=tls)
    try:
        yield server, listener.sockets[0].getsockname()[1]
    finally:
        listener.close()
        for writer in server.writers:
            writer.transport.abort()
        await asyncio.sleep(0.01)


@asynccontextmanager
async def asking(
    port: int, *, seconds: float = 20.0, scheme: str = "http", key: str | None = None
) -> AsyncIterator[HttpUpstream]:
    """Give an upstream that asks there."""
    settings = HttpSettings(name=UpstreamName("it"), timeout=seconds, answer_bytes=MOST, api_key=key)
    upstream = HttpUpstream(
        settings, Capacity(max_concurrency=4, start_concurrency=4), lambda: f"{scheme}://127.0.0.1:{port}/v1"
    )
    try:
        yield upstream
    finally:
        await upstream.close()


def sending(*pieces: bytes, close: bool = False) -> Handler:
    """Answer with these bytes, one write for each piece."""

    async def handle(_: bytes, writer: Writer) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        if close:
            writer.close()

    return handle


def plain(body: bytes = BODY, *headers: bytes, status: int = 200) -> bytes:
    """Write a whole response."""
    head = [b"HTTP/1.1 %d X" % status, b"Content-Length: %d" % len(body), *headers]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


async def ask_once(handler: Handler, *, seconds: float = 20.0) -> Outcome:
    """Ask a server once."""
    async with serving(handler) as (_, port), asking(port, seconds=seconds) as upstream:
        return await upstream.send(CHAT, b"{}")


def unpacked(encode: bytes, body: bytes) -> bytes:
    """Write a response with a compressed body."""
    return plain(body, b"Content-Encoding: " + encode)


@pytest.mark.parametrize(
    "handler",
    [
        sending(plain()),
        sending(*(bytes([byte]) for byte in plain())),
        sending(b"HTTP/1.1 100 Continue\r\n\r\n", plain()),
        sending(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + plain()),
        sending(
            b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"ok"\r\n7\r\n: true}\r\n0\r\nX: y\r\n\r\n'
        ),
        sending(b'HTTP/1.1 200 OK\r\n\r\n{"ok"', b": true}", close=True),
        sending(b"HTTP/1.0 200 OK\r\nContent-Length: 12\r\n\r\n" + BODY, close=True),
        sending(unpacked(b"gzip", gzip.compress(BODY))),
        sending(unpacked(b"deflate", zlib.compress(BODY))),
    ],
    ids=["whole", "trickled", "continue", "hints", "chunked", "until the end", "HTTP/1.0", "gzip", "deflate"],
)
async def test_a_body_arrives_in_every_form_that_http_has(handler: Handler) -> None:
    """Servers differ."""
    assert await ask_once(handler) == Answer(status=200, body=BODY)


async def test_the_request_is_what_was_asked_for_and_connections_are_used_again() -> None:
    """The key goes out under both names; a body of any size goes out whole."""
    large = b'{"x":"%s"}' % (b"y" * 300_000)
    async with serving(sending(plain())) as (server, port), asking(port, key="secret") as upstream:
        answers = [await upstream.send(CHAT, body) for body in (b"{}", large, b"{ }")]

    assert [Answer(status=200, body=BODY)] * 3 == answers
    assert [body for _, body in server.requests] == [b"{}", large, b"{ }"]
    assert server.connections == 1
    head = server.requests[0][0]
    assert head.startswith(b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:")
    assert b"\r\nAuthorization: Bearer secret\r\n" in head
    assert b"\r\napi-key: secret\r\n" in head


async def test_as_many_connections_as_requests_in_flight() -> None:
    """None waits for another."""
    gate = asyncio.Barrier(20)

    async def handle(_: bytes, writer: Writer) -> None:
        await gate.wait()
        writer.write(plain())

    async with serving(handler=handle) as (server, port), asking(port) as upstream:
        answers = await asyncio.gather(*(upstream.send(CHAT, b"{}") for _ in range(20)))

    assert [Answer(status=200, body=BODY)] * 20 == answers
    assert server.connections == 20


async def test_many_answers_at_once_all_arrive_though_their_servers_hang_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some wait for their turn of the loop, and their connections may be gone by then."""
    monkeypatch.setattr(wire, "_ANSWERS_A_TURN", 1)
    gate = asyncio.Barrier(20)

    async def handle(body: bytes, writer: Writer) -> None:
        await gate.wait()
        writer.write(plain(body))
        writer.close()

    bodies = [b'{"n": %d}' % number for number in range(20)]
    async with serving(handle) as (_, port), asking(port) as upstream:
        answers = await asyncio.gather(*(upstream.send(CHAT, body) for body in bodies))

    assert [Answer(status=200, body=body) for body in bodies] == answers


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([b"Retry-After: 7"], 7.0),
        ([b"retry-after-ms: 250", b"Retry-After: 7"], 0.25),
        ([b"Retry-After: Wed, 21 Oct 2015 07:28:00 GMT"], -1.0),
        ([b"Retry-After: soon"], None),
        ([b"Retry-After: inf"], None),
        ([], None),
    ],
)
async def test_it_hears_how_long_to_wait(headers: list[bytes], expected: float | None) -> None:
    """In seconds, milliseconds or as a date."""
    outcome = await ask_once(sending(plain(b"{}", *headers, status=429)))

    assert isinstance(outcome, Answer)
    told = outcome.retry_after
    assert told == expected if expected != -1.0 else told is not None and told < 0


async def test_it_keeps_the_id_that_the_server_gave() -> None:
    """Whoever asks the vendor about a request needs it."""
    outcome = await ask_once(sending(plain(BODY, b"X-Request-ID: r-1")))

    assert isinstance(outcome, Answer)
    assert outcome.request_id == "r-1"


@pytest.mark.parametrize(
    ("handler", "fault"),
    [
        (sending(b"", close=True), Fault.BROKEN_OFF),
        (sending(plain()[:-3], close=True), Fault.BROKEN_OFF),
        (sending(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"ok"\r\n', close=True), Fault.BROKEN_OFF),
        (sending(b"220 smtp.example.org ESMTP\r\n"), Fault.BROKEN_OFF),
        (sending(b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\nxx"), Fault.BROKEN_OFF),
        (sending(unpacked(b"gzip", b"not gzip")), Fault.BROKEN_OFF),
        (sending(unpacked(b"gzip", gzip.compress(BODY)[:-4])), Fault.BROKEN_OFF),
        (sending(plain(b"x" * (MOST + 1))), Fault.TOO_LARGE),
        (sending(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n"), Fault.TOO_LARGE),
        (sending(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * (MOST + 1)), Fault.TOO_LARGE),
        (sending(unpacked(b"gzip", gzip.compress(b"x" * (MOST + 1)))), Fault.TOO_LARGE),
        (sending(b"HTTP/1.1 200 OK\r\n", *[b"X-Pad: %s\r\n" % (b"y" * 60_000)] * 20), Fault.TOO_LARGE),
        (sending(b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n{"), Fault.TIMEOUT),
        (sending(), Fault.TIMEOUT),
    ],
)
async def test_each_fault_has_its_name(handler: Handler, fault: Fault) -> None:
    """The retry policy decides by it."""
    outcome = await ask_once(handler, seconds=0.5 if fault is Fault.TIMEOUT else 20.0)

    assert isinstance(outcome, Failure)
    assert outcome.fault is fault


async def test_a_server_that_is_not_there_is_unreachable() -> None:
    """Nothing was sent, so the request loses no try."""
    async with serving(sending(plain())) as (_, port):
        pass
    async with asking(port) as upstream:
        outcome = await upstream.send(CHAT, b"{}")

        with pytest.raises(UpstreamProblem, match="connection refused"):
            await upstream.models()

    assert outcome == Failure(fault=Fault.UNREACHABLE, detail="The upstream cannot be reached (connection refused).")


async def test_a_server_without_tls_is_unreachable_over_https() -> None:
    """A key must not go out before the server has shown who it is."""
    async with serving(sending(plain())) as (server, port), asking(port, scheme="https") as upstream:
        outcome = await upstream.send(CHAT, b"{}")

    assert isinstance(outcome, Failure)
    assert outcome.fault is Fault.UNREACHABLE
    assert server.requests == []


@pytest.mark.parametrize("extra", [b"", b"HTTP/1.1 408 Timeout\r\nContent-Length: 0\r\n\r\n"])
async def test_a_connection_that_the_server_gave_up_is_not_used_again(extra: bytes) -> None:
    """Whether it says so, just closes it, or sends what nobody asked for."""

    async def handle(_: bytes, writer: Writer) -> None:
        writer.write(plain() + extra)
        await writer.drain()
        writer.close()

    async with serving(handle) as (server, port), asking(port) as upstream:
        answers = []
        for _ in range(3):
            answers.append(await upstream.send(CHAT, b"{}"))
            await asyncio.sleep(0.05)

    assert [Answer(status=200, body=BODY)] * 3 == answers
    assert server.connections == 3


async def test_an_answer_before_the_end_of_the_request_counts() -> None:
    """A server may refuse a body that it has not read."""
    refusal = plain(b"{}", b"Connection: close", status=413)

    over = asyncio.Event()

    async def serve(_: Reader, writer: Writer) -> None:
        writer.write(refusal)
        await writer.drain()
        await over.wait()
        writer.transport.abort()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with asking(listener.sockets[0].getsockname()[1]) as upstream:
        outcome = await upstream.send(CHAT, b"x" * 5_000_000)
    over.set()
    listener.close()
    await asyncio.sleep(0.01)

    assert outcome == Answer(status=413, body=b"{}")


async def test_a_cancelled_request_takes_its_connection_with_it() -> None:
    """Its answer must not become another's."""
    arrived, over = asyncio.Event(), asyncio.Event()

    async def handle(body: bytes, writer: Writer) -> None:
        if body == b"slow":
            arrived.set()
            await over.wait()
        writer.write(plain(b'{"for": "%s"}' % body))

    async with serving(handle) as (server, port), asking(port) as upstream:
        slow = asyncio.ensure_future(upstream.send(CHAT, b"slow"))
        await arrived.wait()
        slow.cancel()
        with pytest.raises(asyncio.CancelledError):
            await slow
        quick = await upstream.send(CHAT, b"quick")
        over.set()

    assert quick == Answer(status=200, body=b'{"for": "quick"}')
    assert server.connections == 2


async def test_closing_ends_what_is_in_flight() -> None:
    """The service must be able to leave."""
    arrived, over = asyncio.Event(), asyncio.Event()

    async def handle(_: bytes, __: Writer) -> None:
        arrived.set()
        await over.wait()

    async with serving(handle) as (_, port), asking(port) as upstream:
        waiting = asyncio.ensure_future(upstream.send(CHAT, b"{}"))
        await arrived.wait()
        await upstream.close()
        outcome = await waiting
        over.set()

    assert isinstance(outcome, Failure)
    assert outcome.fault is Fault.BROKEN_OFF
