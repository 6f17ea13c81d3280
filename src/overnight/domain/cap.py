"""Caps: the most that a resource may use in a day or a month (UTC)."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from enum import StrEnum

import msgspec

from overnight.domain.accounting import Days, UsageTotal, day_of
from overnight.domain.batch import Problem
from overnight.domain.ids import ResourceId
from overnight.domain.price import Prices, micros, money
from overnight.domain.result import BILLING_HARD_LIMIT

# What the database can hold.
_LARGEST = 2**63 - 1


class Period(StrEnum):
    """How long a cap counts before it begins anew."""

    DAY = "day"
    MONTH = "month"


class Measure(StrEnum):
    """What a cap bounds: input and output tokens together, or what they cost."""

    TOKENS = "tokens"
    SPEND = "spend"


class Cap(msgspec.Struct, frozen=True, kw_only=True):
    """The most that a resource may use in a period: tokens, or millionths of a unit of the currency."""

    resource: ResourceId
    period: Period
    measure: Measure
    amount: int


class CapState(msgspec.Struct, frozen=True, kw_only=True):
    """A cap, and how much of it is used."""

    cap: Cap
    used: int

    @property
    def reached(self) -> bool:
        """Whether nothing more may be started."""
        return self.used >= self.cap.amount


def days_of(period: Period, now: float) -> Days:
    """Give the days of the period that a moment (unix seconds) is in, up to that moment."""
    today = datetime.fromtimestamp(now, UTC).date()
    first = today if period is Period.DAY else today.replace(day=1)
    return Days(first=first.isoformat(), last=day_of(now))


def used(measure: Measure, totals: Iterable[UsageTotal], prices: Prices) -> int:
    """Add up what a cap bounds; what has no price costs nothing."""
    if measure is Measure.TOKENS:
        return sum(total.usage.total_tokens for total in totals)
    return sum(prices.cost(total.deployment, total.usage) or 0 for total in totals)


def parse_amount(text: str, measure: Measure) -> int:
    """Read the amount of a cap: tokens, or money as a decimal number. Raises ``ValueError`` if it is neither."""
    amount = int(text.replace(",", "").replace("_", "")) if measure is Measure.TOKENS else micros(_decimal(text))
    if not 0 <= amount <= _LARGEST:
        message = f"{amount} is out of range"
        raise ValueError(message)
    return amount


def _decimal(text: str) -> Decimal:
    try:
        found = Decimal(text)
    except InvalidOperation as error:
        message = f"{text} is no number"
        raise ValueError(message) from error
    # Looked at before it is scaled: 1e999999 is short to write and long to compute with.
    if not found.is_finite() or found > _LARGEST:
        message = f"{text} is out of range"
        raise ValueError(message)
    return found


def describe(cap: Cap, currency: str) -> str:
    """Say what a cap allows."""
    amount = f"{cap.amount:,} tokens" if cap.measure is Measure.TOKENS else f"{money(cap.amount)} {currency}"
    return f"{amount} a {cap.period}"


def problem_of(state: CapState, currency: str) -> Problem:
    """Say why a batch is not run any further."""
    message = (
        f"The cap of this resource is reached: {describe(state.cap, currency)} (UTC). Create the batch again when"
        f" the next {state.cap.period} has begun, or ask the operator for a higher cap. If it was running already,"
        " retry only the requests that did not run."
    )
    return Problem(code=BILLING_HARD_LIMIT[0], message=message)
