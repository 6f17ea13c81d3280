"""One streaming pass over an input file: problems, the model, and the index of its requests.

Runs in a worker process (``ports/offload.py``), so everything here is synchronous and can be pickled.
"""

from __future__ import annotations

import inspect
import sys
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from overnight.domain.batch import Problem
from overnight.domain.index import pack
from overnight.domain.request import BOM, decode_head
from overnight.domain.validation import Checker, Rules

if TYPE_CHECKING:
    from collections.abc import Iterator

_READ_BUFFER = 1024 * 1024
_DEEPEST = 256


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a pass found. ``problem_count`` is the true total, ``problems`` holds the first ones."""

    requests: int
    problems: tuple[Problem, ...]
    problem_count: int
    model: str | None
    endpoint: str | None
    bytes: int


def check_file(path: Path, rules: Rules, index_path: Path | None = None) -> Report:
    """Check a file against the rules and write the index of its requests to ``index_path``.

    Memory stays constant but for the ids: no more than one line is held. Raises ``OSError``.
    """
    checker = Checker(rules)
    opened = index_path.open("wb") if index_path else nullcontext()
    with path.open("rb", buffering=_READ_BUFFER) as source, opened as index, _bounded_nesting():
        _check_lines(checker, source, rules, index)
    problems = checker.verdict()
    return Report(
        requests=checker.requests,
        problems=problems,
        problem_count=max(checker.problem_count, min(len(problems), 1)),
        model=checker.model,
        endpoint=checker.endpoint,
        bytes=path.stat().st_size,
    )


def first_model(path: Path, line_bytes: int) -> str | None:
    """Give the model that the first request names, or ``None`` if that cannot be told. Raises ``OSError``."""
    with path.open("rb", buffering=_READ_BUFFER) as source:
        _, _, _, raw = next(lines(source, line_bytes), (0, 0, 0, None))
    try:
        model = decode_head(raw or b"").body.model
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return model if isinstance(model, str) else None


@contextmanager
def _bounded_nesting() -> Iterator[None]:
    """Let the decoder refuse what is nested deeper than ``_DEEPEST``, however deep the caller's own stack is.

    What passes here is decoded again on the event loop, where more of the stack may be in use.
    """
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(min(before, len(inspect.stack(0)) + _DEEPEST))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def _check_lines(checker: Checker, source: BinaryIO, rules: Rules, index: BinaryIO | None) -> None:
    for number, offset, size, raw in lines(source, rules.line_bytes):
        if checker.requests == rules.requests_per_file:
            checker.too_many()
            return
        if raw is None:
            checker.too_long(number, size)
            continue
        checker.check(number, raw)
        if index is not None:
            index.write(pack(offset, size))


def lines(source: BinaryIO, longest: int) -> Iterator[tuple[int, int, int, bytes | None]]:
    """Split a file into its lines that are not blank; a BOM, CRLF and a missing last newline make no difference.

    Gives the number of each line (from 1), its offset, its size with the line break, which JSON readers skip, and its
    bytes, or ``None`` if it is too long to be read.
    """
    offset = _skip_bom(source)
    number = 0
    while raw := source.readline(longest + 2):
        number += 1
        size = len(raw)
        if size > longest and len(raw.rstrip(b"\r\n")) > longest:
            size += _skip_line(source, ended=raw.endswith(b"\n"))
            yield number, offset, size, None
        elif not raw.isspace():
            yield number, offset, size, raw
        offset += size


def _skip_bom(source: BinaryIO) -> int:
    if source.read(len(BOM)) == BOM:
        return len(BOM)
    source.seek(0)
    return 0


def _skip_line(source: BinaryIO, *, ended: bool) -> int:
    skipped = 0
    while not ended:
        piece = source.readline(_READ_BUFFER)
        skipped += len(piece)
        ended = not piece or piece.endswith(b"\n")
    return skipped
