"""Where each request of a batch lies, and how it ended: 30 bytes for each, so that one of 100,000 is found at once.

A blob of places is ``MAGIC``, the entries in the order of the input, a summary as JSON, and its length (4 bytes). It
holds no word of a request or of an answer, only numbers and the codes of errors.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MAGIC = b"ovnplc1\n"
# Offsets have 40 bits: the low 32, then the high 8.
_ENTRY = struct.Struct("<IBIIBIBBHII")
_SUMMARY_LENGTH = struct.Struct("<I")
_STATE_AT, _REASON_AT = 18, 19

ENTRY_BYTES = _ENTRY.size
TAIL_BYTES = _SUMMARY_LENGTH.size
_MOST = (1 << 40) - 1
_LOW = (1 << 32) - 1

REASONS_KEPT = 100
"""So many different reasons are told apart; whatever comes after them is ``other``, for each state."""
OTHER = "other"
_LONGEST_CODE = 64


class State(IntEnum):
    """How a request stands; ``NOT_RUN`` is one that the batch ended without."""

    WAITING = 0
    SUCCEEDED = 1
    FAILED = 2
    NOT_RUN = 3


class DamagedPlaces(Exception):
    """A blob of places, or what it points to, is not what was written."""


class Place(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One request: where its line and its result lie, and what is known of how it ended.

    Lengths and tokens have 32 bits, as in a frame of the result log. ``status_code`` is 0 where there was no response;
    ``reason`` is a number of ``Reasons``, 0 for a success.
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


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """Why requests have no success: how many, and which was the first of them."""

    state: State
    code: str
    count: int
    first_line: int


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What the end of a blob of places says; ``reasons`` in the order of their numbers, from 1."""

    total: int
    reasons: tuple[Reason, ...] = ()


class Reasons:
    """Counts the reasons of failures, and gives each a number."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[State, str], int] = {}
        self._counts: list[int] = []
        self._first: list[int] = []

    def add(self, state: State, code: str, line: int) -> int:
        """Count a request and give the number of its reason."""
        key = (state, code[:_LONGEST_CODE])
        number = self._numbers.get(key)
        if number is None:
            if len(self._numbers) >= REASONS_KEPT:
                key = (state, OTHER)
            number = self._numbers.get(key, len(self._numbers) + 1)
            if number > len(self._counts):
                self._counts.append(0)
                self._first.append(line)
            # Last, for another thread may read what is known meanwhile.
            self._numbers[key] = number
        self._counts[number - 1] += 1
        self._first[number - 1] = min(self._first[number - 1], line)
        return number

    def known(self) -> tuple[Reason, ...]:
        """Give what was counted, in the order of the numbers."""
        return tuple(
            Reason(state=state, code=code, count=self._counts[number - 1], first_line=self._first[number - 1])
            for (state, code), number in list(self._numbers.items())
        )


def pack(place: Place) -> bytes:
    """Lay out a place. What lies too far to be pointed at has no length."""
    asked, got = place.input_offset, place.offset
    if asked > _MOST or got > _MOST:
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
    )


def unpack(entries: bytes | bytearray, number: int) -> Place:
    """Read the entry of this number, from 0. Raises ``DamagedPlaces``."""
    try:
        low, high, size, got_low, got_high, got_size, state_number, reason, status, sent, received = _ENTRY.unpack_from(
            entries, number * ENTRY_BYTES
        )
        state = State(state_number)
    except (struct.error, ValueError) as error:
        raise DamagedPlaces("an entry cannot be read") from error
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
    )


def is_waiting(entries: bytes | bytearray, number: int) -> bool:
    """Say whether the entry of this number is still empty; quicker than reading it."""
    return entries[number * ENTRY_BYTES + _STATE_AT] == State.WAITING


def matching(entries: bytes | bytearray, state: State | None, reasons: frozenset[int] | None) -> Iterator[int]:
    """Give the numbers of the entries in this state and with one of these reasons, in order; ``None`` takes all."""
    states, numbers = entries[_STATE_AT::ENTRY_BYTES], entries[_REASON_AT::ENTRY_BYTES]
    found = iter(range(len(states))) if state is None else _find_all(states, state)
    return found if reasons is None else (number for number in found if numbers[number] in reasons)


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
    if start < len(MAGIC) or (start - len(MAGIC)) % ENTRY_BYTES:
        raise DamagedPlaces("it does not end as it should")
    return start, length


def decode_summary(data: bytes, start: int) -> Summary:
    """Read the summary that was found at ``start``. Raises ``DamagedPlaces``."""
    try:
        summary = msgspec.json.decode(data, type=Summary)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise DamagedPlaces("its summary cannot be read") from error
    if len(MAGIC) + summary.total * ENTRY_BYTES != start:
        raise DamagedPlaces("it has not as many entries as it says")
    if not all(0 <= reason.first_line < summary.total for reason in summary.reasons):
        raise DamagedPlaces("its summary names an entry that it has not")
    return summary


def numbers_of(reasons: Sequence[Reason], code: str) -> frozenset[int]:
    """Give the numbers of the reasons with this code."""
    return frozenset(number for number, reason in enumerate(reasons, 1) if reason.code == code)


def _find_all(states: bytes | bytearray, state: State) -> Iterator[int]:
    number = states.find(state)
    while number >= 0:
        yield number
        number = states.find(state, number + 1)


def _reachable(place: Place) -> Place:
    if place.input_offset > _MOST:
        place = msgspec.structs.replace(place, input_offset=0, input_length=0)
    return place if place.offset <= _MOST else msgspec.structs.replace(place, offset=0, length=0)
