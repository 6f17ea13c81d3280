"""Table 3.4 of the contract: what is wrong with an input file shows in ``batch.errors``, in the flavour's own codes."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest
from tests.support.api import AZURE, AZURE_V1, OPENAI, Api, Prefix, chat_body, chats, jsonl, request
from tests.support.http import Http, Part

COUNTS_OF_NOTHING = {"total": 0, "completed": 0, "failed": 0}
FLAVOURS = (OPENAI, AZURE, AZURE_V1)


@pytest.fixture(params=FLAVOURS, ids=lambda prefix: prefix.name)
def flavour(request: pytest.FixtureRequest, http: Http) -> Api:
    """One prefix of each flavour: the deployments alias speaks as Azure's dated prefix does."""
    prefix: Prefix = request.param
    return Api(http, prefix)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A bad second line, and what is said of it; ``message`` is a pattern."""

    name: str
    line: object
    openai: str
    azure: str
    message: str
    param: str | None


URL = "{url}"
NO_MODEL = {"messages": [{"role": "user", "content": "hi"}]}
ROWS = (
    Row(
        name="not JSON",
        line='{"custom_id": "b", "method"',
        openai="invalid_json_line",
        azure="invalid_json_line",
        message=r"This line is not parseable as valid JSON\.",
        param=None,
    ),
    Row(
        name="not JSON but NaN",
        line='{"custom_id": "b", "method": "POST", "url": "{url}", "body": {"model": "test-model", "messages": [NaN]}}',
        openai="invalid_json_line",
        azure="invalid_json_line",
        message=r"This line is not parseable as valid JSON\.",
        param=None,
    ),
    *(
        Row(
            name=f"no {field}",
            line=request("b", URL, **{field: None}),
            openai="missing_required_parameter",
            azure="invalid_request",
            message=rf"Missing required parameter: '{field}'\.",
            param=field,
        )
        for field in ("custom_id", "method", "url", "body")
    ),
    Row(
        name="another url",
        line=request("b", "/v1/embeddings"),
        openai="invalid_url",
        azure="url_mismatch",
        message=r"The URL provided for this request does not match the batch endpoint\.",
        param="url",
    ),
    Row(
        name="no model",
        line=request("b", URL, NO_MODEL),
        openai="invalid_request",
        azure="invalid_request",
        message=r"Model parameter is required\.",
        param="body.model",
    ),
    Row(
        name="no messages",
        line=request("b", URL, {"model": "test-model"}),
        openai="invalid_request",
        azure="invalid_request",
        message=r"Messages parameter is required\.",
        param="body.messages",
    ),
    Row(
        name="streaming",
        line=request("b", URL, chat_body(stream=True)),
        openai="streaming_unsupported",
        azure="invalid_request",
        message=r"Chat Completions: Streaming is not supported in the Batch API\.",
        param="body.stream",
    ),
    Row(
        name="duplicate custom_id",
        line=request("a", URL),
        openai="duplicate_custom_id",
        azure="duplicate_custom_id",
        message=(
            r"The custom_id 'a' for this request is a duplicate of another request( \(line 1\))?\."
            r" The custom_id parameter must be unique for each request in a batch\."
        ),
        param="custom_id",
    ),
    Row(
        name="another model",
        line=request("b", URL, chat_body(model="other-model")),
        openai="mismatched_model",
        azure="model_mismatch",
        message=(
            r"The model 'other-model' for this request does not match the rest of the batch\."
            r" Each batch must contain requests for a single model\."
        ),
        param="body.model",
    ),
    Row(
        name="custom_id is a number",
        line=request("b", URL, custom_id=7),
        openai="invalid_request",
        azure="invalid_request",
        message=r".*'custom_id'.*",
        param="custom_id",
    ),
    Row(
        name="body is a list",
        line=request("b", URL, body=[]),
        openai="invalid_request",
        azure="invalid_request",
        message=r".*'body'.*",
        param="body",
    ),
    Row(
        name="line is a list",
        line="[]",
        openai="invalid_request",
        azure="invalid_request",
        message=r".+",
        param=None,
    ),
    Row(
        name="GET",
        line=request("b", URL, method="GET"),
        openai="invalid_request",
        azure="invalid_request",
        message=r".*'method'.*",
        param="method",
    ),
)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name.replace(" ", "-"))
def test_each_mistake_in_a_line_has_its_code_message_param_and_line(flavour: Api, row: Row):
    good = request("a", flavour.prefix.endpoint)

    batch = flavour.run(_with_url(jsonl(good, row.line), flavour))

    (problem,) = batch["errors"]["data"]
    assert problem["code"] == (row.azure if flavour.prefix.azure else row.openai)
    assert re.fullmatch(row.message, problem["message"]), problem["message"]
    assert problem["param"] == row.param
    assert problem["line"] == 2


def test_model_that_nobody_serves_is_not_found(flavour: Api):
    batch = flavour.run(jsonl(request("a", flavour.prefix.endpoint, chat_body(model="nobody"))))

    (problem,) = batch["errors"]["data"]
    assert (problem["code"], problem["param"], problem["line"]) == ("model_not_found", "body.model", 1)
    if not flavour.prefix.azure:
        assert problem["message"] == "The provided model 'nobody' is not supported by the Batch API."


def test_missing_input_file_fails_the_batch_and_not_its_creation(flavour: Api):
    batch = flavour.end(flavour.create("file-that-is-not-there"))

    (problem,) = batch["errors"]["data"]
    assert (problem["code"], problem["param"], problem["line"]) == ("invalid_request", "file_id", None)
    assert problem["message"].startswith("Cannot find file file-that-is-not-there, or ")
    assert problem["message"].endswith(" does not have access to it.")


def test_input_file_of_another_purpose_fails_the_batch(flavour: Api):
    """Peers run any file (contract section 7, row 8)."""
    batch = flavour.end(flavour.create(flavour.upload(chats(1, flavour.prefix.endpoint), purpose="assistants")))

    (problem,) = batch["errors"]["data"]
    assert (problem["code"], problem["param"], problem["line"]) == ("invalid_request", "file_id", None)


def test_empty_file_fails_the_batch_on_azure(http: Http):
    """OpenAI refuses it at the upload already."""
    batch = Api(http, AZURE).run(b"")

    assert batch["errors"]["data"] == [
        {
            "code": "empty_file",
            "message": "The input file is empty. Please ensure that the batch contains at least one request.",
            "param": None,
            "line": None,
        }
    ]


def test_blank_lines_alone_are_an_empty_file_on_azure(http: Http):
    batch = Api(http, AZURE).run(b"\r\n\n  \n")

    assert [problem["code"] for problem in batch["errors"]["data"]] == ["empty_file"]


def test_failed_batch_has_the_shape_that_openai_records_show(flavour: Api):
    batch = flavour.run(jsonl(*(request(name, "/v1/other") for name in "ab")))

    assert batch["status"] == "failed"
    assert batch["errors"]["object"] == "list"
    assert [problem["line"] for problem in batch["errors"]["data"]] == [1, 2]
    assert batch["failed_at"] >= batch["created_at"]
    assert batch["request_counts"] == COUNTS_OF_NOTHING
    nothing = ("in_progress_at", "finalizing_at", "completed_at", "output_file_id", "error_file_id")
    assert [batch[name] for name in nothing] == [None] * len(nothing)


def test_first_hundred_problems_are_kept_and_the_total_is_told(flavour: Api):
    batch = flavour.run(jsonl(*(request(f"r-{number}", "/v1/other") for number in range(2_345))))

    *kept, last = batch["errors"]["data"]
    assert [problem["line"] for problem in kept] == list(range(1, 101))
    assert "2,345" in last["message"]
    assert last["line"] is None


def test_line_numbers_count_blank_lines(flavour: Api):
    """An editor shows the same numbers."""
    content = b"\n" + jsonl(request("a", flavour.prefix.endpoint), b"", "nonsense")
    batch = flavour.run(content if flavour.prefix.azure else content.removeprefix(b"\n"))

    assert [problem["line"] for problem in batch["errors"]["data"]] == [4 if flavour.prefix.azure else 3]


def test_url_is_compared_exactly_on_openai(http: Http):
    batch = Api(http, OPENAI).run(chats(1, "/chat/completions"))

    assert [problem["code"] for problem in batch["errors"]["data"]] == ["invalid_url"]


@pytest.mark.parametrize("prefix", [AZURE, AZURE_V1], ids=lambda prefix: prefix.name)
@pytest.mark.parametrize("endpoint", ["/chat/completions", "/v1/chat/completions"])
@pytest.mark.parametrize("url", ["/chat/completions", "/v1/chat/completions"])
def test_leading_v1_makes_no_difference_on_azure(http: Http, prefix: Prefix, endpoint: str, url: str):
    """Azure's own documentation mixes both."""
    batch = Api(http, prefix).run(chats(1, url), endpoint=endpoint)

    assert batch["status"] == "completed"
    assert batch["endpoint"] == endpoint


@pytest.mark.parametrize(
    "disguise",
    [
        pytest.param(lambda content: b"\xef\xbb\xbf" + content, id="BOM"),
        pytest.param(lambda content: content.replace(b"\n", b"\r\n"), id="CRLF"),
        pytest.param(lambda content: content.removesuffix(b"\n"), id="no-last-newline"),
        pytest.param(lambda content: content + b"\n\r\n  \n", id="blank-lines-at-the-end"),
        pytest.param(lambda content: content.replace(b"\n", b"\n\n"), id="blank-lines-between"),
    ],
)
def test_file_in_another_spelling_runs_all_the_same(flavour: Api, disguise):
    batch = flavour.run(disguise(chats(3, flavour.prefix.endpoint)))

    assert batch["errors"] is None
    assert batch["request_counts"] == {"total": 3, "completed": 3, "failed": 0}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        pytest.param(b'{"custom_id": "b\xff", "method": "POST", "url": "{url}", "body": {}}', "UTF-8", id="not-UTF-8"),
        pytest.param(
            b'{"custom_id": "b", "method": "POST", "url": "{url}", "body": {"model": "test-model", "messages": '
            + b"[" * 5_000
            + b"]" * 5_000
            + b"}}",
            "deep",
            id="nested-deeply",
        ),
        pytest.param(
            b'{"custom_id": "b", "method": "POST", "url": "{url}", "body": {"model": "m", "messages": ["\\ud83d"]}}',
            "JSON",
            id="half-an-emoji",
        ),
    ],
)
def test_hostile_line_is_refused_with_a_reason(flavour: Api, line: bytes, said: str):
    batch = flavour.run(_with_url(jsonl(request("a", flavour.prefix.endpoint), line), flavour))

    assert batch["status"] in {"failed", "completed"}
    if batch["status"] == "failed":
        (problem,) = batch["errors"]["data"]
        assert (problem["code"], problem["line"]) == ("invalid_json_line", 2)
        assert said in problem["message"]


@pytest.mark.parametrize("content", [b"", b"not json\n", b"\n\n"], ids=["empty", "not-json", "blank"])
def test_openai_refuses_at_the_upload_what_cannot_be_jsonl(api: Api, content: bytes):
    """Moment A of section 3.3, with the additional ``detail`` that recordings show."""
    file = Part(name="file", data=content, filename="input.jsonl", kind="application/octet-stream")

    reply = api.post_form("/files", [Part(name="purpose", data="batch"), file])

    message = "Invalid file format for Batch API. Must be .jsonl"
    assert reply.status == 400
    assert reply.json() == {
        "error": {"message": message, "type": "invalid_request_error", "param": None, "code": None},
        "detail": message,
    }


def test_openai_accepts_at_the_upload_what_is_wrong_further_down(api: Api):
    file_id = api.upload(jsonl(request("a", api.prefix.endpoint), "nonsense"))

    assert api.get(f"/files/{file_id}").json()["status"] == "processed"


def _with_url(content: bytes, api: Api) -> bytes:
    return content.replace(URL.encode(), api.prefix.endpoint.encode())
