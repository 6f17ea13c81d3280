"""Table 3.5 and section 3.6 of the contract: what is refused at once, with which status, code and param."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.support.api import AZURE, AZURE_V1, OPENAI, PREFIXES, Api, Prefix, chats, jsonl, request
from tests.support.http import Http, Part, Reply
from tests.support.service import Service, log_shown

from overnight.testing.upstream import Gate, ScriptedUpstream, by_text, held

KEYS = {"message", "type", "param", "code"}
AZURES = [prefix for prefix in PREFIXES if prefix.azure]


def error_of(reply: Reply) -> dict[str, object]:
    """Give the error of a reply; its envelope is a superset of both vendors' on every prefix."""
    content = reply.json()
    assert reply.headers["content-type"].startswith("application/json")
    assert reply.headers["x-request-id"]
    assert set(content) <= {"error", "detail"}
    assert set(content["error"]) >= KEYS
    assert isinstance(content["error"]["message"], str)
    assert content["error"]["message"]
    error: dict[str, object] = content["error"]
    return error


def refused(reply: Reply, status: int, *, code: str | None, param: str | None) -> str:
    """Check a refusal and give its message."""
    error = error_of(reply)
    assert (reply.status, error["code"], error["param"]) == (status, code, param), error
    assert error["type"] == "invalid_request_error"
    return str(error["message"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A change to a good request to create a batch, and what it is refused with."""

    name: str
    change: dict[str, object]
    message: str
    param: str
    code: str


METADATA = "Invalid type for 'metadata.tags': expected a string, but got {} instead."
ROWS = (
    Row(
        name="unknown endpoint",
        change={"endpoint": "/v1/invalid/endpoint"},
        message="Invalid value: '/v1/invalid/endpoint'. Supported values are: '/v1/responses', '/v1/chat/completions',",
        param="endpoint",
        code="invalid_value",
    ),
    Row(
        name="window",
        change={"completion_window": "1h"},
        message="Invalid value: '1h'. Value must be '24h'",
        param="completion_window",
        code="invalid_value",
    ),
    *(
        Row(
            name=f"no {field}",
            change={field: None},
            message=f"Missing required parameter: '{field}'",
            param=field,
            code="missing_required_parameter",
        )
        for field in ("input_file_id", "endpoint", "completion_window")
    ),
    *(
        Row(
            name=f"metadata value is {kind}",
            change={"metadata": {"tags": value}},
            message=METADATA.format(kind),
            param="metadata.tags",
            code="invalid_type",
        )
        for kind, value in (("an array", ["a"]), ("an object", {}), ("an integer", 1), ("a boolean", True))
    ),
    Row(
        name="endpoint is a number",
        change={"endpoint": 1},
        message="Invalid type for 'endpoint': expected a string, but got an integer instead.",
        param="endpoint",
        code="invalid_type",
    ),
    Row(
        name="too much metadata",
        change={"metadata": {f"key-{number}": "" for number in range(17)}},
        message="",
        param="metadata",
        code="object_above_max_properties",
    ),
    Row(
        name="long metadata value",
        change={"metadata": {"key": "x" * 513}},
        message="",
        param="metadata.key",
        code="string_above_max_length",
    ),
    Row(
        name="foreign anchor",
        change={"output_expires_after": {"anchor": "last_active_at", "seconds": 1_209_600}},
        message="",
        param="output_expires_after.anchor",
        code="invalid_value",
    ),
    Row(
        name="late expiry",
        change={"output_expires_after": {"anchor": "created_at", "seconds": 2_592_001}},
        message="",
        param="output_expires_after.seconds",
        code="integer_above_max_value",
    ),
)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name.replace(" ", "-"))
def test_wrong_shape_of_a_new_batch_is_refused_at_once(each: Api, row: Row):
    body = each.new_batch("file-1")
    body = {name: value for name, value in {**body, **row.change}.items() if value is not None}

    message = refused(each.post("/batches", body), 400, code=row.code, param=row.param)

    assert message.startswith(row.message)


def test_file_id_of_null_counts_as_missing(each: Api):
    """SDKs send the null if the caller passes None."""
    reply = each.post("/batches", {**each.new_batch("file-1"), "input_file_id": None})

    refused(reply, 400, code="missing_required_parameter", param="input_file_id")


@pytest.mark.parametrize(("prefix", "least"), [(OPENAI, 3_600), (AZURE, 1_209_600)], ids=["openai", "azure"])
def test_output_may_expire_no_earlier_than_the_flavour_says(http: Http, prefix: Prefix, least: int):
    api = Api(http, prefix)
    wish = {"anchor": "created_at", "seconds": least - 1}

    reply = api.post("/batches", api.new_batch("file-1", output_expires_after=wish))

    message = refused(reply, 400, code="integer_below_min_value", param="output_expires_after.seconds")
    assert str(least) in message
    assert api.create("file-1", output_expires_after={**wish, "seconds": least})


def test_anchor_beside_the_expiry_is_tolerated(http: Http):
    """One of Azure's samples has it there."""
    assert Api(http, AZURE).create("file-1", output_expires_after={"seconds": 1_209_600}, anchor="created_at")


def test_metadata_up_to_the_limits_is_taken_and_comes_back(each: Api):
    metadata = {f"{number:064}": "ü" * 512 for number in range(16)}

    batch_id = each.create("file-1", metadata=metadata)

    assert each.batch(batch_id)["metadata"] == metadata


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'"text"', b'{"a":\xff}'], ids=["none", "cut", "list", "null", "text", "bytes"]
)
def test_body_that_is_no_json_object_is_a_mistake_of_the_client(each: Api, body: bytes):
    """A 500 would make SDKs try three times (contract section 7, row 4)."""
    url = each.prefix.url("/batches")

    reply = each.http.call("POST", url, body, {"content-type": "application/json"})

    assert reply.status == 400
    assert error_of(reply)["type"] == "invalid_request_error"


def test_unknown_batch_is_not_found(each: Api):
    code = "notFound" if each.prefix.azure else None

    for reply in (each.get("/batches/batch_nothing"), each.cancel("batch_nothing")):
        assert refused(reply, 404, code=code, param=None).startswith("No batch found")


def test_unknown_file_is_not_found(each: Api):
    code = "notFound" if each.prefix.azure else None

    for reply in (each.get("/files/file-1"), each.get("/files/file-1/content"), each.delete("/files/file-1")):
        assert refused(reply, 404, code=code, param="id") == "No such File object: file-1"


def test_unknown_upload_is_not_found(each: Api):
    part = [Part(name="data", data="x", filename="upload")]
    replies = (
        each.post("/uploads/upload_1/cancel"),
        each.post("/uploads/upload_1/complete", {"part_ids": []}),
        each.post_form("/uploads/upload_1/parts", part),
    )

    assert [reply.status for reply in replies] == [404, 404, 404]
    assert all("upload_1" in str(error_of(reply)["message"]) for reply in replies)


@pytest.mark.parametrize("status", ["completed", "failed"])
def test_batch_that_has_ended_cannot_be_cancelled(each: Api, status: str):
    url = each.prefix.endpoint if status == "completed" else "/v1/other"
    batch = each.run(chats(1, url))
    assert batch["status"] == status

    reply = each.cancel(batch["id"])

    message = refused(reply, 409, code="conflict" if each.prefix.azure else None, param=None)
    assert message == f"Cannot cancel a batch with status '{status}'."
    assert reply.headers["x-should-retry"] == "false"
    assert each.batch(batch["id"]) == batch


def test_cancel_may_be_repeated(each: Api, held_requests: Gate, http: Http):
    batch_id = each.create(each.upload(jsonl(request("held", each.prefix.endpoint))))
    each.reach(batch_id, "in_progress")

    first, second = each.cancel(batch_id), each.cancel(batch_id)

    assert [first.status, second.status] == [200, 200]
    assert first.json()["status"] == "cancelling"
    assert first.json()["cancelling_at"] >= first.json()["in_progress_at"]
    held_requests.open()
    each.reach(batch_id, "cancelled")
    again = each.cancel(batch_id)
    assert again.status == 200
    assert again.json() == each.batch(batch_id)


@pytest.fixture
def held_requests(upstream: ScriptedUpstream) -> Iterator[Gate]:
    """Requests with this text in them wait."""
    before, gate = upstream.script, Gate()
    upstream.script = by_text({"held": held(gate)}, before)
    yield gate
    gate.open()
    upstream.script = before


@pytest.mark.parametrize(("limit", "bound"), [(101, 100), (1_000_000, 100)])
def test_limit_above_the_maximum_is_refused(each: Api, limit: int, bound: int):
    reply = each.get(f"/batches?limit={limit}")

    assert refused(reply, 400, code="integer_above_max_value", param="limit") == (
        f"Invalid 'limit': integer above maximum value. Expected a value <= {bound}, but got {limit} instead."
    )


def test_limit_above_the_maximum_of_files_is_refused(each: Api):
    reply = each.get("/files?limit=10001")

    assert refused(reply, 400, code="integer_above_max_value", param="limit") == (
        "Invalid 'limit': integer above maximum value. Expected a value <= 10000, but got 10001 instead."
    )


@pytest.mark.parametrize(("kind", "limit"), [("batches", -1), ("files", 0), ("files", -1)])
def test_limit_below_the_minimum_is_refused(each: Api, kind: str, limit: int):
    message = refused(each.get(f"/{kind}?limit={limit}"), 400, code="integer_below_min_value", param="limit")

    assert message.startswith("Invalid 'limit': integer below minimum value. Expected a value >= ")
    assert message.endswith(f"but got {limit} instead.")


@pytest.mark.parametrize("kind", ["batches", "files"])
def test_limit_that_is_no_number_is_refused(each: Api, kind: str):
    refused(each.get(f"/{kind}?limit=many"), 400, code="invalid_type", param="limit")


@pytest.mark.parametrize("kind", ["batches", "files"])
def test_cursor_that_names_nothing_is_refused(each: Api, kind: str):
    """Never the first page again: old SDKs would loop for ever."""
    reply = each.get(f"/{kind}?after=nothing")

    assert reply.status == 400
    assert error_of(reply)["param"] == "after"


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "PUT"])
def test_unknown_url_is_told_in_openais_words(api: Api, method: str):
    reply = api.http.call(method, "/v1/x")

    assert refused(reply, 404, code=None, param=None) == f"Invalid URL ({method} /v1/x)"


@pytest.mark.parametrize("path", ["/openai/x", "/openai/v1/x", "/openai/deployments/d/x", "/openai/batches/b/x"])
def test_unknown_url_is_told_in_azures_words(http: Http, path: str):
    assert refused(http.post(f"{path}?api-version=2024-10-21"), 404, code="404", param=None) == "Resource not found"


@pytest.mark.parametrize("path", ["/x", "/v2/batches", "/batches", "/studios"])
def test_unknown_url_outside_all_prefixes_has_the_envelope_too(http: Http, path: str):
    assert refused(http.get(path), 404, code=None, param=None) == f"Invalid URL (GET {path})"


@pytest.mark.parametrize(
    "call", [("DELETE", "/batches"), ("PUT", "/files"), ("GET", "/uploads"), ("PATCH", "/files/f")]
)
def test_method_that_a_route_does_not_know_has_the_envelope(each: Api, call: tuple[str, str]):
    method, rest = call

    reply = each.http.call(method, each.prefix.url(rest))

    assert reply.status in {404, 405}
    assert error_of(reply)["type"] == "invalid_request_error"


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer wrong"}, {"api-key": "wrong"}, {"api-key": ""}])
@pytest.mark.parametrize("prefix", PREFIXES, ids=lambda prefix: prefix.name)
def test_bad_key_is_refused(http: Http, prefix: Prefix, headers: dict[str, str]):
    api = Api(http.with_headers(headers), prefix)
    calls = ("/batches", "/files", "/batches/b", "/files/f", "/files/f/content", "/batches?limit=1")

    for reply in map(api.get, calls):
        message = refused(reply, 401, code="401" if prefix.azure else "invalid_api_key", param=None)
        if prefix.azure:
            assert "invalid subscription key or wrong API endpoint" in message
        elif any(headers.values()):
            assert message.startswith("Incorrect API key provided")


def test_bad_key_is_refused_before_the_body_is_looked_at(each: Api):
    """What is wrong with a request is nobody else's business."""
    stranger = Api(each.http.with_headers({"api-key": "wrong"}), each.prefix)

    assert stranger.post("/batches", {}).status == 401
    assert stranger.post("/uploads", {}).status == 401
    assert stranger.get("/batches?limit=1000").status == 401


def test_key_is_not_repeated_in_full(http: Http):
    secret = "sk-0123456789abcdef0123456789abcdef"

    reply = http.with_headers({"authorization": f"Bearer {secret}"}).get("/v1/files")

    assert secret.encode() not in reply.body


@pytest.mark.parametrize("prefix", AZURES, ids=lambda prefix: prefix.name)
@pytest.mark.parametrize(
    ("purpose", "filename"), [("nonsense", "a.jsonl"), ("batch", "a.txt")], ids=["purpose", "filename"]
)
def test_azure_calls_a_bad_purpose_or_filename_an_invalid_payload(
    http: Http, prefix: Prefix, purpose: str, filename: str
):
    parts = [Part(name="purpose", data=purpose), Part(name="file", data="{}\n", filename=filename)]

    reply = Api(http, prefix).post_form("/files", parts)

    assert (reply.status, error_of(reply)["code"]) == (400, "invalidPayload")


def test_azure_names_the_wrong_suffix(http: Http):
    parts = [Part(name="purpose", data="batch"), Part(name="file", data="{}\n", filename="a.txt")]

    reply = Api(http, AZURE).post_form("/files", parts)

    assert "fileName contains an invalid filename: wrong suffix." in str(error_of(reply)["message"])


@pytest.fixture(scope="module")
def small_service(upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with low limits."""
    folder = tmp_path_factory.mktemp("small")
    config = folder / "small.toml"
    limits = "requests_per_file = 3\nfiles_without_expiry = 2\ninput_file_bytes = 100_000\nfile_bytes = 100_000\n"
    config.write_text(f"[limits.azure]\n{limits}[limits.openai]\n{limits}")
    with Service(folder, upstreams=[upstream.url], arguments=["--config", str(config)]) as service:
        yield service


@pytest.fixture
def small(small_service: Service) -> Iterator[Http]:
    with log_shown(small_service):
        http = Http(small_service.url)
        for file in http.get("/v1/files?purpose=batch").json()["data"]:
            http.delete(f"/v1/files/{file['id']}")
        yield http


@pytest.mark.parametrize("prefix", [OPENAI, AZURE, AZURE_V1], ids=lambda prefix: prefix.name)
def test_too_many_requests_in_a_file_fail_the_batch(small: Http, prefix: Prefix):
    batch = Api(small, prefix).run(chats(4, prefix.endpoint))

    (problem,) = batch["errors"]["data"]
    assert (problem["code"], problem["param"], problem["line"]) == ("too_many_tasks", None, None)


@pytest.mark.parametrize("prefix", [AZURE, AZURE_V1], ids=lambda prefix: prefix.name)
def test_too_many_files_without_expiry_exceed_the_quota(small: Http, prefix: Prefix):
    api = Api(small, prefix)
    for _ in range(2):
        api.upload(chats(1, prefix.endpoint))
    parts = [Part(name="purpose", data="batch"), Part(name="file", data="{}\n", filename="a.jsonl")]

    reply = api.post_form("/files", parts)

    message = refused(reply, 400, code="quotaExceeded", param=None)
    assert message.startswith("The quota for files without expiry is reached. The maximum is 2.")
    expiring = [
        Part(name="expires_after[seconds]", data="1209600"),
        Part(name="expires_after[anchor]", data="created_at"),
    ]
    assert api.post_form("/files", [*expiring, *parts]).status == prefix.file_created


@pytest.mark.parametrize("prefix", [OPENAI, AZURE, AZURE_V1], ids=lambda prefix: prefix.name)
def test_file_over_the_limit_is_too_large(small: Http, prefix: Prefix):
    parts = [Part(name="purpose", data="batch"), Part(name="file", data=b"{}\n" * 40_000, filename="a.jsonl")]

    reply = Api(small, prefix).post_form("/files", parts)

    refused(reply, 413, code="file_too_large", param="file")


def test_json_body_without_end_is_refused(each: Api):
    reply = each.post("/batches", {"metadata": {"a": "x" * 3_000_000}})

    assert reply.status == 413
    assert error_of(reply)["type"] == "invalid_request_error"


def test_unknown_members_and_query_parameters_are_ignored(each: Api):
    reply = each.post("/batches", each.new_batch("file-1", colour="red"))
    listed = each.http.get(each.prefix.url("/batches?colour=red&$top=1"))

    assert reply.status == each.prefix.batch_created
    assert listed.status == 200


def test_service_without_keys_does_not_listen_for_others(tmp_path: Path):
    """Bound to loopback any key is accepted; bound elsewhere there must be some."""
    everywhere = ["--host", "0.0.0.0"]  # noqa: S104 - it is refused

    with pytest.raises(RuntimeError, match="without API keys"):
        Service(tmp_path, arguments=everywhere).start()
