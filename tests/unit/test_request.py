"""How a line is read, and how its body is sent on."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overnight.domain.request import estimate_tokens, parse_request, with_model

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(["model", '"model":"x"'])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


def test_a_line_is_read_without_touching_the_bytes_of_its_body() -> None:
    """And the id stays JSON text."""
    body = b'{ "model":"m",  "x":1.000000000000000000001 , "u":"\\u00e9" }'
    raw = b' {"method":1, "body" : %s , "custom_id":"a\\u0062"}\r\n' % body

    request = parse_request(7, raw)

    assert (request.line, request.custom_id, request.body) == (7, b'"a\\u0062"', body)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"model":"m"}', b'{"model":"n"}'),
        (b'{ "model" : "m" , "x":1}', b'{ "model" : "n" , "x":1}'),
        (b'{"model":"n"}', b'{"model":"n"}'),
        (b'{"x":{"model":"m"},"model":"m"}', b'{"x":{"model":"m"},"model":"n"}'),
        (b'{"model":"m","x":{"model":"m"}}', b'{"model":"n","x":{"model":"m"}}'),
        (
            b'{"x":[{"model":"a"},{"model":"b"}],"model":"m","y":{"model":"c"}}',
            b'{"x":[{"model":"a"},{"model":"b"}],"model":"n","y":{"model":"c"}}',
        ),
        (b'{"x":"\\"model\\":\\"m\\"","model":"m"}', b'{"x":"\\"model\\":\\"m\\"","model":"n"}'),
        (b'{"model":"a\\"b"}', b'{"model":"n"}'),
        (b'{"model":"a\\\\","x":1}', b'{"model":"n","x":1}'),
        (b'{"model":"x","model":"m"}', b'{"model":"x","model":"n"}'),
        (b'{"mod\\u0065l":"m","x":1}', b'{"mod\\u0065l":"n","x":1}'),
        (b'{"mod\\u0065l":"m"} \n', b'{"mod\\u0065l":"n"} \n'),
        (b'{"model":"m","mod\\u0065l":"k"}', b'{"model":"m","mod\\u0065l":"n"}'),
        ('{"x":"ü","model":"m"}'.encode(), '{"x":"ü","model":"n"}'.encode()),
    ],
)
def test_only_the_value_of_the_outer_model_is_changed(body: bytes, expected: bytes) -> None:
    """Every other byte is the caller's."""
    assert with_model(body, "n") == expected


def test_a_model_name_is_written_as_json() -> None:
    """Whatever is in it."""
    name = 'a"b\\\n\u00fc'

    assert json.loads(with_model(b'{"model":"m"}', name)) == {"model": name}


@given(st.dictionaries(TEXT, JSON, max_size=4), TEXT, st.booleans(), st.integers(0, 3))
def test_a_mapped_body_differs_only_in_its_model(
    others: dict[str, Any], model: str, ascii_only: bool, place: int
) -> None:
    """Property: the standard reader agrees, and the rest is byte for byte the same."""
    items = [(key, value) for key, value in others.items() if key != "model"]
    first, last = dict(items[:place]), dict(items[place:])
    content = first | {"model": "mine"} | last
    before, after = (json.dumps(part, ensure_ascii=ascii_only).encode()[1:-1] for part in (first, last))

    mapped = with_model(json.dumps(content, ensure_ascii=ascii_only).encode(), model)

    assert json.loads(mapped) == content | {"model": model}
    assert mapped.startswith(b"{" + before)
    assert mapped.endswith(after + b"}")


@pytest.mark.timeout(20)
def test_a_body_with_many_inner_models_does_not_hold_the_loop() -> None:
    """Each inner key must not cost a look at the whole body: this one would take half a minute."""
    many = b'{"tools":[' + b",".join([b'{"model":"a"}'] * 40_000) + b"],"

    assert with_model(many + b'"model":"m"}', "n") == many + b'"model":"n"}'


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        (b'{"max_tokens": 50 }', 4 + 50),
        (b'{"max_completion_tokens": 60, "max_tokens": 5}', 11 + 60),
        (b'{"max_output_tokens":70}', 6 + 70),
        (b'{"messages": [ ] }  ', 5),
        (b'{"max_tokens": -1 } ', 5),
        (b'{"max_tokens": "many"}  ', 6),
    ],
)
def test_tokens_are_guessed_from_the_length_and_the_bound(body: bytes, tokens: int) -> None:
    """Until the answer tells."""
    assert estimate_tokens(body) == tokens
