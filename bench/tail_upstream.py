"""An upstream with a heavy tail, as a process: ``python -m bench.tail_upstream PORT``.

The latency of a request is log-normal (median 0.2 s, sigma 1, at most 10 s) and fixed by a hash of its body. The first
try of 2 % of the bodies is answered 429 with ``Retry-After: 1``, of another 1 % with 500, both at once.
"""

from __future__ import annotations

import asyncio
import json
import sys
from hashlib import blake2b
from math import exp, log
from statistics import NormalDist
from typing import cast

import uvloop

_NORMAL = NormalDist()
_SCALE = 2**64
_ANSWER = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Done."}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 12, "completion_tokens": 2, "total_tokens": 14},
    }
).encode()
_MODELS = b'{"object":"list","data":[{"id":"m","object":"model"}]}'
_ERROR = b'{"error":{"message":"Try again.","type":"server_error","param":null,"code":null}}'


def fate(body: bytes) -> tuple[float, int]:
    """Give the latency of a body in seconds, and the status that its first try gets."""
    digest = blake2b(body, digest_size=16).digest()
    share = (int.from_bytes(digest[:8]) + 0.5) / _SCALE
    latency = min(10.0, exp(log(0.2) + _NORMAL.inv_cdf(share)))
    dice = int.from_bytes(digest[8:]) % 100
    return latency, 429 if dice < 2 else 500 if dice == 2 else 200


class Connection(asyncio.Protocol):
    """Speaks as much HTTP/1.1 as the client of the service needs."""

    seen: set[bytes]

    def __init__(self, seen: set[bytes]) -> None:
        self.seen = seen
        self.buffer = bytearray()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        # uvloop's transports are not derived from asyncio's.
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer once a request is whole."""
        self.buffer += data
        head, found, rest = bytes(self.buffer).partition(b"\r\n\r\n")
        if not found:
            return
        length = next(
            (int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
        )
        if len(rest) < length:
            return
        self.buffer = bytearray(rest[length:])
        if head.startswith(b"GET"):
            self.answer(200, _MODELS)
            return
        self.serve(rest[:length])

    def serve(self, body: bytes) -> None:
        """Answer a body as it is fated."""
        latency, first = fate(body)
        if first != 200 and body not in self.seen:
            self.seen.add(body)
            self.answer(first, _ERROR, b"Retry-After: 1\r\n" if first == 429 else b"")
            return
        asyncio.get_running_loop().call_later(latency, self.answer, 200, _ANSWER)

    def answer(self, status: int, body: bytes, extra: bytes = b"") -> None:
        """Write a response."""
        if self.transport is not None and not self.transport.is_closing():
            head = b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%s\r\n"
            self.transport.write(head % (status, len(body), extra) + body)


async def _serve(port: int) -> None:
    seen: set[bytes] = set()
    server = await asyncio.get_running_loop().create_server(lambda: Connection(seen), "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
