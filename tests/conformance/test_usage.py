"""Usage, caps and estimates as the SDK and other clients see them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from tests.support.api import AZURE, OPENAI, PREFIXES, Api, chats, jsonl, request
from tests.support.http import Http
from tests.support.service import Service, eventually, log_shown, overnight

from overnight.testing.upstream import ScriptedUpstream, answer

CODE = "billing_hard_limit_reached"
CONFIG = """
currency = "EUR"
stop_grace = 5.0
[[deployments]]
name = "test-model"
tokenizer = "o200k"
price = { input = 2, cached_input = 0.5, output = 8.25 }
"""


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream(models=("test-model", "free-model")) as upstream:
        yield upstream


@pytest.fixture
def config(tmp_path: Path) -> Path:
    config = tmp_path / "prices.toml"
    config.write_text(CONFIG)
    return config


@pytest.fixture
def service(upstream: ScriptedUpstream, tmp_path: Path, config: Path) -> Iterator[Service]:
    service = Service(tmp_path, upstreams=[upstream.url], arguments=["--config", str(config)])
    with service, log_shown(service):
        yield service


@pytest.fixture
def api(service: Service) -> Api:
    return Api(Http(service.url), OPENAI)


def cap(service: Service, config: Path, *arguments: str) -> str:
    """Set a cap of the default resource, while the service runs."""
    folder = ("--data-dir", str(service.data_dir), "--config", str(config))
    return overnight(service, "resources", "cap", "default", *arguments, *folder)


def tokens_of(batch: dict[str, Any]) -> tuple[int, int]:
    return batch["usage"]["input_tokens"], batch["usage"]["output_tokens"]


def test_usage_is_told_by_day_and_deployment_on_every_prefix(api: Api, service: Service) -> None:
    """Of both batches together, with its cost; Azure's resource is the same one here."""
    first = api.run(chats(5, OPENAI.endpoint))
    body = {"model": "free-model", "messages": [{"role": "user", "content": "hello"}]}
    second = api.run(jsonl(request("a", OPENAI.endpoint, body)))

    reports = [Api(Http(service.url), prefix).get("/usage").json() for prefix in PREFIXES]

    report = reports[0]
    assert all(other == report for other in reports)
    assert report["object"] == "usage"
    assert [(day["deployment"], day["request_counts"]["completed"]) for day in report["data"]] == [
        ("free-model", 1),
        ("test-model", 5),
    ]
    for batch, day in zip((second, first), report["data"], strict=True):
        assert day["usage"] == batch["usage"]
    read, written = tokens_of(first)
    assert report["data"][1]["cost"] == f"{read * 0.000002 + written * 0.00000825:.6f}".rstrip("0")
    assert report["data"][0]["cost"] is None
    assert report["cost"] == report["data"][1]["cost"]
    assert report["request_counts"] == {"completed": 6, "failed": 0}
    assert (report["currency"], report["caps"]) == ("EUR", [])


@pytest.mark.parametrize(
    ("query", "param"),
    [("from=yesterday", "from"), ("to=2026-02-30", "to"), ("from=2026-01-02&to=2026-01-01", "from")],
)
def test_days_that_cannot_be_are_refused(api: Api, query: str, param: str) -> None:
    """With what to write instead."""
    reply = api.get(f"/usage?{query}")

    assert reply.status == 400
    assert (reply.json()["error"]["param"], reply.json()["error"]["code"]) == (param, "invalid_value")


def test_a_file_is_estimated_before_it_is_run(api: Api) -> None:
    """Each request asks for a bounded answer, so the cost has an upper end."""
    body = {"model": "test-model", "messages": [{"role": "user", "content": "hello there"}], "max_tokens": 100}
    file_id = api.upload(jsonl(*(request(f"r{number}", OPENAI.endpoint, body) for number in range(10)), b"broken"))

    estimate = api.get(f"/files/{file_id}/estimate").json()

    [model] = estimate["models"]
    assert (estimate["requests"], estimate["unreadable"], estimate["currency"]) == (10, 1, "EUR")
    assert model["prompt_tokens"] == {"count": 90, "error": 0, "basis": "exact", "tokenizer": "o200k_base"}
    assert model["max_output_tokens"] == 1_000
    assert estimate["cost"] == model["cost"] == {"least": "0.00018", "most": "0.00843"}
    assert estimate["duration"] is None
    assert api.get("/files/file-none/estimate").status == 404


def test_time_is_estimated_by_what_ran_before(api: Api) -> None:
    """The batch is named, so that everybody can see how like it is."""
    before = api.run(chats(40, OPENAI.endpoint))
    file_id = api.upload(chats(10, OPENAI.endpoint))

    duration = api.get(f"/files/{file_id}/estimate").json()["duration"]

    took = max(1, before["finalizing_at"] - before["in_progress_at"])
    assert duration == {
        "seconds": round(10 / (40 / took), 1),
        "requests_per_second": 40 / took,
        "basis": before["id"],
    }


def test_the_sdk_sees_a_batch_that_a_cap_has_stopped(
    service: Service, upstream: ScriptedUpstream, config: Path, api: Api
) -> None:
    """In mid-run: what is done is kept, the rest says why; a higher cap lets the next batch run."""
    upstream.script = answer(delay=0.4)
    cap(service, config, "--tokens", "100", "--per", "day")
    with openai.OpenAI(base_url=f"{service.url}/v1", api_key="any", max_retries=0) as client:
        file = client.files.create(file=("in.jsonl", chats(400, OPENAI.endpoint)), purpose="batch")
        batch = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")

        def ended() -> openai.types.Batch | None:
            found = client.batches.retrieve(batch.id)
            return found if found.status in {"completed", "cancelled", "failed"} else None

        done = eventually(ended, 60)
        assert done.status == "cancelled"
        assert done.cancelling_at is not None
        assert done.errors is not None
        assert [problem.code for problem in done.errors.data or []] == [CODE]
        assert done.output_file_id is not None
        assert done.error_file_id is not None
        output = [json.loads(line) for line in client.files.content(done.output_file_id).text.splitlines()]
        errors = [json.loads(line) for line in client.files.content(done.error_file_id).text.splitlines()]
        assert done.request_counts is not None
        assert 0 < len(output) == done.request_counts.completed < 400
        assert len(output) + len(errors) == 400
        assert {line["error"]["code"] for line in errors} == {CODE}

        refused = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
        failed = eventually(lambda: _in(client, refused.id, "failed"))
        assert failed.errors.data[0].code == CODE
        assert "100 tokens a day" in failed.errors.data[0].message
        assert api.get("/usage").json()["caps"][0]["reached"] is True

        cap(service, config, "--tokens", "1000000", "--per", "day")
        small = client.files.create(file=("in.jsonl", chats(3, OPENAI.endpoint)), purpose="batch")
        again = client.batches.create(input_file_id=small.id, endpoint="/v1/chat/completions", completion_window="24h")
        assert eventually(lambda: _in(client, again.id, "completed")).request_counts.completed == 3


def _in(client: openai.OpenAI, batch_id: str, status: str) -> Any:
    found = client.batches.retrieve(batch_id)
    return found if found.status == status else None


def test_the_command_line_shows_usage_and_caps(api: Api, service: Service, config: Path) -> None:
    """For the caller over the API, for the operator from the data folder."""
    batch = api.run(chats(5, OPENAI.endpoint))
    folder = ("--data-dir", str(service.data_dir), "--config", str(config))
    shown = cap(service, config, "--spend", "2.5", "--per", "month").split("\t")

    mine = overnight(service, "usage", "--url", f"{service.url}/v1").split("\t")
    report = json.loads(overnight(service, "usage", "--json", "--url", f"{service.url}/v1"))
    everybody = overnight(service, "usage", "--all-resources", *folder).split("\t")

    read, written = tokens_of(batch)
    assert mine[1:8] == ["test-model", "5", "0", str(read), "0", str(written), "0"]
    assert report["data"][0]["usage"]["output_tokens"] == written
    assert everybody[:6] == ["default", "test-model", "5", "0", str(read), str(written)]
    assert everybody[6].strip() == mine[8].strip() == report["cost"]
    assert shown[:4] == ["default", "month", "spend", "2.50"]
    assert overnight(service, "resources", "caps", *folder).split("\t")[:4] == shown[:4]
    cap(service, config, "--spend", "none", "--per", "month")
    assert overnight(service, "resources", "caps", *folder) == ""


def test_azure_sees_the_reason_too(service: Service, config: Path) -> None:
    """On its own prefix."""
    cap(service, config, "--tokens", "0", "--per", "month")
    azure = Api(Http(service.url), AZURE)

    failed = azure.run(chats(2, AZURE.endpoint))

    assert failed["status"] == "failed"
    assert [problem["code"] for problem in failed["errors"]["data"]] == [CODE]
