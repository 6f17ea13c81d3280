"""The scripted upstream itself: other tests can only be trusted as far as it can."""

from __future__ import annotations

import gzip
import http.client
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from tests.support.api import chat_body
from tests.support.http import Http, Reply

from overnight.testing import upstream as scripted
from overnight.testing.upstream import Gate, ScriptedUpstream, answer, by_text, held, in_turn


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream(models=("test-model", "second")) as upstream:
        yield upstream


def ask(upstream: ScriptedUpstream, text: str = "hi", path: str = "/v1/chat/completions") -> Reply:
    """Ask for a chat completion."""
    return Http(upstream.url).post(path, chat_body(text))


def said(reply: Reply) -> str:
    """Give the text of a chat completion."""
    return str(reply.json()["choices"][0]["message"]["content"])


def test_it_names_its_models(upstream: ScriptedUpstream):
    reply = Http(upstream.url).get("/v1/models")

    assert [model["id"] for model in reply.json()["data"]] == ["test-model", "second"]
    assert upstream.asked == ()
    assert len(upstream.received) == 1


def test_it_answers_the_question_it_was_asked_the_same_each_time(upstream: ScriptedUpstream):
    first, second, other = ask(upstream), ask(upstream), ask(upstream, "ho")

    assert said(first) == "echo: hi"
    assert first.body == second.body
    assert said(other) == "echo: ho"


@pytest.mark.parametrize(
    ("path", "body", "find"),
    [
        ("completions", {"prompt": "hi"}, lambda got: got["choices"][0]["text"] == "echo: hi"),
        ("responses", {"input": "hi"}, lambda got: got["output"][0]["content"][0]["text"] == "echo: hi"),
        ("embeddings", {"input": ["a", "b"]}, lambda got: [row["index"] for row in got["data"]] == [0, 1]),
        ("moderations", {"input": "hi"}, lambda got: got["results"][0]["flagged"] is False),
        ("images/generations", {"prompt": "hi"}, lambda got: got["data"][0]["revised_prompt"] == "echo: hi"),
        ("videos", {"prompt": "hi"}, lambda got: got["object"] == "video"),
        ("rerank", {"query": "hi"}, lambda got: got["echo"]["query"] == "hi"),
    ],
)
def test_it_answers_at_any_endpoint(upstream: ScriptedUpstream, path: str, body: dict[str, object], find):
    reply = Http(upstream.url).post(f"/v1/{path}", {"model": "second", **body})

    assert reply.status == 200
    assert reply.json()["model"] == "second"
    assert find(reply.json())


@pytest.mark.parametrize(("body", "status"), [(b"{", 400), (b"[]", 400), (b"{}", 400), (b'{"model":"none"}', 404)])
def test_it_refuses_what_a_real_server_would(upstream: ScriptedUpstream, body: bytes, status: int):
    reply = Http(upstream.url).call("POST", "/v1/chat/completions", body)

    assert reply.status == status
    assert set(reply.json()["error"]) == {"message", "type", "param", "code"}


def test_it_records_the_very_bytes(upstream: ScriptedUpstream):
    body = b'{ "model":"test-model" ,"messages":[],"n":1.00 }'

    Http(upstream.url, {"X-Mark": "7"}).call("POST", "/v1/chat/completions", body)

    (one,) = upstream.asked
    assert (one.number, one.method, one.path, one.body) == (1, "POST", "/v1/chat/completions", body)
    assert one.headers["x-mark"] == "7"
    upstream.forget()
    assert upstream.received == ()


def test_scripts_answer_in_turn_and_by_text(upstream: ScriptedUpstream):
    upstream.script = by_text({"bad": in_turn(scripted.error(500), scripted.too_many(3), answer())})

    replies = [ask(upstream, "bad") for _ in range(4)]

    assert [reply.status for reply in replies] == [500, 429, 200, 200]
    assert replies[1].headers["retry-after"] == "3"
    assert ask(upstream, "good").status == 200


def test_forms_of_answers(upstream: ScriptedUpstream):
    upstream.script = by_text(
        {
            "gzip": scripted.gzipped(),
            "pretty": scripted.pretty(),
            "html": scripted.html(),
            "invalid": scripted.invalid_json(),
            "huge": scripted.huge(100_000),
        }
    )

    assert gzip.decompress(ask(upstream, "gzip").body).startswith(b'{"id"')
    assert ask(upstream, "pretty").body.count(b"\n") > 10
    assert ask(upstream, "html").headers["content-type"] == "text/html"
    with pytest.raises(json.JSONDecodeError):
        ask(upstream, "invalid").json()
    assert len(said(ask(upstream, "huge"))) == 100_000


@pytest.mark.parametrize("after", [-1, 0, 10])
def test_it_resets_connections(upstream: ScriptedUpstream, after: int):
    upstream.script = scripted.reset(after)

    with pytest.raises((ConnectionResetError, http.client.HTTPException)):
        ask(upstream)


def test_it_holds_answers_until_it_is_told(upstream: ScriptedUpstream):
    gate, replies = Gate(), list[Reply]()
    upstream.script = held(gate)
    asking = threading.Thread(target=lambda: replies.append(ask(upstream)))
    asking.start()
    upstream.wait_for(1)

    assert replies == []
    gate.open()
    asking.join()
    assert [said(reply) for reply in replies] == ["echo: hi"]


def test_waiting_for_a_request_ends(upstream: ScriptedUpstream):
    with pytest.raises(TimeoutError, match="0 of 1 requests"):
        upstream.wait_for(1, timeout=0.05)


def test_it_comes_back_on_the_same_port(upstream: ScriptedUpstream):
    upstream.stop()
    with pytest.raises(ConnectionRefusedError):
        ask(upstream)

    upstream.start()

    assert ask(upstream).status == 200


def test_port_that_is_taken_is_told(upstream: ScriptedUpstream):
    with pytest.raises(OSError, match="in use"):
        ScriptedUpstream(port=upstream.port).start()


def test_it_runs_as_a_process_too():
    command = [sys.executable, "-m", "overnight.testing.upstream", "--port", "0", "--model", "mine"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()

        models = Http(url).get(f"{urlsplit(url).path}/models").json()["data"]
        process.send_signal(signal.SIGTERM)

        assert [model["id"] for model in models] == ["mine"]
        assert process.wait(10) == 0
