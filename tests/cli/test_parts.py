"""The parts that decide something: ids, options, endpoints, groups of errors, views."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import click
import pytest
from tests.cli.conftest import Cli

from overnight.bootstrap.doctor import diagnose
from overnight.cli import ids, results, submit
from overnight.cli.console import choose_fields
from overnight.cli.doctor import Finding, not_ready, verdict
from overnight.cli.failures import CliError, StoppedWaiting, explain, one_line
from overnight.cli.main import cli
from overnight.cli.options import DEFAULT_URL, resolve, spell_out_json
from overnight.cli.serve import in_short
from overnight.client import (
    ApiError,
    InvalidUrl,
    NotAuthorised,
    NotFound,
    Readiness,
    UnexpectedAnswer,
    Unreachable,
    Waiting,
)
from overnight.config import Settings
from overnight.domain.flavour import Flavour

IDS = ("batch_aaa1", "batch_aab2", "batch_b3")


def test_a_unique_beginning_is_enough() -> None:
    """Ids are long."""
    assert ids.pick("batch", "batch_aaa", IDS) == "batch_aaa1"


def test_a_beginning_that_fits_several_is_refused_with_them() -> None:
    """Guessing could cancel the wrong batch."""
    with pytest.raises(CliError) as caught:
        ids.pick("batch", "batch_aa", IDS)

    assert (caught.value.message, caught.value.code) == ("`batch_aa` fits 2 batches", 2)
    assert caught.value.hint == "write more of it: batch_aaa1, batch_aab2"


def test_a_beginning_that_fits_none_is_refused() -> None:
    """Not found is a refusal, not a usage error."""
    with pytest.raises(CliError) as caught:
        ids.pick("file", "nix", IDS)

    assert (caught.value.message, caught.value.code) == ("no file is called `nix`", 1)


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["get", "--json", "batch_1"], ["get", "--json=", "batch_1"]),
        (["list", "--json=id"], ["list", "--json=id"]),
        (["api", "GET", "--", "--json"], ["api", "GET", "--", "--json"]),
    ],
)
def test_a_bare_json_never_takes_the_next_argument(args: list[str], expected: list[str]) -> None:
    """`--json batch_1` means the batch."""
    assert expected == spell_out_json(args)


@pytest.mark.parametrize(
    ("environment", "url", "source"),
    [
        ({}, DEFAULT_URL, "default"),
        ({"OPENAI_BASE_URL": "http://a/v1"}, "http://a/v1", "OPENAI_BASE_URL"),
        ({"OPENAI_BASE_URL": "http://a/v1", "OVERNIGHT_URL": "http://b/v1"}, "http://b/v1", "OVERNIGHT_URL"),
        ({"OVERNIGHT_URL": ""}, DEFAULT_URL, "default"),
    ],
)
def test_our_own_variable_wins_over_the_common_one(environment: Mapping[str, str], url: str, source: str) -> None:
    """Everybody has OPENAI_BASE_URL set already."""
    options = resolve(click.Context(cli), environment)

    assert (options.url, options.url_source) == (url, source)


def test_the_key_is_not_in_the_representation() -> None:
    """Tracebacks and logs print representations."""
    options = resolve(click.Context(cli), {"OVERNIGHT_API_KEY": "sk-secret"})

    assert options.api_key == "sk-secret"
    assert "sk-secret" not in repr(options)


@pytest.mark.parametrize("place", range(3))
def test_global_options_count_on_any_level(bare: Cli, place: int) -> None:
    """Before the group, after the group, after the command."""
    arguments = ["config", "path"]
    arguments.insert(place, "--quiet")
    found = bare(*arguments)

    assert (found.stderr, found.code) == ("", 0)


@pytest.mark.parametrize(
    "content",
    [
        b'{"url": "/v1/embeddings"}\n',
        b'\xef\xbb\xbf{"url": "/v1/embeddings"}',
        b'\r\n\n{"custom_id": "a", "url": "/v1/embeddings"}\r\nnot json\n',
    ],
)
def test_the_endpoint_is_that_of_the_first_line(content: bytes) -> None:
    """With a byte order mark, after blank lines, whatever comes later."""
    assert submit.endpoint_in(content.splitlines(keepends=True), "f.jsonl") == "/v1/embeddings"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "f.jsonl holds no request"),
        (b"\nnope\n", "f.jsonl:2: this line is not a JSON object"),
        (b"\xff\xfe\n", "f.jsonl:1: this line is not a JSON object"),
        (b"[1]\n", "f.jsonl:1: this line is not a JSON object"),
        (b"{}\n", "f.jsonl:1: the request has no `url`"),
    ],
)
def test_a_file_without_an_endpoint_is_refused_by_line(content: bytes, message: str) -> None:
    """The line is named, so that it can be looked at."""
    with pytest.raises(CliError) as caught:
        submit.endpoint_in(content.splitlines(keepends=True), "f.jsonl")

    assert caught.value.message == message


def failed(custom_id: str, body: object, status: int = 400) -> bytes:
    """A line of an error file with a response."""
    response = {"status_code": status, "request_id": "r", "body": body}
    return json.dumps({"id": "x", "custom_id": custom_id, "response": response, "error": None}).encode()


def ended(custom_id: str, code: str) -> bytes:
    """A line of an error file without a response."""
    error = {"code": code, "message": "why"}
    return json.dumps({"id": "x", "custom_id": custom_id, "response": None, "error": error}).encode()


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (ended("a", "batch_expired"), "batch_expired"),
        (failed("a", {"error": {"code": "rate_limit_exceeded", "type": "requests"}}, 429), "rate_limit_exceeded"),
        (failed("a", {"error": {"code": None, "type": "invalid_request_error"}}), "invalid_request_error"),
        (failed("a", {"error": {"code": 400, "type": "exceed_context_size_error"}}), "exceed_context_size_error"),
        (failed("a", {"error": {"code": "400", "type": "BadRequestError"}}), "BadRequestError"),
        (failed("a", {"error": "text"}, 502), "http_502"),
        (failed("a", {"detail": "Not Found"}, 404), "http_404"),
        (failed("a", {"error": {"message": 5}}, 500), "http_500"),
        (failed("a", None, 503), "http_503"),
        (b'{"custom_id": "a", "response": null, "error": null}', "no_response"),
        (b"not json", "unreadable_line"),
    ],
)
def test_each_failure_has_a_code_to_group_by(line: bytes, code: str) -> None:
    """Model servers say why in many ways."""
    assert [code] == [group.code for group in results.group([line])]


def test_groups_are_counted_most_frequent_first() -> None:
    """What is worth fixing first."""
    lines = [ended("a", "x"), ended("b", "y"), b"", ended("c", "y")]

    assert [(each.code, each.count, each.first_custom_id) for each in results.group(lines)] == [
        ("y", 2, "b"),
        ("x", 1, "a"),
    ]
    assert results.in_words(results.group(lines)) == "2 × y   1 × x"


def test_long_messages_are_cut_in_groups() -> None:
    """Some servers quote the whole prompt."""
    (group,) = results.group([failed("a", {"error": {"message": "x" * 5000}})])

    assert len(group.message) == 200


@pytest.mark.parametrize("size", [1, 3, 100])
def test_lines_are_found_however_the_bytes_arrive(size: int) -> None:
    """A stream is cut anywhere."""
    data = b"one\n\ntwo\r\nthree"
    chunks = [data[at : at + size] for at in range(0, len(data), size)]

    assert list(results.lines(chunks)) == [b"one", b"", b"two\r", b"three"]


def test_the_object_of_the_api_is_passed_on_byte_for_byte() -> None:
    """`--json` is exactly the API's object; only line breaks between tokens may go."""
    raw = b'{"id":"b","big":12345678901234567890,"text":"\\u00e9"}'

    assert choose_fields(raw, ()) == raw
    assert choose_fields(b'{\n "id": 1.0\n}', ()) == b'{"id":1.0}'
    assert choose_fields(raw, ("big",)) == b'{"big":12345678901234567890}'


def test_an_unknown_field_is_refused_with_those_there_are() -> None:
    """An empty column would look like an answer."""
    with pytest.raises(CliError) as caught:
        choose_fields(b'{"id":1,"status":2}', ("nix",))

    assert (caught.value.hint, caught.value.code) == ("there are id,status", 2)


@pytest.mark.parametrize(
    ("error", "message", "code"),
    [
        (
            Unreachable("http://h/v1", "connection refused"),
            "the server `http://h/v1` does not answer (connection refused)",
            5,
        ),
        (
            NotAuthorised("Incorrect API key provided.", status=401, code="invalid_api_key"),
            "Incorrect API key provided (401, invalid_api_key)",
            4,
        ),
        (NotFound("No such File object: f", status=404, param="id"), "No such File object: f (404, id)", 1),
        (ApiError("Bad.", status=400), "Bad (400)", 1),
        (ApiError("Away", status=503), "Away (503)", 5),
        (ApiError("Oops", status=500), "Oops (500)", 1),
        (InvalidUrl("ftp://h"), "`ftp://h` is not an http or https URL", 2),
        (UnexpectedAnswer("http://h", "html"), "`http://h` answered, but not as a Batch API does (html)", 1),
    ],
)
def test_each_error_of_the_client_has_words_and_an_exit_code(error: Exception, message: str, code: int) -> None:
    """What, where, and what now."""
    found = explain(error)

    assert found is not None
    assert (found.message, found.code) == (message, code)


def test_an_unforeseen_error_is_not_explained_away() -> None:
    """It keeps its name, for the report."""
    assert explain(ValueError("x")) is None


@pytest.mark.parametrize(
    ("said", "shown"),
    [("No full stop.", "No full stop"), ("Two. Sentences.", "Two. Sentences."), ("Two\nlines.", "Two\nlines.")],
)
def test_a_message_on_one_line_has_no_full_stop(said: str, shown: str) -> None:
    """The server writes sentences; we write messages."""
    assert shown == one_line(said)


def test_ctrl_c_names_the_batch_and_both_ways_on() -> None:
    """The batch goes on, and so must its owner."""
    stopped = StoppedWaiting(["batch_1"])

    assert stopped.message == "stopped waiting; the batch goes on: batch_1"
    assert stopped.hint == "`overnight batches wait batch_1` resumes, `overnight batches cancel batch_1` stops it"
    assert stopped.code == 130


@pytest.mark.parametrize(
    ("faults", "code"), [((), 0), (("upstream a",), 5), (("upstream a", "server"), 5), (("upstream a", "disk"), 1)]
)
def test_the_doctor_tells_what_is_away_from_what_is_broken(faults: tuple[str, ...], code: int) -> None:
    """A script may wait for an upstream, not for a disk."""
    findings = [Finding(name, ok=False, detail="") for name in faults] + [Finding("keys", ok=True, detail="")]

    assert code == verdict(findings)


def test_the_doctor_says_how_to_install_what_reaches_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an extra; a service with its results on the disk never asks for it."""
    monkeypatch.setitem(sys.modules, "overnight.adapters.results.objects", None)
    settings = Settings(data_dir=tmp_path, results_url="s3://bucket", upstreams=("http://127.0.0.1:9/v1",))  # type: ignore[arg-type] # pydantic takes URLs
    (found,) = (check for check in diagnose(settings) if check.name == "results")

    assert found.detail == "the package `obstore`, which reaches object stores, is not installed"
    assert found.remedy == "pip install 'overnight[objects]', or leave results_url out"


def test_the_doctor_tells_of_batches_that_wait_for_the_disk_of_a_server() -> None:
    """That is a fault of its own, though the server answers."""
    waiting = Waiting(batches=1, since=1_700_000_000, bytes=2_500)
    found = list(not_ready(Readiness(status="not ready", problem="1 batch waits", waiting=waiting)))

    assert [each.name for each in found] == ["service", "results"]
    assert found[1].detail == "waiting since 2023-11-14T22:13:20Z, 2.5 kB in memory"
    assert verdict(found) == 1
    assert list(not_ready(Readiness(status="ok"))) == list(not_ready(None)) == []


@pytest.mark.parametrize(
    ("names", "words"), [([], "none yet"), (["a"], "a"), (list("abcdef"), "a, b, c, d and 2 more")]
)
def test_many_names_are_shortened(names: list[str], words: str) -> None:
    """A server may offer hundreds of models."""
    assert words == in_short(names)


def test_life_of_files_can_be_set_and_0_means_for_ever(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OVERNIGHT_LIMITS__OPENAI__INPUT_LIFE", "0")
    monkeypatch.setenv("OVERNIGHT_LIMITS__AZURE__OUTPUT_LIFE", "60")

    limits = Settings().limits_by_flavour()

    assert (limits[Flavour.OPENAI].input_life, limits[Flavour.OPENAI].output_life) == (None, 2_592_000)
    assert (limits[Flavour.AZURE].input_life, limits[Flavour.AZURE].output_life) == (None, 60)
