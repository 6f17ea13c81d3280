"""Requests and responses as conversations: decided by pure functions, so checked as tables."""

from __future__ import annotations

import json

import pytest

from overnight.studio import bubbles, inside
from overnight.studio.excerpt import readable, visible


def shown(found: tuple[bubbles.Bubble, ...] | None) -> list[tuple[str, str, str]]:
    return [(each.role, block.kind, block.text) for each in found or () for block in each.blocks]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"messages": [{"role": "user", "content": "hi\nyou"}]}, [("user", "text", "hi\nyou")]),
        ({"input": "embed"}, [("user", "text", "embed")]),
        ({"input": ["a", "b"]}, [("user", "text", "a"), ("user", "text", "b")]),
        ({"prompt": "once"}, [("user", "text", "once")]),
        ({"instructions": "be", "input": "x"}, [("system", "text", "be"), ("user", "text", "x")]),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}]},
            [("assistant", "tool", "{}")],
        ),
        ({"messages": [{"role": "a\u202eb", "content": "\x1b"}]}, [("a⟨U+202E⟩b", "text", "␛")]),
        ({}, []),
    ],
)
def test_request_is_shown_by_its_shape(body: object, expected: list[tuple[str, str, str]]):
    assert shown(bubbles.asked(json.dumps({"body": body}).encode())) == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"choices": [{"message": {"role": "assistant", "content": "yes"}}]}, [("assistant", "text", "yes")]),
        ({"choices": [{"text": "yes"}]}, [("assistant", "text", "yes")]),
        ({"data": [{"embedding": [0.5, 1]}]}, [("assistant", "note", "2 numbers: 0.5, 1, …")]),
        ({"error": {"code": "c", "message": "no"}}, [("error", "error", "no")]),
        ("plain", [("error", "text", "plain")]),
    ],
)
def test_response_is_shown_by_its_shape(body: object, expected: list[tuple[str, str, str]]):
    assert shown(bubbles.answered(json.dumps({"response": {"body": body}}).encode())) == expected


@pytest.mark.parametrize("line", [b"", b"[]", b"{", b"[" * 100_000, b'{"body": 1}', b'"\xff"'])
def test_what_has_no_known_shape_is_not_shown_as_messages(line: bytes):
    assert bubbles.asked(line) is None
    assert bubbles.answered(line) is None


def test_json_is_bounded_unless_all_is_asked_for():
    line = json.dumps({"text": "x" * 100_000}).encode()

    assert len(bubbles.pretty(line, len(line), full=False).text) == bubbles.PREVIEW
    assert bubbles.pretty(line, len(line), full=True).more == ""
    assert bubbles.pretty(b"no json", 7, full=False).text == "no json"
    assert bubbles.pretty(b'{"cut', 900, full=False).more == "895 more bytes"


def test_readable_text_keeps_its_lines():
    assert readable("a\r\nb\tc\x00\u202e") == "a\nb\tc␀⟨U+202E⟩"


def test_address_that_is_not_understood_counts_as_the_first_page():
    assert inside.wanted_in({"status": "x", "limit": "7", "offset": "-1"}) == inside.Wanted()


def test_number_that_is_too_large_for_a_float_is_shown_all_the_same():
    line = b'{"response": {"status_code": 200, "body": {"data": [{"embedding": [1' + b"0" * 400 + b", 2.5]}]}}}"

    found = bubbles.answered(line)

    assert found is not None
    assert found[0].blocks[0].text == "2 numbers: ∞, 2.5, …"


def test_json_that_is_nested_too_deeply_is_shown_as_it_is():
    line = b"[" * 5_000 + b"]" * 5_000

    assert line.decode() == bubbles.pretty(line, len(line), full=False).text


def test_command_sends_what_the_request_says_and_shows_what_steers():
    line = '{"url": "/v1/completions", "body": {"prompt": "a\u202eb\x7f"}}'.encode()

    command = bubbles.curl(line)

    assert '{"prompt":"a\\u202eb\\u007f"}' in command
    assert command.isprintable() or "\u202e" not in command


def test_large_request_is_not_even_read_for_its_command(monkeypatch: pytest.MonkeyPatch):
    def fail(_line: bytes) -> object:
        pytest.fail("it is read on the event loop")

    monkeypatch.setattr("overnight.studio.bubbles._decode", fail)

    assert bubbles.curl(b" " * (bubbles.PREVIEW + 1)) == ""


def test_visible_text_has_tabs_and_pictures_of_all_else_that_steers():
    assert visible("é\t\x00\n\r\x1b\x7f\x85\u200b\u2066\ufeff") == "é\t␀␊␍␛⟨U+007F⟩⟨U+0085⟩⟨U+200B⟩⟨U+2066⟩⟨U+FEFF⟩"
