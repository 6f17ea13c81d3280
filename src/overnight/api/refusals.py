"""What a connection is told that is closed before the application hears of it."""

from __future__ import annotations

import uuid
from http import HTTPStatus

import msgspec

from overnight.api.headers import SECURITY
from overnight.api.limits import MOST_HEADER_BYTES


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """An error that is the last thing on its connection."""

    status: HTTPStatus
    message: str
    code: str

    def encode(self) -> bytes:
        """Give the whole reply, in the envelope that every error has."""
        ours = self.status is HTTPStatus.SERVICE_UNAVAILABLE
        kind = "server_error" if ours else "invalid_request_error"
        error = {"message": self.message, "type": kind, "param": None, "code": self.code}
        body = msgspec.json.encode({"error": error})
        headers = [
            *SECURITY,
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"x-request-id", str(uuid.uuid4()).encode()),
            (b"connection", b"close"),
        ]
        if ours:
            headers.append((b"retry-after", b"1"))
        head = f"HTTP/1.1 {self.status.value} {self.status.phrase}\r\n".encode()
        return head + b"".join(b"%b: %b\r\n" % header for header in headers) + b"\r\n" + body


def crowded() -> Refusal:
    """Refuse one connection too many."""
    message = "This server has as many open connections as it takes. Try again in a moment."
    return Refusal(status=HTTPStatus.SERVICE_UNAVAILABLE, message=message, code="too_many_connections")


def malformed(reason: str) -> Refusal:
    """Refuse what is not HTTP, or could be read in two ways; ``reason`` holds nothing of it."""
    message = f"The request cannot be read as HTTP. {reason}. Let a library write it."
    return Refusal(status=HTTPStatus.BAD_REQUEST, message=message, code="malformed_request")


def long_head() -> Refusal:
    """Refuse headers without end."""
    message = f"The headers of a request may have {MOST_HEADER_BYTES:,} bytes together."
    return Refusal(status=HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, message=message, code="headers_too_large")


def slow_head(seconds: float) -> Refusal:
    """Refuse headers that do not come."""
    message = f"The headers of the request did not arrive within {seconds:g} seconds."
    return Refusal(status=HTTPStatus.REQUEST_TIMEOUT, message=message, code="slow_request")


def slow_body(rate: int) -> Refusal:
    """Refuse a body that comes too slowly."""
    message = f"The body of the request came slower than {rate:,} bytes a second. Try again on a better line."
    return Refusal(status=HTTPStatus.REQUEST_TIMEOUT, message=message, code="slow_request")
