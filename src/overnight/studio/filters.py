"""Which batches a list shows: words such as ``status:failed model:qwen3 created:>2026-11-01``."""

from __future__ import annotations

import re
import shlex
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from overnight.domain.batch import TERMINAL, BatchStatus
from overnight.domain.listing import Condition
from overnight.studio import view_models

if TYPE_CHECKING:
    from overnight.domain.batch import Batch

QUALIFIERS = ("status:", "model:", "endpoint:", "file:", "meta.KEY:", "created:>", "created:<")
MOST_CHARS = 500
_META = "meta."
_CREATED = re.compile(r"(?P<sign>[<>]=?)(?P<day>\d{4}-\d{2}-\d{2})(?:T(?P<time>\d{2}:\d{2})Z?)?")
UNENDED = tuple(Condition("status", "ne", status) for status in sorted(TERMINAL))
ENDED = tuple(Condition("status", "ne", status) for status in sorted(set(BatchStatus) - TERMINAL))
_SIGNS = {">": "gt", ">=": "ge", "<": "lt", "<=": "le"}


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for; ``problem`` says which words were not understood and so do not count."""

    conditions: tuple[Condition, ...] = ()
    wanted: tuple[tuple[str, str], ...] = ()
    words: tuple[str, ...] = ()
    attention: bool = False
    problem: str = ""
    active_first: bool = False

    def matches(self, batch: Batch) -> bool:
        """Say whether a batch is wanted, as far as the store has not looked already."""
        if self.attention and view_models.badge(batch).tone not in {"warning", "danger"}:
            return False
        return all(_is(batch, name, value) for name, value in self.wanted) and all(
            _mentions(batch, word) for word in self.words
        )


def parse(text: str, view: str = "all", *, active_first: bool = False) -> Filter:
    """Read a filter; what cannot be understood is told, never an error. ``view`` is active, attention or all."""
    conditions: list[Condition] = list(UNENDED) if view == "active" else []
    wanted: list[tuple[str, str]] = []
    words: list[str] = []
    unknown: list[str] = []
    for word in _split(text[:MOST_CHARS]):
        name, colon, value = word.partition(":")
        if not colon:
            words.append(word.lower())
        elif name in {"status", "created"}:
            condition = _condition(name, value)
            if condition is None:
                unknown.append(word)
            else:
                conditions.append(condition)
        elif value and (name in {"model", "endpoint", "file"} or name.startswith(_META)):
            wanted.append((name, value))
        else:
            unknown.append(word)
    return Filter(
        conditions=tuple(conditions),
        wanted=tuple(wanted),
        words=tuple(words),
        attention=view == "attention",
        problem=_complain(unknown),
        active_first=active_first,
    )


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        # A quotation mark that is still open: somebody types.
        return text.split()


def _condition(name: str, value: str) -> Condition | None:
    if name == "status":
        known = {status.replace("_", ""): status for status in BatchStatus}
        status = known.get(value.lower().replace("_", "").replace("-", ""))
        return None if status is None else Condition("status", "eq", status)
    match = _CREATED.fullmatch(value)
    if match is None:
        return None
    try:
        moment = datetime.fromisoformat(f"{match['day']}T{match['time'] or '00:00'}").replace(tzinfo=UTC)
    except ValueError:
        return None
    return Condition("created_at", _SIGNS[match["sign"]], int(moment.timestamp()))


def _is(batch: Batch, name: str, value: str) -> bool:
    match name:
        case "model":
            return value in {batch.model, batch.deployment}
        case "endpoint":
            return value in {batch.endpoint, batch.endpoint.removeprefix("/v1")}
        case "file":
            return value in {batch.input_file_id, batch.output_file_id, batch.error_file_id}
    return (batch.metadata or {}).get(name.removeprefix(_META)) == value


def _mentions(batch: Batch, word: str) -> bool:
    texts = (batch.id, batch.model or "", *(batch.metadata or {}).values())
    return any(word in text.lower() for text in texts)


def _complain(unknown: list[str]) -> str:
    if not unknown:
        return ""
    return f"Not understood, so left out: {', '.join(unknown)}. Known are {', '.join(QUALIFIERS)} and words of a name."
