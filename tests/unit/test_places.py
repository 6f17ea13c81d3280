"""Where requests lie: the format, the reasons, and what is found in it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from overnight.domain.places import (
    ENTRY_BYTES,
    MAGIC,
    OTHER,
    REASONS_KEPT,
    TAIL_BYTES,
    DamagedPlaces,
    Place,
    Reason,
    Reasons,
    State,
    Summary,
    Upstreams,
    Wanted,
    decode_summary,
    encode_summary,
    is_waiting,
    matching,
    numbers_of,
    pack,
    summary_span,
    unpack,
)

OFFSETS = st.integers(0, 2**40 - 1)
NUMBERS = st.integers(0, 2**32 - 1)
PLACES = st.builds(
    Place,
    state=st.sampled_from(State),
    input_offset=OFFSETS,
    input_length=NUMBERS,
    offset=OFFSETS,
    length=NUMBERS,
    reason=st.integers(0, 255),
    status_code=st.integers(0, 999),
    input_tokens=NUMBERS,
    output_tokens=NUMBERS,
    upstream=st.integers(0, 255),
    attempts=st.integers(0, 255),
    milliseconds=NUMBERS,
    ended_at=NUMBERS,
    trail_offset=NUMBERS,
    trail_length=st.integers(0, 2**16 - 1),
)
REASONS = st.builds(
    Reason, state=st.sampled_from(State), code=st.text(), count=NUMBERS, first_line=NUMBERS, upstream=st.text()
)
NUMBERED = st.none() | st.frozensets(st.integers(0, 4))


@given(st.lists(PLACES, max_size=20))
def test_places_come_back_as_they_were_written(places: list[Place]) -> None:
    """Each by its number."""
    entries = b"".join(map(pack, places))

    assert [unpack(entries, number) for number in range(len(places))] == places
    assert len(entries) == ENTRY_BYTES * len(places)
    assert [is_waiting(entries, number) for number in range(len(places))] == [
        place.state is State.WAITING for place in places
    ]


@given(
    st.lists(PLACES, max_size=40),
    st.builds(Wanted, state=st.none() | st.sampled_from(State), reasons=NUMBERED, upstreams=NUMBERED),
)
def test_the_places_that_match_are_found_in_order(places: list[Place], wanted: Wanted) -> None:
    """By their state, their reason, their upstream, or all of these."""
    places = [replace(place, reason=place.reason % 5, upstream=place.upstream % 5) for place in places]
    expected = [
        number
        for number, place in enumerate(places)
        if (wanted.state is None or place.state is wanted.state)
        and (wanted.reasons is None or place.reason in wanted.reasons)
        and (wanted.upstreams is None or place.upstream in wanted.upstreams)
    ]

    assert list(matching(b"".join(map(pack, places)), wanted)) == expected


@given(st.integers(1, 1_000), st.lists(REASONS, max_size=5))
def test_a_summary_comes_back_as_it_was_written(total: int, reasons: list[Reason]) -> None:
    """It stands behind the entries, and its length at the end."""
    within = (replace(reason, first_line=reason.first_line % total) for reason in reasons)
    summary = Summary(total=total, reasons=tuple(within))
    data = bytes(len(MAGIC) + total * ENTRY_BYTES) + encode_summary(summary)
    start, length = summary_span(data[-TAIL_BYTES:], len(data))

    assert len(data) == start + length + TAIL_BYTES
    assert decode_summary(data[start : start + length], start) == summary


@pytest.mark.parametrize("length", [ENTRY_BYTES + 3, 2**32 - 1])
def test_a_summary_that_cannot_be_there_is_not_looked_for(length: int) -> None:
    size = len(MAGIC) + ENTRY_BYTES + 2 + TAIL_BYTES

    with pytest.raises(DamagedPlaces, match="does not end"):
        summary_span(length.to_bytes(4, "little"), size)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"{", "cannot be read"),
        (b'{"total":"\xff"}', "cannot be read"),
        (b'{"total":2}', "not as many entries"),
        (b'{"total":1,"trails":1}', "not as many entries"),
        (f'{{"total":2,"trails":-{ENTRY_BYTES}}}'.encode(), "not as many entries"),
        (f'{{"total":-1,"trails":{2 * ENTRY_BYTES}}}'.encode(), "not as many entries"),
        (b'{"total":1,"throughput":{"width":0}}', "cannot be read"),
        (b'{"total":1,"throughput":{"start":-1}}', "cannot be read"),
        (b'{"total":1,"throughput":{"stretches":[[0,-1]]}}', "cannot be read"),
        (b'{"total":1,"throughput":{"p50":1e300}}', "cannot be read"),
        (b'{"total":1,"reasons":[{"state":2,"code":"c","count":1,"first_line":1}]}', "an entry that it has not"),
        (b'{"total":1,"reasons":[{"state":2,"code":"c","count":1,"first_line":-1}]}', "an entry that it has not"),
        (b'{"total":1,"reasons":[{"state":9,"code":"c","count":1,"first_line":0}]}', "cannot be read"),
    ],
)
def test_a_summary_that_cannot_be_is_not_believed(data: bytes, problem: str) -> None:
    with pytest.raises(DamagedPlaces, match=problem):
        decode_summary(data, len(MAGIC) + ENTRY_BYTES)


@pytest.mark.parametrize("entry", [b"", bytes(ENTRY_BYTES - 1), b"\xff" * ENTRY_BYTES])
def test_an_entry_that_cannot_be_is_not_believed(entry: bytes) -> None:
    with pytest.raises(DamagedPlaces):
        unpack(entry, 0)


def test_what_lies_too_far_has_no_length() -> None:
    """It cannot be pointed at, and must not be read from elsewhere."""
    far = Place(state=State.SUCCEEDED, input_offset=2**40, input_length=1, offset=2**41, length=2)
    half = replace(far, input_offset=7)

    lost = Place(state=State.SUCCEEDED, length=3, trail_offset=2**32, trail_length=9)

    assert unpack(pack(far), 0) == Place(state=State.SUCCEEDED)
    assert unpack(pack(lost), 0) == Place(state=State.SUCCEEDED, length=3)
    assert unpack(pack(half), 0) == Place(state=State.SUCCEEDED, input_offset=7, input_length=1)


def test_reasons_are_counted_and_know_their_first_request() -> None:
    """Whatever the order in which results come; a request that did not run is another thing than one that failed."""
    reasons = Reasons()

    numbers = [
        reasons.add(State.FAILED, "a", 7),
        reasons.add(State.FAILED, "b", 3),
        reasons.add(State.FAILED, "a", 2),
        reasons.add(State.NOT_RUN, "a", 1),
    ]

    assert numbers == [1, 2, 1, 3]
    assert reasons.known() == (
        Reason(state=State.FAILED, code="a", count=2, first_line=2),
        Reason(state=State.FAILED, code="b", count=1, first_line=3),
        Reason(state=State.NOT_RUN, code="a", count=1, first_line=1),
    )
    assert numbers_of(reasons.known(), "a") == {1, 3}


def test_reasons_at_each_upstream_are_told_apart() -> None:
    reasons = Reasons()

    numbers = [reasons.add(State.FAILED, "a", line, upstream) for line, upstream in enumerate(("x", "y", "x", ""))]

    assert numbers == [1, 2, 1, 3]
    assert [(each.code, each.upstream, each.count) for each in reasons.known()] == [
        ("a", "x", 2),
        ("a", "y", 1),
        ("a", "", 1),
    ]
    assert numbers_of(reasons.known(), "a") == {1, 2, 3}


def test_upstreams_have_numbers_as_long_as_a_byte_can_tell_them() -> None:
    upstreams = Upstreams()

    numbers = [upstreams.number(f"u{count}") for count in range(257)]

    assert (numbers[:2], numbers[254:], upstreams.number("u1"), upstreams.number("")) == ([1, 2], [255, 0, 0], 2, 0)
    assert upstreams.known() == tuple(f"u{count}" for count in range(255))


def test_what_is_more_than_a_place_can_say_is_said_as_far_as_it_goes() -> None:
    place = Place(attempts=300, milliseconds=2**33)

    assert unpack(pack(place), 0) == Place(attempts=255, milliseconds=2**32 - 1)


def test_reasons_beyond_a_hundred_are_one() -> None:
    """A server that writes a new code into each answer must not make a batch large."""
    reasons = Reasons()

    for line in range(REASONS_KEPT + 3):
        reasons.add(State.FAILED, f"code-{line}", line)

    known = reasons.known()
    assert len(known) == REASONS_KEPT + 1
    assert known[-1] == Reason(state=State.FAILED, code=OTHER, count=3, first_line=REASONS_KEPT)


def test_a_code_that_is_known_stays_itself_at_one_upstream_too_many() -> None:
    """Whoever filters by the code must find all of them."""
    reasons = Reasons()

    for line in range(REASONS_KEPT + 3):
        reasons.add(State.FAILED, "busy", line, f"upstream-{line}")
    reasons.add(State.FAILED, "new", 0, "upstream-0")

    known = reasons.known()
    assert len(numbers_of(known, "busy")) == REASONS_KEPT + 1
    assert known[REASONS_KEPT:] == (
        Reason(state=State.FAILED, code="busy", count=3, first_line=REASONS_KEPT),
        Reason(state=State.FAILED, code=OTHER, count=1, first_line=0),
    )


def test_what_did_not_run_never_counts_as_failed() -> None:
    """However many reasons there were before: the one is retried apart from the other."""
    reasons = Reasons()
    for line in range(REASONS_KEPT):
        reasons.add(State.FAILED, f"code-{line}", line)

    numbers = [reasons.add(state, "late", REASONS_KEPT) for state in (State.NOT_RUN, State.FAILED, State.NOT_RUN)]

    assert numbers == [REASONS_KEPT + 1, REASONS_KEPT + 2, REASONS_KEPT + 1]
    assert reasons.known()[REASONS_KEPT:] == (
        Reason(state=State.NOT_RUN, code=OTHER, count=2, first_line=REASONS_KEPT),
        Reason(state=State.FAILED, code=OTHER, count=1, first_line=REASONS_KEPT),
    )


def test_a_long_code_is_cut() -> None:
    """It is a code, not a text."""
    reasons = Reasons()
    reasons.add(State.FAILED, "x" * 100, 0)

    assert reasons.known()[0].code == "x" * 64


@pytest.mark.parametrize("state", State)
def test_every_state_has_a_word(state: State) -> None:
    """The API and the command line show it in small letters."""
    assert state.name.lower() in {"waiting", "succeeded", "failed", "not_run"}
