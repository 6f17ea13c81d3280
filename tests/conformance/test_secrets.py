"""What people entrust to the service stands in no log line and no error: prompts, answers, keys and what goes wrong."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from tests.support.api import OPENAI, Api, chat_body, jsonl, request
from tests.support.http import Http, Part
from tests.support.service import Service

from overnight.testing.upstream import Received, Reply, ScriptedUpstream, error, raw

CHAT = "/v1/chat/completions"
KEY, UPSTREAM_KEY, WRONG_KEY = (
    "key-kkmarker-of-the-caller",
    "key-uumarker-of-the-upstream",
    "key-wwmarker-that-is-wrong",
)
PROMPT, ANSWER, METADATA, QUERY = "ppmarker", "aamarker", "mmmarker", "qqmarker"
FORGED = "id\n2026-01-01 [error] forged\x1b[31m"


_tries: Counter[int] = Counter()


@pytest.mark.parametrize("style", ["text", "json"])
def test_nothing_entrusted_is_logged_or_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, style: str):
    secrets = (KEY, UPSTREAM_KEY, WRONG_KEY, PROMPT, ANSWER, METADATA, QUERY)
    key_file, keys = tmp_path / "upstream-key", tmp_path / "keys"
    key_file.write_text(UPSTREAM_KEY)
    keys.write_text(f"{KEY} mine\n")
    with ScriptedUpstream() as model:
        settings = tmp_path / "overnight.toml"
        upstream = f'[[upstreams]]\nurl = "{model.url}"\napi_key_file = "{key_file}"\n'
        settings.write_text(f'log_level = "debug"\nlog_format = "{style}"\n{upstream}')
        model.script = troubled
        service = Service(tmp_path, arguments=["--config", str(settings), "--keys-file", str(keys)])
        with service:
            api = Api(Http(service.url, {"authorization": f"Bearer {KEY}"}), OPENAI)
            bodies = errors_of(api, Http(service.url))
            good = jsonl(*(request(f"{FORGED}{n}", CHAT, chat_body(f"{PROMPT} {n}")) for n in range(4)))
            done = api.run(good, metadata={"note": METADATA})
            bad = api.run(
                jsonl(request("a", CHAT, {"model": "x", "messages": PROMPT}), request("a", CHAT, [PROMPT]))
                + f'{{"custom_id": "{PROMPT}'.encode()
            )
            bodies += json.dumps(bad["errors"])
        log = service.log()

    assert done["status"] == "completed"
    assert bad["status"] == "failed"
    assert "batch.moved" in log
    assert [secret for secret in secrets if secret in log] == []
    assert [secret for secret in secrets if secret in bodies] == []
    assert "\x1b" not in log
    assert "\n2026-01-01" not in log


def troubled(received: Received) -> Reply:
    """Fail twice, and then in one way or another: with a refusal, with no JSON, with an answer, and by hanging up."""
    number = int(received.body.partition(PROMPT.encode())[2].split(b'"')[0])
    _tries[number] += 1
    if _tries[number] <= 2:
        return error(500 if number % 2 else 429, ANSWER)
    return (error(400, ANSWER), raw(f"<{ANSWER}>"), raw(f'{{"choices": "{ANSWER}"}}'), raw(ANSWER, status=200))[number]


def errors_of(api: Api, stranger: Http) -> str:
    """Do what is refused, and give all that was answered."""
    form = [Part(name="purpose", data=QUERY * 9_000), Part(name="file", data=PROMPT, filename="a.jsonl")]
    wrong = {"input_file_id": "f", "endpoint": CHAT, "completion_window": "24h"}
    replies = [
        stranger.with_headers({"authorization": f"Bearer {WRONG_KEY}"}).get("/v1/batches"),
        stranger.with_headers({"api-key": WRONG_KEY}).get("/openai/batches?api-version=2024-10-21"),
        api.post("/batches", wrong | {"metadata": {"note": [METADATA]}}),
        api.post("/batches", wrong | {"metadata": {"note": METADATA * 200}}),
        api.http.call("POST", "/v1/batches", f'{{"metadata": "{METADATA}'.encode()),
        api.http.call("POST", "/v1/batches", json.dumps([METADATA]).encode()),
        api.post_form("/files", form),
        api.post_form(
            "/files", [Part(name="purpose", data="batch"), Part(name="file", data=PROMPT, filename="a.jsonl")]
        ),
    ]
    assert all(reply.status >= 400 for reply in replies)
    return "".join(reply.body.decode() for reply in replies)
