"""Result files: fetched whole or not at all, counted, and their errors grouped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from overnight.domain.reason import ending

if TYPE_CHECKING:
    from overnight.cli.session import Session
    from overnight.client import Batch


class ErrorGroup(msgspec.Struct, frozen=True, kw_only=True):
    """Requests that failed for the same reason."""

    code: str
    count: int
    first_custom_id: str
    message: str


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """A result file on disk."""

    path: str
    lines: int
    codes: str = ""


def lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Cut a stream into its lines; a missing last newline makes no difference."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from whole
    if rest:
        yield rest


def group(error_lines: Iterable[bytes]) -> list[ErrorGroup]:
    """Group the lines of an error file by what went wrong, the most frequent first."""
    groups: dict[str, ErrorGroup] = {}
    for raw in error_lines:
        if not raw.strip():
            continue
        why = ending(raw)
        known = groups.get(why.code) or ErrorGroup(
            code=why.code, count=0, first_custom_id=why.custom_id, message=why.message
        )
        groups[why.code] = msgspec.structs.replace(known, count=known.count + 1)
    return sorted(groups.values(), key=lambda each: -each.count)


def in_words(groups: Iterable[ErrorGroup]) -> str:
    """`2 × rate_limit_exceeded   1 × invalid_request`."""
    return "   ".join(f"{each.count:,} × {each.code}" for each in groups)


def fetch(session: Session, batch: Batch, output: Path, errors: Path) -> list[Written]:
    """Download the result files of a batch that has ended; a file of an earlier run does not stay."""
    written = []
    for file_id, path in ((batch.output_file_id, output), (batch.error_file_id, errors)):
        if not file_id:
            path.unlink(missing_ok=True)
            continue
        session.client.files.download(file_id, path)
        written.append(measure(path, has_errors=path is errors))
    return written


def measure(path: Path, *, has_errors: bool) -> Written:
    """Count the lines of a result file, and its kinds of errors."""
    with path.open("rb") as source:
        if has_errors:
            groups = group(source)
            return Written(path=str(path), lines=sum(each.count for each in groups), codes=in_words(groups))
        return Written(path=str(path), lines=sum(1 for line in source if line.strip()))
