"""One HTTP connection, with bounds that the server underneath does not have.

Those are on time and on bytes: for the head of a request, for the pace of its body, and for how long a client may take
nothing of a reply. A client that goes over one, or sends what can be read in two ways, gets an answer where it still
waits for one, and is cut off.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, cast

from httptools import HttpParserError, HttpParserInvalidURLError, HttpParserUpgrade
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from overnight.api.addresses import neighbourhood
from overnight.api.limits import MOST_HEADER_BYTES
from overnight.api.refusals import crowded, long_head, malformed, slow_body, slow_head
from overnight.bootstrap.framing import Malformed, check_head, without_upgrade
from overnight.services.rates import Running

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from overnight.api.refusals import Refusal
    from overnight.config import ConnectionSettings

# What is left of a body whose request was answered already is thrown away, so that a client that sends all of it before
# it looks for an answer finds one; but not without end.
_MOST_DISCARDED = 256 * 1024 * 1024
# A chunked body may have headers behind it, which nobody here reads.
_MOST_TRAILER_BYTES = 8 * 1024


class Crowd:
    """The connections that are open, by where they come from."""

    def __init__(self, settings: ConnectionSettings) -> None:
        self.settings = settings
        self._all = Running(settings.most)
        self._by_address = Running(settings.per_address)

    def enter(self, address: str) -> bool:
        """Count a connection, unless there are too many."""
        if not self._all.begin(None):
            return False
        if not self._by_address.begin(address):
            self._all.end(None)
            return False
        return True

    def count(self) -> int:
        """Say how many are open."""
        return self._all.total()

    def leave(self, address: str) -> None:
        """Forget a connection that was counted."""
        self._all.end(None)
        self._by_address.end(address)


def connections(settings: ConnectionSettings) -> type[asyncio.Protocol]:
    """Give what the server makes its connections with."""
    # The server only ever calls it.
    return cast("type[asyncio.Protocol]", partial(Connection, Crowd(settings)))


class Connection(HttpToolsProtocol):
    """A connection with bounds."""

    def __init__(self, crowd: Crowd, **given: Any) -> None:  # noqa: ANN401 - whatever the server hands to its own
        super().__init__(**given)
        self._crowd = crowd
        self._bounds = crowd.settings
        self._address: str | None = None
        self._in_head = self._in_body = self._begun = False
        self._requests = self._unanswered = 0
        self._plain_head = b""
        self._head_bytes = 0
        self._trailer_bytes = 0
        self._body_bytes = 0
        self._discarded = 0
        self._held_up = False
        self._reading: asyncio.TimerHandle | None = None
        self._writing: asyncio.TimerHandle | None = None

    # --- the connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a new connection, or refuse it if there are too many."""
        super().connection_made(transport)
        address = neighbourhood(self.client[0] if self.client else "")
        if not self._crowd.enter(address):
            self._refuse(crowded())
            return
        self._address = address
        self._time_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_reading_timer()
        self._stop_writing_timer()
        if self._address is not None:
            self._crowd.leave(self._address)
            self._address = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes, and count those of a head that does not end."""
        if self.transport.is_closing():
            return
        self._begun = True
        before = self._requests
        self._unset_keepalive_if_required()
        self._parse(data)
        if self.transport.is_closing() or self._in_body:
            return
        if before == self._requests:
            self._head_bytes += len(data)
        elif not self._in_head:
            # The request is complete, and the next one has not begun.
            return
        if self._head_bytes > MOST_HEADER_BYTES:
            self._refuse(long_head())
        elif self._reading is None:
            self._time_head()

    def _parse(self, data: bytes) -> None:
        rest = memoryview(data)
        try:
            while (end := self._until_upgrade(rest)) is not None:
                rest = rest[end:]
                head, self._plain_head = self._plain_head, b""
                self.parser.feed_data(head)
        except HttpParserError as error:
            reason = _reason(error)
            self.logger.warning("Invalid HTTP request received: %s", reason)
            self._refuse(malformed(reason))

    def _until_upgrade(self, data: memoryview) -> int | None:
        """Parse; say where what follows the head of a request for another protocol begins.

        The parser takes such a request for one without a body, whatever its headers say, and its body for another
        request. We speak no other protocol, so it is parsed once more, without that header.
        """
        try:
            self.parser.feed_data(data)
        except HttpParserUpgrade as upgrade:
            return int(upgrade.args[0])
        return None

    # --- the head and the body of a request

    def on_message_begin(self) -> None:
        """Begin a head."""
        super().on_message_begin()
        self._in_head, self._head_bytes, self._trailer_bytes = True, 0, 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header of the head; those behind a body are dropped."""
        if not self._in_body:
            super().on_header(name, value)
            return
        self._trailer_bytes += len(name) + len(value)
        if self._trailer_bytes > _MOST_TRAILER_BYTES:
            self.transport.abort()

    def on_headers_complete(self) -> None:
        """End the head."""
        method, version = self.parser.get_method(), self.parser.get_http_version()
        check_head(method, version, self.headers)
        if self.parser.should_upgrade():
            self._plain_head = without_upgrade(method, self.url, version, self.headers)
            return
        super().on_headers_complete()
        self._unanswered += 1
        self._in_head, self._in_body = False, True
        self._body_bytes, self._discarded, self._held_up = 0, 0, False
        self._time(self._bounds.body_seconds, self._check_body)

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        self._body_bytes += len(body)
        if self.cycle.response_complete:
            self._discarded += len(body)
            if self._discarded > _MOST_DISCARDED:
                self.transport.abort()
        super().on_body(body)
        self._held_up = self._held_up or self.flow.read_paused

    def on_message_complete(self) -> None:
        """End the body; from here it is our turn."""
        if self._plain_head:
            return
        self._in_body, self._head_bytes = False, 0
        self._requests += 1
        self._stop_reading_timer()
        super().on_message_complete()

    def _time_head(self) -> None:
        self._time(self._bounds.head_seconds, self._check_head)

    def _check_head(self) -> None:
        if self._answering() or self.flow.read_paused:
            self._time_head()
        elif self._begun:
            self._refuse(slow_head(self._bounds.head_seconds))
        else:
            self._close()

    def _check_body(self) -> None:
        enough = self._bounds.body_bytes_per_second * self._bounds.body_seconds
        # Where we did not read, or have not asked for the body yet, it is not the client who is slow.
        ours = self._held_up or self.cycle.waiting_for_100_continue
        if ours or self._body_bytes >= enough:
            self._body_bytes, self._held_up = 0, self.flow.read_paused
            self._time(self._bounds.body_seconds, self._check_body)
            return
        self._refuse(slow_body(self._bounds.body_bytes_per_second))

    def _answering(self) -> bool:
        return self._requests > 0 and not self.cycle.response_complete

    def _time(self, seconds: float, then: Callable[[], None]) -> None:
        self._stop_reading_timer()
        self._reading = self.loop.call_later(seconds, then)

    def _stop_reading_timer(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    # --- replies

    def pause_writing(self) -> None:
        """Note that the client does not take what is sent."""
        super().pause_writing()
        self._time_writing()

    def resume_writing(self) -> None:
        """Note that it does again."""
        super().resume_writing()
        if not self.transport.is_closing():
            self._stop_writing_timer()

    def on_response_complete(self) -> None:
        """End a reply; what a closing connection has not sent yet must not keep it open for ever."""
        self._unanswered -= 1
        super().on_response_complete()
        if self.transport.is_closing():
            self._time_writing()
        elif self._in_head:
            # Of a request that was sent behind this one; only now is it its turn.
            self._time_head()

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that nobody uses."""
        super().timeout_keep_alive_handler()
        self._time_writing()

    def _time_writing(self) -> None:
        self._stop_writing_timer()
        left = self.transport.get_write_buffer_size()
        self._writing = self.loop.call_later(self._bounds.read_seconds, self._check_writing, left)

    def _check_writing(self, before: int) -> None:
        left = self.transport.get_write_buffer_size()
        if left and left >= before:
            self.transport.abort()
        elif left:
            self._time_writing()

    def _stop_writing_timer(self) -> None:
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None

    def _refuse(self, refusal: Refusal) -> None:
        """Say why, if the client can still be told, and hang up."""
        if self._may_speak():
            self.transport.write(refusal.encode())
        self._close()

    def _may_speak(self) -> bool:
        """Say whether what is written now can only be taken for the answer to the request that is refused."""
        if self._in_body:
            return self._unanswered == 1 and not self.cycle.response_started
        return not self._unanswered

    def _close(self) -> None:
        self._stop_reading_timer()
        self.transport.close()
        self._time_writing()


def _reason(error: HttpParserError) -> str:
    """Say what is wrong, without a word of the request."""
    match error.__context__:
        case Malformed() as malformed_head:
            return str(malformed_head)
        case HttpParserInvalidURLError():
            return "Invalid URL"
    return str(error)
