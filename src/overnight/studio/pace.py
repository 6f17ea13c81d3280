"""How fast batches get on, from what was seen of them while somebody looked."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import msgspec

from overnight.domain.batch import BatchStatus
from overnight.studio.view_models import NO_PACE, Pace

if TYPE_CHECKING:
    from overnight.domain.batch import Batch
    from overnight.domain.ids import BatchId

# In seconds; about as many samples are kept of each batch, and of so many batches.
_RECENT = 30.0
_LONG_ENOUGH = 20.0
_SAMPLES = 900
_BATCHES = 500


class Sample(msgspec.Struct, frozen=True):
    """The counts of a batch at a moment (unix seconds)."""

    at: float
    completed: int
    failed: int

    @property
    def done(self) -> int:
        """The requests that have ended."""
        return self.completed + self.failed


class Paces:
    """The counts of batches over the last half minute in which somebody looked, in memory."""

    def __init__(self) -> None:
        self._samples: dict[BatchId, deque[Sample]] = {}

    def see(self, batch: Batch, now: float) -> Pace:
        """Note the counts of a batch and say how fast it is."""
        if batch.status != BatchStatus.IN_PROGRESS or batch.in_progress_at is None:
            return NO_PACE
        samples = self._samples.setdefault(batch.id, deque(maxlen=_SAMPLES))
        if not samples or now - samples[-1].at >= 1:
            samples.append(Sample(now, batch.completed, batch.failed))
            self._forget_oldest()
        done = batch.completed + batch.failed
        age = now - batch.in_progress_at
        return Pace(overall=done / age if age >= 1 else 0.0, recent=_recent(samples))

    def __len__(self) -> int:
        """Say of how many batches something is remembered."""
        return len(self._samples)

    def _forget_oldest(self) -> None:
        while len(self._samples) > _BATCHES:
            self._samples.pop(min(self._samples, key=lambda batch_id: self._samples[batch_id][-1].at))


def _recent(samples: deque[Sample]) -> float | None:
    """Say how fast the last requests ended; that none did is only known once nobody has seen one for a while."""
    last = samples[-1]
    first = next(sample for sample in samples if last.at - sample.at <= _RECENT)
    ended, seconds = last.done - first.done, last.at - first.at
    if not ended:
        return 0.0 if seconds >= _LONG_ENOUGH else None
    return ended / seconds
