"""What callers and upstreams may send that once stopped the service, or opened it: none of it may do so again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.api import OPENAI, Api, chat_body, chats, jsonl, request
from tests.support.http import Http, Part
from tests.support.service import Service, log_shown

from overnight.testing.upstream import ScriptedUpstream, answer, in_turn, too_many

CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def model() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def open_service(model: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service on loopback without keys."""
    with Service(tmp_path_factory.mktemp("hostile"), upstreams=[model.url]) as service:
        yield service


@pytest.fixture
def alone(open_service: Service) -> Iterator[Api]:
    with log_shown(open_service):
        yield Api(Http(open_service.url), OPENAI)


@pytest.mark.parametrize("wait", ["nan", "inf", "-inf", "1e400", "soon"])
def test_retry_after_that_is_no_time_counts_as_none(alone: Api, model: ScriptedUpstream, wait: str):
    model.script = in_turn(too_many(retry_after=wait), answer())

    batch = alone.run(chats(1, CHAT))

    assert (batch["status"], batch["request_counts"]["completed"]) == ("completed", 1)


def test_line_that_is_nested_as_deep_as_an_interpreter_bears_is_refused(alone: Api):
    nested = b'{"custom_id":"a","method":"POST","url":"%s","body":{"model":"m","messages":[],"x":%s}}' % (
        CHAT.encode(),
        b"[" * 900 + b"]" * 900,
    )

    batch = alone.run(nested + b"\n")

    assert batch["status"] == "failed"
    assert [problem["code"] for problem in batch["errors"]["data"]] == ["invalid_json_line"]


def test_line_that_is_nested_as_deep_as_people_nest_runs(alone: Api, model: ScriptedUpstream):
    model.script = answer()
    deep: object = 1
    for _ in range(100):
        deep = [deep]

    batch = alone.run(jsonl(request("a", CHAT, chat_body(more=deep))))

    assert batch["status"] == "completed"


def test_body_that_calls_itself_multipart_is_bounded_all_the_same(alone: Api):
    parts = [Part(name="x", data="y" * 2_000_000)]

    assert alone.post_form("/batches", parts).status == 413


@pytest.mark.parametrize("headers", [{"host": "evil.example"}, {"origin": "https://evil.example"}, {"origin": "null"}])
def test_web_page_cannot_use_a_service_without_keys(open_service: Service, headers: dict[str, str]):
    reply = Http(open_service.url, headers).get("/v1/batches")

    assert (reply.status, reply.json()["error"]["code"]) == (403, "forbidden")


@pytest.mark.parametrize("headers", [{"host": "evil.example"}, {"origin": "https://evil.example"}, {"origin": "null"}])
def test_web_page_cannot_pause_an_upstream_of_a_service_without_keys(open_service: Service, headers: dict[str, str]):
    name = Http(open_service.url).get("/admin/upstreams").json()["data"][0]["id"]
    reply = Http(open_service.url, headers).post(f"/admin/upstreams/{name}/pause")

    assert (reply.status, reply.json()["error"]["code"]) == (403, "forbidden")
    assert Http(open_service.url).get(f"/admin/upstreams/{name}").json()["paused"] is False


@pytest.mark.parametrize("headers", [{}, {"origin": "http://localhost:3000"}], ids=["program", "page"])
def test_an_upstream_of_a_service_without_keys_is_paused_from_its_machine(
    open_service: Service, headers: dict[str, str]
):
    """As in its Studio; what manages keys stays closed."""
    http = Http(open_service.url, headers)
    name = http.get("/admin/upstreams").json()["data"][0]["id"]
    states = [http.post(f"/admin/upstreams/{name}/{deed}").json()["state"] for deed in ("pause", "resume")]

    assert states == ["paused", "answers"]
    assert [http.get(path).status for path in ("/admin/keys", "/admin/upstreams-of-others")] == [401, 401]


@pytest.mark.parametrize("origin", ["http://localhost:3000", "http://127.0.0.1:8080", "http://[::1]:1"])
def test_page_of_this_machine_may_use_it(open_service: Service, origin: str):
    assert Http(open_service.url, {"origin": origin}).get("/v1/batches").status == 200


def test_half_a_character_is_refused_by_name(alone: Api):
    reply = alone.post("/batches", {"input_file_id": "f", "endpoint": "\ud800", "completion_window": "24h"})

    assert (reply.status, reply.json()["error"]["code"]) == (400, "invalid_value")


def test_two_files_in_one_form_are_not_joined(alone: Api):
    file = Part(name="file", data="{}\n", filename="a.jsonl")

    reply = alone.post_form("/files", [Part(name="purpose", data="batch"), file, file])

    assert (reply.status, reply.json()["error"]["param"]) == (400, "file")


def test_upload_for_a_batch_is_bounded_before_its_parts_are_sent(alone: Api):
    wanted = {"filename": "a.jsonl", "purpose": "batch", "bytes": 300 * 1024 * 1024, "mime_type": "text/plain"}

    assert alone.post("/uploads", wanted).status == 413


@pytest.mark.parametrize(
    ("text", "accepted"),
    [("ab#cd", "ab#cd"), ("ab # a note", "ab"), ("# a note\nab", "ab")],
)
def test_key_may_hold_a_hash(model: ScriptedUpstream, tmp_path: Path, text: str, accepted: str):
    keys = tmp_path / "keys"
    keys.write_text(text)

    with Service(tmp_path, upstreams=[model.url], arguments=["--keys-file", str(keys)]) as service:
        replies = [Http(service.url, {"api-key": key}).get("/v1/batches") for key in (accepted, accepted[:2] + "x")]

    assert [reply.status for reply in replies] == [200, 401]
