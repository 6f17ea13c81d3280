"""The pages of the documentation, their code blocks, headings and links."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = (
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    ROOT / "SECURITY.md",
    ROOT / "examples" / "README.md",
    *sorted(DOCS.rglob("*.md")),
)

_FENCE = re.compile(r"^(?P<ticks>```+)(?P<info>[^\n`]*)\n(?P<text>.*?)^(?P=ticks) *$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_TITLE = re.compile(r'title="([^"]+)"')


@dataclass(frozen=True, slots=True)
class Block:
    """A code block: `title` names the file that it is, or says `output` where it is what the block before printed."""

    line: int
    language: str
    title: str
    text: str


def blocks_of(page: Path) -> list[Block]:
    """Give the code blocks of a page, in order."""
    source = page.read_text()
    return [_block(source, found) for found in _FENCE.finditer(source)]


def headings_of(page: Path) -> list[str]:
    """Give the headings of a page, without its code blocks."""
    return _HEADING.findall(_without_blocks(page))


def links_of(page: Path) -> list[str]:
    """Give the targets of the links of a page, without its code blocks."""
    return _LINK.findall(_without_blocks(page))


def anchor_of(heading: str) -> str:
    """Give the fragment under which a heading is reached, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def _without_blocks(page: Path) -> str:
    return _FENCE.sub("", page.read_text())


def _block(source: str, found: re.Match[str]) -> Block:
    language, _, rest = found["info"].strip().partition(" ")
    title = _TITLE.search(rest)
    line = source.count("\n", 0, found.start()) + 1
    return Block(line, language, title[1] if title else "", found["text"])
