"""How many batches this process owns at once, and which of those that wait it takes next."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING

from overnight.domain.batch import StopCause
from overnight.domain.lanes import Lane, lane_of, shares

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from overnight.dispatch.owned import Owned, Parts
    from overnight.domain.deployment import UpstreamName
    from overnight.domain.ids import BatchId

    # The upstreams, all of which rest, that keep the batches of a lane from going on; none where they can.
    _Resting = Mapping[Lane, tuple[UpstreamName, ...]]

# Each owned batch may hold a log, a descriptor and an index; more than these wait unclaimed. What needs no upstream has
# seats of its own, so that nothing that runs or waits for an upstream is in its way.
RUNNING = 96
"""How many batches may be owned to run."""
ASIDE = 32
"""How many batches may be owned to be checked, finished, cancelled, or to expire."""

# Of batches for upstreams that rest, so many are owned: one of them finds out that an upstream is back.
_TRYING = 4


class Seats:
    """The batches that this process owns, each in the lane for which it was taken.

    ``on_room`` is called when a batch leaves a seat that another waits for, but is owned on.
    """

    def __init__(self, parts: Parts, on_room: Callable[[], None]) -> None:
        self._parts = parts
        self._on_room = on_room
        self._lanes: dict[BatchId, Lane] = {}
        self._owned: dict[BatchId, Owned] = {}
        # Lanes in which batches wait for seats: whoever comes later must not overtake them.
        self._queued: set[Lane] = set()
        self._queued_aside = False
        self._kept: Counter[Lane] = Counter()

    def take(self, owned: Owned, lane: Lane) -> None:
        """Give a claimed batch a seat in the lane that it was claimed from."""
        self._owned[owned.batch.id] = owned
        self._lanes[owned.batch.id] = lane
        self._kept[lane] -= 1
        owned.may_run = lambda: self._may_run(owned)

    def leave(self, owned: Owned) -> None:
        """Take the seat back."""
        if self._owned.get(owned.batch.id) is owned:
            del self._owned[owned.batch.id], self._lanes[owned.batch.id]

    @contextmanager
    def granting(self, waiting: Mapping[Lane, int]) -> Iterator[Mapping[Lane, int]]:
        """Say how many batches are to be claimed from which lanes, and keep seats for them meanwhile.

        Where too many wait, idle batches of ours stop, to wait for their turn again.
        """
        resting = {lane: self._resting(lane) for lane in {*waiting, *self._lanes.values()}}
        able = self._able(waiting, resting)
        granted = self._shares(able)
        self._queued = set(_short(waiting, granted))
        self._queued_aside = any(count > granted.get(lane, 0) for lane, count in _kind(waiting, runs=False).items())
        self._make_room(_short(able, granted), granted, resting)
        self._kept = Counter(granted)
        try:
            yield granted
        finally:
            self._kept.clear()

    def _may_run(self, owned: Owned) -> bool:
        """Say whether a batch that was just let in may run at once; if not, it is given back to wait for its turn."""
        lane = lane_of(owned.batch, self._parts.clock.now())
        if lane.deployment is None or self._lanes[owned.batch.id].deployment is not None:
            return True
        if lane in self._queued or not self._shares({lane: 1}):
            self._queued.add(lane)
            return False
        self._lanes[owned.batch.id] = lane
        if self._queued_aside:
            self._on_room()
        return True

    def _shares(self, waiting: Mapping[Lane, int]) -> dict[Lane, int]:
        held = Counter(self._lanes.values()) + self._kept
        granted: dict[Lane, int] = {}
        for runs, seats in ((False, ASIDE), (True, RUNNING)):
            granted |= shares(_kind(waiting, runs=runs), _kind(held, runs=runs), seats)
        return granted

    def _able(self, waiting: Mapping[Lane, int], resting: _Resting) -> dict[Lane, int]:
        """Leave out what could not go on, but for a few that try."""
        trying = Counter(resting[lane] for lane in self._lanes.values())
        able: dict[Lane, int] = {}
        for lane, count in waiting.items():
            where = resting[lane]
            most = min(count, _TRYING - trying[where]) if where else count
            if most > 0:
                able[lane] = most
                trying[where] += most
        return able

    def _make_room(self, short: Mapping[Lane, int], granted: Mapping[Lane, int], resting: _Resting) -> None:
        """Have batches with nothing in flight wait for their turn again where others wait for their seats."""
        lanes = Counter(self._lanes.values())
        # A batch that stops keeps its seat until what it has done is durable.
        leaving = sum(owned.cause is StopCause.TURN for owned in self._owned.values())
        for owned in islice(self._that_rest(resting), max(0, sum(short.values()) - leaving)):
            lanes[self._lanes[owned.batch.id]] -= 1
            owned.stop(StopCause.TURN)
            leaving += 1
        shut_out = sum(not lanes[lane] and lane not in granted for lane in short)
        for _ in range(shut_out - leaving):
            self._shorten(lanes)

    def _that_rest(self, resting: _Resting) -> Iterator[Owned]:
        """Give the idle ones whose upstreams rest, but for a few that try."""
        trying: Counter[tuple[UpstreamName, ...]] = Counter()
        for batch_id, lane in self._lanes.items():
            where = resting[lane]
            trying[where] += 1
            if where and trying[where] > _TRYING and _idle(self._owned[batch_id]):
                yield self._owned[batch_id]

    def _shorten(self, lanes: Counter[Lane]) -> None:
        """Stop the last idle batch of the lane that holds most, unless that would leave it without any."""
        for lane, holds in lanes.most_common():
            if holds < 2:  # noqa: PLR2004 - its last
                return
            idle = [self._owned[name] for name, other in self._lanes.items() if other == lane]
            last = next((owned for owned in reversed(idle) if _idle(owned)), None)
            if lane.deployment is not None and last is not None:
                lanes[lane] -= 1
                last.stop(StopCause.TURN)
                return

    def _resting(self, lane: Lane) -> tuple[UpstreamName, ...]:
        """Give the upstreams, the deployment's or its filter's, that all rest; none if the lane can go on."""
        if lane.deployment is None:
            return ()
        deployment = self._parts.deployments.known().find(lane.deployment)
        if deployment is None:
            return ()
        groups = (deployment.upstreams, deployment.filter_upstreams)
        return next((group for group in groups if group and self._parts.router.rests(group)), ())


def _short(waiting: Mapping[Lane, int], granted: Mapping[Lane, int]) -> dict[Lane, int]:
    """Say how many of those that would run get no seat."""
    short = {lane: count - granted.get(lane, 0) for lane, count in waiting.items() if lane.deployment is not None}
    return {lane: count for lane, count in short.items() if count > 0}


def _kind(lanes: Mapping[Lane, int], *, runs: bool) -> dict[Lane, int]:
    return {lane: count for lane, count in lanes.items() if (lane.deployment is not None) is runs}


def _idle(owned: Owned) -> bool:
    return owned.cause is None and owned.run is not None and owned.run.idle
