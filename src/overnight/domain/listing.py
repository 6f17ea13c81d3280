"""Which batches a list shows: Azure's ``$filter`` and ``$orderby`` (CONTRACT section 1.8)."""

from __future__ import annotations

import re

import msgspec

from overnight.domain.batch import BatchStatus
from overnight.domain.errors import InvalidRequest
from overnight.domain.ids import BatchId

# All are for texts with single blanks: patterns that look for runs of them take quadratic time on long ones.
_CONDITION = re.compile(r"(created_at|status) (eq|ne|gt|ge|lt|le) ('[^']*'|\d{1,12})", re.IGNORECASE)
_AND = re.compile(r" and ", re.IGNORECASE)
_ORDER = re.compile(r"created_at( (asc|desc))?", re.IGNORECASE)
_STATUSES = {status.replace("_", ""): status for status in BatchStatus}


class Condition(msgspec.Struct, frozen=True):
    """One comparison; ``operator`` is eq, ne, gt, ge, lt or le."""

    field: str
    operator: str
    value: int | str


class BatchQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which batches to list: all conditions hold, from behind ``after``, newest first unless said otherwise."""

    limit: int
    after: BatchId | None = None
    conditions: tuple[Condition, ...] = ()
    oldest_first: bool = False


def parse_filter(text: str | None) -> tuple[Condition, ...]:
    """Read conditions such as ``created_at gt 1728860560 and status eq 'Completed'``.

    Raises:
        InvalidRequest: a condition is of another form.
    """
    return tuple(_condition(part) for part in _AND.split(_single_spaced(text))) if text else ()


def parse_order(text: str | None) -> bool:
    """Read an order and say whether the oldest come first. Raises ``InvalidRequest``."""
    match = _ORDER.fullmatch(_single_spaced(text or "created_at desc"))
    if match is None:
        message = f"Invalid value for '$orderby': '{text}'. Supported values are: 'created_at asc', 'created_at desc'."
        raise InvalidRequest(message, param="$orderby", code="invalid_value")
    return (match[2] or "asc").lower() == "asc"


def _single_spaced(text: str) -> str:
    return " ".join(text.split())


def _condition(text: str) -> Condition:
    match = _CONDITION.fullmatch(text)
    if match is None:
        raise _unreadable(text)
    field, operator, value = match[1].lower(), match[2].lower(), match[3].strip("'")
    if field == "created_at" and value.isdecimal():
        return Condition(field, operator, int(value))
    status = _STATUSES.get(value.lower().replace("_", ""))
    if field == "status" and status is not None and operator in {"eq", "ne"}:
        return Condition(field, operator, status)
    raise _unreadable(text)


def _unreadable(text: str) -> InvalidRequest:
    message = (
        f"Invalid value for '$filter': '{text}'. Compare created_at with a number of seconds (eq, ne, gt, ge, lt, le)"
        " or status with a quoted status (eq, ne), and join comparisons with 'and'."
    )
    return InvalidRequest(message, param="$filter", code="invalid_value")
