"""What a benchmark found, and the table that shows it."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from typing import TextIO


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured number; ``beside`` says what it was measured against in the same run, ``goal`` what we want."""

    bench: str
    what: str
    value: float
    unit: str
    beside: str = ""
    goal: str = ""
    met: bool | None = None

    def to_json(self) -> dict[str, object]:
        """Give the figure as plain data."""
        return asdict(self)


def show(figures: list[Figure], out: TextIO = sys.stdout) -> None:
    """Print a table of figures."""
    rows = [("bench", "what", "figure", "beside", "goal", "met")]
    rows += [
        (figure.bench, figure.what, f"{figure.value:,.4g} {figure.unit}", figure.beside, figure.goal, _word(figure.met))
        for figure in figures
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip(), file=out)


def _word(met: bool | None) -> str:  # noqa: FBT001 - three words for three values
    return {True: "yes", False: "no", None: ""}[met]
