"""What a client may do to a connection, on raw sockets and with bounds of less than a second."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

Listening = Any
Until = Callable[[Callable[[], bool]], Awaitable[None]]

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
LONG = 60.0


def _post(size: int, *more: bytes) -> bytes:
    return b"\r\n".join((b"POST / HTTP/1.1", b"Host: x", b"Content-Length: %d" % size, *more, b"", b""))


def _code(body: bytes) -> str:
    return str(json.loads(body)["error"]["code"])


class TestHeads:
    """The request line and the headers."""

    async def test_a_head_that_comes_too_slowly_is_refused(self, listening: Listening) -> None:
        """Slow loris: the connection is closed, with a reason."""
        async with listening(head_seconds=0.2) as house:
            line = await house.call()
            await line.send(b"GET / HTTP/1.1\r\nHost: x\r\n")
            status, body = await line.reply()

            assert (status, _code(body), await line.end()) == (408, "slow_request", b"")

    async def test_a_head_that_trickles_is_refused_all_the_same(self, listening: Listening) -> None:
        """A byte now and then does not start the time anew."""
        async with listening(head_seconds=0.3) as house:
            line = await house.call()
            await line.send(b"GET / HTTP/1.1\r\n")
            trickling = asyncio.create_task(_trickle(line, b"X-A: b\r\n"))
            status, _ = await line.reply()
            trickling.cancel()

            assert status == 408

    async def test_a_connection_on_which_nothing_comes_is_closed(self, listening: Listening) -> None:
        """Without a word, since nobody asked."""
        async with listening(head_seconds=0.2) as house:
            line = await house.call()

            assert await line.end() == b""

    async def test_a_connection_is_kept_between_requests(self, listening: Listening) -> None:
        """Longer than a head may take, and then closed without a word."""
        async with listening(head_seconds=0.1) as house:
            line = await house.call()
            await line.send(GET)
            await line.reply()
            await asyncio.sleep(0.3)
            await line.send(GET)

            assert await line.reply() == (200, b"0")
            assert await line.end() == b""

    async def test_empty_lines_do_not_keep_a_connection(self, listening: Listening) -> None:
        """They are allowed in front of a request, but stop the time between two."""
        async with listening(head_seconds=0.3) as house:
            line = await house.call()
            await line.send(GET)
            await line.reply()
            await line.send(b"\r\n")

            assert b"408" in await line.end()

    @pytest.mark.parametrize("head", [b"X-Long: ", b"", b"GET /"])
    async def test_a_head_without_end_is_refused(self, listening: Listening, head: bytes) -> None:
        """Whether one header or the URL is endless, or there are ever more of them."""
        async with listening(head_seconds=LONG) as house:
            line = await house.call()
            start = head if head.startswith(b"GET") else b"GET / HTTP/1.1\r\n" + head
            await line.send(start)
            sending = asyncio.create_task(_trickle(line, b"a" * 30_000 if head else b"A: b\r\n" * 5_000))
            said = await line.end()
            sending.cancel()

            # The rest of what was sent may have reset the connection before the reply could be read.
            assert said == b"" or b" 431 " in said.split(b"\r\n")[0] or b" 400 " in said.split(b"\r\n")[0]

    async def test_headers_behind_a_body_are_not_kept(self, listening: Listening) -> None:
        """A few are ignored, many end the connection."""
        async with listening(head_seconds=LONG, body_seconds=LONG) as house:
            line = await house.call()
            chunked = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n"
            await line.send(chunked + b"T: 1\r\n\r\n")

            assert await line.reply() == (200, b"1")

            await line.send(chunked)
            sending = asyncio.create_task(_trickle(line, b"Trailer: " + b"t" * 1_000 + b"\r\n"))
            assert await line.end() == b""
            sending.cancel()

    async def test_a_request_behind_another_waits_its_turn(self, listening: Listening) -> None:
        """The time for its head does not run while the first one is answered."""
        async with listening(head_seconds=0.2) as house:
            line = await house.call()
            await line.send(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\nGET")
            await asyncio.sleep(0.5)
            house.app.gate.set()
            first = await line.reply()
            await line.send(GET[3:])

            assert (first, await line.reply()) == ((200, b"0"), (200, b"0"))


class TestBodies:
    """The pace of a body."""

    async def test_a_body_that_comes_too_slowly_is_refused(self, listening: Listening) -> None:
        """The client learns why."""
        async with listening(body_seconds=0.2, body_bytes_per_second=1_000) as house:
            line = await house.call()
            await line.send(_post(1_000) + b"a")
            status, body = await line.reply()

            assert (status, _code(body), await line.end()) == (408, "slow_request", b"")

    async def test_a_slow_line_is_fast_enough(self, listening: Listening) -> None:
        """A body may take many times the seconds over which its pace is looked at."""
        async with listening(body_seconds=0.2, body_bytes_per_second=1_000) as house:
            line = await house.call()
            await line.send(_post(20_000))
            for _ in range(40):
                await line.send(b"a" * 500)
                await asyncio.sleep(0.02)

            assert await line.reply() == (200, b"20000")

    async def test_time_that_the_service_takes_does_not_count(self, listening: Listening) -> None:
        """A body that waits to be read is not slow."""
        async with listening(body_seconds=0.1, body_bytes_per_second=100_000) as house:
            line = await house.call()
            await line.send(b"POST /wait" + _post(400_000)[6:])
            sending = asyncio.create_task(line.send(b"a" * 400_000))
            await asyncio.sleep(0.4)
            house.app.gate.set()
            await sending

            assert await line.reply() == (200, b"400000")

    async def test_a_body_whose_request_was_answered_is_not_taken_without_end(
        self, listening: Listening, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is thrown away, up to a bound."""
        monkeypatch.setattr("overnight.bootstrap.http._MOST_DISCARDED", 1_000_000)
        async with listening(body_seconds=LONG) as house:
            line = await house.call()
            await line.send(b"POST /early" + _post(10**12)[6:])
            sending = asyncio.create_task(_trickle(line, b"a" * 100_000))
            said = await line.end()
            sending.cancel()

            assert said == b"" or b" 200 " in said.split(b"\r\n")[0]

    async def test_a_body_in_one_piece_with_its_head_is_no_long_head(self, listening: Listening) -> None:
        """Whatever its size."""
        async with listening() as house:
            line = await house.call()
            await line.send(_post(150_000) + b"a" * 150_000)

            assert await line.reply() == (200, b"150000")


class TestReplies:
    """Clients that do not read."""

    async def test_who_takes_nothing_of_a_reply_is_cut_off(self, listening: Listening, until: Until) -> None:
        """And until then a few megabytes are waiting, not the whole file."""
        async with listening(read_seconds=0.3) as house:
            line = await house.call(window=4_096)
            await line.send(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
            await until(lambda: house.app.pieces > 0)
            await until(lambda: not house.crowd.count())

            assert house.app.pieces < 32

    async def test_who_reads_slowly_gets_all(self, listening: Listening) -> None:
        """As long as something is taken now and then."""
        async with listening(read_seconds=0.3) as house:
            line = await house.call()
            await line.send(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
            status, body = await line.reply()

            assert (status, len(body)) == (200, 268_435_456)


class TestCrowds:
    """How many connections there may be."""

    async def test_one_address_has_a_bound(self, listening: Listening, until: Until) -> None:
        """What is over it is told so; what is closed makes room."""
        async with listening(per_address=2) as house:
            first, _ = await house.call(), await house.call()
            third = await house.call()
            status, body = await third.reply()

            assert (status, _code(body), await third.end()) == (503, "too_many_connections", b"")

            first.close()
            await until(lambda: house.crowd.count() == 1)
            fourth = await house.call()
            await fourth.send(GET)
            assert await fourth.reply() == (200, b"0")

    async def test_all_together_have_a_bound(self, listening: Listening, until: Until) -> None:
        """Whatever address they come from."""
        async with listening(most=1) as house:
            await house.call()
            await until(lambda: house.crowd.count() == 1)
            second = await house.call()

            assert (await second.reply())[0] == 503

    async def test_hundreds_of_open_replies_are_no_crowd(self, listening: Listening, until: Until) -> None:
        """Streams of events wait for a long time."""
        async with listening(body_seconds=0.2, read_seconds=0.2) as house:
            lines = [await house.call() for _ in range(200)]
            for line in lines:
                await line.send(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
            await asyncio.sleep(0.5)
            house.app.gate.set()

            assert {await line.reply() for line in lines} == {(200, b"0")}


async def _trickle(line: Any, data: bytes) -> None:
    while True:
        await line.send(data)
        await asyncio.sleep(0.01)
