"""What became of a request, and the line that the output or error file gets for it (CONTRACT section 4)."""

from __future__ import annotations

from enum import IntEnum

import msgspec

from overnight.domain.request import BOM
from overnight.domain.usage import NO_USAGE, ReportedUsage, Usage


class ResultKind(IntEnum):
    """Which file a result belongs to and how it counts."""

    SUCCEEDED = 0
    FAILED = 1


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The end of one request. ``record`` is the finished JSON line without its newline; ``line`` counts from 0.

    ``trail`` is what led there (``domain/trail.py``); it is empty if no attempt was made.
    """

    line: int
    kind: ResultKind
    record: bytes
    usage: Usage = NO_USAGE
    trail: bytes = b""


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """What a set of recorded results adds up to."""

    completed: int = 0
    failed: int = 0
    usage: Usage = NO_USAGE


class Count:
    """A tally in the making: plain numbers, for they change with each result."""

    __slots__ = ("_cached", "_failed", "_input", "_output", "_reasoning", "_results")

    def __init__(self) -> None:
        self._results = self._failed = 0
        self._input = self._cached = self._output = self._reasoning = 0

    def add(self, kind: ResultKind, usage: Usage) -> None:
        """Count one result."""
        self._results += 1
        if kind is ResultKind.FAILED:
            self._failed += 1
        if usage is not NO_USAGE:
            self._input += usage.input_tokens
            self._cached += usage.cached_tokens
            self._output += usage.output_tokens
            self._reasoning += usage.reasoning_tokens

    def tally(self) -> Tally:
        """Say what all of them add up to."""
        usage = Usage(
            input_tokens=self._input,
            cached_tokens=self._cached,
            output_tokens=self._output,
            reasoning_tokens=self._reasoning,
        )
        return Tally(completed=self._results - self._failed, failed=self._failed, usage=usage)


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A reply of an upstream; ``retry_after`` is in seconds, ``usage`` is known once the body was read."""

    status: int
    body: bytes
    request_id: str | None = None
    retry_after: float | None = None
    usage: Usage = NO_USAGE

    @property
    def succeeded(self) -> bool:
        """Whether the status is a 2xx."""
        return 200 <= self.status < 300  # noqa: PLR2004 - the bounds of the status class


class _AnswerBody(msgspec.Struct, gc=False):
    usage: ReportedUsage | None = None


class _OddBody(msgspec.Struct):
    """A body whose usage is not as expected: that must not cost its caller the answer."""


class UnreadableBody(ValueError):
    """The body of a response is not a JSON object, so it cannot become part of a line."""


_body_decoder = msgspec.json.Decoder(_AnswerBody)
_odd_decoder = msgspec.json.Decoder(_OddBody)


def read_body(body: bytes) -> tuple[bytes, Usage]:
    """Put a response body on one line and read the usage in it; all other bytes stay as they are.

    Raises:
        UnreadableBody: it is not UTF-8 JSON, or not an object.
    """
    body = body.removeprefix(BOM).strip()
    try:
        usage = _read_usage(body)
        if not body.isascii():
            body.decode()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UnreadableBody from error
    # A raw line break can only stand between tokens: inside a JSON string it must be escaped.
    if b"\n" in body or b"\r" in body:
        body = body.replace(b"\r", b" ").replace(b"\n", b" ")
    return body, usage


def _read_usage(body: bytes) -> Usage:
    try:
        reported = _body_decoder.decode(body).usage
    except msgspec.ValidationError:
        _odd_decoder.decode(body)
        return NO_USAGE
    return NO_USAGE if reported is None else reported.to_usage()


def response_line(custom_id: bytes, own_id: str, status: int, request_id: str, body: bytes) -> bytes:
    """Write the line of a request that got a response; ``custom_id`` and ``body`` are JSON text."""
    return (b'{"id":"%s","custom_id":%s,"response":{"status_code":%d,"request_id":%s,"body":%s},"error":null}') % (
        own_id.encode(),
        custom_id,
        status,
        msgspec.json.encode(request_id),
        body,
    )


def error_line(custom_id: bytes, own_id: str, code: str, message: str) -> bytes:
    """Write the line of a request that got no response."""
    error = msgspec.json.encode({"code": code, "message": message})
    return b'{"id":"%s","custom_id":%s,"response":null,"error":%s}' % (own_id.encode(), custom_id, error)


def error_body(message: str, *, kind: str, code: str | None) -> bytes:
    """Write the error body that stands in for a response which cannot be quoted."""
    return msgspec.json.encode({"error": {"message": message, "type": kind, "param": None, "code": code}})


BATCH_EXPIRED = ("batch_expired", "This request could not be executed before the completion window expired.")
BATCH_CANCELLED = ("batch_cancelled", "This request was not executed because the batch was cancelled before it ran.")
BILLING_HARD_LIMIT = (
    "billing_hard_limit_reached",
    "This request was not executed because a cap of its resource was reached before it ran.",
)
REQUEST_TIMEOUT = ("request_timeout", "The model did not answer this request in time.")
