"""Webhooks across crashes: nothing is lost at any moment, and two processes on one data folder do not send twice."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import openai
import pytest
from tests.chaos.world import GONE
from tests.support.api import OPENAI, Api, chats
from tests.support.http import Http
from tests.support.receiver import Receiver
from tests.support.service import Service, eventually

from overnight.testing.upstream import ScriptedUpstream

LAUNCHER = (
    "overnight.testing.crashing",
    *("--set", "overnight.dispatch.webhooks:LEASE=2"),
    *("--set", "overnight.dispatch.dispatcher:LEASE=1"),
    *("--set", "overnight.dispatch.dispatcher:_RENEW_EVERY=0.2"),
)
TYPES = ["batch.completed", "batch.failed", "batch.expired", "batch.cancelled"]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as upstream:
        yield upstream


def service_in(folder: Path, upstream: ScriptedUpstream, name: str = "service") -> Service:
    config = folder / "webhooks.toml"
    config.write_text('[webhooks]\nallow = ["127.0.0.1"]\n')
    return Service(folder, upstreams=[upstream.url], arguments=["--config", str(config)], name=name)


def api_of(service: Service) -> Api:
    return Api(Http(service.url), OPENAI)


def watch(service: Service, receiver: Receiver) -> dict[str, Any]:
    reply = api_of(service).post("/webhook_endpoints", {"name": "w", "url": receiver.url, "event_types": TYPES})
    endpoint: dict[str, Any] = reply.json()
    return endpoint


def told(receiver: Receiver, secret: str) -> Counter[tuple[str, str]]:
    """Check every message as the SDK does, and count them by id and batch."""
    client = openai.OpenAI(api_key="k")
    events = [client.webhooks.unwrap(got.body, got.headers, secret=secret) for got in receiver.got]
    return Counter((event.id, event.data.id) for event in events)  # type: ignore[union-attr]


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("point", "most"),
    [
        ("output_file.placed", 1),
        ("batch.completed", 1),
        ("webhook.claimed", 1),
        ("webhook.sent", 2),
        ("webhook.recorded", 1),
    ],
)
def test_a_message_survives_a_kill_at_any_moment(
    tmp_path: Path, upstream: ScriptedUpstream, receiver: Receiver, point: str, most: int
):
    """Before the status is written, right after it, before and after it is sent, and after that was noted."""
    service = service_in(tmp_path, upstream)
    service.start([*LAUNCHER, "--at", point, "--"])
    endpoint = watch(service, receiver)
    with suppress(*GONE):
        api_of(service).create(api_of(service).upload(chats(2, OPENAI.endpoint)))
    service.exit_code(60)
    service.kill()
    service.start([*LAUNCHER, "--"])
    try:
        path = f"/webhook_endpoints/{endpoint['id']}/deliveries"
        (delivery,) = eventually(
            lambda: [each for each in api_of(service).get(path).json()["data"] if each["status"] == "delivered"], 60
        )
        (batch,) = api_of(service).get("/batches").json()["data"]
        counts = told(receiver, endpoint["signing_secret"])

        assert batch["status"] == "completed"
        assert set(counts) == {(delivery["id"], batch["id"])}
        assert counts.total() == most
    finally:
        service.kill()


@pytest.mark.timeout(240)
def test_two_processes_send_each_message_once(tmp_path: Path, upstream: ScriptedUpstream, receiver: Receiver):
    """Both look every second for what is due; a claim belongs to one of them."""
    first, second = (service_in(tmp_path, upstream, name) for name in ("first", "second"))
    try:
        for service in (first, second):
            service.start()
        endpoint = watch(first, receiver)
        batches = [api_of(each).create(api_of(each).upload(b"{}\n")) for each in (first, second) * 6]
        eventually(lambda: len(receiver.got) >= len(batches), 60)
        time.sleep(2)
        counts = told(receiver, endpoint["signing_secret"])

        assert {batch for _, batch in counts} == set(batches)
        assert set(counts.values()) == {1}
    finally:
        first.kill()
        second.kill()
