"""Whose turn it is when more batches could go on than a process has seats for."""

from __future__ import annotations

import heapq
from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from overnight.domain.batch import Batch, BatchStatus

if TYPE_CHECKING:
    from collections.abc import Mapping

    from overnight.domain.ids import ResourceId

# A lane may hold up to so many times what it leaves free: whoever comes next finds a seat, however many one asks for.
_TIMES_THE_FREE = 2


class Lane(msgspec.Struct, frozen=True):
    """Batches that take turns as one: those of a resource that run on a deployment, oldest first.

    Without a ``deployment`` those of the resource for which no upstream is needed: they are to be checked, finished,
    cancelled, or to expire.
    """

    resource: ResourceId
    deployment: str | None = None


def lane_of(batch: Batch, now: float) -> Lane:
    """Say where an active batch waits for its turn at a moment (unix seconds)."""
    runs = batch.status is BatchStatus.IN_PROGRESS and not batch.overdue(now)
    return Lane(batch.resource, batch.deployment if runs else None)


def shares(waiting: Mapping[Lane, int], held: Mapping[Lane, int], seats: int) -> dict[Lane, int]:
    """Say how many of the batches that wait get a seat: one by one, always in the lane that holds the fewest.

    Of lanes that hold as many, the first in ``waiting`` comes first. None gets more than twice what is left free.
    """
    free = seats - sum(held.values())
    granted: Counter[Lane] = Counter()
    turns = [(held.get(lane, 0), number, lane) for number, lane in enumerate(waiting)]
    heapq.heapify(turns)
    while turns and turns[0][0] < _TIMES_THE_FREE * free:
        holds, number, lane = heapq.heappop(turns)
        granted[lane] += 1
        free -= 1
        if granted[lane] < waiting[lane]:
            heapq.heappush(turns, (holds + 1, number, lane))
    return dict(granted)
