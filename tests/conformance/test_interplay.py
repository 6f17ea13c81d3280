"""A quota, a cap, webhooks, keys and a retry in one life of a resource, seen through the official SDK."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from tests.support.api import OPENAI, TERMINAL, chat_body, jsonl
from tests.support.api import request as line_of
from tests.support.receiver import Receiver
from tests.support.service import Service, eventually, overnight

from overnight.testing.upstream import ScriptedUpstream, answer

EVENTS = ["batch.completed", "batch.failed", "batch.expired", "batch.cancelled"]
TOTAL = 120
CONFIG = """
stop_grace = 5.0
[webhooks]
allow = ["127.0.0.1"]
[[upstreams]]
url = "{url}"
max_concurrency = 4
start_concurrency = 4
[[deployments]]
name = "test-model"
tokenizer = "o200k"
[[deployments]]
name = "small"
model = "test-model"
tokenizer = "o200k"
enqueued_tokens = 40
over_quota = "fail"
[[deployments]]
name = "strict"
model = "test-model"
tokenizer = "o200k"
enqueued_tokens = 40
over_quota = "fail_fast"
"""


@pytest.fixture(scope="module")
def upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream(models=("test-model",), script=answer(delay=0.1)) as upstream:
        yield upstream


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def service(upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("interplay")
    config, keys = folder / "overnight.toml", folder / "keys.txt"
    config.write_text(CONFIG.format(url=upstream.url))
    keys.write_text("key-capped capped\nkey-early early\n")
    with Service(folder, arguments=["--config", str(config), "--keys-file", str(keys)]) as service:
        yield service


@pytest.fixture
def client(service: Service, request: pytest.FixtureRequest) -> Iterator[openai.OpenAI]:
    """The SDK with the key of a resource of the test's own."""
    with openai.OpenAI(api_key=request.param, base_url=f"{service.url}/v1", max_retries=0) as client:
        yield client


def cap(service: Service, tokens: int) -> None:
    folder = ("--data-dir", str(service.data_dir))
    overnight(service, "resources", "cap", "capped", "--tokens", str(tokens), "--per", "day", *folder)


def submit(client: openai.OpenAI, count: int, model: str, **more: Any) -> str:
    lines = (line_of(f"r-{n}", OPENAI.endpoint, chat_body(f"r-{n}", model)) for n in range(count))
    file = client.files.create(file=("in.jsonl", jsonl(*lines)), purpose="batch")
    return create(client, file.id, **more)


def create(client: openai.OpenAI, file_id: str, **more: Any) -> str:
    batch = client.batches.create(
        input_file_id=file_id, endpoint="/v1/chat/completions", completion_window="24h", **more
    )
    return batch.id


def end(client: openai.OpenAI, batch_id: str) -> Any:
    def ended() -> Any:
        found = client.batches.retrieve(batch_id)
        return found if found.status in TERMINAL else None

    return eventually(ended, 60)


def retry(client: openai.OpenAI, batch_id: str, key: str, which: str = "not_run") -> Any:
    options: Any = {"headers": {"Idempotency-Key": key}}
    return client.post(f"/batches/{batch_id}/retry", body={"which": which}, options=options, cast_to=object)


def output_ids(client: openai.OpenAI, batch: Any) -> list[str]:
    lines = client.files.content(batch.output_file_id).text.splitlines()
    return [json.loads(line)["custom_id"] for line in lines]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("client", ["key-capped"], indirect=True)
def test_a_resource_that_meets_each_limit_is_told_once_and_pays_once(
    service: Service, upstream: ScriptedUpstream, client: openai.OpenAI, receiver: Receiver
) -> None:
    """Refused by a quota, stopped by a cap, retried under a key: one message each, and nothing is asked twice."""
    upstream.forget()
    hook = client.webhooks.create(name="mine", url=receiver.url, event_types=EVENTS)  # type: ignore[arg-type]
    key = {"Idempotency-Key": "small"}
    failed = end(client, submit(client, 9, "small", extra_headers=key))
    same = create(client, failed.input_file_id, extra_headers=key)
    cap(service, 100)
    stopped = end(client, submit(client, TOTAL, "test-model"))
    cap(service, 1_000_000)
    created = [retry(client, stopped.id, "again") for _ in range(2)]
    with pytest.raises(openai.ConflictError) as conflict:
        retry(client, stopped.id, "again", "all_unfinished")
    completed = end(client, created[0]["id"])
    ended = [failed, stopped, completed]
    eventually(lambda: len(receiver.got) >= len(ended))
    events: list[Any] = [
        client.webhooks.unwrap(got.body, got.headers, secret=hook.signing_secret) for got in receiver.got
    ]
    usage: Any = client.get("/usage", cast_to=object)
    quota: Any = client.get("/quotas/small", cast_to=object)

    assert same == failed.id
    assert [batch.status for batch in ended] == ["failed", "cancelled", "completed"]
    assert [failed.errors.data[0].code, stopped.errors.data[0].code] == [
        "token_limit_exceeded",
        "billing_hard_limit_reached",
    ]
    assert created[0]["id"] == created[1]["id"]
    assert conflict.value.code == "idempotency_key_reused"
    done = output_ids(client, stopped) + output_ids(client, completed)
    assert Counter(done) == Counter(f"r-{n}" for n in range(TOTAL))
    assert len(upstream.asked) == TOTAL
    assert sum(day["request_counts"]["completed"] for day in usage["data"]) == TOTAL
    assert quota["enqueued_tokens"] == 0
    assert Counter((event.type, event.data.id) for event in events) == Counter(
        (f"batch.{batch.status}", batch.id) for batch in ended
    )


@pytest.mark.timeout(120)
@pytest.mark.parametrize("client", ["key-early"], indirect=True)
def test_a_create_that_was_refused_early_is_let_in_under_its_key(client: openai.OpenAI) -> None:
    """Refused, nothing is stored under the key; let in, the same key gets the same batch while the room is taken."""
    running = submit(client, 4, "strict")
    eventually(lambda: client.batches.retrieve(running).status != "validating")
    key = {"extra_headers": {"Idempotency-Key": "strict"}}
    with pytest.raises(openai.BadRequestError) as refused:
        submit(client, 5, "strict", **key)
    end(client, running)
    let_in = submit(client, 4, "strict", **key)
    batch = client.batches.retrieve(let_in)

    assert "token_limit_exceeded" in str(refused.value)
    assert create(client, batch.input_file_id, **key) == let_in
    with pytest.raises(openai.ConflictError):
        create(client, batch.input_file_id, metadata={"other": "body"}, **key)
    assert end(client, let_in).request_counts.completed == 4
