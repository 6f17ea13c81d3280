"""What the results in a log say beyond their lines: who made them, how long it took, and what they add up to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from overnight.domain.places import MOST_ATTEMPTS, MOST_ENDED_AT, MOST_MILLISECONDS, Reasons, State, Upstreams
from overnight.domain.reason import ending
from overnight.domain.result import ResultKind
from overnight.domain.throughput import ThroughputCount
from overnight.domain.trail import decode_trail

if TYPE_CHECKING:
    from overnight.domain.frame import Frame


class Last(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The last attempt of a request, in the units of a place and within its bounds, and how many there were."""

    upstream: int = 0
    attempts: int = 0
    milliseconds: int = 0
    ended_at: int = 0


_UNKNOWN = Last()


class Findings:
    """Gathered while the frames of a log are read, each request's once, in the order in which they stand there."""

    def __init__(self) -> None:
        self.reasons = Reasons()
        self.upstreams = Upstreams()
        self.throughput = ThroughputCount()

    def read(self, frame: Frame) -> Last:
        """Take in the trail of a result."""
        trail = decode_trail(frame.trail)
        if not trail.attempts:
            return _UNKNOWN
        last = trail.attempts[-1]
        ended_at = last.at + last.seconds
        self.throughput.add(ended_at, last.seconds, frame.usage, succeeded=frame.kind is ResultKind.SUCCEEDED)
        return Last(
            upstream=self.upstreams.number(last.upstream),
            attempts=min(trail.count, MOST_ATTEMPTS),
            milliseconds=min(round(last.seconds * 1_000), MOST_MILLISECONDS),
            ended_at=min(int(ended_at), MOST_ENDED_AT),
        )

    def failed(self, line: int, record: bytes, upstream: int) -> int:
        """Count a failure and give the number of its reason."""
        names = self.upstreams.known()
        return self.reasons.add(State.FAILED, ending(record).code, line, names[upstream - 1] if upstream else "")
