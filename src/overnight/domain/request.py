"""One line of an input file: how it is decoded, and how its body is sent on (CONTRACT section 3.1)."""

from __future__ import annotations

import re

import msgspec
from msgspec import UNSET, Raw, UnsetType

BOM = b"\xef\xbb\xbf"

HEAD_BYTES = 4_096
"""So much of a longer line is read where its custom_id alone is wanted."""


class BodyHead(msgspec.Struct, frozen=True):
    """The members of a body that validation looks at; all others are skipped, yet must be well-formed JSON."""

    model: str | UnsetType = UNSET
    stream: bool | UnsetType | None = UNSET
    messages: Raw | UnsetType = UNSET
    input: Raw | UnsetType = UNSET
    prompt: Raw | UnsetType = UNSET


class RequestHead(msgspec.Struct, frozen=True):
    """An input line as validation sees it: one pass over the bytes, no object tree."""

    custom_id: str
    method: str
    url: str
    body: BodyHead


class RequestLine(msgspec.Struct, frozen=True):
    """An input line as it is run: the body stays the bytes that the caller wrote."""

    custom_id: Raw
    body: Raw


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One request of a batch, ready to be sent. ``line`` counts the requests of the file from 0."""

    line: int
    custom_id: bytes
    body: bytes


_head_decoder = msgspec.json.Decoder(RequestHead)
_line_decoder = msgspec.json.Decoder(RequestLine)

# Strings and brackets: all that tells how deep a place in JSON is.
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\]]', re.DOTALL)
_COLON = re.compile(rb"\s*:")
_OPENING = frozenset({b"{", b"["})
_CLOSING = frozenset({b"}", b"]"})

decode_head = _head_decoder.decode

# A custom_id behind nothing but a method and a url; where it stands elsewhere the whole line is read.
_EARLY_CUSTOM_ID = re.compile(
    rb'\s*\{(?:\s*"(?:method|url)"\s*:\s*"[^"\\]*"\s*,)*\s*"custom_id"\s*:\s*("(?:[^"\\]|\\.)*")\s*,'
)
_text_decoder = msgspec.json.Decoder(str)


def early_custom_id(raw: bytes) -> str | None:
    """Read a custom_id off the first ``HEAD_BYTES`` of a line; ``None`` if it does not stand where it usually does."""
    found = _EARLY_CUSTOM_ID.match(raw, 0, HEAD_BYTES)
    return None if found is None else _text_decoder.decode(found[1])


def parse_request(line: int, raw: bytes) -> Request:
    """Read a line that validation let through; ``custom_id`` stays JSON text, quotes included."""
    decoded = _line_decoder.decode(raw)
    return Request(line=line, custom_id=bytes(decoded.custom_id), body=bytes(decoded.body))


class _Bounds(msgspec.Struct):
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    max_output_tokens: int | None = None


_bounds_decoder = msgspec.json.Decoder(_Bounds)

_BYTES_A_TOKEN = 4


def estimate_tokens(body: bytes) -> int:
    """Guess how many tokens a request will use: a token for every 4 bytes, and all that its answer may have."""
    try:
        bounds = _bounds_decoder.decode(body)
    except msgspec.DecodeError:
        return len(body) // _BYTES_A_TOKEN
    answer = bounds.max_completion_tokens or bounds.max_output_tokens or bounds.max_tokens or 0
    return len(body) // _BYTES_A_TOKEN + max(answer, 0)


def with_model(body: bytes, model: str) -> bytes:
    """Give a body that has a ``model`` with another value of it, and every other byte as it was."""
    start, end = _model_place(body)
    return body[:start] + msgspec.json.encode(model) + body[end:]


def _model_place(body: bytes) -> tuple[int, int]:
    """Find the value of the outermost ``model``, the last of several as JSON readers do, in one pass."""
    depth = 0
    found = (0, 0)
    wanted = False
    for token in _TOKEN.finditer(body):
        text = token[0]
        if text in _OPENING:
            depth += 1
        elif text in _CLOSING:
            depth -= 1
        elif wanted:
            found = token.span()
        wanted = depth == 1 and not wanted and _is_model_key(text) and _COLON.match(body, token.end()) is not None
    return found


def _is_model_key(text: bytes) -> bool:
    return text == b'"model"' or (b"\\u" in text and msgspec.json.decode(text) == "model")
