"""Killed in each state and started again: no request is lost, none is in the files twice, none is asked in vain."""

from __future__ import annotations

import contextlib
import random
import socket
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests.support.api import AZURE, OPENAI, Api, Prefix, chats, jsonl, request
from tests.support.http import BOUNDARY, Http, Part
from tests.support.service import Service, eventually, log_shown

from overnight.testing.upstream import Gate, ScriptedUpstream, answer, by_text, held

KILLS = 3


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def upstream(gate: Gate) -> Iterator[ScriptedUpstream]:
    """Requests with `held` in them wait at the gate."""
    with ScriptedUpstream(script=by_text({"held": held(gate)})) as upstream:
        yield upstream
        gate.open()


@pytest.fixture
def service(upstream: ScriptedUpstream, tmp_path: Path) -> Iterator[Service]:
    config = tmp_path / "quick.toml"
    config.write_text("stop_grace = 0.5\nshutdown_grace = 0.5\n")
    service = Service(tmp_path, upstreams=[upstream.url], arguments=["--config", str(config)])
    with service, log_shown(service):
        yield service


@pytest.fixture(params=[OPENAI, AZURE], ids=lambda prefix: prefix.name)
def prefix(request: pytest.FixtureRequest) -> Prefix:
    prefix: Prefix = request.param
    return prefix


def api_of(service: Service, prefix: Prefix = OPENAI) -> Api:
    """Call the service where it listens now."""
    return Api(Http(service.url), prefix)


def start_batch(api: Api, names: list[str]) -> str:
    """Create a batch of requests with these names."""
    return api.create(api.upload(jsonl(*(request(name, api.prefix.endpoint) for name in names))))


def asked_names(upstream: ScriptedUpstream) -> Counter[str]:
    """Count how often each request was asked."""
    return Counter(one.json()["messages"][0]["content"] for one in upstream.asked)


def until_completed(api: Api, batch_id: str, count: int) -> None:
    """Wait until so many results are durable: only then do they count."""
    eventually(lambda: api.batch(batch_id)["request_counts"]["completed"] >= count)


MIXED = [f"done-{number}" for number in range(10)] + [f"held-{number}" for number in range(10)]


def test_killed_while_requests_run(service: Service, upstream: ScriptedUpstream, gate: Gate, prefix: Prefix):
    batch_id = start_batch(api_of(service, prefix), MIXED)
    until_completed(api_of(service, prefix), batch_id, 10)
    upstream.wait_for(20)

    service.kill()
    service.start()
    upstream.wait_for(30)
    gate.open()
    api = api_of(service, prefix)
    batch = api.end(batch_id)

    output, errors = api.results(batch)
    assert (batch["status"], errors) == ("completed", [])
    assert [line["custom_id"] for line in output] == MIXED
    assert batch["request_counts"] == {"total": 20, "completed": 20, "failed": 0}
    times = asked_names(upstream)
    assert {times[name] for name in MIXED if name.startswith("done")} == {1}, "a finished request was asked again"
    assert {times[name] for name in MIXED if name.startswith("held")} == {2}


def test_stopped_while_requests_run(service: Service, upstream: ScriptedUpstream, gate: Gate):
    batch_id = start_batch(api_of(service), MIXED)
    until_completed(api_of(service), batch_id, 10)
    upstream.wait_for(20)

    service.stop()
    service.start()
    gate.open()
    api = api_of(service)
    batch = api.end(batch_id)

    output, errors = api.results(batch)
    assert (batch["status"], errors) == ("completed", [])
    assert [line["custom_id"] for line in output] == MIXED
    assert {count for name, count in asked_names(upstream).items() if name.startswith("done")} == {1}


def test_killed_while_cancelling(service: Service, upstream: ScriptedUpstream):
    api = api_of(service)
    batch_id = start_batch(api, MIXED)
    until_completed(api, batch_id, 10)
    upstream.wait_for(20)
    assert api.cancel(batch_id).json()["status"] == "cancelling"

    service.kill()
    service.start()
    api = api_of(service)
    batch = api.reach(batch_id, "cancelled")

    output, errors = api.results(batch)
    assert sorted(line["custom_id"] for line in output + errors) == sorted(MIXED)
    assert [line["custom_id"] for line in output] == MIXED[:10]
    assert {line["error"]["code"] for line in errors} == {"batch_cancelled"}
    assert batch["request_counts"] == {"total": 20, "completed": 10, "failed": 0}
    assert max(asked_names(upstream).values()) == 1, "a cancelled request was asked again"


def test_killed_while_validating(service: Service, upstream: ScriptedUpstream):
    """It waits there as long as the model server does not say which models it has."""
    upstream.stop()
    service.stop()
    service.start()
    batch_id = start_batch(api_of(service), MIXED[:10])
    time.sleep(0.5)
    assert api_of(service).batch(batch_id)["status"] == "validating"

    service.kill()
    upstream.start()
    service.start()
    batch = api_of(service).end(batch_id)

    output, _ = api_of(service).results(batch)
    assert [line["custom_id"] for line in output] == MIXED[:10]
    assert set(asked_names(upstream).values()) == {1}


def test_cancelled_while_validating(service: Service, upstream: ScriptedUpstream):
    """Section 5.2: its requests were never accepted, so there are no counts and no files."""
    upstream.stop()
    service.stop()
    service.start()
    api = api_of(service)
    batch_id = start_batch(api, MIXED[:10])
    time.sleep(0.3)

    cancelling = api.cancel(batch_id).json()
    batch = api.reach(batch_id, "cancelled")

    assert (cancelling["status"], cancelling["in_progress_at"]) == ("cancelling", None)
    assert batch["request_counts"] == {"total": 0, "completed": 0, "failed": 0}
    assert (batch["in_progress_at"], batch["output_file_id"], batch["error_file_id"]) == (None, None, None)
    assert batch["cancelled_at"] >= batch["cancelling_at"]


def test_killed_after_the_end(service: Service, upstream: ScriptedUpstream):
    """The answer that told of the end is not taken back."""
    api = api_of(service)
    batch = api.end(start_batch(api, MIXED[:10]))
    before = api.results(batch)

    service.kill()
    service.start()
    api = api_of(service)

    assert api.batch(batch["id"]) == batch
    assert api.results(batch) == before
    assert len(upstream.asked) == 10


def test_killed_again_and_again(service: Service, upstream: ScriptedUpstream, prefix: Prefix):
    """At moments that nobody chose: in validation, between results, while the files are written."""
    upstream.script = answer(delay=0.02)
    names = [f"r-{number}" for number in range(800)]
    batch_id = start_batch(api_of(service, prefix), names)
    moments = random.Random(prefix.name)
    for _ in range(KILLS):
        time.sleep(moments.uniform(0, 0.4))
        service.kill()
        service.start()

    api = api_of(service, prefix)
    batch = api.end(batch_id, timeout=60)

    output, errors = api.results(batch)
    assert (batch["status"], errors) == ("completed", [])
    assert [line["custom_id"] for line in output] == names
    assert batch["request_counts"] == {"total": 800, "completed": 800, "failed": 0}
    for line in output:
        assert line["response"]["body"]["choices"][0]["message"]["content"] == f"echo: {line['custom_id']}"
    times = asked_names(upstream)
    assert set(times) == set(names)
    # Only what was in flight, or answered within the last group commit, may have been asked again.
    assert times.total() <= len(names) + KILLS * 400


def test_killed_during_an_upload_leaves_no_file(service: Service):
    """Neither a record nor bytes; what was answered before is all there."""
    api = api_of(service)
    content = chats(1, OPENAI.endpoint)
    kept = api.upload(content)
    part = Part(name="file", data=b"x" * 5_000_000, filename="cut.jsonl").encode()
    head = f"POST /v1/files HTTP/1.1\r\nHost: localhost\r\nContent-Length: {2 * len(part)}\r\n"
    head += f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n\r\n"

    address = urlsplit(service.url)
    with socket.create_connection((str(address.hostname), int(address.port or 0))) as connection:
        connection.sendall(head.encode() + part)
        eventually(lambda: _stored(service) > len(part) // 2)
        service.kill()
    service.start()

    assert [file["id"] for file in api_of(service).get("/files").json()["data"]] == [kept]
    assert api_of(service).content(kept) == content
    eventually(lambda: _stored(service) < len(part) // 2)


def _stored(service: Service) -> int:
    """Say how many bytes lie below the data folder, besides the database."""
    sizes = 0
    for path in service.data_dir.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            sizes += path.stat().st_size if path.is_file() and ".db" not in path.name else 0
    return sizes


def test_upload_goes_on_after_a_kill(service: Service):
    api = api_of(service)
    content = chats(3, OPENAI.endpoint)
    wish = {"bytes": len(content), "filename": "a.jsonl", "mime_type": "application/jsonl", "purpose": "batch"}
    upload_id = api.post("/uploads", wish).json()["id"]
    part_ids = [_send(api, upload_id, content[:20])]

    service.kill()
    service.start()
    api = api_of(service)
    part_ids.append(_send(api, upload_id, content[20:]))
    upload = api.post(f"/uploads/{upload_id}/complete", {"part_ids": part_ids}).json()

    assert api.content(upload["file"]["id"]) == content


def _send(api: Api, upload_id: str, data: bytes) -> str:
    reply = api.post_form(f"/uploads/{upload_id}/parts", [Part(name="data", data=data, filename="upload")])
    return str(reply.json()["id"])


def close_window(service: Service, batch_id: str) -> None:
    """Let a day pass: the only state that is reached from outside is the time in the database."""
    with sqlite3.connect(next(service.data_dir.glob("*.db"))) as database:
        changed = database.execute("UPDATE batches SET expires_at = ? WHERE id = ?", (int(time.time()) - 1, batch_id))
        assert changed.rowcount == 1
    database.close()


def test_window_that_closed_while_the_service_was_down_expires_the_batch(
    service: Service, upstream: ScriptedUpstream, gate: Gate
):
    """Table 4.2: what was done is kept, the rest is told as not executed and counts as neither."""
    batch_id = start_batch(api_of(service), MIXED)
    until_completed(api_of(service), batch_id, 10)
    upstream.wait_for(20)
    service.kill()
    close_window(service, batch_id)

    service.start()
    api = api_of(service)
    batch = api.reach(batch_id, "expired")

    output, errors = api.results(batch)
    assert [line["custom_id"] for line in output] == MIXED[:10]
    assert [line["custom_id"] for line in errors] == MIXED[10:]
    for line in errors:
        assert line["response"] is None
        assert line["error"] == {
            "code": "batch_expired",
            "message": "This request could not be executed before the completion window expired.",
        }
    assert batch["request_counts"] == {"total": 20, "completed": 10, "failed": 0}
    assert batch["expired_at"] is not None
    assert batch["completed_at"] is None
    assert max(asked_names(upstream).values()) == 1, "a request was started after the window had closed"
    conflict = api.cancel(batch_id)
    assert (conflict.status, conflict.json()["error"]["message"]) == (
        409,
        "Cannot cancel a batch with status 'expired'.",
    )


def test_batch_on_azure_goes_on_after_its_window(service: Service, upstream: ScriptedUpstream, gate: Gate):
    """The seed: jobs that take longer than a day continue until they are cancelled."""
    batch_id = start_batch(api_of(service, AZURE), MIXED)
    upstream.wait_for(20)
    service.kill()
    close_window(service, batch_id)

    service.start()
    gate.open()
    batch = api_of(service, AZURE).end(batch_id)

    assert (batch["status"], batch["request_counts"]["completed"]) == ("completed", 20)
    assert batch["expires_at"] < batch["completed_at"]


def test_batch_waits_for_a_model_server_that_is_down(service: Service, upstream: ScriptedUpstream, gate: Gate):
    """A dead upstream costs time, never a request."""
    batch_id = start_batch(api_of(service), MIXED)
    upstream.wait_for(20)

    upstream.stop()
    time.sleep(1)
    assert api_of(service).batch(batch_id)["status"] == "in_progress"
    gate.open()
    upstream.start()

    batch = api_of(service).end(batch_id)
    assert (batch["status"], batch["request_counts"]["completed"]) == ("completed", 20)
