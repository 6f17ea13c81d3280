"""Aligned tables for a terminal: columns give way to its width, ids never do."""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

GAP = 2
NARROWEST = 8


@dataclass(frozen=True, slots=True)
class Heading:
    """How one column is set."""

    name: str
    right: bool = False
    wraps: bool = False


def lay_out(headings: Sequence[Heading], rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """Give the lines of a table, its headings first, none wider than `width` where that can be."""
    cells = [[heading.name for heading in headings], *rows]
    natural = [max(cell_width(row[number]) for row in cells) for number in range(len(headings))]
    widths = fit(natural, width)
    return [line for row in cells for line in _lines(headings, row, widths)]


def fit(natural: Sequence[int], width: int) -> list[int]:
    """Narrow the widest columns, but never the first, until all fit or none can give way."""
    widths = list(natural)
    while sum(widths) + GAP * (len(widths) - 1) > width:
        widest = max(range(1, len(widths)), key=widths.__getitem__, default=0)
        if widest == 0 or widths[widest] <= NARROWEST:
            break
        widths[widest] -= 1
    return widths


def cell_width(text: str) -> int:
    """Count the terminal cells that a text takes."""
    return sum(_width_of(character) for character in text)


def _width_of(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _lines(headings: Sequence[Heading], row: Sequence[str], widths: Sequence[int]) -> list[str]:
    columns = [
        [_shortened(cell, width)] if not heading.wraps else textwrap.wrap(cell, width) or [""]
        for heading, cell, width in zip(headings, row, widths, strict=True)
    ]
    return [_line(headings, parts, widths) for parts in zip_longest(*columns, fillvalue="")]


def _line(headings: Sequence[Heading], parts: Sequence[str], widths: Sequence[int]) -> str:
    padded = []
    for heading, part, width in zip(headings, parts, widths, strict=True):
        space = " " * (width - cell_width(part))
        padded.append(space + part if heading.right else part + space)
    return (" " * GAP).join(padded).rstrip()


def _shortened(text: str, width: int) -> str:
    if cell_width(text) <= width:
        return text
    kept = ""
    for character in text:
        if cell_width(kept + character) > width - 1:
            break
        kept += character
    return kept + "…"
