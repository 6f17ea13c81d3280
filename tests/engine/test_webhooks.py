"""Delivering webhooks, on a clock that the test moves."""

import asyncio
from collections import Counter
from contextlib import asynccontextmanager
from itertools import pairwise

import openai
import pytest

from overnight.dispatch import webhooks
from overnight.dispatch.webhooks import AT_ONCE, AT_ONCE_EACH, LEASE, WebhookDispatcher
from overnight.domain.batch import Batch, BatchStatus, Expiry
from overnight.domain.errors import Unavailable
from overnight.domain.flavour import Flavour
from overnight.domain.ids import BatchId, EndpointId, FileId, ResourceId
from overnight.domain.webhook import Attempt, Delivery, DeliveryStatus, Endpoint, EventType, Logged, new_secret
from overnight.ports.webhooks import Sent
from overnight.testing.clock import START, ManualClock
from overnight.testing.entropy import CountedEntropy
from overnight.testing.webhooks import MemoryWebhooks, Posted, ScriptedReceivers, WebhookTables

MINE = ResourceId("mine")
HOUR = 3_600
SECRETS = [new_secret(f"{number:048x}") for number in (1, 2)]


class Post:
    """Receivers, and whoever delivers to them."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.tables = WebhookTables()
        self.store = MemoryWebhooks(self.tables)
        self.receivers = ScriptedReceivers(self.clock.now)
        self._ended = 0

    async def add(self, name: str) -> Endpoint:
        """Add a receiver; its URL has its name."""
        endpoint = Endpoint(
            id=EndpointId(name),
            resource=MINE,
            name=name,
            url=f"https://{name}.example/",
            event_types=tuple(EventType),
            secret=SECRETS[0],
            created_at=int(START),
            updated_at=int(START),
        )
        await self.store.add(endpoint, most=1_000)
        return endpoint

    def end(self, count: int = 1) -> None:
        """Let some batches end now."""
        for _ in range(count):
            self._ended += 1
            now = int(self.clock.now())
            batch = Batch(
                id=BatchId(f"batch_{self._ended}"),
                resource=MINE,
                flavour=Flavour.OPENAI,
                endpoint="/v1/chat/completions",
                input_file_id=FileId("file-1"),
                completion_window="24h",
                created_at=now,
                expires_at=now,
                expiry=Expiry.EXPIRE,
                status=BatchStatus.EXPIRED,
                expired_at=now,
            )
            self.tables.announce(batch)

    @asynccontextmanager
    async def delivering(self, workers: int = 1):
        """Have some dispatchers at work; stop them in order."""
        dispatchers = [
            WebhookDispatcher(self.store, self.receivers, self.clock, CountedEntropy()) for _ in range(workers)
        ]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each.run()) for each in dispatchers]
            yield
            for each in dispatchers:
                each.stop()
            await self.clock.run_until(lambda: all(task.done() for task in tasks))

    async def logged(self, name: str) -> list[Logged]:
        """Give the log of a receiver."""
        page = await self.store.deliveries(EndpointId(name), after=None, limit=1_000)
        assert page is not None
        return list(page.items)


@pytest.fixture
def post() -> Post:
    return Post()


@pytest.fixture
def seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look for what is due every five minutes only: days pass in fewer steps."""
    monkeypatch.setattr(webhooks, "_LOOK_EVERY", 300.0)


def always(post: Post, sent: Sent, seconds: float = 0.0):
    """Answer the same after some time."""

    async def answer(_: Posted) -> Sent:
        await post.clock.sleep(seconds)
        return sent

    return answer


async def test_a_receiver_that_never_takes_it_is_tried_for_72_hours(
    post: Post, seldom: None, monkeypatch: pytest.MonkeyPatch
):
    """One id and one body, each time with a new time and signature that the SDK accepts; then it is given up."""
    await post.add("dead")
    post.receivers.answer = always(post, Sent(status_code=503))
    async with post.delivering():
        post.end()
        await post.clock.advance(100 * HOUR)
    moments = [posted.at - START for posted in post.receivers.posted]
    pauses = [later - earlier for earlier, later in pairwise(moments)]
    (logged,) = await post.logged("dead")
    client = openai.OpenAI(api_key="k")

    assert len({posted.headers["webhook-id"] for posted in post.receivers.posted}) == 1
    assert len({posted.body for posted in post.receivers.posted}) == 1
    assert 15 < len(moments) < 40
    assert 72 * HOUR <= moments[-1] <= 72 * HOUR + 300
    assert pauses[:-1] == sorted(pauses[:-1])
    for posted in post.receivers.posted:
        monkeypatch.setattr("time.time", lambda at=posted.at: at)
        client.webhooks.verify_signature(posted.body, posted.headers, secret=SECRETS[0])
    assert logged.delivery.status is DeliveryStatus.FAILED
    assert [attempt.status_code for attempt in logged.attempts] == [503] * len(moments)


async def test_a_receiver_that_comes_back_gets_it(post: Post, seldom: None):
    await post.add("shaky")
    post.receivers.answer = always(post, Sent(error="connection refused"))
    async with post.delivering():
        post.end()
        await post.clock.advance(HOUR)
        post.receivers.answer = always(post, Sent(status_code=202))
        await post.clock.advance(4 * HOUR)
        tried = len(post.receivers.posted)
        await post.clock.advance(80 * HOUR)
    (logged,) = await post.logged("shaky")

    assert logged.delivery.status is DeliveryStatus.DELIVERED
    assert logged.attempts[-1].status_code == 202
    assert {attempt.error for attempt in logged.attempts[:-1]} == {"connection refused"}
    assert len(post.receivers.posted) == tried


async def test_a_kept_secret_signs_for_a_day_and_then_no_more(
    post: Post, seldom: None, monkeypatch: pytest.MonkeyPatch
):
    """A rotation between two attempts counts for the second."""
    endpoint = await post.add("mine")
    rotated = endpoint.rotated(SECRETS[1], post.clock.now(), keep_old=True)
    assert await post.store.save(rotated, expected=endpoint)
    async with post.delivering():
        for _ in range(2):
            post.end()
            await post.clock.advance(25 * HOUR)
    first, second = post.receivers.posted

    assert len(first.headers["webhook-signature"].split()) == 2
    assert len(second.headers["webhook-signature"].split()) == 1
    for posted, secrets in ((first, SECRETS), (second, SECRETS[1:])):
        monkeypatch.setattr("time.time", lambda at=posted.at: at)
        for secret in secrets:
            openai.OpenAI(api_key="k").webhooks.verify_signature(posted.body, posted.headers, secret=secret)


async def test_slow_receivers_do_not_hold_up_the_others(post: Post):
    """Twenty that take ten seconds, with a hundred deliveries each, and one that is quick."""
    names = [f"slow-{number}" for number in range(20)]
    for name in (*names, "quick"):
        await post.add(name)
    under_way: Counter[str] = Counter()
    most: Counter[str] = Counter()

    async def answer(posted: Posted) -> Sent:
        under_way[posted.url] += 1
        most[posted.url] = max(most[posted.url], under_way[posted.url])
        most["all"] = max(most["all"], under_way.total())
        await post.clock.sleep(0.0 if "quick" in posted.url else 10.0)
        under_way[posted.url] -= 1
        return Sent(error="no answer within 10 seconds") if "slow" in posted.url else Sent(status_code=200)

    post.receivers.answer = answer
    async with post.delivering():
        post.end(100)
        await post.clock.advance(5)
        done = [logged.delivery.status for logged in await post.logged("quick")]

    assert done == [DeliveryStatus.DELIVERED] * 100
    assert all(most[f"https://{name}.example/"] == AT_ONCE_EACH for name in names)
    assert most["all"] <= AT_ONCE


async def test_two_processes_send_each_delivery_once(post: Post):
    await post.add("mine")
    post.receivers.answer = always(post, Sent(status_code=200), seconds=3.0)
    async with post.delivering(workers=2):
        post.end(10)
        await post.clock.advance(60)
    times = Counter(posted.headers["webhook-id"] for posted in post.receivers.posted)

    assert set(times.values()) == {1}
    assert len(times) == 10


async def test_what_cannot_be_noted_is_sent_again_with_the_same_id(post: Post, monkeypatch: pytest.MonkeyPatch):
    """As after a crash between the answer and the note of it: at least once."""
    await post.add("mine")
    record = post.store.record
    failures = iter([Unavailable("the disk is full")])

    async def failing(new: Delivery, attempt: Attempt) -> bool:
        for failure in failures:
            raise failure
        return await record(new, attempt)

    monkeypatch.setattr(post.store, "record", failing)
    async with post.delivering():
        post.end()
        await post.clock.advance(LEASE - 2)
        before = len(post.receivers.posted)
        await post.clock.advance(4)
    first, second = post.receivers.posted

    assert before == 1
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert [logged.delivery.status for logged in await post.logged("mine")] == [DeliveryStatus.DELIVERED]


async def test_a_claim_that_was_lost_is_left_to_the_other(post: Post):
    """A process that slept past its claim writes nothing."""
    await post.add("mine")
    post.receivers.answer = always(post, Sent(status_code=500), seconds=LEASE + 5)
    async with post.delivering():
        post.end()
        await post.clock.advance(1)
        post.receivers.answer = always(post, Sent(status_code=200))
        await post.clock.advance(2 * LEASE)
    (logged,) = await post.logged("mine")

    assert [attempt.status_code for attempt in logged.attempts] == [200]


async def test_the_store_may_be_away_for_a_while(post: Post, monkeypatch: pytest.MonkeyPatch):
    await post.add("mine")
    claim = post.store.claim

    async def away(**_: object):
        raise Unavailable("locked")

    async with post.delivering():
        monkeypatch.setattr(post.store, "claim", away)
        post.end()
        await post.clock.advance(30)
        monkeypatch.setattr(post.store, "claim", claim)
        await post.clock.advance(10)

    assert len(post.receivers.posted) == 1


async def test_no_more_than_the_bound_are_under_way(post: Post):
    for number in range(AT_ONCE):
        await post.add(f"r{number}")
    under_way = most = 0

    async def answer(_: Posted) -> Sent:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await post.clock.sleep(2.5)
        under_way -= 1
        return Sent(status_code=200)

    post.receivers.answer = answer
    async with post.delivering():
        post.end(4)
        await post.clock.advance(30)

    assert most == AT_ONCE
    assert len(post.receivers.posted) == 4 * AT_ONCE


async def test_a_stop_waits_for_what_is_under_way(post: Post):
    await post.add("mine")
    post.receivers.answer = always(post, Sent(status_code=200), seconds=9.0)
    async with post.delivering():
        post.end()
        await post.clock.advance(1)

    assert [logged.delivery.status for logged in await post.logged("mine")] == [DeliveryStatus.DELIVERED]


async def test_after_a_week_the_log_is_forgotten(post: Post, seldom: None):
    await post.add("mine")
    async with post.delivering():
        post.end(300)
        await post.clock.advance(6 * 24 * HOUR)
        kept = len(await post.logged("mine"))
        await post.clock.advance(2 * 24 * HOUR)

    assert kept == 300
    assert await post.logged("mine") == []
