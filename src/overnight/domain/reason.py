"""What a line of an output or error file says of how its request ended."""

from __future__ import annotations

import re

import msgspec

UNREADABLE = "unreadable_line"
NO_RESPONSE = "no_response"
LONGEST_MESSAGE = 200

# No string in JSON can hold these bytes: its quotes are escaped.
_STATUS = b'"response":{"status_code":'
_STATUS_DIGITS = 3
_CUSTOM_ID = re.compile(rb'"custom_id":("(?:[^"\\]|\\.)*")')


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """Why a request failed; ``custom_id`` is empty if the line does not tell it."""

    code: str
    custom_id: str
    message: str


class _Reason(msgspec.Struct, frozen=True):
    message: str | None = None
    code: str | int | None = None
    type: str | None = None


class _Body(msgspec.Struct, frozen=True):
    error: _Reason | str | None = None


class _Response(msgspec.Struct, frozen=True):
    status_code: int = 0
    body: msgspec.Raw = msgspec.Raw(b"null")


class _Line(msgspec.Struct, frozen=True):
    custom_id: str | None = None
    response: _Response | None = None
    error: _Reason | None = None


_line_decoder = msgspec.json.Decoder(_Line)
_body_decoder = msgspec.json.Decoder(_Body)
_text_decoder = msgspec.json.Decoder(str)


def ending(raw: bytes | memoryview) -> Ending:
    """Read a line of an error file, whatever server wrote it."""
    try:
        line = _line_decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return Ending(code=UNREADABLE, custom_id="", message="")
    custom_id = line.custom_id or ""
    if line.error is not None:
        return Ending(code=_code(line.error, "error"), custom_id=custom_id, message=_short(line.error.message))
    if line.response is None:
        return Ending(code=NO_RESPONSE, custom_id=custom_id, message="")
    reason = _reason_in_body(line.response.body)
    code = _code(reason, f"http_{line.response.status_code}")
    return Ending(code=code, custom_id=custom_id, message=_short(reason.message))


def status_code(record: bytes) -> int:
    """Read the status code off a line that this service wrote; 0 if the request got no response."""
    found = record.find(_STATUS)
    if found < 0:
        return 0
    start = found + len(_STATUS)
    return int(record[start : start + _STATUS_DIGITS])


def custom_id_in(head: bytes) -> str | None:
    """Read the custom_id off the beginning of a line that this service wrote; ``None`` if it is not all there."""
    found = _CUSTOM_ID.search(head)
    return None if found is None else _text_decoder.decode(found[1])


def _reason_in_body(body: msgspec.Raw) -> _Reason:
    try:
        error = _body_decoder.decode(body).error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        # Some servers answer with text, or with an error of another shape.
        return _Reason()
    return error if isinstance(error, _Reason) else _Reason(message=error)


def _code(reason: _Reason, otherwise: str) -> str:
    # Many model servers repeat the status as the code; the type then says more.
    if isinstance(reason.code, str) and reason.code and not reason.code.isdigit():
        return reason.code
    return reason.type or otherwise


def _short(message: str | None) -> str:
    text = " ".join((message or "").split())
    return text if len(text) <= LONGEST_MESSAGE else text[: LONGEST_MESSAGE - 1] + "…"
