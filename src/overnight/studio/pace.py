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
_SMOOTHED = 10


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
    """The counts of batches over time, in memory: a chart begins when a batch is first looked at."""

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

    def samples(self, batch_id: BatchId) -> tuple[Sample, ...]:
        """Give what was seen of a batch, oldest first."""
        return tuple(self._samples.get(batch_id, ()))

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


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """What a chart draws: at each of the times (unix seconds), how many requests ended a second."""

    times: tuple[float, ...]
    done: tuple[float, ...]
    failed: tuple[float, ...]
    summary: str


def rates(samples: tuple[Sample, ...]) -> Rates:
    """Turn counts into rates, each over the last few seconds: counts grow by leaps."""
    points = [_point(samples, place) for place in range(1, len(samples))]
    done = tuple(point[1] for point in points)
    failed = tuple(point[2] for point in points)
    return Rates(times=tuple(point[0] for point in points), done=done, failed=failed, summary=_in_words(done, failed))


def _point(samples: tuple[Sample, ...], place: int) -> tuple[float, float, float]:
    last = samples[place]
    first = next(sample for sample in samples[max(0, place - _SMOOTHED) :] if last.at - sample.at <= _SMOOTHED)
    first = samples[place - 1] if first is last else first
    seconds = last.at - first.at
    done, failed = (last.completed - first.completed) / seconds, (last.failed - first.failed) / seconds
    return last.at, round(max(0.0, done), 2), round(max(0.0, failed), 2)


def _in_words(done: tuple[float, ...], failed: tuple[float, ...]) -> str:
    if not done:
        return "Nothing was seen of this batch yet."
    failing = f", and {failed[-1]:.1f} fail" if failed[-1] else ""
    return f"{done[-1]:.1f} requests a second succeed now{failing}; at most it was {max(done):.1f}."
