"""What tokens cost. Money is counted in whole millionths of a unit of the currency, never in floating point."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

import msgspec

from overnight.domain.usage import Usage

MICRO = 1_000_000
"""How many millionths make one unit of a currency."""

_PER = 1_000_000
"""A price is for so many tokens."""


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """Prices for a million tokens, in millionths of a unit of the currency."""

    input: int
    cached_input: int
    output: int


class Prices(msgspec.Struct, frozen=True, kw_only=True):
    """The prices by deployment; one that has none is not in it."""

    currency: str
    by_deployment: Mapping[str, Price] = {}

    def cost(self, deployment: str, usage: Usage) -> int | None:
        """Give the cost in millionths; ``None`` where there is no price."""
        price = self.by_deployment.get(deployment)
        return None if price is None else cost(price, usage)


class CostRange(msgspec.Struct, frozen=True, kw_only=True):
    """What something may cost, in millionths; ``most`` is ``None`` where nothing bounds it."""

    least: int
    most: int | None


def micros(amount: Decimal) -> int:
    """Give an amount in millionths. Raises ``ValueError`` if it is negative, endless or finer than that."""
    if not amount.is_finite() or amount < 0:
        message = f"{amount} is no amount of money"
        raise ValueError(message)
    scaled = amount * MICRO
    if scaled != scaled.to_integral_value():
        message = f"{amount} has more than 6 decimal places"
        raise ValueError(message)
    return int(scaled)


def money(amount: int) -> str:
    """Write millionths as a decimal number, with at least two decimal places and no zeros after them."""
    whole, rest = divmod(amount, MICRO)
    places = f"{rest:06d}".rstrip("0")
    return f"{whole}.{places:0<2}"


def cost(price: Price, usage: Usage) -> int:
    """Give the cost of what was used, rounded to a millionth. Cached tokens are part of the input."""
    cached = min(usage.cached_tokens, usage.input_tokens)
    exact = (
        (usage.input_tokens - cached) * price.input + cached * price.cached_input + usage.output_tokens * price.output
    )
    return _rounded(exact)


def expected_cost(price: Price, *, prompt_tokens: int, error: int, output_bound: int | None) -> CostRange:
    """Give what a file may cost: from its prompts alone to its longest answers; nothing is taken to be cached."""
    least = max(prompt_tokens - error, 0) * price.input
    most = (prompt_tokens + error) * price.input
    return CostRange(
        least=_rounded(least),
        most=None if output_bound is None else _rounded(most + output_bound * price.output),
    )


def _rounded(exact: int) -> int:
    return (exact + _PER // 2) // _PER
