"""How often something may happen: the arithmetic of one allowance that fills up again at a steady pace.

An allowance is one number: the moment at which it is full again. Anything at or before now is a full one, so a caller
that was never seen needs no record.
"""

from __future__ import annotations

import msgspec

MINUTE = 60.0


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """``most`` times within ``seconds``, all at once if need be, then as fast as the allowance fills up again."""

    most: int
    seconds: float = MINUTE

    @property
    def each(self) -> float:
        """Seconds until one more may happen, once the allowance is used up."""
        return self.seconds / self.most


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """What came of asking once. ``full_at`` is the allowance to remember; a refusal leaves it as it was.

    ``left`` is how often more may be asked now, ``wait`` the seconds until one more may, 0 if one was given.
    """

    given: bool
    full_at: float
    left: int
    wait: float


def take(rate: Rate, full_at: float, now: float) -> Taken:
    """Ask once at ``now``, by the same clock as ``full_at``."""
    spent = max(full_at, now)
    after = spent + rate.each
    over = after - now - rate.seconds
    # Sums of fractions are not exact, and the last of `most` must not fail by the last bit.
    if over > rate.each / 2:
        return Taken(given=False, full_at=full_at, left=0, wait=over)
    left = round((rate.seconds - (after - now)) / rate.each)
    return Taken(given=True, full_at=after, left=left, wait=0.0)
