"""Enqueued-token quotas with the real service and the real SDK: errors, headers, head-room, and the books."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import openai
import pytest
from tests.support.api import AZURE, AZURE_V1, OPENAI, Api, Prefix, chat_body, jsonl, request
from tests.support.http import Http
from tests.support.quotas import Watch, quota
from tests.support.service import Service, eventually, log_shown

from overnight.bootstrap.quotas import with_quotas
from overnight.config import Settings
from overnight.domain.quota import Offer
from overnight.testing.upstream import Gate, ScriptedUpstream, answer, by_text, held

EACH = 8
"""The tokens of a request here: one of its text, 4 of the message, 3 of the prompt."""

LIMIT = 40
CLIENTS = 16

DEPLOYMENT = """
[[deployments]]
name = "{name}"
model = "test-model"
tokenizer = "o200k"
enqueued_tokens = {limit}
over_quota = "{name}"
"""
FREE = """
[[deployments]]
name = "free"
model = "gpt-4o"
tokenizer = "o200k"
"""
MODES = ("fail", "queue", "fail_fast")


def requests(count: int, model: str, prefix: Prefix = OPENAI, text: str = "word") -> bytes:
    """Write an input file."""
    return jsonl(*(request(f"r-{number}", prefix.endpoint, chat_body(text, model)) for number in range(count)))


def configured(folder: Path, upstream: ScriptedUpstream, limit: int = LIMIT) -> list[str]:
    """Write settings with a deployment for each mode, and give the arguments that name them."""
    path = folder / "overnight.toml"
    # So many at once that requests which are held back leave room for others.
    server = f'stop_grace = 1\n[[upstreams]]\nurl = "{upstream.url}"\nstart_concurrency = 256\n'
    path.write_text(server + "".join(DEPLOYMENT.format(name=name, limit=limit) for name in MODES) + FREE)
    return ["--config", str(path)]


@pytest.fixture(scope="module")
def gate() -> Gate:
    return Gate()


@pytest.fixture(scope="module")
def limited(gate: Gate, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with quotas; requests with `held` in them wait at the gate."""
    folder = tmp_path_factory.mktemp("limited")
    keys = folder / "keys.txt"
    keys.write_text("".join(f"key-{number} resource-{number}\n" for number in range(100)))
    with ScriptedUpstream(models=("test-model", "gpt-4o"), script=by_text({"held": held(gate)})) as upstream:
        with Service(folder, arguments=[*configured(folder, upstream), "--keys-file", str(keys)]) as service:
            yield service
            gate.open()
        gate.open()


@pytest.fixture(scope="module")
def new_key() -> Iterator[str]:
    """Keys of resources that nobody used yet."""
    return (f"key-{number}" for number in range(100))


@pytest.fixture
def http(limited: Service, new_key: Iterator[str]) -> Iterator[Http]:
    """The service with quotas, called as a resource that nobody used yet."""
    with log_shown(limited):
        yield Http(limited.url, {"authorization": f"Bearer {next(new_key)}"})


def fill(api: Api, model: str, count: int = 4) -> str:
    """Let a batch run whose requests are not answered."""
    batch = api.create(api.upload(requests(count, model, api.prefix, "held")))
    api.reach(batch, "in_progress")
    return batch


@pytest.mark.parametrize("prefix", [OPENAI, AZURE, AZURE_V1], ids=lambda prefix: prefix.name)
def test_what_is_left_of_a_quota_is_shown_on_every_prefix(http: Http, prefix: Prefix):
    api = Api(http, prefix)
    fill(api, "fail")
    shown = quota(api, "fail")
    listed = api.get("/quotas").json()

    assert shown == {
        "id": "fail",
        "object": "quota",
        "deployment": "fail",
        "model": "test-model",
        "enqueued_tokens": 4 * EACH,
        "maximum_enqueued_tokens": LIMIT,
        "available_tokens": LIMIT - 4 * EACH,
        "basis": "deployment",
        "offer": None,
        "over_quota": "fail",
    }
    assert listed["object"] == "list"
    assert {each["deployment"] for each in listed["data"]} >= {*MODES, "free"}
    assert listed["data"][[each["id"] for each in listed["data"]].index("fail")] == shown
    assert quota(api, "free")["maximum_enqueued_tokens"] is None
    assert quota(api, "free")["available_tokens"] is None
    assert api.get("/quotas/none").status == 404


def test_a_quota_is_that_of_the_caller_alone(limited: Service, new_key: Iterator[str]):
    """What another resource has enqueued neither counts nor shows."""
    mine, other = (Api(Http(limited.url, {"api-key": next(new_key)}), AZURE) for _ in range(2))
    fill(mine, "fail", 5)

    assert quota(mine, "fail")["available_tokens"] == 0
    assert quota(other, "fail")["enqueued_tokens"] == 0
    fill(other, "fail", 5)


@pytest.mark.parametrize("prefix", [AZURE, AZURE_V1], ids=lambda prefix: prefix.name)
def test_azure_tells_of_the_quota_when_a_batch_is_created(http: Http, prefix: Prefix):
    """CONTRACT section 1.9; nothing where there is no limit, or the deployment cannot be told."""
    api = Api(http, prefix)
    fill(api, "fail", 2)
    files = [api.upload(requests(1, model, prefix)) for model in ("fail", "free", "unknown")]
    replies = [api.post("/batches", api.new_batch(name)) for name in (*files, "file-that-is-not-there")]
    told = [
        (each.headers.get("deployment-enqueued-tokens"), each.headers.get("deployment-maximum-enqueued-tokens"))
        for each in replies
    ]

    assert [each.status for each in replies] == [201] * 4
    assert told == [(str(2 * EACH), str(LIMIT)), (None, None), (None, None), (None, None)]


def test_azure_tells_of_the_quota_when_a_batch_is_retried(http: Http):
    """A retry creates a batch, too."""
    api = Api(http, AZURE)
    old = api.create(api.upload(requests(2, "fail", AZURE, "held")))
    api.reach(old, "in_progress")
    api.cancel(old)
    api.end(old)

    reply = api.post(f"/batches/{old}/retry", {"which": "not_run"})

    assert reply.status == AZURE.batch_created
    assert reply.headers.get("deployment-maximum-enqueued-tokens") == str(LIMIT)


def test_openai_says_nothing_of_azures_headers(http: Http):
    api = Api(http, OPENAI)
    reply = api.post("/batches", api.new_batch(api.upload(requests(1, "fail"))))

    assert "deployment-enqueued-tokens" not in reply.headers


def clients(url: str, key: str) -> dict[str, tuple[openai.OpenAI, Prefix]]:
    """Make a client of each flavour, as their users do."""
    azure = openai.AzureOpenAI(azure_endpoint=url, api_version="2024-10-21", api_key=key, max_retries=0)
    plain = openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)
    return {"openai": (plain, OPENAI), "azure": (azure, AZURE)}


@pytest.mark.parametrize("kind", ["openai", "azure"])
def test_the_sdk_sees_a_batch_that_does_not_fit_fail(limited: Service, new_key: Iterator[str], kind: str):
    """CONTRACT section 3.4, in the words of each vendor."""
    key = next(new_key)
    client, prefix = clients(limited.url, key)[kind]
    fill(Api(Http(limited.url, {"api-key": key}), prefix), "fail")
    with client:
        file = client.files.create(file=("in.jsonl", requests(2, "fail", prefix)), purpose="batch")
        batch = client.batches.create(
            input_file_id=file.id,
            endpoint=prefix.endpoint,  # type: ignore[arg-type]
            completion_window="24h",
        )
        failed = eventually(lambda: ended(client.batches.retrieve(batch.id)))

    (problem,) = failed.errors.data
    words = {
        "openai": "Enqueued token limit reached for fail in organization resource-",
        "azure": f"configured limit of {LIMIT} for the deployment 'fail'. Please either increase the limit or",
    }
    assert failed.status == "failed"
    assert (problem.code, problem.line, problem.param) == ("token_limit_exceeded", None, None)
    assert words[kind] in problem.message
    assert "token_limit_exceeded" in problem.message


def ended(batch: Any) -> Any:
    """Give the batch if it has ended."""
    return batch if batch.status in {"completed", "failed", "expired", "cancelled"} else None


@pytest.mark.parametrize("kind", ["openai", "azure"])
def test_azures_recipe_for_a_full_queue_works(limited: Service, new_key: Iterator[str], kind: str):
    """It looks for the code in the text of the error, then waits and tries again."""
    key = next(new_key)
    client, prefix = clients(limited.url, key)[kind]
    api = Api(Http(limited.url, {"api-key": key}), prefix)
    holding = fill(api, "fail_fast")
    with client:
        file = client.files.create(file=("in.jsonl", requests(2, "fail_fast", prefix)), purpose="batch")

        def create() -> Any:
            return client.batches.create(
                input_file_id=file.id,
                endpoint=prefix.endpoint,  # type: ignore[arg-type]
                completion_window="24h",
            )

        with pytest.raises(openai.BadRequestError) as refused:
            create()
        api.cancel(holding)
        api.end(holding, timeout=60)
        batch = create()
        done = eventually(lambda: ended(client.batches.retrieve(batch.id)))

    assert "token_limit_exceeded" in str(refused.value)
    assert refused.value.code == "token_limit_exceeded"
    assert done.status == "completed"


def test_a_model_that_an_offer_does_not_have_is_refused_with_the_reason(limited: Service, new_key: Iterator[str]):
    """Waiting does not help."""
    key = next(new_key)
    resource = f"resource-{key.removeprefix('key-')}"
    settings = Settings(data_dir=limited.data_dir)
    with_quotas(settings, lambda admin: admin.put_offer(resource, Offer.FREE))
    api = Api(Http(limited.url, {"api-key": key}), AZURE)

    failed = api.run(requests(1, "free", AZURE))
    with_quotas(settings, lambda admin: admin.put_offer(resource, Offer.MSDN))
    done = api.run(requests(1, "free", AZURE))
    shown = quota(api, "free")

    assert (failed["status"], done["status"]) == ("failed", "completed")
    assert "the model gpt-4o is not part of the offer 'free'" in failed["errors"]["data"][0]["message"]
    assert (shown["maximum_enqueued_tokens"], shown["basis"], shown["offer"]) == (90_000, "offer", "msdn")


def test_the_operator_gives_a_resource_its_own_number(limited: Service, new_key: Iterator[str]):
    """Which counts from then on, before the offer and the deployment's setting."""
    key = next(new_key)
    resource = f"resource-{key.removeprefix('key-')}"
    settings = Settings(data_dir=limited.data_dir)
    api = Api(Http(limited.url, {"api-key": key}), OPENAI)
    too_large = api.run(requests(6, "fail"))
    with_quotas(settings, lambda admin: admin.put(resource, "fail", 6 * EACH))
    done = api.run(requests(6, "fail"))

    assert (too_large["status"], done["status"]) == ("failed", "completed")
    assert quota(api, "fail")["basis"] == "resource"


def submit_until_done(url: str, model: str) -> tuple[Any, int]:
    """Submit a batch as often as it takes, and say how often that was."""
    tries = 0
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none") as client:
        file = client.files.create(file=("in.jsonl", requests(5, model)), purpose="batch")
        while True:
            tries += 1
            created = client.batches.create(
                input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
            )
            batch = eventually(lambda: ended(client.batches.retrieve(created.id)), timeout=100, every=0.1)  # noqa: B023
            if batch.status == "completed":
                return batch, tries
            assert [each.code for each in batch.errors.data] == ["token_limit_exceeded"]


@pytest.mark.timeout(240)
@pytest.mark.parametrize("mode", ["fail", "queue"])
def test_many_clients_at_the_edge_of_a_quota_never_get_over_it(tmp_path: Path, mode: str):
    """And the books agree with the result files afterwards."""
    limit = 5 * 5 * EACH + EACH
    with (
        ScriptedUpstream(models=("test-model", "gpt-4o"), script=answer(delay=0.1)) as upstream,
        Service(tmp_path, arguments=configured(tmp_path, upstream, limit)) as service,
    ):
        api = Api(Http(service.url), OPENAI)
        with Watch(api, mode) as watch, ThreadPoolExecutor(CLIENTS) as pool:
            found = list(pool.map(lambda _: submit_until_done(service.url, mode), range(CLIENTS)))
        outputs = [api.results(api.batch(batch.id))[0] for batch, _ in found]
        after = quota(api, mode)
    rows = stored(service)

    assert [len(output) for output in outputs] == [5] * CLIENTS
    assert max(watch.seen) <= limit
    assert max(watch.seen) > limit // 2
    assert (after["enqueued_tokens"], after["available_tokens"]) == (0, limit)
    assert {rows[batch.id] for batch, _ in found} == {5 * EACH}
    assert sum(rows.values()) == sum(map(len, outputs)) * EACH
    tries = sum(count for _, count in found)
    assert (tries == CLIENTS) == (mode == "queue")
    assert len(rows) == tries


def stored(service: Service) -> dict[str, int]:
    """Read what each batch reserved from the database itself."""
    with closing(sqlite3.connect(service.data_dir / "overnight.db")) as connection:
        return dict(connection.execute("SELECT id, reserved_tokens FROM batches").fetchall())


@pytest.mark.timeout(120)
def test_a_killed_service_finds_its_books_as_they_were(tmp_path: Path):
    """Reservations are computed from what is durable, so ``kill -9`` cannot leave one behind or lose one."""
    gate = Gate()
    with ScriptedUpstream(models=("test-model", "gpt-4o"), script=by_text({"held": held(gate)})) as upstream:
        service = Service(tmp_path, arguments=configured(tmp_path, upstream))
        service.start()
        api = Api(Http(service.url), OPENAI)
        half = requests(2, "queue") + requests(2, "queue", text="held").replace(b"r-", b"held-")
        running = api.create(api.upload(half))
        eventually(lambda: quota(api, "queue")["enqueued_tokens"] == 2 * EACH)
        waiting = api.create(api.upload(requests(4, "queue")))
        eventually(lambda: counted(service, waiting) == 4 * EACH)
        service.kill()
        service.start()
        api = Api(Http(service.url), OPENAI)
        after_kill = quota(api, "queue")["enqueued_tokens"]
        eventually(lambda: api.batch(running)["request_counts"]["completed"] == 2)
        recovered = quota(api, "queue")["enqueued_tokens"]
        status = api.batch(waiting)["status"]
        gate.open()
        done = [api.end(batch, timeout=60) for batch in (running, waiting)]
        at_the_end = quota(api, "queue")["enqueued_tokens"]
        service.stop()

    assert (after_kill, recovered, at_the_end) == (2 * EACH, 2 * EACH, 0)
    assert status == "validating"
    assert [(each["status"], each["request_counts"]["completed"]) for each in done] == [("completed", 4)] * 2


def counted(service: Service, batch_id: str) -> int | None:
    """Read what a batch was counted to have."""
    with closing(sqlite3.connect(service.data_dir / "overnight.db")) as connection:
        found = connection.execute("SELECT prompt_tokens FROM batches WHERE id = ?", (batch_id,)).fetchone()
    return found[0] if found else None
