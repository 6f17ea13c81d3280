"""Webhooks: signing, when they are sent again, and the use cases of their receivers."""

import base64
import json
from collections.abc import Awaitable, Callable

import openai
import pytest

from overnight.domain.addresses import Policy, parse_policy
from overnight.domain.batch import Batch, BatchStatus, Expiry
from overnight.domain.errors import Conflict, InvalidRequest, NotFound, QuotaExceeded, Unavailable
from overnight.domain.flavour import Flavour
from overnight.domain.ids import BatchId, EndpointId, FileId, ResourceId
from overnight.domain.webhook import (
    ENDPOINTS_PER_RESOURCE,
    Attempt,
    Delivery,
    DeliveryStatus,
    Endpoint,
    EventType,
    event_of,
    headers,
    new_secret,
    next_attempt,
    settled,
)
from overnight.ports.webhooks import Sent
from overnight.services.webhooks import NewEndpoint, WebhookService
from overnight.testing.clock import ManualClock
from overnight.testing.entropy import CountedEntropy
from overnight.testing.webhooks import MemoryWebhooks, Posted, ScriptedReceivers, WebhookTables

MINE, OTHERS = ResourceId("mine"), ResourceId("others")
NOW = 1_700_000_000
URL = "https://example.com/hook"
GONE = EndpointId("we_0")
DAY = 86_400


def a_batch(status: BatchStatus = BatchStatus.COMPLETED) -> Batch:
    return Batch(
        id=BatchId("batch_1"),
        resource=MINE,
        flavour=Flavour.OPENAI,
        endpoint="/v1/chat/completions",
        input_file_id=FileId("file-1"),
        completion_window="24h",
        created_at=NOW,
        expires_at=NOW + DAY,
        expiry=Expiry.EXPIRE,
        status=status,
        completed_at=NOW + 1,
        failed_at=NOW + 2,
        expired_at=NOW + 3,
        cancelled_at=NOW + 4,
    )


def a_delivery() -> Delivery:
    event = event_of(a_batch())
    assert event is not None
    return Delivery.of(event, GONE)


# --- events and signatures ---


@pytest.mark.parametrize(
    ("status", "at"),
    [("completed", NOW + 1), ("failed", NOW + 2), ("expired", NOW + 3), ("cancelled", NOW + 4)],
)
def test_an_event_tells_how_and_when_a_batch_ended_and_nothing_else(status: str, at: int):
    event = event_of(a_batch(BatchStatus(status)))

    assert event is not None
    assert json.loads(event.body()) == {
        "id": event.id,
        "object": "event",
        "type": f"batch.{status}",
        "created_at": at,
        "data": {"id": "batch_1"},
    }
    assert event == event_of(a_batch(BatchStatus(status)))


def test_a_batch_that_goes_on_is_no_event():
    assert event_of(a_batch(BatchStatus.FINALIZING)) is None


def test_each_status_has_an_id_of_its_own():
    ids = {event.id for status in ("completed", "failed") if (event := event_of(a_batch(BatchStatus(status))))}

    assert len(ids) == 2


def test_the_sdk_accepts_a_signature_of_any_active_secret(monkeypatch: pytest.MonkeyPatch):
    """The published way to check one: HMAC-SHA256 over id, time and body, with the decoded secret."""
    monkeypatch.setattr("time.time", lambda: float(NOW))
    secrets = [new_secret(f"{number:048x}") for number in (1, 2)]
    event = event_of(a_batch())
    assert event is not None
    body = event.body()
    sent = headers(event, body, secrets, NOW + 0.9)
    client = openai.OpenAI(api_key="k")

    assert [client.webhooks.unwrap(body, sent, secret=secret).id for secret in secrets] == [event.id] * 2
    assert sent["webhook-timestamp"] == str(NOW)
    with pytest.raises(openai.InvalidWebhookSignatureError):
        client.webhooks.unwrap(body, sent, secret=new_secret(f"{3:048x}"))


def test_a_secret_is_24_bytes():
    secret = new_secret("ab" * 32)

    assert base64.b64decode(secret.removeprefix("whsec_")) == b"\xab" * 24


# --- when it is sent again ---


def test_the_pauses_grow_from_seconds_to_hours_and_end_after_72_hours():
    now, failures, pauses = float(NOW), 0, []
    while (due := next_attempt(NOW, failures := failures + 1, now, 0.5)) is not None:
        pauses.append(due - now)
        now = due

    assert pauses[:4] == [5, 15, 45, 135]
    assert max(pauses) == 4 * 3_600
    assert now == NOW + 72 * 3_600
    assert len(pauses) + 1 < 40


def test_pauses_are_spread_by_a_fifth():
    assert next_attempt(NOW, 1, NOW, 0.0) == NOW + 4
    assert next_attempt(NOW, 1, NOW, 1.0) == NOW + 6


def test_very_many_failures_are_no_trouble():
    assert next_attempt(NOW, 10_000, NOW, 0.5) == NOW + 4 * 3_600


@pytest.mark.parametrize(
    ("status_code", "ok"),
    [(200, True), (204, True), (299, True), (301, False), (199, False), (500, False), (None, False)],
)
def test_only_2xx_is_a_delivery(status_code: int | None, ok: bool):
    after = settled(a_delivery(), Attempt(at=NOW, seconds=1, status_code=status_code), NOW, 0.5)

    assert after.status is (DeliveryStatus.DELIVERED if ok else DeliveryStatus.PENDING)
    assert after.attempts == 1


def test_after_72_hours_it_is_given_up():
    after = settled(a_delivery(), Attempt(at=NOW, seconds=1, error="gone"), NOW + 4 * DAY, 0.5)

    assert after.status is DeliveryStatus.FAILED


# --- the use cases ---


class Desk:
    """The service on a store in memory, as one who calls it."""

    def __init__(self, policy: Policy | None = None) -> None:
        self.clock = ManualClock()
        self.receivers = ScriptedReceivers(self.clock.now)
        self.tables = WebhookTables()
        self.store = MemoryWebhooks(self.tables)
        self.service = WebhookService(self.store, self.receivers, policy or Policy(), self.clock, CountedEntropy())

    async def create(self, resource: ResourceId = MINE, **changes: object) -> Endpoint:
        new = {"name": "n", "url": URL, "event_types": ["batch.failed"], **changes}
        return await self.service.create(resource, NewEndpoint(**new))  # type: ignore[arg-type]

    def answer(self, sent: Sent) -> Callable[[Posted], Awaitable[Sent]]:
        async def answer(_: Posted) -> Sent:
            self.clock.jump(0.25)
            return sent

        return answer


@pytest.fixture
def desk() -> Desk:
    return Desk()


async def test_an_endpoint_is_as_it_was_asked_for(desk: Desk):
    created = await desk.create(event_types=["batch.failed", "batch.failed", "batch.expired"])

    assert created == await desk.service.get(MINE, created.id)
    assert (created.name, created.url) == ("n", URL)
    assert created.event_types == (EventType.FAILED, EventType.EXPIRED)
    assert created.hint == f"whsec_…{created.secret[-4:]}"


@pytest.mark.parametrize(
    ("change", "param", "code"),
    [
        ({"name": None}, "name", "invalid_value"),
        ({"name": " "}, "name", "invalid_value"),
        ({"name": "n" * 257}, "name", "string_above_max_length"),
        ({"url": None}, "url", "invalid_value"),
        ({"url": "ftp://example.com"}, "url", "invalid_value"),
        ({"url": "http://127.1/"}, "url", "webhook_address_refused"),
        ({"url": "http://localhost/"}, "url", "webhook_address_refused"),
        ({"event_types": None}, "event_types", "invalid_value"),
        ({"event_types": []}, "event_types", "invalid_value"),
        ({"event_types": ["batch.failed", "response.completed"]}, "event_types", "invalid_value"),
    ],
)
async def test_what_cannot_be_is_refused(desk: Desk, change: dict[str, object], param: str, code: str):
    with pytest.raises(InvalidRequest) as refused:
        await desk.create(**change)  # type: ignore[arg-type]

    assert (refused.value.param, refused.value.code) == (param, code)


async def test_what_the_operator_allows_can_be_created():
    created = await Desk(parse_policy(["127.0.0.0/8"])).create(url="http://127.0.0.1:9/")

    assert created.url == "http://127.0.0.1:9/"


async def test_a_resource_has_a_bounded_number(desk: Desk):
    for _ in range(ENDPOINTS_PER_RESOURCE):
        await desk.create()
    await desk.create(OTHERS)

    with pytest.raises(QuotaExceeded):
        await desk.create()


async def test_a_foreign_endpoint_is_unknown(desk: Desk):
    created = await desk.create(OTHERS)

    for call in (
        desk.service.get(MINE, created.id),
        desk.service.update(MINE, created.id, NewEndpoint()),
        desk.service.rotate(MINE, created.id, keep_old=False),
        desk.service.delete(MINE, created.id),
        desk.service.test(MINE, created.id, "batch.failed"),
        desk.service.deliveries(MINE, created.id, after=None, limit=5),
    ):
        with pytest.raises(NotFound, match=f"No webhook endpoint found with id '{created.id}'"):
            await call


async def test_an_unknown_cursor_is_refused(desk: Desk):
    created = await desk.create()

    with pytest.raises(InvalidRequest, match="webhook endpoint"):
        await desk.service.page(MINE, after=GONE, limit=5)
    with pytest.raises(InvalidRequest, match="delivery"):
        await desk.service.deliveries(MINE, created.id, after="evt_0", limit=5)


async def test_a_change_changes_what_is_given(desk: Desk):
    created = await desk.create()
    await desk.clock.advance(10)
    change = NewEndpoint(name="m", url="https://example.org", event_types=["batch.completed"])
    changed = await desk.service.update(MINE, created.id, change)

    assert changed.updated_at == created.updated_at + 10
    assert (changed.name, changed.url, changed.event_types) == ("m", "https://example.org", (EventType.COMPLETED,))
    assert changed.secret == created.secret


async def test_a_change_that_changes_nothing_leaves_the_moment(desk: Desk):
    created = await desk.create()
    await desk.clock.advance(10)

    assert created == await desk.service.update(MINE, created.id, NewEndpoint(name="n"))


async def test_of_two_changes_at_once_one_is_told(desk: Desk, monkeypatch: pytest.MonkeyPatch):
    created = await desk.create()

    async def stale(*_: object) -> Endpoint:
        return created

    await desk.service.rotate(MINE, created.id, keep_old=False)
    monkeypatch.setattr(desk.store, "get", stale)
    with pytest.raises(Conflict):
        await desk.service.rotate(MINE, created.id, keep_old=False)


async def test_the_old_secret_signs_for_a_day_if_it_is_kept(desk: Desk):
    created = await desk.create()
    kept = await desk.service.rotate(MINE, created.id, keep_old=True)
    now = desk.clock.now()

    assert kept.secrets(now) == (kept.secret, created.secret)
    assert kept.secrets(now + DAY - 1) == (kept.secret, created.secret)
    assert kept.secrets(now + DAY) == (kept.secret,)

    dropped = await desk.service.rotate(MINE, created.id, keep_old=False)
    assert dropped.secrets(now) == (dropped.secret,)


async def test_neither_secret_is_in_what_may_be_logged(desk: Desk):
    created = await desk.create(url="https://example.com/secret-path")
    rotated = await desk.service.rotate(MINE, created.id, keep_old=True)

    for secret in (created.secret, rotated.secret, "secret-path"):
        assert secret not in repr(rotated)


async def test_a_test_gives_the_status_of_the_answer(desk: Desk):
    created = await desk.create()
    desk.receivers.answer = desk.answer(Sent(status_code=500))
    status = await desk.service.test(MINE, created.id, "batch.expired")
    (posted,) = desk.receivers.posted

    assert status == 500
    assert (posted.url, json.loads(posted.body)["type"]) == (URL, "batch.expired")


async def test_a_test_without_an_answer_says_why(desk: Desk):
    created = await desk.create()
    desk.receivers.answer = desk.answer(Sent(error="connection refused"))
    with pytest.raises(InvalidRequest, match="connection refused") as failed:
        await desk.service.test(MINE, created.id, "batch.expired")

    assert failed.value.code == "webhook_unreachable"


async def test_a_test_of_another_event_is_refused(desk: Desk):
    created = await desk.create()
    with pytest.raises(InvalidRequest) as refused:
        await desk.service.test(MINE, created.id, "response.completed")

    assert refused.value.param == "event_type"


async def test_an_endpoint_has_one_test_at_once(desk: Desk):
    """Nobody makes the service send more than it can bear."""
    created = await desk.create()

    async def again(_: Posted) -> Sent:
        with pytest.raises(Unavailable):
            await desk.service.test(MINE, created.id, "batch.failed")
        return Sent(status_code=200)

    desk.receivers.answer = again

    assert await desk.service.test(MINE, created.id, "batch.failed") == 200
    assert await desk.service.test(MINE, created.id, "batch.failed") == 200


async def test_deliveries_and_lists_come_from_the_store(desk: Desk):
    created = await desk.create(event_types=["batch.completed"])
    desk.tables.announce(a_batch())
    told = await desk.service.deliveries(MINE, created.id, after=None, limit=5)
    listed = await desk.service.page(MINE, after=None, limit=5)

    assert [each.delivery.batch_id for each in told.items] == ["batch_1"]
    assert [created] == list(listed.items)


async def test_a_deleted_endpoint_is_gone(desk: Desk):
    created = await desk.create()
    await desk.service.delete(MINE, created.id)

    with pytest.raises(NotFound):
        await desk.service.get(MINE, created.id)


def test_a_delivery_knows_its_event():
    assert a_delivery().event == event_of(a_batch())
