"""Content filters in Azure's shape: the official SDK, a real service, and servers of moderations and of a guard."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support import sdk
from tests.support.api import AZURE, Api, jsonl, request
from tests.support.http import Http
from tests.support.service import Service, eventually, log_shown

from overnight.testing.upstream import Received, Reply, ScriptedUpstream, by_text, error, raw

BLOCK = (
    b'{"id": "x", "choices": [{"index": 0, "content_filter_results":  {"hate":{"filtered":false,"severity":"low"}}}],'
    b' "prompt_filter_results": [ {"prompt_index": 0, "content_filter_results": {"e": 1.00}} ]}'
)
SECRET = "zebra-crossing"
SAFE = {"filtered": False, "severity": "safe"}
ALL_SAFE = dict.fromkeys(("hate", "self_harm", "sexual", "violence"), SAFE)
LONGEST = 60

# Reads as a client of Azure does, and prints what it found.
CLIENT = """
import json, sys, time
import openai

task = json.load(sys.stdin)
client = openai.AzureOpenAI(azure_endpoint=task["url"], api_key="k", api_version="2024-10-21")
file = client.files.create(file=("in.jsonl", task["content"].encode()), purpose="batch")
batch = client.batches.create(input_file_id=file.id, endpoint="/chat/completions", completion_window="24h")
while batch.status not in ("completed", "failed", "expired", "cancelled"):
    time.sleep(0.05)
    batch = client.batches.retrieve(batch.id)
texts = [client.files.content(each).text for each in (batch.output_file_id, batch.error_file_id)]
print(json.dumps({"status": batch.status, "output": texts[0], "errors": texts[1]}))
"""


def moderation(received: Received) -> Reply:
    given = received.json()["input"]
    results = [
        {
            "flagged": "bad" in text,
            "categories": {"hate": False, "violence": "bad" in text},
            "category_scores": {
                "hate": 0.01,
                "harassment": 0.25 if "rude" in text else 0.0,
                "self-harm": 0.0,
                "sexual": 0.0,
                "violence": 0.9 if "bad" in text else 0.0,
            },
        }
        for text in ([given] if isinstance(given, str) else given)
    ]
    return raw(json.dumps({"id": "modr-1", "model": "omni", "results": results}))


def guard(received: Received) -> Reply:
    said = received.json()["messages"][-1]["content"]
    verdict = "\n\nunsafe\nS1,S10" if "bad" in said else "\n\nsafe"
    message = {"role": "assistant", "content": verdict}
    return raw(json.dumps({"choices": [{"index": 0, "message": message}], "usage": {"prompt_tokens": 900}}))


@pytest.fixture(scope="module")
def model() -> Iterator[ScriptedUpstream]:
    worded = raw(json.dumps({"choices": [{"index": 0, "message": {"role": "assistant", "content": "very bad"}}]}))
    script = by_text({"own-filter": raw(BLOCK), "wordy": worded})
    with ScriptedUpstream(models=("m-mod", "m-guard", "test-model", "m-plain"), script=script) as upstream:
        yield upstream


@pytest.fixture(scope="module")
def moderator() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream(models=("omni",), script=moderation) as upstream:
        yield upstream


@pytest.fixture(scope="module")
def watcher() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream(models=("llama-guard",), script=guard) as upstream:
        yield upstream


@pytest.fixture(scope="module")
def filtering(
    model: ScriptedUpstream,
    moderator: ScriptedUpstream,
    watcher: ScriptedUpstream,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("filter")
    config = folder / "filter.toml"
    config.write_text(_settings(model, moderator, watcher))
    with Service(folder, arguments=["--config", str(config), "--log-level", "debug"]) as service:
        yield service


def _settings(model: ScriptedUpstream, moderator: ScriptedUpstream, watcher: ScriptedUpstream) -> str:
    return f"""
[[upstreams]]
name = "model"
url = "{model.url}"

[[upstreams]]
name = "moderator"
url = "{moderator.url}"

[[upstreams]]
name = "watcher"
url = "{watcher.url}"

[[content_filters]]
name = "moderation"
kind = "moderation"
upstream = "moderator"
model = "omni"
thresholds = {{ hate = "low" }}

[[content_filters]]
name = "guard"
kind = "guard"
deployment = "watched"

[[deployments]]
name = "watched"
model = "llama-guard"
upstreams = ["watcher"]

[[deployments]]
name = "moderated"
model = "m-mod"
upstreams = ["model"]
content_filter = "moderation"

[[deployments]]
name = "guarded"
model = "m-guard"
upstreams = ["model"]
content_filter = "guard"

[[deployments]]
name = "annotated"
model = "m-plain"
upstreams = ["model"]
annotate = "unfiltered"
"""


@pytest.fixture(autouse=True)
def _log(filtering: Service) -> Iterator[None]:
    with log_shown(filtering):
        yield


def _content(deployment: str, *texts: str) -> bytes:
    bodies = [{"model": deployment, "messages": [{"role": "user", "content": text}]} for text in texts]
    return jsonl(*(request(f"r-{number}", AZURE.endpoint, body) for number, body in enumerate(bodies)))


def _run(service: Service, content: bytes) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Let the SDK run a batch, and give the lines of both files."""
    done = subprocess.run(
        [str(sdk.python_of(sdk.VERSIONS[0])), "-I", "-c", CLIENT],
        input=json.dumps({"url": service.url, "content": content.decode()}),
        capture_output=True,
        text=True,
        timeout=LONGEST,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["status"] == "completed"
    return tuple([json.loads(line) for line in found[name].splitlines()] for name in ("output", "errors"))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("deployment", "flagged"),
    [("moderated", {"violence"}), ("guarded", {"violence", "hate"})],
)
def test_prompts_and_answers_are_filtered_as_azure_does(
    filtering: Service, model: ScriptedUpstream, deployment: str, flagged: set[str]
) -> None:
    model.forget()
    found = {**ALL_SAFE, **{category: {"filtered": True, "severity": "high"} for category in flagged}}

    output, (refused,) = _run(filtering, _content(deployment, "fine", f"bad {SECRET}", "wordy"))

    passed, emptied = (entry["response"]["body"] for entry in output)
    assert passed["choices"][0]["message"]["content"] == "echo: fine"
    assert passed["choices"][0]["content_filter_results"] == ALL_SAFE
    assert passed["prompt_filter_results"] == [{"prompt_index": 0, "content_filter_results": ALL_SAFE}]
    assert emptied["choices"][0]["finish_reason"] == "content_filter"
    assert emptied["choices"][0]["message"]["content"] is None
    assert emptied["choices"][0]["content_filter_results"] == found
    assert refused["response"]["status_code"] == 400
    assert refused["response"]["body"]["error"]["code"] == "content_filter"
    assert refused["response"]["body"]["error"]["innererror"]["content_filter_result"] == found
    assert len(model.asked) == 2
    assert not any(SECRET.encode() in received.body for received in model.asked)
    assert SECRET not in filtering.log()


def test_a_lower_threshold_filters_more(filtering: Service) -> None:
    _, (refused,) = _run(filtering, _content("moderated", "rude"))

    found = refused["response"]["body"]["error"]["innererror"]["content_filter_result"]
    assert found["hate"] == {"filtered": True, "severity": "low"}


def test_requests_wait_while_the_filter_is_down(
    filtering: Service, moderator: ScriptedUpstream, model: ScriptedUpstream
) -> None:
    api = Api(Http(filtering.url), AZURE)
    model.forget()
    moderator.forget()
    moderator.script = error(500)
    try:
        batch_id = api.create(api.upload(_content("moderated", *(f"text {number}" for number in range(10)))))
        moderator.wait_for(6)

        assert api.batch(batch_id)["status"] in {"validating", "in_progress"}
        assert model.asked == ()

        moderator.stop()
        eventually(lambda: "upstream.left_alone" in filtering.log())
    finally:
        moderator.script = moderation
        moderator.start()
    output, errors = api.results(api.end(batch_id, timeout=LONGEST))

    assert (len(output), errors) == (10, [])


def test_no_model_that_is_filtered_is_offered_by_its_own_name(filtering: Service) -> None:
    """That would be a way around the filter."""
    names = {each["id"] for each in Api(Http(filtering.url)).get("/models").json()["data"]}

    assert {"moderated", "guarded", "annotated", "test-model", "m-plain"} <= names
    assert not names & {"m-mod", "m-guard"}


def test_what_the_model_server_says_of_its_own_filter_passes_byte_for_byte(filtering: Service) -> None:
    api = Api(Http(filtering.url), AZURE)

    batch = api.run(_content("test-model", "own-filter"))

    assert b'"body":' + BLOCK + b"}" in api.content(batch["output_file_id"])


def test_a_deployment_can_say_that_nothing_is_filtered(filtering: Service) -> None:
    (entry,), errors = _run(filtering, _content("annotated", "bad"))

    body = entry["response"]["body"]
    assert errors == []
    assert body["choices"][0]["message"]["content"] == "echo: bad"
    assert body["choices"][0]["content_filter_results"]["hate"]["filtered"] is False
    assert body["choices"][0]["content_filter_results"]["error"]["code"] == "content_filter_error"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ('[[content_filters]]\nname = "f"\nkind = "moderation"', "either the upstream or the deployment"),
        ('[[content_filters]]\nname = "f"\nkind = "guard"\nupstream = "u"', "name the model of the guard"),
        ('[[content_filters]]\nname = "f"\nkind = "moderation"\nupstream = "v"', "which there is not"),
        ('[[content_filters]]\nname = "f"\nkind = "moderation"\ndeployment = "v"', "which is not set"),
        ('[[deployments]]\nname = "d"\ncontent_filter = "f"', "names the content filter `f`"),
        ('[[deployments]]\nname = "d"\ncontent_filter = "f"\nannotate = "unfiltered"', "leave out annotate"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    model: ScriptedUpstream, tmp_path: Path, settings: str, said: str
) -> None:
    config = tmp_path / "bad.toml"
    config.write_text(f'[[upstreams]]\nname = "u"\nurl = "{model.url}"\n{settings}\n')
    service = Service(tmp_path, arguments=["--config", str(config)])

    with pytest.raises(RuntimeError, match=said):
        service.start()
