"""Waiting for batches to end: how often to ask, what to bear, and what Ctrl-C means."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from overnight.cli import progress
from overnight.cli.failures import StoppedWaiting
from overnight.cli.progress import Snapshot

if TYPE_CHECKING:
    from overnight.cli.views import View
    from overnight.client import Batch, Client

T = TypeVar("T")

# A server that restarts is back within this; after it, waiting on would hide that it is gone.
BEARABLE_OUTAGE = 120.0


@dataclass(frozen=True, slots=True)
class Clock:
    """Time, handed in so that a test need not wait."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


def pauses() -> Iterator[float]:
    """Seconds between polls: eager for short batches, modest for long ones."""
    pause = 0.1
    while True:
        yield pause
        pause = min(pause * 1.25, 5.0)


def until_ended(
    client: Client,
    batches: Iterable[Batch],
    view: View,
    *,
    timeout: float | None = None,
    clock: Clock = Clock(),
) -> list[Batch]:
    """Poll until every batch has ended or the time is up; Ctrl-C stops the waiting only."""
    latest = {batch.id: batch for batch in batches}
    started = clock.now()
    try:
        for pause in pauses():
            view.update(progress.together(snapshot(batch) for batch in latest.values()))
            left = None if timeout is None else started + timeout - clock.now()
            if all(batch.ended for batch in latest.values()) or (left is not None and left <= 0):
                break
            clock.sleep(pause if left is None else min(pause, left))
            _refresh(client, latest, clock)
    except KeyboardInterrupt:
        raise StoppedWaiting([batch.id for batch in latest.values() if not batch.ended]) from None
    finally:
        view.close()
    return list(latest.values())


def _refresh(client: Client, latest: dict[str, Batch], clock: Clock) -> None:
    for batch in [each for each in latest.values() if not each.ended]:
        latest[batch.id] = bearing_outages(partial(client.batches.get, batch.id), clock)


def bearing_outages(ask: Callable[[], T], clock: Clock) -> T:
    """Ask again for a while when the server is away: it may be restarting."""
    from overnight.client import Unreachable

    started = clock.now()
    while True:
        try:
            return ask()
        except Unreachable:
            if clock.now() - started > BEARABLE_OUTAGE:
                raise
            clock.sleep(2.0)


def snapshot(batch: Batch) -> Snapshot:
    """Reduce a batch to what the progress shows."""
    counts = batch.counts
    ended_at = batch.ended_at
    return Snapshot(
        status=batch.status,
        total=counts.total or 0,
        completed=counts.completed or 0,
        failed=counts.failed or 0,
        model=batch.model,
        accepted=batch.in_progress_at is not None,
        seconds=float(ended_at - batch.created_at) if ended_at else None,
    )
