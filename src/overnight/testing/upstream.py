"""A scripted, recording OpenAI-compatible server on loopback: tests say how it answers, and see what it was asked.

    with ScriptedUpstream(script=in_turn(error(500), answer())) as upstream:
        ...  # point the service at upstream.url
        assert [received.json() for received in upstream.asked] == [...]

It is a real HTTP server, in a thread of its own, or in a process: ``python -m overnight.testing.upstream --port 0``.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gzip
import json
import signal
import socket
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from http import HTTPStatus
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any

import httptools

from overnight.testing.answers import answer_to, error_object, model_list

if TYPE_CHECKING:
    from typing import Self

DEFAULT_MODELS = ("test-model",)

_LONGEST_START = 10.0
_FOR_EVER = 1e9
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class Gate:
    """Holds answers back until the test opens it; it stays open."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_open = False
        self._waiting: list[Callable[[], object]] = []

    def open(self) -> None:
        """Let everything through, from now on."""
        with self._lock:
            self._is_open = True
            waiting, self._waiting = self._waiting, []
        for wake in waiting:
            # The server that an answer waited in may be gone by now.
            with contextlib.suppress(RuntimeError):
                wake()

    async def passed(self) -> None:
        """Wait until the gate is open."""
        opened = asyncio.Event()
        with self._lock:
            if self._is_open:
                return
            self._waiting.append(partial(asyncio.get_running_loop().call_soon_threadsafe, opened.set))
        await opened.wait()


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A request as it arrived: ``number`` counts from 1, header names are lower case, ``at`` is unix seconds."""

    number: int
    at: float
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:  # noqa: ANN401 - JSON is anything
        """Give the body, parsed."""
        return json.loads(self.body)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """How to answer one request.

    ``body`` is sent as it is; without one, the answer is a well-formed one made from the request, and its status 200
    unless the request itself is wrong. First ``gate`` and ``delay`` (seconds) are waited for. ``cut_after`` resets the
    connection after so many bytes of the body (0: after the headers; -1: without any answer). ``piece`` sends so many
    bytes at a time, with a ``pause`` (seconds) after each; an ``endless`` answer begins its body anew for ever.
    """

    status: int | None = None
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    gate: Gate | None = None
    cut_after: int | None = None
    indent: int | None = None
    gzipped: bool = False
    piece: int | None = None
    pause: float = 0.0
    endless: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """An answer that was sent off: to which request (its ``number``), ``at`` which unix time, with which status."""

    number: int
    at: float
    status: int


Script = Callable[[Received], Reply]


def answer(*, delay: float = 0.0, headers: Mapping[str, str] = _NO_HEADERS) -> Reply:
    """Answer well."""
    return Reply(delay=delay, headers=headers)


def held(gate: Gate) -> Reply:
    """Answer well once the gate is open."""
    return Reply(gate=gate)


def never() -> Reply:
    """Take the request and never answer it."""
    return Reply(gate=Gate())


def error(status: int, message: str = "scripted error", *, code: str | None = None, param: str | None = None) -> Reply:
    """Answer with an error in OpenAI's envelope."""
    kind = "server_error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"
    return Reply(status=status, body=_compact(error_object(message, kind=kind, code=code, param=param)))


def too_many(retry_after: float | str | None = None) -> Reply:
    """Answer 429; ``retry_after`` is seconds or an HTTP date."""
    headers = {} if retry_after is None else {"retry-after": str(retry_after)}
    return replace(error(HTTPStatus.TOO_MANY_REQUESTS, "Slow down.", code="rate_limit_exceeded"), headers=headers)


def raw(body: bytes | str, *, status: int = 200, content_type: str = "application/json") -> Reply:
    """Answer with exactly these bytes."""
    data = body.encode() if isinstance(body, str) else body
    return Reply(status=status, body=data, headers={"content-type": content_type})


def html(status: int = 200) -> Reply:
    """Answer with a page, as a proxy in between does."""
    return raw("<!doctype html><title>Hello</title>\n", status=status, content_type="text/html")


def invalid_json() -> Reply:
    """Answer 200 with something that only starts like JSON."""
    return raw('{"id": "chatcmpl-1", "choices": [')


def pretty() -> Reply:
    """Answer well, over many lines."""
    return Reply(indent=2)


def gzipped() -> Reply:
    """Answer well, compressed."""
    return Reply(gzipped=True)


def huge(size: int) -> Reply:
    """Answer with a well-formed chat completion of at least ``size`` bytes."""
    message = {"role": "assistant", "content": "x" * size}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return raw(_compact({"id": "chatcmpl-huge", "object": "chat.completion", "choices": [choice]}))


def reset(after: int = 10) -> Reply:
    """Reset the connection after so many bytes of a good answer (0: after the headers; -1: without any answer)."""
    return Reply(cut_after=after)


def trickle(piece: int = 16, pause: float = 0.05) -> Reply:
    """Answer well, a few bytes at a time with pauses (seconds) in between."""
    return Reply(piece=piece, pause=pause)


def stalled(after: int = 10) -> Reply:
    """Begin a good answer and never go on after so many bytes."""
    return Reply(piece=after, pause=_FOR_EVER)


def endless(piece: bytes = b" " * 65_536, pause: float = 0.001) -> Reply:
    """Answer with a body without an end, a piece after each pause (seconds)."""
    return replace(raw(piece), piece=len(piece), pause=pause, endless=True)


def wrong_type(content_type: str = "text/plain") -> Reply:
    """Answer well, but call it something else."""
    return Reply(headers={"content-type": content_type})


def in_turn(*replies: Reply) -> Script:
    """Answer the first try of each request with the first reply, its second with the second; the last one repeats.

    Tries of one request are told by their bodies being the same.
    """
    tries: Counter[bytes] = Counter()

    def script(received: Received) -> Reply:
        place = tries[received.body]
        tries[received.body] += 1
        return replies[min(place, len(replies) - 1)]

    return script


def by_text(table: Mapping[str, Reply | Script], otherwise: Reply | Script | None = None) -> Script:
    """Answer by what stands in the body: the first entry of the table whose text does decides."""
    rules = [(text.encode(), _as_script(reply)) for text, reply in table.items()]
    rest = _as_script(otherwise or answer())

    def script(received: Received) -> Reply:
        return next((rule for text, rule in rules if text in received.body), rest)(received)

    return script


class ScriptedUpstream:
    """The server. ``script`` may be replaced at any time; after ``stop``, ``start`` takes the same port again."""

    def __init__(
        self, models: Sequence[str] = DEFAULT_MODELS, script: Reply | Script | None = None, *, port: int = 0
    ) -> None:
        self.models = tuple(models)
        self.port = port
        self._script = _as_script(script or answer())
        self._arrived = threading.Condition()
        self._received: list[Received] = []
        self._answered: list[Answered] = []
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = asyncio.Event()
        self._connections: set[_Connection] = set()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The base URL to give to the service."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def script(self) -> Script:
        """How requests are answered."""
        return self._script

    @script.setter
    def script(self, script: Reply | Script) -> None:
        self._script = _as_script(script)

    @property
    def received(self) -> tuple[Received, ...]:
        """Every request so far, in the order of arrival."""
        with self._arrived:
            return tuple(self._received)

    @property
    def asked(self) -> tuple[Received, ...]:
        """The requests that want an answer of a model: all but the questions for the list of models."""
        return tuple(received for received in self.received if received.method == "POST")

    @property
    def answered(self) -> tuple[Answered, ...]:
        """Every whole answer so far, in the order in which they were sent; the client may be gone by then."""
        with self._arrived:
            return tuple(self._answered)

    def wait_for(self, count: int, timeout: float = 10.0) -> tuple[Received, ...]:
        """Wait until so many requests for a model have arrived, and give them. Raises ``TimeoutError``."""
        with self._arrived:
            if self._arrived.wait_for(lambda: len(self.asked) >= count, timeout):
                return self.asked
        message = f"{len(self.asked)} of {count} requests arrived within {timeout:g} s"
        raise TimeoutError(message)

    def forget(self) -> None:
        """Empty the record."""
        with self._arrived:
            self._received.clear()
            self._answered.clear()

    def start(self) -> None:
        """Listen. Raises ``OSError`` if the port is taken."""
        listening: list[OSError | None] = []
        started = threading.Event()

        def ready(problem: OSError | None) -> None:
            listening.append(problem)
            started.set()

        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(ready)), name="upstream", daemon=True)
        self._thread.start()
        if not started.wait(_LONGEST_START):
            raise TimeoutError("the upstream did not start")
        if listening[0] is not None:
            self._thread.join()
            self._thread = None
            raise listening[0]

    def stop(self) -> None:
        """Break every connection off and stop to listen."""
        if self._thread is None or self._loop is None:
            return
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()
        self._thread = self._loop = None

    async def _serve(self, ready: Callable[[OSError | None], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        try:
            server = await self._loop.create_server(lambda: _Connection(self), "127.0.0.1", self.port, backlog=2048)
        except OSError as problem:
            ready(problem)
            return
        self.port = server.sockets[0].getsockname()[1]
        ready(None)
        await self._stopping.wait()
        server.close()
        answering = [connection.abort() for connection in self._connections]
        if answering:
            await asyncio.wait(answering)

    def _opened(self, connection: _Connection) -> None:
        self._connections.add(connection)

    def _closed(self, connection: _Connection) -> None:
        self._connections.discard(connection)

    def _record(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Received:
        with self._arrived:
            number = len(self._received) + 1
            received = Received(
                number=number, at=time.time(), method=method, path=path, headers=MappingProxyType(headers), body=body
            )
            self._received.append(received)
            self._arrived.notify_all()
        return received

    def _note_answer(self, number: int, status: int) -> None:
        with self._arrived:
            self._answered.append(Answered(number=number, at=time.time(), status=status))

    def _reply_to(self, received: Received) -> Reply:
        if received.method == "GET" and received.path.endswith("/models"):
            return raw(_compact(model_list(self.models)))
        if received.method != "POST":
            return error(HTTPStatus.NOT_FOUND, f"Invalid URL ({received.method} {received.path})")
        return self._script(received)

    def _filled(self, reply: Reply, received: Received) -> tuple[int, bytes]:
        if reply.body is not None:
            return reply.status or HTTPStatus.OK, reply.body
        status, content = answer_to(received.path, received.body, self.models)
        body = _compact(content) if reply.indent is None else json.dumps(content, indent=reply.indent).encode()
        return reply.status or status, body


class _Connection(asyncio.Protocol):
    """One connection: requests are parsed as they come and answered one after the other."""

    def __init__(self, upstream: ScriptedUpstream) -> None:
        self._upstream = upstream
        self._parser = httptools.HttpRequestParser(self)
        self._requests: asyncio.Queue[Received] = asyncio.Queue()
        self._url = b""
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - for the type checker
        self._transport = transport
        self._answering = asyncio.get_running_loop().create_task(self._answer_all(), name="upstream connection")
        self._upstream._opened(self)  # noqa: SLF001 - one module, two halves

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio fixes the signature
        self._answering.cancel()
        self._upstream._closed(self)  # noqa: SLF001 - the same

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.abort()

    def on_message_begin(self) -> None:
        self._url, self._headers, self._body = b"", {}, []

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        method = self._parser.get_method().decode()
        path = self._url.decode("latin-1").partition("?")[0]
        received = self._upstream._record(method, path, self._headers, b"".join(self._body))  # noqa: SLF001 - the same
        self._requests.put_nowait(received)

    def abort(self) -> asyncio.Task[None]:
        """Break the connection off; the task that answers on it ends once it is gone."""
        self._transport.abort()
        return self._answering

    async def _answer_all(self) -> None:
        while True:
            await self._answer(await self._requests.get())

    async def _answer(self, received: Received) -> None:
        reply = self._upstream._reply_to(received)  # noqa: SLF001 - the same
        if reply.gate is not None:
            await reply.gate.passed()
        if reply.delay:
            await asyncio.sleep(reply.delay)
        status, body = self._upstream._filled(reply, received)  # noqa: SLF001 - the same
        headers = {"content-type": "application/json", "x-request-id": f"req_upstream_{received.number}"}
        if reply.gzipped:
            body = gzip.compress(body)
            headers["content-encoding"] = "gzip"
        headers["transfer-encoding" if reply.endless else "content-length"] = (
            "chunked" if reply.endless else str(len(body))
        )
        head = _head(status, headers | dict(reply.headers))
        if reply.cut_after is not None:
            self._cut(head + body[: max(reply.cut_after, 0)] if reply.cut_after >= 0 else b"")
            return
        if reply.piece is not None:
            await self._send_slowly(head, body, reply, reply.piece)
        else:
            self._transport.write(head + body)
        # What is written to a connection that is gone was not an answer.
        if not self._transport.is_closing():
            self._upstream._note_answer(received.number, status)  # noqa: SLF001 - the same

    async def _send_slowly(self, head: bytes, body: bytes, reply: Reply, piece: int) -> None:
        self._transport.write(head)
        while not self._transport.is_closing():
            for start in range(0, len(body), piece):
                part = body[start : start + piece]
                self._transport.write(b"%x\r\n%s\r\n" % (len(part), part) if reply.endless else part)
                await asyncio.sleep(reply.pause)
            if not reply.endless:
                return

    def _cut(self, beginning: bytes) -> None:
        if beginning:
            self._transport.write(beginning)
        self._reset()

    def _reset(self) -> None:
        # Without lingering the kernel answers with RST instead of an orderly end.
        connection: socket.socket = self._transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()


def _as_script(reply: Reply | Script) -> Script:
    return (lambda _: reply) if isinstance(reply, Reply) else reply


def _head(status: int, headers: Mapping[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} {_phrase(status)}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"


def _compact(content: object) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode()


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run as a process: print the URL, answer until told to stop."""
    parser = argparse.ArgumentParser(prog="python -m overnight.testing.upstream", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="port on loopback; 0 takes a free one")
    parser.add_argument("--model", action="append", help=f"a model to offer; may be repeated [{DEFAULT_MODELS[0]}]")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds until each answer")
    options = parser.parse_args(arguments)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with ScriptedUpstream(options.model or DEFAULT_MODELS, answer(delay=options.delay), port=options.port) as upstream:
        sys.stdout.write(f"{upstream.url}\n")
        sys.stdout.flush()
        stop.wait()


if __name__ == "__main__":
    main()
