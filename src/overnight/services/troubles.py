"""Keeps in mind which batches are in trouble, for ``GET /ready``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overnight.ports.troubles import Trouble

if TYPE_CHECKING:
    from collections.abc import Sequence

    from overnight.domain.ids import BatchId
    from overnight.ports.clock import Clock


class TroublesInMind:
    """Keeps the promises of ``ports/troubles.py`` for this process."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._troubles: dict[BatchId, Trouble] = {}

    def note(self, batch_id: BatchId, error: Exception, *, bytes_waiting: int = 0) -> None:
        before = self._troubles.get(batch_id)
        self._troubles[batch_id] = Trouble(
            batch_id=batch_id,
            # Without the path that an error of the system may name: anybody may ask.
            problem=(error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__,
            since=self._clock.now() if before is None else before.since,
            bytes_waiting=bytes_waiting,
        )

    def over(self, batch_id: BatchId) -> None:
        self._troubles.pop(batch_id, None)

    def known(self) -> Sequence[Trouble]:
        """Give those that are not over, the oldest first."""
        return sorted(self._troubles.values(), key=lambda trouble: trouble.since)
