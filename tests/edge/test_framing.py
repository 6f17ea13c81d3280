"""Where one request ends and the next begins: what could be read in two ways is refused."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

Listening = Any

POST = b"POST /first HTTP/1.1\r\nHost: x\r\n"
SECOND = b"GET /second HTTP/1.1\r\nHost: x\r\n\r\n"
LENGTH = b"Content-Length: %d\r\n" % len(SECOND)
UPGRADE = b"Connection: Upgrade\r\nUpgrade: h2c\r\n"


def _error(body: bytes) -> dict[str, Any]:
    return dict(json.loads(body)["error"])


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        (POST + b"Transfer-Encoding: xchunked\r\n\r\n", "The only Transfer-Encoding is chunked"),
        (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n", "The only Transfer-Encoding is chunked"),
        (POST + b"Transfer-Encoding: a\r\nTransfer-Encoding: chunked\r\n\r\n", "The only Transfer-Encoding is chunked"),
        (POST + UPGRADE + b"Transfer-Encoding: xchunked\r\n\r\n", "The only Transfer-Encoding is chunked"),
        (b"POST /first HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", "HTTP/1.0 has no Transfer-Encoding"),
        (b"GET /first HTTP/1.1\r\n\r\n", "There must be one Host"),
        (b"GET /first HTTP/1.0\r\nHost: x\r\nHost: x\r\n\r\n", "There must be one Host"),
        (b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n", "This is no proxy"),
        (b"GET http://[ HTTP/1.1\r\nHost: x\r\n\r\n", "Invalid URL"),
        (b"\x16\x03\x01\x02\x00", "Invalid method encountered"),
    ],
)
async def test_a_head_that_is_not_read_alike_everywhere_is_refused(
    listening: Listening, head: bytes, reason: str
) -> None:
    """Before anything of the request is done, and in words that hold nothing of it."""
    async with listening() as house:
        line = await house.call()
        await line.send(head + b"0\r\n\r\n" + SECOND)
        status, body = await line.reply()

        assert (status, await line.end()) == (400, b"")
        assert _error(body)["code"] == "malformed_request"
        assert reason in _error(body)["message"]
        assert house.app.asked == []


async def test_http_1_0_needs_no_host(listening: Listening) -> None:
    """Some probes of load balancers name none."""
    async with listening() as house:
        line = await house.call()
        await line.send(b"GET /first HTTP/1.0\r\n\r\n")

        assert await line.reply() == (200, b"0")


@pytest.mark.parametrize(
    "pieces",
    [
        [POST + UPGRADE + LENGTH + b"\r\n", SECOND],
        [POST + UPGRADE + LENGTH + b"\r\n" + SECOND],
        [POST + UPGRADE + LENGTH, b"\r\n" + SECOND[:9], SECOND[9:]],
        [POST + UPGRADE + b"Transfer-Encoding: chunked\r\n\r\n", b"%x\r\n" % len(SECOND), SECOND, b"\r\n0\r\n\r\n"],
    ],
    ids=["apart", "together", "torn", "chunked"],
)
async def test_the_body_of_a_request_that_asks_for_another_protocol_is_its_body(
    listening: Listening, pieces: list[bytes]
) -> None:
    """Java's client asks for HTTP/2 in this way, and the parser would take the body for the next request."""
    async with listening() as house:
        line = await house.call()
        for piece in pieces:
            await line.send(piece)
            await asyncio.sleep(0.01)
        first = await line.reply()
        await line.send(SECOND)
        second = await line.reply()

        assert (first, second) == ((200, b"%d" % len(SECOND)), (200, b"0"))
        assert house.app.asked == [("/first", len(SECOND)), ("/second", 0)]


async def test_many_requests_that_ask_for_another_protocol_are_answered_one_by_one(listening: Listening) -> None:
    async with listening() as house:
        line = await house.call()
        await line.send((POST + UPGRADE + b"Content-Length: 1\r\n\r\na") * 50)

        assert [await line.reply() for _ in range(50)] == [(200, b"1")] * 50


@pytest.mark.parametrize("path", [b"/wait", b"/big"])
async def test_no_refusal_is_taken_for_the_reply_to_another_request(listening: Listening, path: bytes) -> None:
    """What comes behind a request that is not answered yet, or not wholly, is refused by hanging up."""
    async with listening() as house:
        line = await house.call()
        await line.send(b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.sleep(0.05)
        await line.send(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n")
        said = await line.end()
        house.app.gate.set()

        assert b" 400 " not in said
        assert b"malformed" not in said


async def test_a_body_that_turns_out_broken_after_its_answer_is_not_answered_twice(listening: Listening) -> None:
    async with listening() as house:
        line = await house.call()
        await line.send(b"POST /early HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        first = await line.reply()
        await line.send(b"x\r\n")

        assert first == (200, b"0")
        assert await line.end() == b""


async def test_a_body_that_turns_out_broken_before_its_answer_is_refused(listening: Listening) -> None:
    async with listening() as house:
        line = await house.call()
        await line.send(POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\nx\r\n")
        status, body = await line.reply()

        assert (status, _error(body)["code"], await line.end()) == (400, "malformed_request", b"")
