"""Result files: fetched whole or not at all, counted, and their errors grouped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from overnight.cli.session import Session
    from overnight.client import Batch

UNREADABLE = "unreadable_line"
LONGEST_MESSAGE = 200


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


class _Reason(msgspec.Struct, frozen=True):
    message: str | None = None
    code: str | int | None = None
    type: str | None = None


class _Body(msgspec.Struct, frozen=True):
    error: _Reason | str | None = None


class _Response(msgspec.Struct, frozen=True):
    status_code: int = 0
    body: msgspec.Raw = msgspec.Raw(b"null")


class _Line(msgspec.Struct, frozen=True):
    custom_id: str | None = None
    response: _Response | None = None
    error: _Reason | None = None


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
        code, custom_id, message = _reason(raw)
        known = groups.get(code) or ErrorGroup(code=code, count=0, first_custom_id=custom_id, message=message)
        groups[code] = msgspec.structs.replace(known, count=known.count + 1)
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


def _reason(raw: bytes) -> tuple[str, str, str]:
    """Give code, custom_id and message of one error line."""
    try:
        line = msgspec.json.decode(raw, type=_Line)
    except msgspec.MsgspecError:
        return UNREADABLE, "", ""
    custom_id = line.custom_id or ""
    if line.error is not None:
        return _code(line.error, "error"), custom_id, _short(line.error.message)
    if line.response is None:
        return "no_response", custom_id, ""
    status = f"http_{line.response.status_code}"
    reason = _reason_in_body(line.response.body)
    return _code(reason, status), custom_id, _short(reason.message)


def _reason_in_body(body: msgspec.Raw) -> _Reason:
    try:
        error = msgspec.json.decode(body, type=_Body).error
    except msgspec.MsgspecError:  # some servers answer with text, or with an error of another shape
        return _Reason()
    return error if isinstance(error, _Reason) else _Reason(message=error)


def _code(reason: _Reason, otherwise: str) -> str:
    # Many model servers repeat the status as the code; the type then says more.
    if isinstance(reason.code, str) and not reason.code.isdigit():
        return reason.code
    return reason.type or otherwise


def _short(message: str | None) -> str:
    text = " ".join((message or "").split())
    return text if len(text) <= LONGEST_MESSAGE else text[: LONGEST_MESSAGE - 1] + "…"
