"""What a page tells its readers to type works, and shows what the page says."""

import json
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.docs.pages import PAGES, ROOT, Block, blocks_of
from tests.docs.reader import Mismatch, Reader, _commands, _pattern

RUN = {"bash", "console", "python"}
PARSERS: dict[str, Callable[[str], object]] = {
    "json": json.loads,
    "jsonl": lambda text: [json.loads(line) for line in text.splitlines()],
    "toml": tomllib.loads,
}
FOLLOWED = [page for page in PAGES if any(block.language in RUN for block in blocks_of(page))]


@pytest.mark.parametrize("page", FOLLOWED, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_reader_who_types_in_a_page_sees_what_it_says(page: Path, clone: Path) -> None:
    """A page that nobody re-runs is wrong within a month."""
    with Reader(page.relative_to(ROOT).as_posix(), clone) as reader:
        for block in blocks_of(page):
            reader.follow(block)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_data_in_a_page_can_be_parsed(page: Path) -> None:
    """It is copied and pasted."""
    for block in blocks_of(page):
        PARSERS.get(block.language, len)(block.text)


@pytest.mark.parametrize(
    ("line", "shown", "fits"),
    [
        ("3 lines", "4 lines", True),
        ("done in 1.0 s", "done in 12 s", True),
        ("a   b", "a b", True),
        ("batch_… created", "batch_8f created", True),
        ("batch_… created", "batch_8f", False),
        ("three lines", "four lines", False),
    ],
)
def test_expected_lines_are_loose_in_numbers_and_spaces_only(line: str, shown: str, fits: bool) -> None:
    """A comparison that lets everything pass checks nothing."""
    assert bool(_pattern(line).fullmatch(shown)) is fits


def test_a_page_that_shows_too_much_is_found_out(tmp_path: Path) -> None:
    """The reader itself must be able to fail."""
    block = Block(1, "console", "", "$ echo one\ntwo\n")

    with Reader("page.md", tmp_path) as reader, pytest.raises(Mismatch, match=r"page\.md:1: the line `two`"):
        reader.follow(block)


def test_a_command_that_fails_is_found_out(tmp_path: Path) -> None:
    """Unless the page looks at its exit code."""
    with Reader("page.md", tmp_path) as reader:
        reader.follow(Block(1, "console", "", "$ exit 3\n$ echo $?\n3\n"))
        with pytest.raises(Mismatch, match="ended with 3"):
            reader.follow(Block(1, "console", "", "$ (exit 3)\n"))


def test_commands_are_told_from_what_they_show() -> None:
    """Also those that go on over several lines."""
    text = "$ one \\\n> two\nshown\n\n$ three\n"

    assert _commands(text) == [("one \\\ntwo", ["shown", ""]), ("three", [])]
