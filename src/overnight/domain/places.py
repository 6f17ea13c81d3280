"""Where each request of a batch lies, and how it ended: 46 bytes for each, so that one of 100,000 is found at once.

A blob of places is ``MAGIC``, the entries in the order of the input, the trails of the requests (``domain/trail.py``),
a summary as JSON, and its length (4 bytes). It holds no word of a request or of an answer, only numbers, the codes of
errors, and the names of upstreams.
"""

from __future__ import annotations

import re
import struct
from enum import IntEnum
from typing import TYPE_CHECKING

import msgspec

from overnight.domain.throughput import NO_THROUGHPUT, Throughput

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MAGIC = b"ovnplc2\n"
_ANY_VERSION = re.compile(rb"ovnplc[0-9]\n")
# Offsets have 40 bits: the low 32, then the high 8.
_ENTRY = struct.Struct("<IBIIBIBBHIIBBIIIH")
_SUMMARY_LENGTH = struct.Struct("<I")
_STATE_AT, _REASON_AT, _UPSTREAM_AT = 18, 19, 30

ENTRY_BYTES = _ENTRY.size
TAIL_BYTES = _SUMMARY_LENGTH.size
_MOST = (1 << 40) - 1
_LOW = (1 << 32) - 1

REASONS_KEPT = 100
"""So many different reasons are told apart. A later one counts for all upstreams together if its code is known, else it
is ``other``, for each state."""
OTHER = "other"
_LONGEST_CODE = 64
_MOST_UPSTREAMS = 255
MOST_ATTEMPTS = 255
MOST_MILLISECONDS = MOST_ENDED_AT = (1 << 32) - 1


class State(IntEnum):
    """How a request stands; ``NOT_RUN`` is one that the batch ended without."""

    WAITING = 0
    SUCCEEDED = 1
    FAILED = 2
    NOT_RUN = 3


class DamagedPlaces(Exception):
    """A blob of places, or what it points to, is not what was written."""


class OtherPlaces(Exception):
    """A blob of places is whole, as far as can be seen, but another version of this service laid it out."""


class Place(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One request: where its line and its result lie, and what is known of how it ended.

    Lengths and tokens have 32 bits, as in a frame of the result log. ``status_code`` is 0 where there was no response;
    ``reason`` is a number of ``Reasons``, 0 for a success. ``upstream`` is a number of ``Upstreams``, 0 if no attempt
    is known; ``attempts`` says 255 for more; ``milliseconds`` and ``ended_at`` (unix seconds) are of the last one. The
    trail lies ``trail_offset`` bytes behind the entries.
    """

    state: State = State.WAITING
    input_offset: int = 0
    input_length: int = 0
    offset: int = 0
    length: int = 0
    reason: int = 0
    status_code: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    upstream: int = 0
    attempts: int = 0
    milliseconds: int = 0
    ended_at: int = 0
    trail_offset: int = 0
    trail_length: int = 0


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """Why requests have no success: how many, and which was the first of them.

    ``upstream`` made the last attempt; it is empty where none did, and where there are too many to tell them apart.
    """

    state: State
    code: str
    count: int
    first_line: int
    upstream: str = ""


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What the end of a blob of places says; ``reasons`` and ``upstreams`` in the order of their numbers, from 1.

    ``trails`` is how many bytes they have in all.
    """

    total: int
    reasons: tuple[Reason, ...] = ()
    upstreams: tuple[str, ...] = ()
    trails: int = 0
    throughput: Throughput = NO_THROUGHPUT


class Reasons:
    """Counts the reasons of failures, and gives each a number."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[State, str, str], int] = {}
        self._codes: set[tuple[State, str]] = set()
        self._counts: list[int] = []
        self._first: list[int] = []

    def add(self, state: State, code: str, line: int, upstream: str = "") -> int:
        """Count a request and give the number of its reason."""
        key = (state, code[:_LONGEST_CODE], upstream)
        number = self._numbers.get(key)
        if number is None:
            key = self._fitting(key)
            number = self._numbers.get(key, len(self._numbers) + 1)
            if number > len(self._counts):
                self._counts.append(0)
                self._first.append(line)
            # Last, for another thread may read what is known meanwhile.
            self._numbers[key] = number
        self._counts[number - 1] += 1
        self._first[number - 1] = min(self._first[number - 1], line)
        return number

    def _fitting(self, key: tuple[State, str, str]) -> tuple[State, str, str]:
        state, code, _ = key
        if len(self._numbers) < REASONS_KEPT:
            self._codes.add((state, code))
            return key
        return (state, code if (state, code) in self._codes else OTHER, "")

    def known(self) -> tuple[Reason, ...]:
        """Give what was counted, in the order of the numbers."""
        return tuple(
            Reason(
                state=state,
                code=code,
                count=self._counts[number - 1],
                first_line=self._first[number - 1],
                upstream=upstream,
            )
            for (state, code, upstream), number in list(self._numbers.items())
        )


class Upstreams:
    """Gives upstreams numbers; those that come after 255 others have none."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def number(self, name: str) -> int:
        """Give the number of an upstream, from 1; 0 for none."""
        number = self._numbers.get(name)
        if number is not None:
            return number
        if not name or len(self._numbers) >= _MOST_UPSTREAMS:
            return 0
        self._numbers[name] = len(self._numbers) + 1
        return len(self._numbers)

    def known(self) -> tuple[str, ...]:
        """Give the names in the order of their numbers."""
        return tuple(self._numbers)


def pack(place: Place) -> bytes:
    """Lay out a place. What lies too far to be pointed at has no length."""
    asked, got = place.input_offset, place.offset
    if asked > _MOST or got > _MOST or place.trail_offset > _LOW:
        return pack(_reachable(place))
    return _ENTRY.pack(
        asked & _LOW,
        asked >> 32,
        place.input_length,
        got & _LOW,
        got >> 32,
        place.length,
        place.state,
        place.reason,
        place.status_code,
        place.input_tokens,
        place.output_tokens,
        place.upstream,
        min(place.attempts, MOST_ATTEMPTS),
        min(place.milliseconds, MOST_MILLISECONDS),
        place.ended_at,
        place.trail_offset,
        place.trail_length,
    )


def unpack(entries: bytes | bytearray, number: int) -> Place:
    """Read the entry of this number, from 0. Raises ``DamagedPlaces``."""
    try:
        low, high, size, got_low, got_high, got_size, state_number, *numbers = _ENTRY.unpack_from(
            entries, number * ENTRY_BYTES
        )
        state = State(state_number)
    except (struct.error, ValueError) as error:
        raise DamagedPlaces("an entry cannot be read") from error
    reason, status, sent, received, upstream, attempts, milliseconds, ended_at, trail_offset, trail_length = numbers
    return Place(
        state=state,
        input_offset=low | high << 32,
        input_length=size,
        offset=got_low | got_high << 32,
        length=got_size,
        reason=reason,
        status_code=status,
        input_tokens=sent,
        output_tokens=received,
        upstream=upstream,
        attempts=attempts,
        milliseconds=milliseconds,
        ended_at=ended_at,
        trail_offset=trail_offset,
        trail_length=trail_length,
    )


def is_waiting(entries: bytes | bytearray, number: int) -> bool:
    """Say whether the entry of this number is still empty; quicker than reading it."""
    return entries[number * ENTRY_BYTES + _STATE_AT] == State.WAITING


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """In which state entries are wanted, with which reasons and upstreams, by their numbers; ``None`` takes all."""

    state: State | None = None
    reasons: frozenset[int] | None = None
    upstreams: frozenset[int] | None = None


def matching(entries: bytes | bytearray, wanted: Wanted) -> Iterator[int]:
    """Give the numbers of the entries that are wanted, in order."""
    states = entries[_STATE_AT::ENTRY_BYTES]
    found = iter(range(len(states))) if wanted.state is None else _find_all(states, wanted.state)
    for first, values in ((_REASON_AT, wanted.reasons), (_UPSTREAM_AT, wanted.upstreams)):
        if values is not None:
            found = _among(found, entries[first::ENTRY_BYTES], values)
    return found


def _among(found: Iterator[int], column: bytes | bytearray, values: frozenset[int]) -> Iterator[int]:
    return (number for number in found if column[number] in values)


def check_magic(head: bytes) -> None:
    """Look at how a blob begins. Raises ``DamagedPlaces`` and ``OtherPlaces``."""
    if head == MAGIC:
        return
    if _ANY_VERSION.fullmatch(head):
        raise OtherPlaces
    raise DamagedPlaces("it does not begin as it should")


def encode_summary(summary: Summary) -> bytes:
    """Lay out what follows the entries."""
    data = msgspec.json.encode(summary)
    return data + _SUMMARY_LENGTH.pack(len(data))


def summary_span(tail: bytes, size: int) -> tuple[int, int]:
    """Say where the summary is, and how long, by the last ``TAIL_BYTES`` of a blob of this size.

    Raises ``DamagedPlaces``.
    """
    length: int = _SUMMARY_LENGTH.unpack(tail)[0]
    start = size - TAIL_BYTES - length
    if start < len(MAGIC):
        raise DamagedPlaces("it does not end as it should")
    return start, length


def decode_summary(data: bytes, start: int) -> Summary:
    """Read the summary that was found at ``start``. Raises ``DamagedPlaces``."""
    try:
        summary = msgspec.json.decode(data, type=Summary)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise DamagedPlaces("its summary cannot be read") from error
    if summary.total < 0 or summary.trails < 0 or trails_at(summary.total) + summary.trails != start:
        raise DamagedPlaces("it has not as many entries as it says")
    if not all(0 <= reason.first_line < summary.total for reason in summary.reasons):
        raise DamagedPlaces("its summary names an entry that it has not")
    return summary


def trails_at(total: int) -> int:
    """Say where the trails begin in a blob with so many entries."""
    return len(MAGIC) + total * ENTRY_BYTES


def numbers_of(reasons: Sequence[Reason], code: str) -> frozenset[int]:
    """Give the numbers of the reasons with this code."""
    return frozenset(number for number, reason in enumerate(reasons, 1) if reason.code == code)


def _find_all(states: bytes | bytearray, state: State) -> Iterator[int]:
    number = states.find(state)
    while number >= 0:
        yield number
        number = states.find(state, number + 1)


def _reachable(place: Place) -> Place:
    if place.trail_offset > _LOW:
        place = msgspec.structs.replace(place, trail_offset=0, trail_length=0)
    if place.input_offset > _MOST:
        place = msgspec.structs.replace(place, input_offset=0, input_length=0)
    return place if place.offset <= _MOST else msgspec.structs.replace(place, offset=0, length=0)
