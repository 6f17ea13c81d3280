"""What was used, by resource, deployment and day (UTC), and how a batch raises it."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import msgspec

from overnight.domain.batch import Batch
from overnight.domain.errors import InvalidRequest
from overnight.domain.ids import ResourceId
from overnight.domain.limits import USAGE_DAYS
from overnight.domain.result import Tally
from overnight.domain.usage import NO_USAGE, Usage

DEFAULT_DAYS = 30
"""How many days are told of if nobody asks for others, today included."""


class UsageDay(msgspec.Struct, frozen=True, kw_only=True):
    """What a resource used of a deployment on a day (YYYY-MM-DD)."""

    resource: ResourceId
    deployment: str
    day: str
    completed: int = 0
    failed: int = 0
    usage: Usage = NO_USAGE


class UsageTotal(msgspec.Struct, frozen=True, kw_only=True):
    """What a resource used of a deployment on some days together."""

    resource: ResourceId
    deployment: str
    completed: int = 0
    failed: int = 0
    usage: Usage = NO_USAGE


class Days(msgspec.Struct, frozen=True, kw_only=True):
    """A range of days (YYYY-MM-DD), both ends included."""

    first: str
    last: str


def day_of(now: float) -> str:
    """Give the day (UTC) of a moment in unix seconds."""
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d")


def tally_of(batch: Batch) -> Tally:
    """Give what a batch counts."""
    return Tally(completed=batch.completed, failed=batch.failed, usage=batch.usage)


def difference(now: Tally, before: Tally) -> Tally:
    """Give what came in between two tallies of one batch."""
    return Tally(
        completed=now.completed - before.completed,
        failed=now.failed - before.failed,
        usage=Usage(
            input_tokens=now.usage.input_tokens - before.usage.input_tokens,
            cached_tokens=now.usage.cached_tokens - before.usage.cached_tokens,
            output_tokens=now.usage.output_tokens - before.usage.output_tokens,
            reasoning_tokens=now.usage.reasoning_tokens - before.usage.reasoning_tokens,
        ),
    )


def tally_after(stored: Batch, new: Batch, expected: Batch) -> Tally:
    """Give what a batch counts once the fields in which ``new`` differs from ``expected`` were written."""
    now, known, kept = tally_of(new), tally_of(expected), tally_of(stored)
    written = {name: getattr(now, name) for name in now.__struct_fields__ if getattr(now, name) != getattr(known, name)}
    return msgspec.structs.replace(kept, **written)


def account_of(batch: Batch) -> str:
    """Say under which deployment the results of a batch are booked."""
    return batch.deployment or ""


def parse_days(first: str | None, last: str | None, now: float) -> Days:
    """Read a range of days; without an end it is today, without a beginning the last 30 days.

    Raises:
        InvalidRequest: an end is no day, they are in the wrong order, or there are more days than are told of at once.
    """
    end = _parse_day(last, "to") if last is not None else datetime.fromtimestamp(now, UTC).date()
    start = _parse_day(first, "from") if first is not None else _days_before(end, DEFAULT_DAYS - 1)
    if start > end:
        message = f"Invalid 'from': {start} is after {end}, the day in 'to'. Give the earlier day first."
        raise InvalidRequest(message, param="from", code="invalid_value")
    days = (end - start).days + 1
    if days > USAGE_DAYS:
        message = f"Invalid 'from': {start} to {end} are {days:,} days. Ask for {USAGE_DAYS} days at most."
        raise InvalidRequest(message, param="from", code="invalid_value")
    return Days(first=start.isoformat(), last=end.isoformat())


def _days_before(end: date, days: int) -> date:
    return date.min if end.toordinal() <= days else end - timedelta(days=days)


def _parse_day(text: str, param: str) -> date:
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).date()
    except ValueError as error:
        message = f"Invalid '{param}': '{text[:40]}' is no day. Write it as YYYY-MM-DD, such as 2026-01-31."
        raise InvalidRequest(message, param=param, code="invalid_value") from error
