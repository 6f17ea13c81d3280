"""One line of an input file: how it is decoded, and how its body is sent on (CONTRACT section 3.1)."""

from __future__ import annotations

import re

import msgspec
from msgspec import UNSET, Raw, UnsetType

BOM = b"\xef\xbb\xbf"


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
_body_decoder = msgspec.json.Decoder(BodyHead)
_MODEL = re.compile(rb'"model"(\s*:\s*)"(?:[^"\\]|\\.)*"')

decode_head = _head_decoder.decode


def parse_request(line: int, raw: bytes) -> Request:
    """Read a line that validation let through; ``custom_id`` stays JSON text, quotes included."""
    decoded = _line_decoder.decode(raw)
    return Request(line=line, custom_id=bytes(decoded.custom_id), body=bytes(decoded.body))


def with_model(body: bytes, model: str) -> bytes:
    """Give the body with another value of ``model`` and every other byte as it was.

    A body may hold the key at several depths, so each candidate is tried until the decoded member is the wanted one.
    """
    if _body_decoder.decode(body).model == model:
        return body
    replacement = msgspec.json.encode(model)
    for match in _MODEL.finditer(body):
        changed = body[: match.start()] + b'"model"' + match[1] + replacement + body[match.end() :]
        if _body_decoder.decode(changed).model == model:
            return changed
    return _with_model_last(body, replacement)


def _with_model_last(body: bytes, model: bytes) -> bytes:
    # The key is spelled with escapes. JSON readers let the last of two equal keys win, so one more is enough.
    return body.rstrip()[:-1] + b',"model":' + model + b"}"
