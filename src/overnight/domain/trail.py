"""The trail of a request: the attempts that were made of it, and what each brought."""

from __future__ import annotations

from typing import Annotated

import msgspec

from overnight.domain.durations import Seconds

ATTEMPTS_KEPT = 16
"""So many of the newest attempts of a request are remembered; of those before them only how many there were."""
_LONGEST_NAME = 64


class Attempted(msgspec.Struct, frozen=True, array_like=True, kw_only=True, gc=False):
    """One attempt: ``at`` is when it began (unix seconds), ``seconds`` how long it took.

    ``status`` is 0 where no usable answer came, and ``fault`` says why, else empty. ``wait`` is for how many seconds
    the next attempt was put off, 0 after the last.
    """

    upstream: str
    at: Seconds
    seconds: Seconds
    status: Annotated[int, msgspec.Meta(ge=0, le=999)] = 0
    fault: str = ""
    wait: Seconds = 0.0


class Trail(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The newest attempts, oldest first, and how many there were before them."""

    attempts: tuple[Attempted, ...] = ()
    forgotten: Annotated[int, msgspec.Meta(ge=0)] = 0

    def then(self, made: Attempted) -> Trail:
        """Add an attempt."""
        if len(self.attempts) < ATTEMPTS_KEPT:
            return Trail((*self.attempts, made), self.forgotten)
        return Trail((*self.attempts[1:], made), self.forgotten + 1)

    @property
    def count(self) -> int:
        """All attempts."""
        return len(self.attempts) + self.forgotten

    @property
    def earlier_status(self) -> int | None:
        """The last status that an attempt before the last one brought; ``None`` if none is remembered."""
        return next((each.status for each in self.attempts[-2::-1] if each.status), None)


NO_TRAIL = Trail()

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Trail)


def name_of(upstream: str) -> str:
    """Give the name by which a trail knows an upstream."""
    return upstream[:_LONGEST_NAME]


def encode_trail(trail: Trail) -> bytes:
    """Lay out a trail, in some 5 KB at most; an empty one is nothing."""
    return _encoder.encode(trail) if trail.count else b""


def decode_trail(data: bytes) -> Trail:
    """Read a trail. What cannot be read is an empty one: it must not cost a request its result."""
    if not data:
        return NO_TRAIL
    try:
        return _decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return NO_TRAIL
