"""Why a line is refused: every row of CONTRACT 3.4, for each flavour."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overnight.domain.flavour import Flavour
from overnight.domain.limits import PROBLEMS_KEPT
from overnight.domain.validation import Checker, Rules
from overnight.services.validate import Report, check_file, first_model

OPENAI, AZURE = Flavour.OPENAI, Flavour.AZURE
CHAT = "/v1/chat/completions"
BODY: dict[str, Any] = {"model": "m", "messages": []}


def a_line(custom_id: object = "a", body: object = None, **changes: object) -> dict[str, Any]:
    return {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": BODY if body is None else body} | changes


def without(line: dict[str, Any], field: str) -> dict[str, Any]:
    return {name: value for name, value in line.items() if name != field}


def encode(line: object) -> bytes:
    return line if isinstance(line, bytes) else json.dumps(line).encode()


def rules(flavour: Flavour = OPENAI, **changes: Any) -> Rules:
    given: dict[str, Any] = {"requests_per_file": 100, "line_bytes": 10_000, "endpoint": CHAT} | changes
    return Rules(flavour=flavour, **given)


def check(*lines: object, flavour: Flavour = OPENAI, **changes: Any) -> Checker:
    checker = Checker(rules(flavour, **changes))
    for number, line in enumerate(lines, start=1):
        checker.check(number, encode(line))
    return checker


def found(checker: Checker) -> list[tuple[str, str | None, int | None]]:
    return [(problem.code, problem.param, problem.line) for problem in checker.verdict()]


EMBEDDINGS = "/v1/embeddings"


def embedding(custom_id: str, given: object) -> dict[str, Any]:
    return a_line(custom_id, {"model": "m", "input": given}, url=EMBEDDINGS)


@pytest.mark.parametrize(
    ("given", "inputs"),
    [("text", 1), (["a", "b"], 2), ([1, 2, 3], 1), ([[1, 2], [3]], 2), ([], 1), (7, 1), ({"a": 1}, 1)],
)
def test_inputs_of_a_request_for_embeddings_are_counted(given: object, inputs: int):
    line = embedding("a", given)

    assert found(check(line, endpoint=EMBEDDINGS, embedding_inputs=inputs)) == []
    assert found(check(line, endpoint=EMBEDDINGS, embedding_inputs=inputs - 1)) == [("too_many_tasks", None, None)]


def test_embedding_inputs_are_added_up_over_the_lines_that_pass():
    lines = [embedding("a", ["x"] * 4), embedding("a", ["x"] * 40), embedding("b", ["x"] * 4)]

    problems = check(*lines, endpoint=EMBEDDINGS, embedding_inputs=7).verdict()

    assert [problem.code for problem in problems] == ["duplicate_custom_id", "too_many_tasks"]
    assert "have 8 embedding inputs together, and a batch may have 7." in problems[1].message


def test_inputs_of_other_endpoints_are_not_bounded():
    line = a_line("a", {"model": "m", "input": ["x"] * 9}, url="/v1/moderations")

    assert found(check(line, endpoint="/v1/moderations", embedding_inputs=1)) == []
    assert found(check(a_line(), embedding_inputs=1)) == []


DEEP = b"[" * 100_000 + b"]" * 100_000

MALFORMED = {
    "nothing but text": b"hello",
    "cut off": b'{"custom_id":"a"',
    "two values": encode(a_line()) + b"{}",
    "not a number": encode(a_line(body=BODY)).replace(b'"m"', b'"m","x":NaN'),
    "infinite": encode(a_line()).replace(b'"m"', b'"m","x":Infinity'),
    "a leading nought": encode(a_line()).replace(b'"m"', b'"m","x":01'),
    "a trailing comma": encode(a_line()).replace(b"[]", b"[1,]"),
    "single quotes": b"{'custom_id':'a'}",
    "a raw control character": encode(a_line()).replace(b'"m"', b'"m","x":"a\x01"'),
    "a raw tab": encode(a_line()).replace(b'"m"', b'"m","x":"a\tb"'),
    "an unknown escape": encode(a_line()).replace(b'"m"', b'"m","x":"\\q"'),
    "a short escape": encode(a_line()).replace(b'"m"', b'"m","x":"\\u12"'),
    "a lone surrogate in the id": encode(a_line()).replace(b'"a"', b'"\\ud800"'),
    "bytes that are not UTF-8 in a value": encode(a_line()).replace(b'"m"', b'"m","x":"\xff"'),
    "bytes that are not UTF-8 in a key": encode(a_line()).replace(b'"m"', b'"m","\xff":1'),
    "bytes that are not UTF-8 in the id": encode(a_line()).replace(b'"a"', b'"\xc3\x28"'),
    "an overlong encoding": encode(a_line()).replace(b'"m"', b'"m","x":"\xc0\xaf"'),
    "a surrogate in UTF-8": encode(a_line()).replace(b'"m"', b'"m","x":"\xed\xa0\x80"'),
    "too deep": encode(a_line()).replace(b'"m"', b'"m","x":' + DEEP),
    "too deep in place of the body": encode(a_line()).replace(encode(BODY), DEEP),
    "too deep in place of a field": encode(a_line()).replace(b'"POST"', DEEP),
}

# name: (line, (OpenAI's code, Azure's code), param)
WRONG: list[object] = [7, None, True, False, [], {}, -1.5]
NO_OBJECT: list[object] = [7, None, True, "x", []]

REFUSED: dict[str, tuple[object, tuple[str, str], str | None]] = {
    "a deep array": (DEEP, ("invalid_json_line", "invalid_json_line"), None),
    "an array": ([], ("invalid_request", "invalid_request"), None),
    "a number": (b"7", ("invalid_request", "invalid_request"), None),
    "null": (b"null", ("invalid_request", "invalid_request"), None),
    **{
        f"no {field}": (
            without(a_line(), field),
            ("missing_required_parameter", "invalid_request"),
            field,
        )
        for field in ("custom_id", "method", "url", "body")
    },
    **{
        f"{field} is {value!r}": (a_line(**{field: value}), ("invalid_request", "invalid_request"), field)
        for field in ("custom_id", "method", "url")
        for value in WRONG
    },
    **{
        f"body is {value!r}": (
            without(a_line(), "body") | {"body": value},
            ("invalid_request", "invalid_request"),
            "body",
        )
        for value in NO_OBJECT
    },
    "an empty custom_id": (a_line(""), ("missing_required_parameter", "invalid_request"), "custom_id"),
    "another method": (a_line(method="GET"), ("invalid_request", "invalid_request"), "method"),
    "the method in small letters": (a_line(method="post"), ("invalid_request", "invalid_request"), "method"),
    "another url": (a_line(url="/v1/embeddings"), ("invalid_url", "url_mismatch"), "url"),
    "a whole url": (a_line(url="https://x/v1/chat/completions"), ("invalid_url", "url_mismatch"), "url"),
    "no model": (a_line(body={"messages": []}), ("invalid_request", "invalid_request"), "body.model"),
    "an empty model": (a_line(body=BODY | {"model": ""}), ("invalid_request", "invalid_request"), "body.model"),
    "model is a number": (a_line(body=BODY | {"model": 4}), ("invalid_request", "invalid_request"), "body.model"),
    "model is null": (a_line(body=BODY | {"model": None}), ("invalid_request", "invalid_request"), "body.model"),
    "no messages": (a_line(body={"model": "m"}), ("invalid_request", "invalid_request"), "body.messages"),
    "a stream": (
        a_line(body=BODY | {"stream": True}),
        ("streaming_unsupported", "invalid_request"),
        "body.stream",
    ),
    "stream is text": (a_line(body=BODY | {"stream": "x"}), ("invalid_request", "invalid_request"), "body.stream"),
    "a stream hidden by a later key": (
        encode(a_line()).replace(b'"m"', b'"m","stream":true,"x":{},"stream":false'),
        ("streaming_unsupported", "invalid_request"),
        "body.stream",
    ),
    "a stream hidden by a later null": (
        encode(a_line()).replace(b'"m"', b'"m","stream" : true,"stream":null'),
        ("streaming_unsupported", "invalid_request"),
        "body.stream",
    ),
    "a stream hidden by an escaped key": (
        encode(a_line()).replace(b'"m"', b'"m","str\\u0065am":true,"stream":false'),
        ("streaming_unsupported", "invalid_request"),
        "body.stream",
    ),
    "a stream in a body hidden by a later body": (
        encode(a_line())
        .replace(b'"body"', b'"body":{"model":"m","messages":[],"stream":true},"body"')
        .replace(b'"messages": []}}', b'"messages":[],"stream":false}}'),
        ("streaming_unsupported", "invalid_request"),
        "body.stream",
    ),
    "a stream beside a number of many digits": (
        encode(a_line()).replace(b'"m"', b'"m","stream":true,"x":1' + b"0" * 5_000 + b',"stream":false'),
        ("streaming_unsupported", "invalid_request"),
        "body.stream",
    ),
}

ACCEPTED: dict[str, object] = {
    "the least": a_line(),
    "stream is false": a_line(body=BODY | {"stream": False}),
    "stream is null": a_line(body=BODY | {"stream": None}),
    "a stream that is only spoken of": a_line(body=BODY | {"stream": False, "messages": ['"stream": true']}),
    "a stream of something else": a_line(body=BODY | {"stream": False, "metadata": {"stream": True}}),
    "a stream of something else beside a number of many digits": (
        encode(a_line()).replace(b'"m"', b'"m","stream":false,"y":{"stream":true},"x":1' + b"0" * 5_000)
    ),
    "a stream of something deep": (
        encode(a_line()).replace(b'"m"', b'"m","stream":false,"x":' + b"[" * 500 + b'{"stream":true}' + b"]" * 500)
    ),
    "members that nobody knows": a_line(extra=1, priority={"x": None}),
    "numbers of any size": encode(a_line()).replace(b'"m"', b'"m","x":[1e999,-0,1' + b"0" * 400 + b",1E-7]"),
    "an escaped key": encode(a_line()).replace(b'"model"', b'"mod\\u0065l"'),
    "a model named twice": encode(a_line()).replace(b'"m"', b'"x","model":"m"'),
    "text of any kind": a_line("ü\u0000\U0001f600\u2028", body=BODY | {"x": "\u0085\U0001f600"}),
    "raw text of any kind": encode(a_line(body=BODY | {"x": "?"})).replace(b"?", "ü\u2028\U0001f600".encode()),
    "spaces everywhere": b' { "custom_id" : "a" , "method":"POST","url":"/v1/chat/completions","body" : {"model":"m" ,'
    b' "messages" : [ ] } } ',
    "a long custom_id": a_line("x" * 2_000),
}


@pytest.mark.parametrize("flavour", Flavour)
@pytest.mark.parametrize("name", MALFORMED)
def test_a_line_that_is_not_json_is_refused_as_such(name: str, flavour: Flavour) -> None:
    """Nothing that a caller can write stops the service."""
    assert found(check(MALFORMED[name], flavour=flavour)) == [("invalid_json_line", None, 1)]


@pytest.mark.parametrize("flavour", Flavour)
@pytest.mark.parametrize("name", REFUSED)
def test_a_wrong_line_is_refused_with_its_code_param_and_line(name: str, flavour: Flavour) -> None:
    """In the words of each vendor."""
    line, codes, param = REFUSED[name]

    assert found(check(line, flavour=flavour)) == [(codes[flavour is AZURE], param, 1)]


@pytest.mark.parametrize("flavour", Flavour)
@pytest.mark.parametrize("name", ACCEPTED)
def test_a_good_line_passes(name: str, flavour: Flavour) -> None:
    """Also an odd one."""
    checker = check(ACCEPTED[name], flavour=flavour)

    assert found(checker) == []
    assert (checker.requests, checker.model) == (1, "m")


@pytest.mark.parametrize(
    ("url", "endpoint", "flavour", "good"),
    [
        (CHAT, CHAT, OPENAI, True),
        ("/chat/completions", CHAT, OPENAI, False),
        (CHAT, "/chat/completions", AZURE, True),
        ("/chat/completions", CHAT, AZURE, True),
        ("/chat/completions", "/chat/completions", AZURE, True),
        ("/v1/embeddings", "/chat/completions", AZURE, False),
    ],
)
def test_azure_takes_a_url_with_and_without_its_version(url: str, endpoint: str, flavour: Flavour, good: bool) -> None:
    """Azure's pages write it both ways; OpenAI compares exactly."""
    assert (found(check(a_line(url=url), flavour=flavour, endpoint=endpoint)) == []) is good


@pytest.mark.parametrize(
    ("endpoint", "field"),
    [
        ("/v1/chat/completions", "messages"),
        ("/v1/embeddings", "input"),
        ("/v1/completions", "prompt"),
        ("/v1/moderations", "input"),
        ("/v1/images/generations", "prompt"),
        ("/v1/responses", None),
        ("/v1/videos", None),
    ],
)
def test_each_endpoint_asks_for_its_own_field(endpoint: str, field: str | None) -> None:
    """Without it no model could answer."""
    bare = a_line(url=endpoint, body={"model": "m"})

    assert found(check(bare, endpoint=endpoint)) == ([("invalid_request", f"body.{field}", 1)] if field else [])
    if field:
        assert found(check(a_line(url=endpoint, body={"model": "m", field: None}), endpoint=endpoint)) == []


def test_a_model_that_cannot_be_used_is_not_found() -> None:
    """For OpenAI a model, for Azure a deployment."""
    line = a_line(body=BODY | {"model": "x" * 100})
    openai = check(line, models=frozenset({"m"}))
    azure = check(line, flavour=AZURE, models=frozenset({"m"}))

    assert found(openai) == found(azure) == [("model_not_found", "body.model", 1)]
    assert openai.verdict()[0].message == f"The provided model '{'x' * 64}' is not supported by the Batch API."
    assert "deployment" in azure.verdict()[0].message
    assert found(check(a_line(), models=frozenset({"m"}))) == []


@pytest.mark.parametrize(("flavour", "code"), [(OPENAI, "mismatched_model"), (AZURE, "model_mismatch")])
def test_a_file_has_one_model(flavour: Flavour, code: str) -> None:
    """The first good line decides."""
    other = BODY | {"model": "n"}
    checker = check(b"{", a_line("a"), a_line("b", other), a_line("c"), a_line("d", other), flavour=flavour)

    assert found(checker) == [
        ("invalid_json_line", None, 1),
        (code, "body.model", 3),
        (code, "body.model", 5),
    ]


@pytest.mark.parametrize("custom_id", ["a", "x" * 65, "x" * 64, "ü" * 70])
@pytest.mark.parametrize("flavour", Flavour)
def test_a_custom_id_is_used_once(custom_id: str, flavour: Flavour) -> None:
    """Short ones are compared, long ones by digest; the message names the first use."""
    checker = check(a_line("z"), a_line(custom_id), a_line(custom_id + "!"), a_line(custom_id), flavour=flavour)

    assert found(checker) == [("duplicate_custom_id", "custom_id", 4)]
    assert "(line 2)" in checker.verdict()[0].message
    assert f"'{custom_id[:64]}'" in checker.verdict()[0].message


@pytest.mark.parametrize(
    ("again", "padding", "good"),
    [
        ('"custom_id":"b",', 5_000, False),
        ('"custom\\u005fid":"b",', 5_000, False),
        ('"custom_id":"\\u0061",', 5_000, True),
        ('"x":"b",', 5_000, True),
        ('"custom_id":"b",', 10, True),
    ],
)
def test_a_long_line_that_lists_would_name_otherwise_than_results_is_refused(again: str, padding: int, *, good: bool):
    """Lists read its beginning only; a short line is read as a whole, and its last custom_id is its name."""
    line = f'{{"custom_id":"a",{again}' + encode(a_line("a", text="x" * padding)).decode().split(",", 1)[1]

    assert found(check(line.encode())) == ([] if good else [("invalid_request", "custom_id", 1)])


def test_equal_ids_in_other_spelling_are_equal() -> None:
    """Escapes are read before ids are compared."""
    assert found(check(a_line("a"), encode(a_line()).replace(b'"a"', b'"\\u0061"'))) == [
        ("duplicate_custom_id", "custom_id", 2)
    ]


def test_the_endpoint_of_a_file_without_a_batch_is_that_of_its_first_line() -> None:
    """As ``files validate`` looks at it."""
    checker = check(a_line("a"), a_line("b", url="/v1/embeddings"), a_line("c"), endpoint=None)

    assert found(checker) == [("invalid_url", "url", 2)]
    assert checker.endpoint == CHAT


def test_only_the_first_problems_are_kept_with_their_true_total() -> None:
    """In line order."""
    checker = check(*[b"x"] * 1_234, requests_per_file=9_999)
    verdict = checker.verdict()

    assert [problem.line for problem in verdict[:-1]] == list(range(1, PROBLEMS_KEPT + 1))
    assert (verdict[-1].code, verdict[-1].line) == ("invalid_request", None)
    assert "1,234 problems" in verdict[-1].message
    assert len(check(*[b"x"] * PROBLEMS_KEPT).verdict()) == PROBLEMS_KEPT


@pytest.mark.parametrize("key", ["x", "custom_id"])
def test_a_line_of_any_depth_gets_an_answer(key: str) -> None:
    """Around the depth at which one reader gives up and another does not yet."""
    verdicts = set()
    for depth in range(sys.getrecursionlimit() - 120, sys.getrecursionlimit() + 5):
        deep = b"[" * depth + b'{"stream":true}' + b"]" * depth
        body = b'"body":{"model":"m","messages":[],"stream":false,"' + key.encode() + b'":' + deep + b"}"
        line = b'{"custom_id":"a","method":"POST","url":"/v1/chat/completions",' + body + b"}"
        verdicts.add(tuple(code for code, _, _ in found(check(line))))

    assert verdicts <= {(), ("streaming_unsupported",), ("invalid_json_line",)}
    assert ("invalid_json_line",) in verdicts


@pytest.mark.parametrize("field", ["custom_id", "method", "url", "body", "body.model"])
def test_a_wrong_value_before_the_right_one_of_the_same_key_is_told_for_what_it_is(field: str) -> None:
    """It is JSON, and not deep."""
    key = field.rsplit(".", maxsplit=1)[-1].encode()
    raw = encode(a_line()).replace(b'"%s":' % key, b'"%s":7,"%s":' % (key, key))
    [problem] = check(raw).verdict()

    assert problem.code == "invalid_request"
    assert "deep" not in problem.message


def test_a_message_says_what_stands_there_instead() -> None:
    """And what was expected."""
    assert check(a_line(custom_id=[])).verdict()[0].message == (
        "Invalid type for 'custom_id': expected a string, but got an array instead."
    )
    assert check(a_line(method="G" * 99)).verdict()[0].message == (
        f"Invalid value for 'method': '{'G' * 16}'. The method must be 'POST'."
    )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


@given(JSON, st.integers(0, 200), st.binary(max_size=3))
def test_a_line_is_judged_as_the_standard_reader_judges_it(value: object, place: int, noise: bytes) -> None:
    """Differential: whatever is JSON by the book passes or is refused for what it says, and nothing else passes."""
    raw = json.dumps(a_line(body=BODY | {"x": value}), ensure_ascii=False).encode(errors="surrogatepass")
    raw = raw[:place] + noise + raw[place:]
    codes = [code for code, _, _ in found(check(raw))]

    def refuse(text: str) -> None:
        raise ValueError(text)

    try:
        read = json.loads(raw.decode(), parse_constant=refuse)
    except ValueError:
        # What does not even begin as an object is refused for that, without a look at the rest.
        assert codes in (["invalid_json_line"], ["invalid_request"])
        if raw.lstrip().startswith(b"{"):
            assert codes == ["invalid_json_line"]
        return
    if not codes:
        assert isinstance(read, dict)
        assert read["body"]["model"]
    elif codes == ["invalid_json_line"]:
        # Stricter than the book only where upstreams would choke: a surrogate without its other half.
        assert any(0xD800 <= ord(char) < 0xE000 for char in json.dumps(read, ensure_ascii=False))


class TestFile:
    """One pass over a file."""

    def run(
        self, folder: Path, content: bytes, flavour: Flavour = OPENAI, **changes: Any
    ) -> tuple[Report, list[bytes]]:
        path, index = folder / "in.jsonl", folder / "index"
        path.write_bytes(content)
        report = check_file(path, rules(flavour, **changes), index)
        places = index.read_bytes()
        lines = []
        for start in range(0, len(places), 12):
            offset, length = (
                int.from_bytes(places[start : start + 8], "little"),
                int.from_bytes(places[start + 8 : start + 12], "little"),
            )
            lines.append(content[offset : offset + length])
        return report, lines

    @pytest.mark.parametrize(
        "content",
        [
            b"%s\n%s\n",
            b"%s\n%s",
            b"\xef\xbb\xbf%s\n%s\n",
            b"%s\r\n%s\r\n",
            b"\n\n%s\n \t\n%s\n\n",
            b"\xef\xbb\xbf\r\n%s\r\n\r\n%s",
            b"%s   \n\t%s\n",
        ],
    )
    def test_marks_breaks_and_blank_lines_make_no_difference(self, tmp_path: Path, content: bytes) -> None:
        """CONTRACT 3.1."""
        first, second = encode(a_line("a")), encode(a_line("b"))
        report, lines = self.run(tmp_path, content % (first, second))

        assert (report.requests, report.problems, report.problem_count) == (2, (), 0)
        assert (report.model, report.endpoint, report.bytes) == ("m", CHAT, len(content % (first, second)))
        assert [line.strip() for line in lines] == [first, second]

    def test_problems_name_the_line_of_the_file(self, tmp_path: Path) -> None:
        """Blank lines count."""
        report, _ = self.run(tmp_path, b"\n%s\n\nx\n" % encode(a_line()))

        assert [(problem.code, problem.line) for problem in report.problems] == [("invalid_json_line", 4)]
        assert report.problem_count == 1

    @pytest.mark.parametrize("content", [b"", b"\n", b"\xef\xbb\xbf", b" \r\n\t\n", b"\xef\xbb\xbf\n"])
    @pytest.mark.parametrize("flavour", Flavour)
    def test_a_file_without_a_request_is_empty(self, tmp_path: Path, content: bytes, flavour: Flavour) -> None:
        """CONTRACT 3.4."""
        report, lines = self.run(tmp_path, content, flavour)

        assert [(problem.code, problem.param, problem.line) for problem in report.problems] == [
            ("empty_file", None, None)
        ]
        assert (report.requests, report.problem_count, lines) == (0, 1, [])

    @pytest.mark.parametrize("ending", [b"", b"\n", b"\r\n"])
    def test_a_line_that_is_too_long_is_skipped_and_told(self, tmp_path: Path, ending: bytes) -> None:
        """Without reading it into memory; the line after it is looked at again."""
        longest = 200
        fits = encode(a_line("f")).ljust(longest)
        report, _ = self.run(
            tmp_path, fits + b"\r\n" + b"y" * 3_000_000 + b"\nx\n" + fits + b" " + ending, line_bytes=longest
        )

        assert [(problem.code, problem.line) for problem in report.problems] == [
            ("invalid_request", 2),
            ("invalid_json_line", 3),
            ("invalid_request", 4),
        ]
        assert "3,000,001 bytes" in report.problems[0].message
        assert report.requests == 4

    @pytest.mark.parametrize("flavour", Flavour)
    def test_too_many_requests_are_told_once(self, tmp_path: Path, flavour: Flavour) -> None:
        """And the rest is not looked at."""
        lines = [encode(a_line(str(number))) for number in range(4)]
        enough, _ = self.run(tmp_path, b"\n".join(lines[:3]) + b"\n\n", flavour, requests_per_file=3)
        more, _ = self.run(tmp_path, b"\n".join([*lines, b"x"]), flavour, requests_per_file=3)

        assert enough.problems == ()
        assert [(problem.code, problem.line) for problem in more.problems] == [("too_many_tasks", None)]

    def test_an_index_is_only_written_where_it_is_wanted(self, tmp_path: Path) -> None:
        """The command line only wants to know."""
        path = tmp_path / "in.jsonl"
        path.write_bytes(encode(a_line()))

        assert check_file(path, rules()).requests == 1
        assert [entry.name for entry in tmp_path.iterdir()] == ["in.jsonl"]

    def test_a_missing_file_is_an_error(self, tmp_path: Path) -> None:
        """Of the system, not of the caller."""
        with pytest.raises(FileNotFoundError):
            check_file(tmp_path / "none", rules())


class TestFirstModel:
    """Which deployment a file is for, before the file is checked."""

    @pytest.mark.parametrize(
        ("content", "model"),
        [
            (b'\n{"custom_id":"a","method":"POST","url":"u","body":{"model":"m"}}\n{', "m"),
            (b'{"custom_id":"a","method":"POST","url":"u","body":{}}', None),
            (b"{", None),
            (b"", None),
        ],
    )
    def test_the_first_request_tells_it(self, tmp_path: Path, content: bytes, model: str | None) -> None:
        """What cannot be read is left to the check."""
        path = tmp_path / "input.jsonl"
        path.write_bytes(content)

        assert first_model(path, 1000) == model
