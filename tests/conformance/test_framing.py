"""Request smuggling against the real service: no shape is read as two requests, and each bad one is told why."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from tests.support.api import Api
from tests.support.http import Http

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.service import Service

# In each, {rest} is a whole request: one that a proxy in front would have taken for a part of the body.
_POST = "POST /v1/batches HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
_CHUNKED = _POST + "Transfer-Encoding: chunked\r\n\r\n"

SHAPES = {
    "both lengths": _POST + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{rest}",
    "both lengths, turned": _POST + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n{rest}",
    "two lengths": _POST + "Content-Length: 0\r\nContent-Length: 400\r\n\r\n{rest}",
    "two equal lengths": _POST + "Content-Length: 0\r\nContent-Length: 0\r\n\r\n{rest}",
    "a list of lengths": _POST + "Content-Length: 0, 0\r\n\r\n{rest}",
    "a negative length": _POST + "Content-Length: -1\r\n\r\n{rest}",
    "a length with a sign": _POST + "Content-Length: +0\r\n\r\n{rest}",
    "a length in hex": _POST + "Content-Length: 0x0\r\n\r\n{rest}",
    "an empty length": _POST + "Content-Length: \r\n\r\n{rest}",
    "a length with a space": _POST + "Content-Length: 0 0\r\n\r\n{rest}",
    "a huge length": _POST + "Content-Length: 99999999999999999999999\r\n\r\n{rest}",
    "a folded header": _POST + "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n{rest}",
    "a folded value": _POST + "X-A: b\r\n Content-Length: 400\r\n\r\n{rest}",
    "a fold at once": "POST /v1/batches HTTP/1.1\r\n Host: x\r\nContent-Length: 0\r\n\r\n{rest}",
    "a bare line feed": _POST + "X-A: b\nContent-Length: 0\r\n\r\n{rest}",
    "bare line feeds": "POST /v1/batches HTTP/1.1\nHost: x\nContent-Length: 0\n\n{rest}",
    "a head that ends in a bare line feed": "GET /v1/batches HTTP/1.1\r\nHost: x\r\n\n{rest}",
    "a bare carriage return": _POST + "X-A: b\rContent-Length: 0\r\n\r\n{rest}",
    "a space before the colon": _POST + "Content-Length : 400\r\n\r\n{rest}",
    "another space before the colon": _POST + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n{rest}",
    "xchunked": _POST + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{rest}",
    "identity": _POST + "Transfer-Encoding: identity\r\n\r\n{rest}",
    "chunked, then another": _POST + "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n{rest}",
    "another, then chunked": _POST + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n{rest}",
    "chunked twice": _POST + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{rest}",
    "quoted": _POST + 'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n{rest}',
    "a vertical tab": _POST + "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n{rest}",
    "chunked in HTTP/1.0": _CHUNKED.replace("1.1", "1.0") + "0\r\n\r\n{rest}",
    "a zero byte in a value": _POST + "X-A: a\x00b\r\nContent-Length: 0\r\n\r\n{rest}",
    "a zero byte in a name": _POST + "X\x00A: b\r\nContent-Length: 0\r\n\r\n{rest}",
    "no colon": _POST + "X-A\r\nContent-Length: 0\r\n\r\n{rest}",
    "two hosts": _POST + "Host: y\r\nContent-Length: 0\r\n\r\n{rest}",
    "a chunk with a bare line feed": _CHUNKED + "0\n\n{rest}",
    "a chunk extension with a bare line feed": _CHUNKED + "1;\nx\r\n0\r\n\r\n{rest}",
    "a chunk extension with a broken quote": _CHUNKED + '1;a="b\r\n"\r\nx\r\n0\r\n\r\n{rest}',
    "a chunk size with a sign": _CHUNKED + "+0\r\n\r\n{rest}",
    "a negative chunk": _CHUNKED + "-1\r\n\r\n{rest}",
    "a chunk in C's hex": _CHUNKED + "0x0\r\n\r\n{rest}",
    "a huge chunk": _CHUNKED + "fffffffffffffffff\r\n\r\n{rest}",
    "a chunk without its end": _CHUNKED + "1\r\nab0\r\n\r\n{rest}",
    "a length behind chunks": _CHUNKED + "0\r\nContent-Length: 400\r\n\r\n{rest}",
}

_LAST = "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

# Those that are allowed, and one request each; the second one is a part of its body.
WHOLE = {
    "a chunk extension": _CHUNKED + "{size:x};name=value\r\n{rest}\r\n0\r\n\r\n",
    "an upgrade": _POST + "Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: {size}\r\n\r\n{rest}",
    "a body where none is expected": _POST.replace("POST", "GET") + "Content-Length: {size}\r\n\r\n{rest}",
}


class Victim:
    """A file, and a request that would delete it."""

    def __init__(self, service: Service, key: str) -> None:
        self._url = urlsplit(service.url)
        self._key = key
        self._api = Api(Http(service.url, {"authorization": f"Bearer {key}"}))
        self._id = self._api.upload(b"{}\n")
        self._rest = f"DELETE /v1/files/{self._id} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n\r\n"

    def send(self, shape: str) -> bytes:
        """Send a shape, and give all that is answered until the connection is closed."""
        data = shape.format(key=self._key, rest=self._rest, size=len(self._rest)).encode("latin-1")
        with socket.create_connection((self._url.hostname, self._url.port), timeout=10) as line:
            line.sendall(data)
            return b"".join(_all(line))

    def lives(self) -> bool:
        return self._api.get(f"/files/{self._id}").status == 200


def _all(line: socket.socket) -> Iterator[bytes]:
    try:
        while said := line.recv(65_536):
            yield said
    except ConnectionError:
        return


@pytest.fixture
def victim(service: Service, new_key: Iterator[str]) -> Victim:
    return Victim(service, next(new_key))


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_what_can_be_read_in_two_ways_is_refused(victim: Victim, shape: str) -> None:
    said = victim.send(shape)
    head, _, body = said.partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"connection: close" in head
    assert said.count(b"HTTP/1.1 ") == 1
    assert json.loads(body)["error"]["code"] == "malformed_request"
    assert victim.lives()


@pytest.mark.parametrize("shape", WHOLE.values(), ids=WHOLE)
def test_what_is_one_request_is_read_as_one(victim: Victim, shape: str) -> None:
    """And the next one begins where it ends."""
    said = victim.send(shape + _LAST)
    _, first, second = said.split(b"HTTP/1.1 ")

    assert first.startswith((b"200 ", b"400 "))
    assert b"malformed_request" not in first
    assert second.startswith(b"200 ")
    assert victim.lives()


def test_a_length_that_only_a_machine_can_count_is_too_large(victim: Victim) -> None:
    """The largest number of 64 bits is no fault of the writing, and none that is waited for."""
    said = victim.send(_POST + "Connection: close\r\nContent-Length: 18446744073709551615\r\n\r\n")

    assert said.startswith(b"HTTP/1.1 413 ")
