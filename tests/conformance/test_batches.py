"""Sections 1.7, 4.3, 5.1 and 5.5 of the contract: a batch as it is shown on its way from status to status."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.api import OPENAI, PREFIXES, Api, Prefix, chats, jsonl, request
from tests.support.http import Http
from tests.support.service import eventually

from overnight.testing.upstream import Gate, ScriptedUpstream, by_text, error, held

FIELDS = {
    "id",
    "object",
    "endpoint",
    "input_file_id",
    "completion_window",
    "status",
    "created_at",
    "in_progress_at",
    "expires_at",
    "finalizing_at",
    "completed_at",
    "failed_at",
    "expired_at",
    "cancelling_at",
    "cancelled_at",
    "errors",
    "output_file_id",
    "error_file_id",
    "request_counts",
    "metadata",
    "model",
    "usage",
}
BLOB_FIELDS = ("input_blob", "output_blob", "error_blob")
TIMES = ("in_progress_at", "finalizing_at", "completed_at", "failed_at", "expired_at", "cancelling_at", "cancelled_at")
DAY = 86_400


@pytest.fixture
def gate(upstream: ScriptedUpstream) -> Iterator[Gate]:
    """Requests with `held` in them wait, those with `wrong` fail."""
    before, gate = upstream.script, Gate()
    upstream.script = by_text({"held": held(gate), "wrong": error(400, "scripted", param="messages")}, before)
    yield gate
    gate.open()
    upstream.script = before


def batch_of(api: Api, *names: str) -> str:
    """Create a batch with requests of these names."""
    return api.create(api.upload(jsonl(*(request(name, api.prefix.endpoint) for name in names))))


def times_set(batch: dict[str, Any]) -> list[str]:
    """Give the names of the times that are set."""
    return [name for name in TIMES if batch[name] is not None]


def check_shape(batch: dict[str, Any], api: Api) -> None:
    """Check what is true of every batch at any moment."""
    assert set(batch) >= FIELDS
    assert batch["object"] == "batch"
    assert batch["id"].startswith("batch_")
    assert (batch["endpoint"], batch["completion_window"]) == (api.prefix.endpoint, "24h")
    assert isinstance(batch["created_at"], int)
    assert batch["expires_at"] == batch["created_at"] + DAY
    assert all(batch[name] is None or isinstance(batch[name], int) for name in TIMES)
    assert set(batch["request_counts"]) == {"total", "completed", "failed"}
    assert all(type(count) is int for count in batch["request_counts"].values())


def test_new_batch_is_validating_and_shows_every_field(each: Api):
    reply = each.post("/batches", each.new_batch("file-1"))

    batch = reply.json()
    assert reply.status == each.prefix.batch_created
    check_shape(batch, each)
    assert (batch["status"], batch["input_file_id"]) == ("validating", "file-1")
    assert batch["request_counts"] == {"total": 0, "completed": 0, "failed": 0}
    assert times_set(batch) == []
    nothing = ("errors", "output_file_id", "error_file_id", "metadata", "usage")
    assert {name: batch[name] for name in nothing} == dict.fromkeys(nothing)


@pytest.mark.parametrize("prefix", [prefix for prefix in PREFIXES if prefix.azure], ids=lambda prefix: prefix.name)
def test_batch_on_azure_shows_its_blobs_as_unknown(http: Http, prefix: Prefix):
    """Section 1.7: strings, empty until known."""
    api = Api(http, prefix)

    batch = api.batch(api.create("file-1"))

    assert {name: batch.get(name, "missing") for name in BLOB_FIELDS} == dict.fromkeys(BLOB_FIELDS, "")


def test_running_batch_counts_what_is_done_and_shows_no_files(each: Api, gate: Gate):
    batch_id = batch_of(each, "a", "wrong", "held")

    batch = each.reach(batch_id, "in_progress")
    check_shape(batch, each)
    done = until_counts(each, batch_id, completed=1, failed=1)

    assert done["request_counts"] == {"total": 3, "completed": 1, "failed": 1}
    assert times_set(done) == ["in_progress_at"]
    assert (done["output_file_id"], done["error_file_id"]) == (None, None)
    assert done["model"] == "test-model"


def until_counts(api: Api, batch_id: str, **counts: int) -> dict[str, Any]:
    """Wait until the batch in progress has these counts."""

    def reached() -> dict[str, Any] | None:
        batch = api.reach(batch_id, "in_progress")
        return batch if batch["request_counts"] == {**batch["request_counts"], **counts} else None

    found: dict[str, Any] = eventually(reached)
    return found


def test_completed_batch_has_all_its_times_counts_and_usage(each: Api):
    batch = each.run(chats(3, each.prefix.endpoint))

    check_shape(batch, each)
    assert batch["status"] == "completed"
    assert times_set(batch) == ["in_progress_at", "finalizing_at", "completed_at"]
    stages = [batch[name] for name in ("created_at", "in_progress_at", "finalizing_at", "completed_at")]
    assert stages == sorted(stages)
    assert batch["request_counts"] == {"total": 3, "completed": 3, "failed": 0}
    output, _ = each.results(batch)
    used = [line["response"]["body"]["usage"] for line in output]
    assert batch["usage"] == {
        "input_tokens": sum(usage["prompt_tokens"] for usage in used),
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": sum(usage["completion_tokens"] for usage in used),
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": sum(usage["total_tokens"] for usage in used),
    }


def test_result_files_are_ordinary_files(each: Api):
    batch = each.run(chats(1, each.prefix.endpoint))

    file = each.get(f"/files/{batch['output_file_id']}").json()
    assert (file["purpose"], file["status"], file["object"]) == ("batch_output", "processed", "file")
    assert file["filename"] == f"{batch['id']}_output.jsonl"
    assert file["bytes"] == len(each.content(file["id"]))


def test_clean_batch_has_no_error_file_on_openai(api: Api):
    batch = api.run(chats(1, api.prefix.endpoint))

    assert batch["output_file_id"] is not None
    assert batch["error_file_id"] is None


def test_batch_of_failures_is_completed_without_output_on_openai(api: Api, gate: Gate):
    batch = api.end(batch_of(api, "wrong-1", "wrong-2"))

    assert (batch["status"], batch["output_file_id"]) == ("completed", None)
    assert batch["request_counts"] == {"total": 2, "completed": 0, "failed": 2}
    assert len(api.results(batch)[1]) == 2


@pytest.mark.parametrize("prefix", [prefix for prefix in PREFIXES if prefix.azure], ids=lambda prefix: prefix.name)
@pytest.mark.parametrize(("name", "sizes"), [("fine", (1, 0)), ("wrong", (0, 1))])
def test_both_files_are_there_on_azure(http: Http, gate: Gate, prefix: Prefix, name: str, sizes: tuple[int, int]):
    """The seed's batch has zero failures and an error file all the same."""
    api = Api(http, prefix)

    batch = api.end(batch_of(api, name))

    contents = [api.content(batch[kind]) for kind in ("output_file_id", "error_file_id")]
    assert tuple(content.count(b"\n") for content in contents) == sizes
    assert all(batch[kind] for kind in ("output_file_id", "error_file_id"))


def test_result_files_expire_when_the_batch_says_so(each: Api, gate: Gate):
    wish = {"anchor": "created_at", "seconds": 1_209_600}
    content = jsonl(request("a", each.prefix.endpoint), request("wrong", each.prefix.endpoint))

    batch = each.run(content, output_expires_after=wish)

    for kind in ("output_file_id", "error_file_id"):
        file = each.get(f"/files/{batch[kind]}").json()
        assert file["expires_at"] == file["created_at"] + 1_209_600


def test_result_files_expire_after_30_days_on_openai_and_not_on_azure(each: Api, gate: Gate):
    batch = each.end(batch_of(each, "a", "wrong"))

    for kind in ("output_file_id", "error_file_id"):
        file = each.get(f"/files/{batch[kind]}").json()
        assert file["expires_at"] == (None if each.prefix.azure else file["created_at"] + 2_592_000)


def test_cancelled_batch_keeps_what_was_done(each: Api, gate: Gate):
    """Table 4.2 and section 5.2: each request exactly once; those that did not run count as neither."""
    names = ["a", "wrong", *(f"held-{number}" for number in range(100))]
    batch_id = batch_of(each, *names)
    until_counts(each, batch_id, completed=1, failed=1)

    cancelling = each.cancel(batch_id).json()
    check_shape(cancelling, each)
    gate.open()
    batch = each.reach(batch_id, "cancelled")

    assert times_set(cancelling) == ["in_progress_at", "cancelling_at"]
    assert cancelling["output_file_id"] is None
    assert times_set(batch) == ["in_progress_at", "cancelling_at", "cancelled_at"]
    output, errors = each.results(batch)
    assert sorted(line["custom_id"] for line in output + errors) == sorted(names)
    unrun = [line for line in errors if line["error"]]
    assert unrun
    assert batch["request_counts"] == {"total": len(names), "completed": len(output), "failed": 1}
    for line in unrun:
        assert (line["response"], line["error"]["code"]) == (None, "batch_cancelled")
        assert "cancelled before" in line["error"]["message"]
    assert batch["usage"]["total_tokens"] == sum(line["response"]["body"]["usage"]["total_tokens"] for line in output)


def test_batch_without_any_result_is_cancelled_without_output_on_openai(api: Api, gate: Gate, upstream):
    names = [f"held-{number}" for number in range(3)]
    batch_id = batch_of(api, *names)
    api.reach(batch_id, "in_progress")
    api.cancel(batch_id)
    gate.open()

    batch = api.reach(batch_id, "cancelled")

    output, errors = api.results(batch)
    assert sorted(line["custom_id"] for line in output + errors) == names
    assert (batch["output_file_id"] is None) == (not output)
    assert (batch["error_file_id"] is None) == (not errors)


def test_metadata_comes_back_unchanged(each: Api):
    metadata = {"": "empty key", "kind": "", "ключ": "値 😀", "quote": '"\\\n\t\u2028', "a.b": "[]"}

    assert each.batch(each.create("file-1", metadata=metadata))["metadata"] == metadata


@pytest.mark.parametrize("metadata", [{}, None])
def test_empty_metadata_stays_what_it_was(each: Api, metadata: dict[str, str] | None):
    reply = each.post("/batches", {**each.new_batch("file-1"), "metadata": metadata})

    assert reply.json()["metadata"] == metadata


def test_cancel_needs_no_body_and_does_not_read_one(each: Api):
    """SDKs announce JSON and send nothing."""
    batch_id = each.create("file-1")
    url = each.prefix.url(f"/batches/{batch_id}/cancel")

    reply = each.http.call("POST", url, b"", {"content-type": "application/json", "content-length": "0"})

    assert reply.status in {200, 409}


@pytest.mark.parametrize(
    ("endpoint", "body"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}]}),
        ("/v1/completions", {"prompt": "hi"}),
        ("/v1/embeddings", {"input": ["hi", "there"]}),
        ("/v1/responses", {"input": "hi"}),
        ("/v1/moderations", {"input": "hi"}),
        ("/v1/images/generations", {"prompt": "a cat"}),
        ("/v1/images/edits", {"prompt": "a cat", "image": "x"}),
        ("/v1/videos", {"prompt": "a cat"}),
    ],
)
def test_every_endpoint_that_batches_may_target_runs(
    http: Http, upstream: ScriptedUpstream, endpoint: str, body: dict[str, object]
):
    api = Api(http, OPENAI)
    line = request("a", endpoint, {"model": "test-model", **body, "user": api.upload(b"{}\n")})

    batch = api.run(jsonl(line), endpoint=endpoint)

    assert (batch["status"], batch["request_counts"]["completed"]) == ("completed", 1)
    (asked,) = [one for one in upstream.asked if one.json() == line["body"]]
    assert asked.path == endpoint


@pytest.mark.parametrize("kind", ["/models", "/models/test-model"])
def test_models_that_can_be_used_are_shown(each: Api, kind: str):
    if each.prefix.name == "deployments":
        pytest.skip("the alias is there for files, uploads and batches")
    reply = each.get(kind)

    models = reply.json().get("data", [reply.json()])
    assert reply.status == 200
    assert "test-model" in [model["id"] for model in models]
    assert {model["object"] for model in models} == {"model"}


def test_azure_shows_deployments(http: Http):
    reply = http.get("/openai/deployments?api-version=2022-12-01")

    assert [deployment["id"] for deployment in reply.json()["data"]] == ["test-model", "other-model"]
