"""What an image costs in prompt tokens: its size, read from the first bytes, and OpenAI's rule of tiles."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable

LOW_DETAIL = 85
UNKNOWN_SIZE = 765
"""For an image whose size is not known, since it is only named by a URL: that of 1024 × 1024 pixels."""

_TILE = 170
_TILE_PIXELS = 512
_LONG_SIDE = 2048
_SHORT_SIDE = 768

_HEAD = 32
_SEGMENTS = 64
_NO_LENGTH = frozenset({0x01, 0xFF, *range(0xD0, 0xD9)})
_NOT_FRAMES = frozenset({0xC4, 0xC8, 0xCC})
_FRAMES = frozenset(range(0xC0, 0xD0)) - _NOT_FRAMES

Size = tuple[int, int]
_Bytes = Callable[[int, int], bytes]


def image_tokens(size: Size | None, *, low: bool) -> int:
    """Give the tokens of an image: it is shrunk into 2048 × 2048, its short side to 768, then cut into tiles."""
    if low:
        return LOW_DETAIL
    if size is None:
        return UNKNOWN_SIZE
    width, height = _shrunk(*size)
    return LOW_DETAIL + _TILE * -(-width // _TILE_PIXELS) * -(-height // _TILE_PIXELS)


def size_in_url(url: str) -> Size | None:
    """Read width and height from the header of an image in a base64 data URL; ``None`` if they cannot be told.

    Only the header is decoded: some 30 bytes, and for JPEG a few more for each segment before the frame.
    """
    scheme, comma, _ = url[:256].partition(",")
    if not (comma and scheme.startswith("data:") and scheme.endswith(";base64")):
        return None
    start = len(scheme) + 1

    def at(offset: int, count: int) -> bytes:
        group = offset // 3
        first = start + group * 4
        text = url[first : first + ((offset - group * 3 + count + 2) // 3) * 4]
        return base64.b64decode(text, validate=True)[offset - group * 3 :][:count]

    try:
        size = _size(at)
    except (binascii.Error, ValueError, IndexError):
        return None
    return size if size and all(size) else None


def _shrunk(width: int, height: int) -> Size:
    longest = max(width, height)
    if longest > _LONG_SIDE:
        width, height = _scaled(width, height, _LONG_SIDE, longest)
    shortest = min(width, height)
    if shortest > _SHORT_SIDE:
        width, height = _scaled(width, height, _SHORT_SIDE, shortest)
    return width, height


def _scaled(width: int, height: int, to: int, of: int) -> Size:
    return max(width * to // of, 1), max(height * to // of, 1)


def _size(at: _Bytes) -> Size | None:
    head = at(0, _HEAD)
    if head.startswith(b"\x89PNG\r\n\x1a\n") and head[12:16] == b"IHDR":
        return _big(head[16:20]), _big(head[20:24])
    if head.startswith((b"GIF87a", b"GIF89a")):
        return _little(head[6:8]), _little(head[8:10])
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return _webp(head)
    return _jpeg(at) if head.startswith(b"\xff\xd8") else None


def _webp(head: bytes) -> Size | None:
    match head[12:16]:
        case b"VP8X":
            return _little(head[24:27]) + 1, _little(head[27:30]) + 1
        case b"VP8L":
            bits = _little(head[21:25])
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case b"VP8 ":
            return _little(head[26:28]) & 0x3FFF, _little(head[28:30]) & 0x3FFF
    return None


def _jpeg(at: _Bytes) -> Size | None:
    """Step from segment to segment to the frame: EXIF and colour profiles stand before it."""
    offset = 2
    for _ in range(_SEGMENTS):
        segment = at(offset, 9)
        if segment[0] != 0xFF:  # noqa: PLR2004 - how each segment begins
            return None
        marker = segment[1]
        if marker in _NO_LENGTH:
            offset += 1 if marker == 0xFF else 2  # noqa: PLR2004 - a byte of padding
        elif marker in _FRAMES:
            return _big(segment[7:9]), _big(segment[5:7])
        else:
            offset += 2 + _big(segment[2:4])
    return None


def _big(raw: bytes) -> int:
    return int.from_bytes(raw, "big")


def _little(raw: bytes) -> int:
    return int.from_bytes(raw, "little")
