"""The requests of one batch, laid open for reading: its places, its input and its results, whatever is left of them.

All of it is synchronous, reads small pieces at known offsets, and belongs in a thread.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol

import msgspec

from overnight.domain.index import ENTRY_BYTES as INDEX_BYTES
from overnight.domain.index import Index
from overnight.domain.places import (
    ENTRY_BYTES,
    MAGIC,
    TAIL_BYTES,
    DamagedPlaces,
    State,
    Summary,
    Wanted,
    check_magic,
    decode_summary,
    matching,
    numbers_of,
    summary_span,
    trails_at,
    unpack,
)
from overnight.domain.reason import custom_id_in
from overnight.domain.request import HEAD_BYTES, early_custom_id
from overnight.domain.trail import name_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from overnight.domain.places import Place, Reason
    from overnight.domain.throughput import Throughput
    from overnight.services.live import LiveView

SCAN_REQUESTS = 10_000
"""A search looks at so many requests at most before it says how far it came."""
SCAN_BYTES = 16 * 1024 * 1024
"""And reads about so many bytes of the input at most."""

_ENTRIES_AT_ONCE = 4_096


class _Named(msgspec.Struct, frozen=True):
    custom_id: str


_named_decoder = msgspec.json.Decoder(_Named)


class RequestQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which requests to list: ``limit`` of them from the ``offset``-th on, from 0, to which all conditions apply.

    ``custom_id`` is a part of it; ``upstream`` made the last attempt.
    """

    offset: int = 0
    limit: int = 50
    state: State | None = None
    code: str | None = None
    upstream: str | None = None
    custom_id: str | None = None


class RequestRow(msgspec.Struct, frozen=True, kw_only=True):
    """A request in a list. ``custom_id`` is ``None`` if neither its line nor its result is left.

    ``attempts`` were made, 255 for more. The last one, by ``upstream``, took ``seconds`` and ended at ``ended_at``, in
    unix seconds; these are ``None`` where no attempt is known.
    """

    line: int
    custom_id: str | None
    state: State
    status_code: int | None = None
    code: str | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    upstream: str | None = None
    attempts: int = 0
    seconds: float | None = None
    ended_at: int | None = None


class RequestPage(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the requests. ``next_offset`` is where to go on, ``None`` at the end; ``searched`` were looked at.

    ``upstreams`` made attempts, whether of these requests or of others.
    """

    rows: Sequence[RequestRow]
    total: int
    next_offset: int | None
    searched: int
    upstreams: Sequence[str] = ()


class Sheet(Protocol):
    """The requests of a batch. What is missing of its files is ``None``.

    Every call may raise ``OSError``, and ``DamagedPlaces`` of a batch that has ended.
    """

    @property
    def total(self) -> int:
        """How many requests there are."""

    @property
    def reasons(self) -> Sequence[Reason]:
        """Why requests have no success, in the order of their numbers."""

    @property
    def upstreams(self) -> Sequence[str]:
        """Who made attempts, in the order of their numbers."""

    @property
    def throughput(self) -> Throughput:
        """How the batch got on; takes milliseconds to sum up."""

    def entries(self, first: int, count: int) -> bytes:
        """Give the entries of these requests, as far as there are any (``domain/places.py``)."""

    def line(self, number: int, place: Place) -> Span | None:
        """Say where the line of a request is; ``None`` if the input is gone."""

    def result(self, place: Place) -> Span | None:
        """Say where the result of a request is; ``None`` if there is none, or not in a file of ours."""


class Span(msgspec.Struct, frozen=True):
    """A piece of an open file."""

    file: int
    offset: int
    length: int

    def read(self, most: int | None = None) -> bytes:
        """Read it, or its beginning. Raises ``OSError``."""
        return os.pread(self.file, self.length if most is None else min(self.length, most), self.offset)


class EndedSheet:
    """The requests of a batch that has ended, by the blob of places and the descriptors of its files.

    Places may be damaged, and nothing that they say is believed before it is seen to be possible.
    """

    def __init__(self, places: int, source: int | None, output: int | None, errors: int | None) -> None:
        self._places = places
        self._source = source
        self._files = {State.SUCCEEDED: output, State.FAILED: errors, State.NOT_RUN: errors}
        self._sizes = {file: os.fstat(file).st_size for file in (source, output, errors) if file is not None}
        summary = self._summary()
        self.total = summary.total
        self.reasons = summary.reasons
        self.upstreams = summary.upstreams
        self.throughput = summary.throughput
        self._trails = summary.trails

    def _summary(self) -> Summary:
        size = os.fstat(self._places).st_size
        check_magic(os.pread(self._places, len(MAGIC), 0))
        if size < len(MAGIC) + TAIL_BYTES:
            raise DamagedPlaces("it does not end as it should")
        start, length = summary_span(os.pread(self._places, TAIL_BYTES, size - TAIL_BYTES), size)
        return decode_summary(os.pread(self._places, length, start), start)

    def entries(self, first: int, count: int) -> bytes:
        count = max(min(count, self.total - first), 0)
        return os.pread(self._places, count * ENTRY_BYTES, len(MAGIC) + first * ENTRY_BYTES)

    def line(self, number: int, place: Place) -> Span | None:  # noqa: ARG002 - other sheets need the number
        return None if self._source is None else self._span(self._source, place.input_offset, place.input_length)

    def result(self, place: Place) -> Span | None:
        file = self._files.get(place.state)
        return None if file is None else self._span(file, place.offset, place.length)

    def trail(self, place: Place) -> Span:
        """Say where the trail of a request is."""
        if place.trail_offset + place.trail_length > self._trails:
            raise DamagedPlaces("an entry points behind the end of the trails")
        return Span(self._places, trails_at(self.total) + place.trail_offset, place.trail_length)

    def _span(self, file: int, offset: int, length: int) -> Span:
        if offset + length > self._sizes[file]:
            raise DamagedPlaces("an entry points behind the end of a file")
        return Span(file, offset, length)


class LiveSheet:
    """The requests of a batch that runs, by what was read of its log, and its index and input."""

    def __init__(self, view: LiveView, index: int, source: int) -> None:
        self.total = view.total
        self.reasons = view.reasons()
        self.upstreams = view.upstreams()
        self._view = view
        self._index = index
        self._source = source

    @property
    def throughput(self) -> Throughput:
        return self._view.throughput()

    def entries(self, first: int, count: int) -> bytes:
        return bytes(self._view.entries[first * ENTRY_BYTES : (first + count) * ENTRY_BYTES])

    def line(self, number: int, place: Place) -> Span | None:  # noqa: ARG002 - other sheets need the place
        offset, length = Index(os.pread(self._index, INDEX_BYTES, number * INDEX_BYTES))[0]
        return Span(self._source, offset, length)

    def result(self, place: Place) -> Span | None:  # noqa: ARG002 - it is in the log, not in a file
        return None


def read_page(sheet: Sheet, query: RequestQuery) -> RequestPage:
    """Read a page; a search by custom_id that has found too little stops at its bounds.

    Raises ``OSError`` and ``DamagedPlaces``.
    """
    rows: list[RequestRow] = []
    search = _Search(query)
    for line, place in _matches(sheet, query):
        if len(rows) == query.limit or search.is_over(line):
            return _page(sheet, query, rows, line)
        custom_id = search.custom_id(sheet, line, place)
        if query.custom_id is None or (custom_id is not None and query.custom_id in custom_id):
            rows.append(to_row(sheet, line, place, custom_id))
    return _page(sheet, query, rows, None)


def find_line(sheet: Sheet, custom_id: str, first: int) -> tuple[int | None, int | None]:
    """Look for a request by its whole custom_id, from a line on: give its line, else where to go on.

    Raises ``OSError`` and ``DamagedPlaces``.
    """
    search = _Search(RequestQuery(offset=first, custom_id=custom_id))
    for line, place in _matches(sheet, RequestQuery(offset=first)):
        if search.is_over(line):
            return None, line
        if search.custom_id(sheet, line, place) == custom_id:
            return line, None
    return None, None


def find_next(sheet: Sheet, query: RequestQuery, line: int) -> int | None:
    """Give the next request behind a line to which the conditions of a query apply.

    A search by custom_id that has found none stops at its bounds. Raises ``OSError`` and ``DamagedPlaces``.
    """
    page = read_page(sheet, msgspec.structs.replace(query, offset=line + 1, limit=1))
    return page.rows[0].line if page.rows else None


def find_before(sheet: Sheet, query: RequestQuery, line: int) -> int | None:
    """Give the last request before a line to which the conditions of a query apply; otherwise as ``find_next``."""
    wanted, search = _wanted(sheet, query), _Search(query)
    for end in range(line, 0, -_ENTRIES_AT_ONCE):
        first = max(end - _ENTRIES_AT_ONCE, 0)
        entries = sheet.entries(first, end - first)
        for number in reversed(list(matching(entries, wanted))):
            # As many requests back as a search ahead looks at.
            if search.is_over(query.offset + line - 1 - (first + number)):
                return None
            if query.custom_id is None:
                return first + number
            custom_id = search.custom_id(sheet, first + number, unpack(entries, number))
            if custom_id is not None and query.custom_id in custom_id:
                return first + number
    return None


def read_row(sheet: Sheet, line: int) -> tuple[RequestRow, Place]:
    """Read one request. Raises ``OSError`` and ``DamagedPlaces``."""
    place = unpack(sheet.entries(line, 1), 0)
    return to_row(sheet, line, place, _custom_id(sheet.line(line, place), sheet, place)), place


def to_row(sheet: Sheet, line: int, place: Place, custom_id: str | None) -> RequestRow:
    """Say what is known of a request."""
    return RequestRow(
        line=line,
        custom_id=custom_id,
        state=place.state,
        status_code=place.status_code or None,
        code=sheet.reasons[place.reason - 1].code if 0 < place.reason <= len(sheet.reasons) else None,
        input_tokens=place.input_tokens,
        output_tokens=place.output_tokens,
        upstream=sheet.upstreams[place.upstream - 1] if 0 < place.upstream <= len(sheet.upstreams) else None,
        attempts=place.attempts,
        seconds=place.milliseconds / 1_000 if place.attempts else None,
        ended_at=place.ended_at if place.attempts else None,
    )


def lines_in(sheet: Sheet, states: frozenset[State]) -> Iterator[Span]:
    """Give the lines of the requests in these states, in order. Raises ``OSError`` and ``DamagedPlaces``."""
    matches = _matches(sheet, RequestQuery())
    spans = (sheet.line(line, place) for line, place in matches if place.state in states)
    return (span for span in spans if span is not None)


class _Search:
    """Keeps a search by custom_id, which must read lines, within its bounds; others need none."""

    def __init__(self, query: RequestQuery) -> None:
        self._end = query.offset + SCAN_REQUESTS if query.custom_id is not None else None
        self._bytes = 0

    def custom_id(self, sheet: Sheet, line: int, place: Place) -> str | None:
        """Read a custom_id, and count the bytes that this may take."""
        span = sheet.line(line, place)
        self._bytes += HEAD_BYTES if span is None else span.length
        return _custom_id(span, sheet, place)

    def is_over(self, line: int) -> bool:
        return self._end is not None and (line >= self._end or self._bytes >= SCAN_BYTES)


def _page(sheet: Sheet, query: RequestQuery, rows: list[RequestRow], stopped: int | None) -> RequestPage:
    end = sheet.total if stopped is None else stopped
    searched = max(end - query.offset, 0)
    return RequestPage(rows=rows, total=sheet.total, next_offset=stopped, searched=searched, upstreams=sheet.upstreams)


def _matches(sheet: Sheet, query: RequestQuery) -> Iterator[tuple[int, Place]]:
    wanted = _wanted(sheet, query)
    for first in range(query.offset, sheet.total, _ENTRIES_AT_ONCE):
        entries = sheet.entries(first, _ENTRIES_AT_ONCE)
        for number in matching(entries, wanted):
            yield first + number, unpack(entries, number)


def _wanted(sheet: Sheet, query: RequestQuery) -> Wanted:
    reasons = upstreams = None
    if query.code is not None:
        reasons = numbers_of(sheet.reasons, query.code)
    if query.upstream is not None:
        wanted = name_of(query.upstream)
        upstreams = frozenset(number for number, name in enumerate(sheet.upstreams, 1) if name == wanted)
    return Wanted(state=query.state, reasons=reasons, upstreams=upstreams)


def _custom_id(span: Span | None, sheet: Sheet, place: Place) -> str | None:
    """Read a custom_id off the line of the request or, where that is gone, off its result."""
    try:
        if span is not None and span.length:
            return _custom_id_of_line(span)
        result = sheet.result(place)
        if result is None:
            return None
        return custom_id_in(result.read(HEAD_BYTES)) or custom_id_in(result.read())
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise DamagedPlaces("an entry points to what is no request") from error


def _custom_id_of_line(span: Span) -> str:
    if span.length > HEAD_BYTES:
        early = early_custom_id(span.read(HEAD_BYTES))
        if early is not None:
            return early
    return _named_decoder.decode(span.read()).custom_id
