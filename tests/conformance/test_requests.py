"""Looking into batches over HTTP: requests, failures, newest results, merged results; retries and checks of files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from tests.support.api import Api, chat_body, chats, jsonl, request
from tests.support.http import Reply

from overnight.testing.upstream import ScriptedUpstream, answer, by_text, error, in_turn

ODD = "b?2/ü #%2F"
REFUSED = "refuse this"


@pytest.fixture
def refusing(upstream: ScriptedUpstream) -> Iterator[None]:
    """The upstream refuses one text."""
    upstream.script = by_text({REFUSED: error(400, code="invalid_value")})
    yield
    upstream.script = answer()


@pytest.fixture
def ended(each: Api, refusing: None) -> dict[str, Any]:
    """A batch with two requests that succeed around one that fails."""
    url = each.prefix.endpoint
    refused = chat_body(REFUSED)
    return each.run(jsonl(request("a", url), request(ODD, url, refused), request("c", url)))


def got(api: Api, rest: str) -> Any:
    reply = api.get(rest)
    assert reply.status == 200, reply
    return reply.json()


def test_requests_are_listed_in_the_order_of_the_input(each: Api, ended: dict[str, Any]) -> None:
    """With what became of each, whole and filtered."""
    path = f"/batches/{ended['id']}/requests"

    page, failed = got(each, path), got(each, f"{path}?status=failed")
    named, second = got(each, f"{path}?custom_id={quote('b?', safe='')}"), got(each, f"{path}?offset=1&limit=1")

    assert [(row["custom_id"], row["status"]) for row in page["data"]] == [
        ("a", "succeeded"),
        (ODD, "failed"),
        ("c", "succeeded"),
    ]
    assert (page["total"], page["next_offset"], page["has_more"]) == (3, None, False)
    assert [row["line"] for row in failed["data"]] == [row["line"] for row in named["data"]] == [1]
    assert ([row["line"] for row in second["data"]], second["next_offset"]) == ([1], 2)


def test_a_request_is_found_by_any_name_or_by_its_line(each: Api, ended: dict[str, Any]) -> None:
    """The bytes of its line and its result are shown as they are."""
    path = f"/batches/{ended['id']}/requests"

    by_name, by_line = got(each, f"{path}/{quote(ODD, safe='')}"), got(each, f"{path}/?line=1")

    assert by_name == by_line
    assert json.loads(by_name["input"]["text"])["custom_id"] == ODD
    result = json.loads(by_name["result"]["text"])
    assert (result["response"]["status_code"], result["custom_id"]) == (by_name["status_code"], ODD)
    assert each.get(f"{path}/nobody").status == 404
    assert each.get(f"{path}/a?line=1").status == 404


def test_failures_are_grouped_and_results_merged(each: Api, ended: dict[str, Any]) -> None:
    """One group for each code; one line for each request."""
    (group,) = got(each, f"/batches/{ended['id']}/failures")["data"]
    merged = each.get(f"/batches/{ended['id']}/results")

    assert (group["count"], group["first_custom_id"], group["status"]) == (1, ODD, "failed")
    assert [json.loads(line)["custom_id"] for line in merged.body.splitlines()] == ["a", ODD, "c"]
    assert got(each, f"/batches/{ended['id']}/newest")["data"] == []


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "offset=-1", "status=odd", "limit=x"])
def test_a_wrong_question_is_refused(api: Api, query: str) -> None:
    """With the name of the parameter."""
    reply = api.get(f"/batches/batch_1/requests?{query}")

    assert reply.status == 400
    assert reply.json()["error"]["param"] == query.partition("=")[0]


def test_a_retry_makes_one_batch_for_each_key(each: Api, ended: dict[str, Any]) -> None:
    """It holds the failed request only, and names the old batch."""
    path = f"/batches/{ended['id']}/retry"

    def keyed(body: dict[str, str]) -> Reply:
        headers = {"idempotency-key": "again", "content-type": "application/json"}
        return each.http.call("POST", each.prefix.url(path), json.dumps(body).encode(), headers)

    first, second = keyed({}), keyed({"which": "failed"})

    assert (first.status, second.status) == (each.prefix.batch_created, each.prefix.batch_created)
    assert first.json()["id"] == second.json()["id"]
    assert first.json()["metadata"] == {"retry_of": ended["id"]}
    assert each.end(first.json()["id"])["request_counts"] == {"total": 1, "completed": 0, "failed": 1}
    assert keyed({"which": "all_unfinished"}).status == 409
    assert each.post(path, {"which": "not_run"}).status == 409
    assert each.post(path, {"which": "some"}).status == 400


def test_a_file_is_checked_before_there_is_a_batch(each: Api) -> None:
    """Nothing is created by it."""
    url = each.prefix.endpoint
    file_id = each.upload(chats(4, url) + jsonl(request("bad", url, chat_body(model="unheard-of"))))

    check = each.post(f"/files/{file_id}/check", {}).json()

    assert (check["ok"], check["requests"], check["problem_count"]) == (False, 5, 1)
    assert [problem["line"] for problem in check["problems"]] == [5]
    assert [(model["name"], model["offered"]) for model in check["models"]] == [
        ("test-model", True),
        ("unheard-of", False),
    ]
    assert check["endpoints"] == [{"endpoint": url, "requests": 5}]
    assert [json.loads(first["text"])["custom_id"] for first in check["first_requests"]] == ["r-0", "r-1", "r-2"]
    assert got(each, "/batches")["data"] == []


def test_what_was_tried_of_a_request_and_how_the_batch_got_on_is_told(each: Api, upstream: ScriptedUpstream) -> None:
    url = each.prefix.endpoint
    upstream.script = by_text({"again": in_turn(error(503), answer())}, answer())
    try:
        batch = each.run(jsonl(request("a", url, chat_body("again")), request("b", url)))
    finally:
        upstream.script = answer()
    path = f"/batches/{batch['id']}"

    first, second = got(each, f"{path}/requests")["data"]
    tried, throughput = got(each, f"{path}/requests/a")["attempts"], got(each, f"{path}/throughput")
    elsewhere = got(each, f"{path}/requests?upstream=nobody")

    assert (first["attempt_count"], second["attempt_count"]) == (2, 1)
    assert [(made["status_code"], made["fault"], made["wait"] > 0) for made in tried] == [
        (503, None, True),
        (200, None, False),
    ]
    assert {made["upstream"] for made in tried} == {first["upstream"]} == {second["upstream"]}
    assert first["ended_at"] >= batch["in_progress_at"]
    assert sum(point["succeeded"] for point in throughput["data"]) == 2
    assert sum(point["output_tokens"] for point in throughput["data"]) == batch["usage"]["output_tokens"]
    assert throughput["p50_seconds"] > 0
    assert elsewhere["data"] == []
