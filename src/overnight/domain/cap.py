"""Caps: the most that a resource may use in a day or a month (UTC)."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from enum import StrEnum

import msgspec

from overnight.domain.accounting import Days, UsageTotal, day_of
from overnight.domain.batch import Problem
from overnight.domain.ids import ResourceId
from overnight.domain.price import Prices, money
from overnight.domain.result import BILLING_HARD_LIMIT


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


def describe(cap: Cap, currency: str) -> str:
    """Say what a cap allows."""
    amount = f"{cap.amount:,} tokens" if cap.measure is Measure.TOKENS else f"{money(cap.amount)} {currency}"
    return f"{amount} a {cap.period}"


def problem_of(state: CapState, currency: str) -> Problem:
    """Say why a batch is not run any further."""
    message = (
        f"The cap of this resource is reached: {describe(state.cap, currency)} (UTC). Create the batch again when"
        f" the next {state.cap.period} has begun, or ask the operator for a higher cap."
    )
    return Problem(code=BILLING_HARD_LIMIT[0], message=message)
