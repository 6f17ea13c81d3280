"""Pieces of large files, line by line, by byte offsets."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import quote

import msgspec

if TYPE_CHECKING:
    from overnight.domain.file import File

WINDOW = 256 * 1024
_LINES = 100
_SHOWN = 2_000
_MOST_DIGITS = 15


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """A line of a file; ``cut`` says how much of it is not shown. ``raw`` is all that was read of it."""

    offset: int
    text: str
    cut: str = ""
    raw: bytes = b""


class Excerpt(msgspec.Struct, frozen=True, kw_only=True):
    """Some lines of a file; ``following`` is the offset of the next ones, ``None`` at the end."""

    lines: tuple[Line, ...]
    start: int
    following: int | None
    place: str


def offset_of(text: str) -> int:
    """Read an offset from a URL; what is none means the beginning."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS else 0


def lines_of(raw: bytes, start: int, size: int, most: int = _LINES) -> Excerpt:
    """Cut the bytes of a file from ``start`` on into lines; one that is cut off by the window is left to the next."""
    lines: list[Line] = []
    at = start
    for piece in raw.split(b"\n")[:most]:
        end = at + len(piece)
        whole = end - start < len(raw) or start + len(raw) >= size
        if not whole and lines:
            break
        if piece or end < size:
            lines.append(_line(at, piece))
        at = end + 1 if whole else end
    following = at if at < size else None
    place = f"{min(start, size):,} to {min(at, size):,} of {size:,} bytes"
    return Excerpt(lines=tuple(lines), start=start, following=following, place=place)


def _line(offset: int, raw: bytes) -> Line:
    text = raw.decode(errors="replace").rstrip("\r")
    more = len(text) - _SHOWN
    return Line(
        offset=offset, text=visible(text[:_SHOWN]), cut=f"{more:,} more characters" if more > 0 else "", raw=raw
    )


def visible(text: str) -> str:
    """Show what would otherwise steer a terminal or the direction of writing."""
    return _STEERS.sub(lambda match: _shown(match[0]), text)


def _shown(char: str) -> str:
    code = ord(char)
    # Control characters have pictures of their own.
    return chr(0x2400 + code) if code < 32 else f"⟨U+{code:04X}⟩"  # noqa: PLR2004 - the first that is none


_STEERING = frozenset("\x7f\u061c\u200b\u200e\u200f\u2028\u2029\ufeff") | {
    chr(code) for first, last in ((0x80, 0x9F), (0x202A, 0x202E), (0x2066, 0x2069)) for code in range(first, last + 1)
}


_STEERS = re.compile(f"[\\x00-\\x08\\x0a-\\x1f{''.join(sorted(_STEERING))}]")
_UNREADABLE = re.compile(f"[\\x00-\\x08\\x0b-\\x1f{''.join(sorted(_STEERING))}]")


def readable(text: str) -> str:
    """Do the same with a text of several lines, however long; its line breaks stay."""
    return _UNREADABLE.sub(lambda match: _shown(match[0]), text.replace("\r\n", "\n"))


def escaped(text: str) -> str:
    """Show the same in JSON by its escapes, which mean the same to whatever reads it."""
    return _STEERS.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def as_attachment(file: File) -> dict[str, str]:
    """Give the headers that let a browser store a file under its name, and never show it."""
    name = quote(file.filename, safe="")
    return {"content-length": str(file.bytes), "content-disposition": f"attachment; filename*=UTF-8''{name}"}
