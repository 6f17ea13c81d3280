"""How far a batch is, how fast it goes, and when it may be done: pure functions over what was seen."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from overnight import human

RECENT = 30.0
ETA_AFTER_RESULTS = 20
ETA_AFTER_SHARE = 0.05
LOG_EVERY_SHARE = 0.1
LOG_EVERY_SECONDS = 30.0
BAR_WIDTH = 20
ENDED = frozenset({"completed", "failed", "expired", "cancelled"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A batch, or several added up, as one poll saw it."""

    status: str
    total: int = 0
    completed: int = 0
    failed: int = 0
    model: str | None = None
    accepted: bool = False
    """Validation let the requests in."""
    seconds: float | None = None
    """From creation to the end, once there is an end."""

    @property
    def done(self) -> int:
        return self.completed + self.failed

    @property
    def ended(self) -> bool:
        return self.status in ENDED

    @property
    def share(self) -> float:
        return self.done / self.total if self.total else 0.0


@dataclass(slots=True)
class Pace:
    """Requests a second, over all that was seen and over the last half minute."""

    _samples: deque[tuple[float, int]] = field(default_factory=deque)
    _first: tuple[float, int] | None = None

    def add(self, now: float, snapshot: Snapshot) -> None:
        """Note what a poll saw; only the time in progress counts, and its end."""
        if snapshot.status != "in_progress" and not (self._samples and snapshot.done > self._samples[-1][1]):
            return
        done = snapshot.done
        self._first = self._first or (now, done)
        self._samples.append((now, done))
        while len(self._samples) > 2 and now - self._samples[1][0] >= RECENT:  # noqa: PLR2004 - keep a pair
            self._samples.popleft()

    @property
    def overall(self) -> float:
        return self._since(self._first)

    @property
    def recent(self) -> float:
        return self._since(self._samples[0] if self._samples else None)

    def _since(self, start: tuple[float, int] | None) -> float:
        if start is None or not self._samples:
            return 0.0
        now, done = self._samples[-1]
        return (done - start[1]) / (now - start[0]) if now > start[0] else 0.0


def eta(snapshot: Snapshot, pace: Pace) -> tuple[float, float] | None:
    """Give the seconds that are left, at best and at worst; None while that would be a guess."""
    enough = snapshot.done >= ETA_AFTER_RESULTS and snapshot.share >= ETA_AFTER_SHARE
    rates = [rate for rate in (pace.overall, pace.recent) if rate > 0]
    left = snapshot.total - snapshot.done
    if not (enough and rates and left > 0):
        return None
    return left / max(rates), left / min(rates)


@dataclass(slots=True)
class LogGate:
    """Lets one line through per 10 % or 30 s: progress for a log."""

    _step: int = 0
    _at: float | None = None

    def due(self, now: float, share: float) -> bool:
        step = int(share / LOG_EVERY_SHARE + 1e-9)
        if self._at is None:
            self._at = now
        if step <= self._step and now - self._at < LOG_EVERY_SECONDS:
            return False
        self._step, self._at = max(step, self._step), now
        return True


def describe(snapshot: Snapshot, pace: Pace) -> str:
    """`12,410/50,000   31 failed   212 requests/s   about 3 min`."""
    parts = [f"{snapshot.done:,}/{snapshot.total:,}"] if snapshot.total else []
    if snapshot.failed:
        parts.append(f"{snapshot.failed:,} failed")
    if speed := pace.recent if snapshot.status == "in_progress" else pace.overall:
        parts.append(human.rate(speed))
    left = eta(snapshot, pace) if snapshot.status == "in_progress" else None
    if left:
        parts.append(human.between(*left))
    return "   ".join(parts)


def bar(share: float) -> str:
    """Draw a share of the whole; full only when it is."""
    filled = int(min(share, 1.0) * BAR_WIDTH)
    return "█" * filled + "░" * (BAR_WIDTH - filled)


def outcome(snapshot: Snapshot) -> str:
    """`17 succeeded, 3 failed, 0.6 s`."""
    parts = [f"{snapshot.completed:,} succeeded"]
    if snapshot.failed:
        parts.append(f"{snapshot.failed:,} failed")
    if missing := snapshot.total - snapshot.done:
        parts.append(f"{missing:,} not run")
    if snapshot.seconds is not None:
        parts.append(human.span(snapshot.seconds))
    return ", ".join(parts)


def together(snapshots: Iterable[Snapshot]) -> Snapshot:
    """Add several batches up; the sum is in progress until all have ended."""
    each = list(snapshots)
    if len(each) == 1:
        return each[0]
    status = "completed" if all(one.ended for one in each) else "in_progress"
    return Snapshot(
        status=status,
        total=sum(one.total for one in each),
        completed=sum(one.completed for one in each),
        failed=sum(one.failed for one in each),
    )
