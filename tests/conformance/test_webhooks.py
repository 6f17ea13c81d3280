"""Webhooks of a real service to a real receiver, seen through the official SDK."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from tests.support.api import AZURE_V1, OPENAI, Api, chats
from tests.support.http import Http
from tests.support.receiver import Got, Receiver, status
from tests.support.service import Service, eventually

from overnight.testing.upstream import ScriptedUpstream

ALL = ["batch.completed", "batch.failed", "batch.expired", "batch.cancelled"]


@pytest.fixture(scope="module")
def service(upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that may send to this machine."""
    folder = tmp_path_factory.mktemp("webhooks")
    with Service(folder, upstreams=[upstream.url], arguments=allowing(folder)) as service:
        yield service


def allowing(folder: Path) -> list[str]:
    """Write settings that let webhooks reach loopback, and give the arguments that name them."""
    keys = folder / "keys.txt"
    keys.write_text("".join(f"key-{number} resource-{number}\n" for number in range(100)))
    config = folder / "overnight.toml"
    config.write_text('[webhooks]\nallow = ["127.0.0.0/8"]\n')
    return ["--config", str(config), "--keys-file", str(keys)]


@pytest.fixture(scope="module")
def keys() -> Iterator[str]:
    return (f"key-{number}" for number in range(100))


@pytest.fixture
def key(keys: Iterator[str]) -> str:
    """Opens a resource that nobody used yet."""
    return next(keys)


@pytest.fixture
def client(service: Service, key: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key=key, base_url=f"{service.url}/v1", max_retries=0) as client:
        yield client


@pytest.fixture
def api(service: Service, key: str) -> Api:
    return Api(Http(service.url, {"authorization": f"Bearer {key}"}), OPENAI)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


def create(client: openai.OpenAI, receiver: Receiver):
    return client.webhooks.create(name="mine", url=receiver.url, event_types=ALL)  # type: ignore[arg-type]


def unwrapped(client: openai.OpenAI, got: Got, secret: str):
    """Check a delivery as the SDK's users do."""
    return client.webhooks.unwrap(got.body, got.headers, secret=secret)


def test_the_sdk_accepts_the_delivery_of_each_event(client: openai.OpenAI, api: Api, receiver: Receiver):
    """Completed, failed and cancelled; expired takes a day and has its test elsewhere."""
    secret = create(client, receiver).signing_secret
    completed = api.run(chats(1, OPENAI.endpoint))
    failed = api.run(b"{}\n")
    eventually(lambda: len(receiver.got) >= 2)
    events = [unwrapped(client, got, secret) for got in receiver.got]

    assert {(event.type, event.data.id) for event in events} == {
        ("batch.completed", completed["id"]),
        ("batch.failed", failed["id"]),
    }
    for got, event in zip(receiver.got, events, strict=True):
        assert got.headers["webhook-id"] == event.id
        assert abs(int(got.headers["webhook-timestamp"]) - time.time()) < 60
        assert got.headers["user-agent"] == "OpenAI/1.0 (+https://platform.openai.com/docs/webhooks)"
        assert json.loads(got.body) == {
            "id": event.id,
            "object": "event",
            "type": event.type,
            "created_at": event.created_at,
            "data": {"id": event.data.id},
        }
    ended = {completed["id"]: completed["completed_at"], failed["id"]: failed["failed_at"]}
    assert {event.data.id: event.created_at for event in events} == ended


def test_the_sdk_manages_endpoints(client: openai.OpenAI, receiver: Receiver):
    """Each method of its management API, field by field."""
    created = create(client, receiver)
    got = client.webhooks.retrieve(created.id)

    assert created.object == got.object == "webhook_endpoint"
    assert re.fullmatch(r"whsec_[A-Za-z0-9+/]{32}", created.signing_secret)
    assert got.signing_secret_hint == created.signing_secret_hint
    assert created.signing_secret_hint.endswith(created.signing_secret[-4:])
    assert created.signing_secret not in got.model_dump_json()
    assert (got.name, got.url, got.event_types) == ("mine", receiver.url, ALL)
    assert got.created_at == got.updated_at

    same = client.webhooks.update(created.id, name="mine")
    assert same == got
    changed = client.webhooks.update(created.id, name="other", event_types=["batch.failed"])
    assert (changed.name, changed.event_types, changed.url) == ("other", ["batch.failed"], receiver.url)

    more = [create(client, receiver) for _ in range(3)]
    listed = list(client.webhooks.list(limit=2))
    assert [each.id for each in listed] == [each.id for each in reversed([created, *more])]
    assert client.webhooks.event_types.list().data == ALL

    deleted = client.webhooks.delete(created.id)
    assert (deleted.id, deleted.deleted, deleted.object) == (created.id, True, "webhook_endpoint.deleted")
    with pytest.raises(openai.NotFoundError):
        client.webhooks.retrieve(created.id)


def test_a_test_is_sent_at_once_and_says_what_the_receiver_answered(client: openai.OpenAI, receiver: Receiver):
    created = create(client, receiver)
    receiver.answer = status(418)
    tested = client.webhooks.test(created.id, event_type="batch.expired")
    event = unwrapped(client, receiver.got[0], created.signing_secret)

    assert (tested.object, tested.status_code, tested.success) == ("webhook_endpoint.test", 418, True)
    assert (tested.webhook_endpoint_id, tested.event_type) == (created.id, "batch.expired")
    assert event.type == "batch.expired"


@pytest.mark.parametrize("keep", [True, False])
def test_after_a_rotation_the_old_secret_signs_only_if_it_is_kept(
    client: openai.OpenAI, receiver: Receiver, keep: bool
):
    created = create(client, receiver)
    rotated = client.webhooks.rotate_secret(created.id, keep_old_secret_active_for_24_hours=keep)
    client.webhooks.test(created.id, event_type="batch.failed")
    (got,) = receiver.got

    assert rotated.signing_secret != created.signing_secret
    assert unwrapped(client, got, rotated.signing_secret).type == "batch.failed"
    assert len(got.headers["webhook-signature"].split()) == (2 if keep else 1)
    if keep:
        assert unwrapped(client, got, created.signing_secret).type == "batch.failed"
    else:
        with pytest.raises(openai.InvalidWebhookSignatureError):
            unwrapped(client, got, created.signing_secret)


def test_azure_has_its_own_path_and_names(service: Service, key: str, receiver: Receiver):
    """The same endpoints, under the dashboard of Azure's v1."""
    azure = Api(Http(service.url, {"api-key": key}), AZURE_V1)
    body = {"name": "mine", "url": receiver.url, "event_types": ALL}
    created = azure.post("/dashboard/webhook_endpoints", body)
    endpoint_id = created.json()["id"]
    path = f"/dashboard/webhook_endpoints/{endpoint_id}"
    tested = azure.post(f"{path}/test", {"event_type": "batch.failed"})

    assert (created.status, created.json()["object"]) == (200, "webhook.endpoint")
    assert azure.get(path).json()["object"] == "webhook.endpoint"
    assert tested.json()["object"] == "webhook.endpoint.test"
    assert azure.get("/dashboard/webhook_event_types").json() == {"object": "list", "data": ALL}
    assert Api(Http(service.url, {"api-key": key}), OPENAI).get(f"/webhook_endpoints/{endpoint_id}").status == 200
    assert azure.delete(path).json()["object"] == "webhook.endpoint.deleted"


def test_a_receiver_that_fails_at_first_gets_it_later_and_the_log_says_so(
    client: openai.OpenAI, api: Api, receiver: Receiver
):
    """Each attempt, with its status and how long it took."""
    created = create(client, receiver)
    receiver.answer = status(302, Location=receiver.url)
    batch = api.run(b"{}\n")
    eventually(lambda: receiver.got)
    receiver.answer = status(204)
    path = f"/webhook_endpoints/{created.id}/deliveries"
    (delivery,) = eventually(
        lambda: [each for each in api.get(path).json()["data"] if each["status"] == "delivered"], 30
    )
    first, second = (unwrapped(client, got, created.signing_secret) for got in receiver.got)

    assert first == second
    assert receiver.got[0].body == receiver.got[1].body
    assert receiver.got[0].headers["webhook-signature"] != receiver.got[1].headers["webhook-signature"]
    assert (delivery["id"], delivery["batch_id"]) == (first.id, batch["id"])
    assert [attempt["status_code"] for attempt in delivery["attempts"]] == [302, 204]
    assert all(0 <= attempt["seconds"] < 10 for attempt in delivery["attempts"])
    assert delivery["next_attempt_at"] is None


def test_secrets_are_shown_twice_in_a_life_and_never_logged(
    client: openai.OpenAI, service: Service, api: Api, receiver: Receiver
):
    created = create(client, receiver)
    rotated = client.webhooks.rotate_secret(created.id, keep_old_secret_active_for_24_hours=True)
    shown = [
        client.webhooks.retrieve(created.id).model_dump_json(),
        client.webhooks.update(created.id, name="other").model_dump_json(),
        api.get("/webhook_endpoints").body.decode(),
        api.get(f"/webhook_endpoints/{created.id}/deliveries").body.decode(),
        service.log(),
    ]

    for secret in (created.signing_secret, rotated.signing_secret):
        assert not any(secret.removeprefix("whsec_") in text for text in shown)


@pytest.mark.parametrize("url", ["http://10.0.0.1/", "http://[::1]/", "http://169.254.169.254/latest/meta-data"])
def test_an_address_inside_is_refused(client: openai.OpenAI, url: str):
    with pytest.raises(openai.BadRequestError) as refused:
        client.webhooks.create(name="mine", url=url, event_types=["batch.failed"])

    assert (refused.value.code, refused.value.param) == ("webhook_address_refused", "url")


def test_a_test_of_a_receiver_that_is_not_there_says_so(client: openai.OpenAI, receiver: Receiver):
    created = create(client, receiver)
    client.webhooks.update(created.id, url="http://127.0.0.1:1/")
    with pytest.raises(openai.BadRequestError) as refused:
        client.webhooks.test(created.id, event_type="batch.failed")

    assert refused.value.code == "webhook_unreachable"
    assert "connection refused" in refused.value.message


def test_the_command_line_manages_them(service: Service, key: str, receiver: Receiver):
    """Each command once, in the order in which somebody would."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "overnight.cli.main", "webhooks", *arguments]
        given = {"OVERNIGHT_URL": f"{service.url}/v1", "OVERNIGHT_API_KEY": key}
        return subprocess.run(
            command, env={**os.environ, **given}, capture_output=True, text=True, check=False, timeout=60
        )

    created = json.loads(run("create", receiver.url, "--event", "batch.failed", "--json").stdout)
    found = json.loads(run("get", "@last", "--json").stdout)
    rotated = json.loads(run("rotate", created["id"][:10], "--keep-old", "--json").stdout)
    tested = run("test", "@last")
    receiver.answer = status(500)
    refused = run("test", "@last")
    told = run("deliveries", "@last")
    listed = run("list", "-q")
    deleted = run("delete", created["id"], "--yes")

    assert (created["name"], created["event_types"]) == ("127.0.0.1", ["batch.failed"])
    assert found["id"] == created["id"]
    assert rotated["signing_secret"] not in {created["signing_secret"], None}
    assert (tested.returncode, refused.returncode) == (0, 1)
    assert "nothing yet" in told.stderr
    assert listed.stdout.split() == [created["id"]]
    assert deleted.returncode == 0
    assert "no webhook yet" in run("list").stderr
