"""A bound on requests or tokens per minute, kept by spreading them evenly (the generic cell rate algorithm)."""

from __future__ import annotations

_MINUTE = 60.0
# What one second brings may be spent at once: then a loop that is late by a little loses nothing.
_BURST = 1.0


class Rate:
    """At most ``per_minute`` units in any 60 seconds; all times are seconds of one clock."""

    def __init__(self, per_minute: float) -> None:
        self._seconds_a_unit = (_MINUTE + _BURST) / per_minute
        self._spent_until = 0.0

    def free_at(self) -> float:
        """Say from when on something may be spent, however much it is."""
        return self._spent_until - _BURST

    def spend(self, units: float, now: float) -> None:
        """Take units from what is to come; it is the caller who waits for ``free_at``."""
        self._spent_until = max(self._spent_until, now) + units * self._seconds_a_unit

    def give_back(self, units: float) -> None:
        """Correct an estimate: less than was said has been spent, or more if ``units`` is negative."""
        self._spent_until -= units * self._seconds_a_unit
