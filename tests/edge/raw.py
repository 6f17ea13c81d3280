"""Bytes on a socket, and an application that says how much of a body came."""

from __future__ import annotations

import asyncio
import socket
from typing import Any


class Echo:
    """Answers with the size of the body; ``/big`` with a lot, ``/wait`` once ``gate`` is set, ``/early`` at once."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.pieces = 0
        self.asked: list[tuple[str, int]] = []
        self.headers = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.headers = len(scope["headers"])
        if scope["path"] == "/big":
            await self._big(receive, send)
            return
        if scope["path"] == "/wait":
            await self.gate.wait()
        size = 0 if scope["path"] == "/early" else await self._body(receive)
        self.asked.append((scope["path"], size))
        body = b"%d" % size
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _big(self, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"268435456")]})
        await receive()
        hung_up = asyncio.create_task(receive())
        for number in range(1, 257):
            await send({"type": "http.response.body", "body": bytes(1024 * 1024), "more_body": number < 256})
            if hung_up.done():
                break
            self.pieces = number
        hung_up.cancel()

    @staticmethod
    async def _body(receive: Any) -> int:
        size, more = 0, True
        while more:
            message = await receive()
            size += len(message.get("body", b""))
            more = message.get("more_body", False)
        return size


class Line:
    """A client that sends whatever it is told to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def to(cls, port: int, *, window: int | None = None) -> Line:
        """Connect; ``window`` bounds what the machine takes of a reply that nobody reads."""
        plain = socket.socket()
        if window is not None:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        plain.setblocking(False)
        await asyncio.get_running_loop().sock_connect(plain, ("127.0.0.1", port))
        return cls(*await asyncio.open_connection(sock=plain, limit=1024))

    async def send(self, data: bytes) -> None:
        """Send bytes, as far as the other side takes them."""
        self._writer.write(data)
        try:
            await self._writer.drain()
        except ConnectionError:
            return

    async def reply(self) -> tuple[int, bytes]:
        """Give the status and the body of the next reply."""
        async with asyncio.timeout(10):
            head = await self._reader.readuntil(b"\r\n\r\n")
            sizes = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            body = await self._reader.readexactly(int(sizes[0].partition(b":")[2]))
        return int(head.split()[1]), body

    async def end(self) -> bytes:
        """Wait until the other side has hung up, and give what came before."""
        async with asyncio.timeout(10):
            try:
                return await self._reader.read()
            except ConnectionError:
                return b""

    def close(self) -> None:
        """Hang up."""
        self._writer.transport.abort()
