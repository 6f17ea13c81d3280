"""How a result is laid out in a segment of the result log, and how a torn tail is told from a whole frame.

A segment is ``MAGIC`` and then frames: a header of 32 bytes (checksum, lengths, line, kind, four token counts; little
endian), the record, and the trail of the request. The checksum covers all that follows it.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, BinaryIO
from zlib import crc32

import msgspec

from overnight.domain.result import Result, ResultKind
from overnight.domain.usage import NO_USAGE, Usage

if TYPE_CHECKING:
    from collections.abc import Iterator

MAGIC = b"ovnlog1\n"
_CHECKSUM = struct.Struct("<I")
_HEADER = struct.Struct("<IIBxHIIII")
# Looking a kind up costs a tenth of making it.
_KINDS = tuple(ResultKind)
HEADER_BYTES = _CHECKSUM.size + _HEADER.size


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    """A file with frames; only its first ``length`` bytes belong to the log."""

    path: str
    length: int


class Frame(msgspec.Struct, frozen=True, kw_only=True):
    """Where the record of a result lies in its segment; right behind it comes the ``trail`` (``domain/trail.py``)."""

    line: int
    kind: ResultKind
    usage: Usage
    offset: int
    length: int
    trail: bytes = b""

    @property
    def end(self) -> int:
        """Where the next frame begins."""
        return self.offset + self.length + len(self.trail)


def encode(result: Result) -> bytes:
    """Lay out a result as a frame."""
    usage = result.usage
    header = _HEADER.pack(
        len(result.record),
        result.line,
        result.kind,
        len(result.trail),
        usage.input_tokens,
        usage.cached_tokens,
        usage.output_tokens,
        usage.reasoning_tokens,
    )
    checksum = crc32(result.trail, crc32(result.record, crc32(header)))
    return b"".join((_CHECKSUM.pack(checksum), header, result.record, result.trail))


def scan(segment: BinaryIO, length: int) -> Iterator[Frame]:
    """Read the frames within the first ``length`` bytes, up to the first that is cut off or damaged."""
    if segment.read(len(MAGIC)) == MAGIC:
        yield from scan_from(segment, len(MAGIC), length)


def scan_from(segment: BinaryIO, offset: int, length: int) -> Iterator[Frame]:
    """Go on reading at the frame that begins at ``offset``, where the segment stands; see ``scan``."""
    while offset + HEADER_BYTES <= length:
        head = segment.read(HEADER_BYTES)
        if len(head) < HEADER_BYTES:
            return
        size, line, kind, trail, *tokens = _HEADER.unpack_from(head, _CHECKSUM.size)
        start = offset + HEADER_BYTES
        offset = start + size + trail
        if offset > length:
            return
        data = segment.read(size + trail)
        if len(data) < size + trail or crc32(data, crc32(head[_CHECKSUM.size :])) != _CHECKSUM.unpack_from(head)[0]:
            return
        yield Frame(line=line, kind=_KINDS[kind], usage=_usage(tokens), offset=start, length=size, trail=data[size:])


def _usage(tokens: list[int]) -> Usage:
    sent, cached, received, reasoning = tokens
    if not any(tokens):
        return NO_USAGE
    return Usage(input_tokens=sent, cached_tokens=cached, output_tokens=received, reasoning_tokens=reasoning)
