"""What the filter bar understands, and which pieces of files are shown."""

from __future__ import annotations

import pytest
from tests.studio.test_view_models import a_batch

from overnight.domain.batch import BatchStatus
from overnight.domain.listing import Condition
from overnight.studio import excerpt, filters
from overnight.studio.recipes import Wishes, all_of, wishes_in


@pytest.mark.parametrize(
    ("text", "conditions"),
    [
        ("status:failed", [Condition("status", "eq", "failed")]),
        ("status:In-Progress", [Condition("status", "eq", "in_progress")]),
        ("created:>2023-11-14", [Condition("created_at", "gt", 1_699_920_000)]),
        ("created:<=2023-11-14T12:00", [Condition("created_at", "le", 1_699_963_200)]),
        ("", []),
    ],
)
def test_what_the_store_can_compare_is_left_to_it(text: str, conditions: list[Condition]):
    assert list(filters.parse(text).conditions) == conditions


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("model:qwen3", True),
        ("model:qwen", False),
        ("endpoint:/chat/completions", True),
        ("file:file-1", True),
        ("meta.team:finance", True),
        ("meta.team:fin", False),
        ('meta.name:"two words"', True),
        ("words finance", True),
        ("batch_1", True),
        ("elsewhere", False),
        ("model:qwen3 elsewhere", False),
    ],
)
def test_qualifiers_match_exactly_and_words_anywhere(text: str, matches: bool):
    batch = a_batch(model="qwen3", metadata={"team": "finance", "name": "two words"})

    assert filters.parse(text).matches(batch) is matches


@pytest.mark.parametrize(
    "text", ["status:gone", "created:yesterday", "created:>2023-02-31", "colour:red", "model:", "created:>²⁰²³"]
)
def test_what_is_not_understood_is_told_and_left_out(text: str):
    found = filters.parse(text)

    assert text in found.problem
    assert found.matches(a_batch())


def test_an_open_quotation_mark_is_no_error():
    assert filters.parse('meta.name:"two').problem == ""


def test_views_are_filters_too():
    assert len(filters.parse("", "active").conditions) == 4
    assert filters.parse("", "attention").matches(a_batch(BatchStatus.EXPIRED))
    assert not filters.parse("", "attention").matches(a_batch())


def test_lines_are_cut_at_newlines_and_know_their_offsets():
    raw = b"one\ntwo\r\nthree"

    shown = excerpt.lines_of(raw, 0, len(raw))

    assert [(line.offset, line.text) for line in shown.lines] == [(0, "one"), (4, "two"), (9, "three")]
    assert shown.following is None


def test_a_line_that_the_window_cuts_off_is_left_to_the_next_piece():
    shown = excerpt.lines_of(b"one\ntw", 100, 1000)

    assert [line.text for line in shown.lines] == ["one"]
    assert shown.following == 104


def test_a_line_longer_than_the_window_is_shown_by_its_beginning():
    shown = excerpt.lines_of(b"x" * 5000, 0, 9000)

    assert [(len(line.text), line.cut) for line in shown.lines] == [(2000, "3,000 more characters")]
    assert shown.following == 5000


def test_only_so_many_lines_are_shown_at_once():
    raw = b"a\n" * 300

    shown = excerpt.lines_of(raw, 0, len(raw))

    assert (len(shown.lines), shown.following) == (100, 200)


def test_an_empty_file_has_no_lines():
    assert excerpt.lines_of(b"", 0, 0).lines == ()


@pytest.mark.parametrize(("text", "offset"), [("", 0), ("17", 17), ("-1", 0), ("x", 0), ("²", 0), ("9" * 40, 0)])
def test_offsets_of_urls_are_numbers_or_the_beginning(text: str, offset: int):
    assert excerpt.offset_of(text) == offset


def test_form_becomes_wishes_without_empty_rows():
    form = {"file_id": [" file-1 "], "endpoint": ["/v1/embeddings"], "flavour": ["azure"]}
    form |= {"meta_key": ["a", " ", "b"], "meta_value": ["1", "2", "3"]}

    wishes = wishes_in(form)

    assert (wishes.file_id, wishes.endpoint, wishes.flavour) == ("file-1", "/v1/embeddings", "azure")
    assert wishes.metadata == (("a", "1"), ("b", "3"))


def test_recipes_quote_what_a_shell_would_run():
    hostile = Wishes(file_id="file-1", metadata=(("name", "$(reboot) '\u202e"),))

    texts = {recipe.name: recipe.text for recipe in all_of(hostile, "http://localhost:8080")}

    assert "'name=$(reboot) '\"'\"'" in texts["Command line"]
    assert "\\u202e" in texts["curl"]
    assert "\u202e" not in texts["Python, OpenAI"]
    compile(texts["Python, OpenAI"], "openai", "exec")
