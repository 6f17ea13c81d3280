"""Reading Azure's filters and orders, however they are spaced."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overnight.domain.errors import InvalidRequest
from overnight.domain.listing import Condition, parse_filter, parse_order

URL_BYTES = 8 * 1024
BLANKS = st.text(alphabet=" \t\n\r\f\v\x1c\xa0\u2003", min_size=1, max_size=4)
WORDS = st.sampled_from(["created_at", "status", "gt", "EQ", "ne", "and", "AND", "7", "'failed'", "'in progress'", "x"])


def split_by_runs(text: str) -> list[str]:
    """Say plainly what a filter is: parts between words `and` that have blanks on both sides."""
    return [part.strip() for part in re.split(r"\s+and\s+", text.strip(), flags=re.IGNORECASE)]


@given(st.lists(st.tuples(WORDS, BLANKS), min_size=1, max_size=12), BLANKS)
def test_blanks_only_separate(words: list[tuple[str, str]], before: str) -> None:
    """Any number of any kind, as a plain reading of single ones has it."""
    spaced = before + "".join(word + blanks for word, blanks in words)
    single = " ".join(word for word, _ in words)

    assert read(single) == read(spaced)


@given(st.lists(st.tuples(WORDS, BLANKS), min_size=1, max_size=12))
def test_a_filter_has_as_many_conditions_as_parts(words: list[tuple[str, str]]) -> None:
    """Or is refused."""
    spaced = "".join(word + blanks for word, blanks in words)
    conditions = read(spaced)

    assert len(split_by_runs(spaced)) == len(conditions or split_by_runs(spaced))


def read(text: str) -> tuple[Condition, ...]:
    """Give no condition for what is refused."""
    try:
        return parse_filter(text)
    except InvalidRequest:
        return ()


def test_a_url_full_of_blanks_is_read_like_any_other() -> None:
    """They are never looked for in runs, which would be started anew at each of them."""
    blanks = " " * URL_BYTES

    assert (Condition("created_at", "gt", 7),) == parse_filter(f"created_at{blanks}gt{blanks}7")
    assert parse_order(f"created_at{blanks}asc")
    with pytest.raises(InvalidRequest, match=re.escape("'a b'")):
        parse_filter(f"a{blanks}b")
    with pytest.raises(InvalidRequest, match="orderby"):
        parse_order(f"a{blanks}b")
