"""Table 4.2 of the contract: what becomes of each answer, and of none. One batch asks for all of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.api import AZURE, OPENAI, Api, Prefix, chat_body, jsonl, request
from tests.support.http import Http
from tests.support.service import Service, log_shown

from overnight.testing import upstream as scripted
from overnight.testing.upstream import ScriptedUpstream, answer, in_turn, raw

GOOD = "succeeds"
REFUSED = {
    "refused-400": (400, "invalid_value", "max_tokens"),
    "refused-401": (401, "invalid_api_key", None),
    "refused-404": (404, "model_not_found", "model"),
    "refused-422": (422, None, None),
    "refused-500": (500, None, None),
    "refused-501": (501, None, None),
}
UPSTREAM_TIMEOUT = 1.0
ANSWER_BYTES = 200_000

# The text of each request, the answer that it gets, and whether it ends in the output file.
ANSWERS: dict[str, tuple[Any, bool]] = {
    GOOD: (answer(), True),
    "late": (answer(delay=UPSTREAM_TIMEOUT / 3), True),
    "pretty": (scripted.pretty(), True),
    "gzipped": (scripted.gzipped(), True),
    "crlf": (raw('{\r\n"id": "x",\r\n"choices": [],\r\n"text": "a\\r\\nb\u2028c"}\r\n'), True),
    "with-bom": (raw(b"\xef\xbb\xbf" + b'{"id": "x"}'), True),
    "plain-text-type": (raw('{"id": "x"}', content_type="text/plain"), True),
    "created-201": (raw('{"id": "x"}', status=201), True),
    "odd-usage": (raw('{"id": "x", "usage": {"prompt_tokens": "many", "total_tokens": null}}'), True),
    "null-usage": (raw('{"id": "x", "usage": null}'), True),
    "big-numbers": (raw('{"id": "x", "n": 12345678901234567890123, "f": 1.00, "e": 1E400}'), True),
    "recovers-from-500": (in_turn(scripted.error(500), answer()), True),
    "recovers-from-429": (in_turn(scripted.too_many(0), scripted.too_many("0.01"), answer()), True),
    "recovers-from-503": (in_turn(scripted.error(503), answer()), True),
    "recovers-from-408": (in_turn(scripted.error(408), answer()), True),
    "recovers-from-reset": (in_turn(scripted.reset(), answer()), True),
    "recovers-from-silence": (in_turn(scripted.reset(-1), answer()), True),
    "recovers-from-html": (in_turn(scripted.html(502), answer()), True),
    **{
        name: (scripted.error(status, f"scripted {status}", code=code, param=param), False)
        for name, (status, code, param) in REFUSED.items()
    },
    "always-reset": (scripted.reset(), False),
    "always-html": (scripted.html(), False),
    "html-404": (scripted.html(404), False),
    "invalid-json": (scripted.invalid_json(), False),
    "empty": (raw(""), False),
    "a-list": (raw("[]"), False),
    "not-utf-8": (raw(b'{"id": "\xff"}'), False),
    "redirect": (scripted.html(302), False),
    "huge": (scripted.huge(ANSWER_BYTES), False),
}
NEVER = "never answered"
FAILURES = [name for name, (_, good) in ANSWERS.items() if not good]
FLAVOURS = (OPENAI, AZURE)


class Ended:
    """The batch and its two files, as they were when it had ended."""

    def __init__(self, batch: dict[str, Any], output: bytes, errors: bytes) -> None:
        self.batch = batch
        self.raw_output = output
        self.raw_errors = errors
        self.output = _by_custom_id(output)
        self.errors = _by_custom_id(errors)


def _by_custom_id(content: bytes) -> dict[str, Any]:
    lines = [json.loads(line) for line in content.splitlines()]
    found = {line["custom_id"]: line for line in lines}
    assert len(found) == len(lines), "a request is in the file twice"
    return found


@pytest.fixture(scope="module")
def asked() -> Iterator[ScriptedUpstream]:
    rules = {f'"{name}"': reply for name, (reply, _) in ANSWERS.items()}
    with ScriptedUpstream(script=scripted.by_text({**rules, NEVER: scripted.never()})) as upstream:
        yield upstream


@pytest.fixture(scope="module")
def impatient_service(asked: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that waits for answers for a second only, and takes small ones only."""
    folder = tmp_path_factory.mktemp("results")
    config = folder / "results.toml"
    config.write_text(
        f"answer_bytes = {ANSWER_BYTES}\n"
        f'[[upstreams]]\nname = "scripted"\nurl = "{asked.url}"\ntimeout = {UPSTREAM_TIMEOUT}\n'
    )
    with Service(folder, arguments=["--config", str(config), "--log-level", "debug"]) as service:
        yield service


@pytest.fixture(scope="module")
def everything(impatient_service: Service) -> dict[str, Ended]:
    """One batch for each flavour, both at once."""
    with log_shown(impatient_service):
        apis = [Api(Http(impatient_service.url), prefix) for prefix in FLAVOURS]
        made = [api.create(api.upload(_input(api.prefix))) for api in apis]
        batches = [api.end(batch_id, timeout=60) for api, batch_id in zip(apis, made, strict=True)]
    return {
        api.prefix.name: Ended(batch, api.content(batch["output_file_id"]), api.content(batch["error_file_id"]))
        for api, batch in zip(apis, batches, strict=True)
    }


def _input(prefix: Prefix) -> bytes:
    # The flavour makes the bodies differ: tries of a request are told by their bodies.
    return jsonl(*(request(f"{prefix.name} {name}", prefix.endpoint, _body(prefix, name)) for name in ANSWERS))


def _body(prefix: Prefix, name: str) -> dict[str, object]:
    return {"model": "test-model", "messages": [{"role": "user", "content": name}], "user": prefix.name}


@pytest.fixture(params=FLAVOURS, ids=lambda prefix: prefix.name)
def ended(request: pytest.FixtureRequest, everything: dict[str, Ended]) -> Ended:
    prefix: Prefix = request.param
    return everything[prefix.name]


@pytest.fixture
def line_of(ended: Ended, request: pytest.FixtureRequest):
    """Give the line of a request, and whether it is in the output file."""
    prefix: Prefix = request.node.callspec.params["ended"]

    def find(name: str) -> tuple[dict[str, Any], bool]:
        custom_id = f"{prefix.name} {name}"
        found = [
            (lines[custom_id], lines is ended.output) for lines in (ended.output, ended.errors) if custom_id in lines
        ]
        assert len(found) == 1, f"{name} is in {len(found)} files"
        return found[0]

    return find


@pytest.mark.parametrize("name", ANSWERS)
def test_each_request_ends_once_in_the_right_file(line_of, name: str):
    line, in_output = line_of(name)

    assert in_output is ANSWERS[name][1], line
    assert list(line) == ["id", "custom_id", "response", "error"]
    assert line["id"].startswith("batch_req_")
    assert (line["response"] is None) != (line["error"] is None)


def test_files_hold_one_object_a_line_in_the_order_of_the_input(ended: Ended):
    names = [name.partition(" ")[2] for name in ended.output]
    failures = [name.partition(" ")[2] for name in ended.errors]

    assert names == [name for name in ANSWERS if ANSWERS[name][1]]
    assert failures == FAILURES
    for content in (ended.raw_output, ended.raw_errors):
        assert content.endswith(b"\n")
        assert b"\r" not in content
        assert b"\n\n" not in content


def test_ids_of_lines_are_unique(ended: Ended):
    ids = [line["id"] for line in (*ended.output.values(), *ended.errors.values())]

    assert len(set(ids)) == len(ANSWERS)


def test_success_holds_the_whole_answer(line_of, asked: ScriptedUpstream):
    line, _ = line_of(GOOD)

    response = line["response"]
    assert line["error"] is None
    assert response["status_code"] == 200
    assert response["request_id"].startswith("req_upstream_")
    assert response["body"]["object"] == "chat.completion"
    assert response["body"]["choices"][0]["message"]["content"] == f"echo: {GOOD}"


def test_any_2xx_is_a_success(line_of):
    assert line_of("created-201")[0]["response"]["status_code"] == 201


@pytest.mark.parametrize("name", REFUSED)
def test_http_error_of_the_upstream_is_kept_in_the_response(line_of, name: str):
    """Readers look for it there (contract section 7, row 9)."""
    line, _ = line_of(name)

    status, code, param = REFUSED[name]
    kind = "server_error" if status >= 500 else "invalid_request_error"
    assert line["error"] is None
    assert line["response"]["status_code"] == status
    assert line["response"]["request_id"]
    assert line["response"]["body"] == {
        "error": {"message": f"scripted {status}", "type": kind, "param": param, "code": code}
    }


def test_request_that_is_never_answered_times_out(impatient_service: Service):
    """It has its own batch, since it takes the service several tries to give up."""
    api = Api(Http(impatient_service.url))
    content = jsonl(request("a", api.prefix.endpoint, chat_body(NEVER)))

    with log_shown(impatient_service):
        batch = api.run(content)

    output, (line,) = api.results(batch)
    assert output == []
    assert line["response"] is None
    assert line["error"]["code"] == "request_timeout"
    assert line["error"]["message"]
    assert batch["request_counts"] == {"total": 1, "completed": 0, "failed": 1}


@pytest.mark.parametrize("name", [name for name in FAILURES if name not in REFUSED])
def test_answer_that_cannot_be_quoted_is_replaced_by_an_error_in_the_envelope(line_of, name: str):
    line, _ = line_of(name)

    response = line["response"]
    assert response["status_code"] >= 300, "readers would take it for a success"
    assert set(response["body"]["error"]) == {"message", "type", "param", "code"}
    assert response["body"]["error"]["message"]


def test_numbers_of_an_answer_keep_their_digits(ended: Ended):
    assert b'{"id": "x", "n": 12345678901234567890123, "f": 1.00, "e": 1E400}' in ended.raw_output


@pytest.mark.parametrize("name", ["pretty", "gzipped"])
def test_answer_in_another_form_says_the_same(line_of, name: str):
    line, _ = line_of(name)

    assert line["response"]["body"]["choices"][0]["message"]["content"] == f"echo: {name}"


def test_line_break_inside_a_string_survives(line_of):
    assert line_of("crlf")[0]["response"]["body"]["text"] == "a\r\nb\u2028c"


def test_counts_add_up(ended: Ended):
    good = len(ANSWERS) - len(FAILURES)

    assert ended.batch["status"] == "completed"
    assert ended.batch["request_counts"] == {"total": len(ANSWERS), "completed": good, "failed": len(FAILURES)}


@pytest.mark.parametrize(
    ("name", "tries"),
    [
        (GOOD, 1),
        ("refused-400", 1),
        ("refused-401", 1),
        ("refused-404", 1),
        ("refused-422", 1),
        ("refused-501", 1),
        ("recovers-from-500", 2),
        ("recovers-from-429", 3),
        ("huge", 1),
        ("redirect", 1),
    ],
)
def test_only_what_may_get_better_is_tried_again(everything: dict[str, Ended], asked, name: str, tries: int):
    for prefix in FLAVOURS:
        assert len([one for one in asked.asked if one.json() == _body(prefix, name)]) == tries
