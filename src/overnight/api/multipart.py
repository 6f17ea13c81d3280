"""Multipart bodies as they arrive: pieces are handed on at once, nothing is spooled (CONTRACT sections 1.5 and 6.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from overnight.domain.errors import InvalidRequest, TooLarge

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request

_MOST_PARTS = 32
_MOST_HEADER_BYTES = 16 * 1024
# As RFC 2046 has it.
_MOST_BOUNDARY_BYTES = 70
# What is refused is still read for a while, so that a client that sends all before it looks for an answer gets one.
_MOST_DRAINED = 256 * 1024 * 1024


class Field(msgspec.Struct, frozen=True):
    """The part that is being read; ``filename`` is ``None`` for a plain form field."""

    name: str
    filename: str | None


class Piece(msgspec.Struct, frozen=True):
    """Some bytes of a part; each part gives at least one piece, which may be empty."""

    field: Field
    data: bytes


async def pieces(request: Request, most: int) -> AsyncIterator[Piece]:
    """Read a multipart body piece by piece; ``most`` is the size of the largest file that can come.

    Raises:
        InvalidRequest: it is malformed.
        TooLarge: it goes on and on.
    """
    reader = _Reader(_boundary(request))
    taken = 0
    async for chunk in request.stream():
        taken += len(chunk)
        if taken > most + _MOST_DRAINED:
            message = f"The body goes on beyond {taken:,} bytes. Split the file."
            raise TooLarge(message, param="file", code="file_too_large")
        for piece in reader.feed(chunk):
            yield piece
    reader.finish()


def _boundary(request: Request) -> bytes:
    kind, options = parse_options_header(request.headers.get("content-type"))
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise InvalidRequest("The body must be multipart/form-data with a boundary.")
    if len(boundary) > _MOST_BOUNDARY_BYTES:
        raise InvalidRequest(f"The boundary of the multipart body is longer than {_MOST_BOUNDARY_BYTES} bytes.")
    return boundary


class _Reader:
    """Turns the parser's callbacks into pieces."""

    def __init__(self, boundary: bytes) -> None:
        self._ready: list[Piece] = []
        self._parts = 0
        self._header_name = b""
        self._header_value = b""
        self._header_bytes = 0
        self._field = Field("", None)
        self._ended = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._on_part_begin,
                "on_header_field": self._on_header_field,
                "on_header_value": self._on_header_value,
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._on_headers_finished,
                "on_part_data": self._on_part_data,
                "on_end": self._on_end,
            },
        )

    def feed(self, chunk: bytes) -> list[Piece]:
        """Take bytes from the wire and give the pieces that they complete."""
        self._ready = []
        if chunk:
            try:
                self._parser.write(chunk)
            except MultipartParseError as error:
                raise InvalidRequest(f"The multipart body is malformed: {error}.") from error
        return self._ready

    def finish(self) -> None:
        """Refuse a body that broke off."""
        if not self._ended:
            raise InvalidRequest("The multipart body ends before its closing boundary.")

    def _on_part_begin(self) -> None:
        self._parts += 1
        self._header_bytes = 0
        self._field = Field("", None)
        if self._parts > _MOST_PARTS:
            raise InvalidRequest(f"The multipart body has more than {_MOST_PARTS} parts.")

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]
        self._count_header(end - start)

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]
        self._count_header(end - start)

    def _count_header(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > _MOST_HEADER_BYTES:
            raise InvalidRequest("A part of the multipart body has oversized headers.")

    def _on_header_end(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            _, options = parse_options_header(self._header_value)
            filename = options.get(b"filename")
            self._field = Field(_text(options.get(b"name", b"")), None if filename is None else _text(filename))
        self._header_name = self._header_value = b""

    def _on_headers_finished(self) -> None:
        self._ready.append(Piece(self._field, b""))

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._ready.append(Piece(self._field, data[start:end]))

    def _on_end(self) -> None:
        self._ended = True


def _text(raw: bytes) -> str:
    return raw.decode(errors="replace")
