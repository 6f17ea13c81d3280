"""How long things took, counted in bins, so that quantiles of any number of them cost the same little memory."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Annotated

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

Seconds = Annotated[float, msgspec.Meta(ge=0, le=1 << 40)]
"""A time or a duration that is read from where a failing disk may have changed it: what cannot be is not believed."""

_GROWTH = 1.2
# Upper ends in seconds, from a millisecond to over an hour: a quantile is off by a tenth at most.
_ENDS = tuple(0.001 * _GROWTH**step for step in range(84))
# With few digits, but so many that they add nothing to the error.
_MIDDLES = tuple(float(f"{end / _GROWTH**0.5:.4g}") for end in _ENDS)


def no_durations() -> list[int]:
    """Give empty bins."""
    return [0] * (len(_ENDS) + 1)


def bin_of(seconds: float) -> int:
    """Say in which bin a duration is counted."""
    return bisect_left(_ENDS, seconds)


def quantile(counts: Sequence[int], share: float) -> float | None:
    """Give the seconds that a share of the durations did not exceed, by the middle of its bin; ``None`` of nothing."""
    wanted = share * sum(counts)
    passed = 0
    for place, count in enumerate(counts):
        passed += count
        if count and passed >= wanted:
            return _MIDDLES[min(place, len(_MIDDLES) - 1)]
    return None
