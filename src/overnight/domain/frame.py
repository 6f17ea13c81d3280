"""How a result is laid out in a segment of the result log, and how a torn tail is told from a whole frame.

A segment is ``MAGIC`` and then frames: a header of 32 bytes (checksum, length, line, kind, four token counts; little
endian) and the record. The checksum covers all that follows it.
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
_HEADER = struct.Struct("<IIB3xIIII")
# Looking a kind up costs a tenth of making it.
_KINDS = tuple(ResultKind)
HEADER_BYTES = _CHECKSUM.size + _HEADER.size


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    """A file with frames; only its first ``length`` bytes belong to the log."""

    path: str
    length: int


class Frame(msgspec.Struct, frozen=True, kw_only=True):
    """Where the record of a result lies in its segment."""

    line: int
    kind: ResultKind
    usage: Usage
    offset: int
    length: int


def encode(result: Result) -> bytes:
    """Lay out a result as a frame."""
    usage = result.usage
    header = _HEADER.pack(
        len(result.record),
        result.line,
        result.kind,
        usage.input_tokens,
        usage.cached_tokens,
        usage.output_tokens,
        usage.reasoning_tokens,
    )
    return _CHECKSUM.pack(crc32(result.record, crc32(header))) + header + result.record


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
        size, line, kind, *tokens = _HEADER.unpack_from(head, _CHECKSUM.size)
        start = offset + HEADER_BYTES
        offset = start + size
        if offset > length:
            return
        record = segment.read(size)
        if len(record) < size or crc32(record, crc32(head[_CHECKSUM.size :])) != _CHECKSUM.unpack_from(head)[0]:
            return
        yield Frame(line=line, kind=_KINDS[kind], usage=_usage(tokens), offset=start, length=size)


def _usage(tokens: list[int]) -> Usage:
    sent, cached, received, reasoning = tokens
    if not any(tokens):
        return NO_USAGE
    return Usage(input_tokens=sent, cached_tokens=cached, output_tokens=received, reasoning_tokens=reasoning)
