"""Quotas, caps, filters, webhooks, keys and retries together: whatever ends a batch, all books agree afterwards."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from msgspec.structs import replace
from tests.engine.accounts import CAP_CODE, EACH, Quota, check_books, hold, requests, set_cap
from tests.engine.filters import GUARD, MODERATION, add_filter, chat, guard, moderation
from tests.engine.house import House, number_of

from overnight.domain.batch import Batch, BatchStatus
from overnight.domain.cap import Measure, Period
from overnight.domain.content_filter import Judged, OnTrouble
from overnight.domain.errors import Conflict, TokenLimitExceeded
from overnight.domain.flavour import Flavour
from overnight.domain.ids import DEFAULT_RESOURCE, EndpointId
from overnight.domain.limits import DEFAULTS
from overnight.domain.quota import OverQuota
from overnight.domain.webhook import Endpoint, EventType, new_secret
from overnight.services.batches import BatchService, NewBatch
from overnight.services.gate import Gate
from overnight.services.requests import RequestService
from overnight.services.retry import NewRetry, RetryService, Which
from overnight.testing.in_process import Reply, always, answer, unreachable

S = BatchStatus
ME = DEFAULT_RESOURCE
HOOK = EndpointId("hook")
NOT_RUN = NewRetry(which=Which.NOT_RUN)


class Town:
    """A house with a quota, and somebody who is told of each end."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.quota = Quota(house)

    async def open(self) -> None:
        """Add the receiver of webhooks."""
        now = int(self.house.clock.now())
        receiver = Endpoint(
            id=HOOK,
            resource=ME,
            name="w",
            url="https://w.example/",
            event_types=tuple(EventType),
            secret=new_secret("0" * 48),
            created_at=now,
            updated_at=now,
        )
        await self.house.stores.webhooks.add(receiver, most=1)

    def refuse_early(self) -> None:
        """Ask the quota when a batch is created, as the service does."""
        house, quota = self.house, self.quota
        gate = Gate(quota.service, house.stores.files, quota.inputs, house.deployments, house.clock)
        house.batches = BatchService(house.stores.batches, house.clock, house.entropy, dict(DEFAULTS), house, gate)

    @property
    def retries(self) -> RetryService:
        """The service as a process has it that has just started."""
        stores = self.house.stores
        looking = RequestService(stores.batches, stores.files, stores.blobs, stores.logs, self.house.clock)
        return RetryService(looking, self.house.batches, self.house.files)

    async def files(self) -> int:
        """Count the files that the resource has."""
        return int(await self.house.stores.files.count(ME, expiring=True, now=self.house.clock.now()))

    async def told(self) -> Counter[tuple[str, str]]:
        """Count what the receiver is told, by batch."""
        page = await self.house.stores.webhooks.deliveries(HOOK, after=None, limit=100)
        return Counter((logged.delivery.type, logged.delivery.batch_id) for logged in page.items)

    async def check(self, *batches: Batch) -> list[Batch]:
        """Check what must hold of all books once these batches, which are all that there are, have ended."""
        house = self.house
        ended = [await house.look(batch) for batch in batches]
        for batch in ended:
            if batch.accepted:
                await house.check(batch)
            else:
                assert (batch.total, batch.output_file_id, batch.error_file_id) == (0, None, None)
            assert await house.stores.blobs.size(f"batches/{batch.id}/index") is None
        await check_books(house, *ended)

        assert await self.quota.enqueued() == 0
        assert await self.told() == Counter((f"batch.{batch.status}", batch.id) for batch in ended)
        assert await house.stores.logs.batch_ids() == []
        return ended


@pytest.fixture
async def town(house: House) -> Town:
    """On memory, and on SQLite and a disk."""
    town = Town(house)
    await town.open()
    return town


def asked(house: House) -> Counter[int]:
    """Say how often the model got each request."""
    return Counter(number_of(sent.body) for sent in house.upstream.sent)


async def wait_behind(town: Town, running: int, waiting: int) -> tuple[Batch, Batch]:
    """Let a batch run and another wait for the room that it holds."""
    first = await town.house.submit(requests(running))
    town.house.start()
    await town.house.reach(first, S.IN_PROGRESS)
    second = await town.house.submit(requests(waiting))
    await town.house.clock.run_until(lambda: _waits(town.house, second))
    return first, second


async def _waits(house: House, batch: Batch) -> bool:
    found = await house.look(batch)
    return found.status is S.VALIDATING and found.prompt_tokens is not None


class TestCapsAndQuotas:
    """What is used up, and what is enqueued."""

    async def test_a_cap_ends_what_waits_for_room_too(self, house: House, town: Town) -> None:
        """The room that the stopped batch leaves is not taken: nothing more may be started."""
        town.quota.set(20, OverQuota.QUEUE)
        house.upstream.script = always(answer(), delay=5)
        running, waiting = await wait_behind(town, 16, 8)
        await set_cap(house, 1)
        stopped = await house.reach(running)
        failed = await house.reach(waiting)
        sent = len(house.upstream.sent)
        await set_cap(house, 1_000_000)
        last = await house.submit(requests(20))
        await house.reach(last)

        ended = await town.check(running, waiting, last)

        assert [batch.status for batch in ended] == [S.CANCELLED, S.FAILED, S.COMPLETED]
        assert [problem.code for batch in (stopped, failed) for problem in batch.errors] == [CAP_CODE] * 2
        assert stopped.completed == sent < 16

    async def test_a_batch_that_is_let_in_as_the_cap_is_reached_starts_nothing(self, house: House, town: Town) -> None:
        """It gives its room back."""
        town.quota.set(20, OverQuota.QUEUE)
        batch = await house.submit(requests(8))
        # Only a first cap may go unnoticed for a second.
        await set_cap(house, 1_000_000)
        original = house.stores.batches.admit

        async def cap_first(*args: Any, **more: Any) -> Any:
            await set_cap(house, 0)
            return await original(*args, **more)

        house.stores.batches.admit = cap_first
        house.start()
        await house.reach(batch)

        (ended,) = await town.check(batch)

        assert (ended.status, ended.reserved_tokens, ended.completed) == (S.CANCELLED, 8 * EACH, 0)
        assert house.upstream.sent == []

    @pytest.mark.parametrize("end", ["cancel", "window"])
    async def test_what_was_done_is_booked_and_what_was_not_is_given_back(
        self, house: House, town: Town, end: str
    ) -> None:
        """After a cancel and after the end of the window."""
        town.quota.set(20)
        house.upstream.script = always(answer(), delay=5)
        batch = await house.submit(requests(20))
        house.start()
        await house.sent(8)
        if end == "cancel":
            await house.cancel(batch)
        else:
            house.clock.jump(batch.expires_at - house.clock.now() - 1)
        await house.reach(batch)

        (ended,) = await town.check(batch)

        assert ended.status is (S.CANCELLED if end == "cancel" else S.EXPIRED)
        assert 0 < ended.completed < 20
        assert ended.usage.total_tokens == 3 * ended.completed


class TestWaiting:
    """A batch that waits for room, and never gets it."""

    @pytest.mark.parametrize(
        ("end", "status"), [("cancel", S.CANCELLED), ("window", S.EXPIRED), ("delete", S.FAILED), ("kill", S.COMPLETED)]
    )
    async def test_it_ends_without_a_trace(self, house: House, town: Town, end: str, status: BatchStatus) -> None:
        """By a cancel, its window, or without its input; a crash merely has it wait again."""
        town.quota.set(5, OverQuota.QUEUE)
        held = hold(house)
        running, waiting = await wait_behind(town, 4, 3)
        if end == "cancel":
            await house.cancel(waiting)
        elif end == "window":
            house.clock.jump(86_400)
        elif end == "delete":
            await house.files.delete(ME, waiting.input_file_id)
        else:
            await house.kill()
            await house.reopen()
            town.quota.open()
            house.start()
        if end != "kill":
            await house.reach(waiting)
        held.set()
        await house.reach(running)
        await house.reach(waiting)
        sent = len(house.upstream.sent)

        _, ended = await town.check(running, waiting)

        assert ended.status is status
        assert sent == (11 if end == "kill" else 4)

    async def test_a_cancel_just_before_it_is_let_in_is_a_cancel(self, house: House, town: Town) -> None:
        """The write that lets it in names the status that it expects."""
        town.quota.set(5, OverQuota.QUEUE)
        batch = await house.submit(requests(3))
        original = house.stores.batches.admit

        async def cancel_first(*args: Any, **more: Any) -> Any:
            await house.cancel(batch)
            return await original(*args, **more)

        house.stores.batches.admit = cancel_first
        house.start()
        await house.reach(batch)

        (ended,) = await town.check(batch)

        assert ended.status is S.CANCELLED
        assert house.upstream.sent == []

    async def test_a_crash_as_it_is_let_in_lets_it_in_once(self, house: House, town: Town) -> None:
        """The room that is written is the room that it holds after the restart."""
        town.quota.set(5, OverQuota.QUEUE)
        held = hold(house)
        running, waiting = await wait_behind(town, 4, 3)
        original = house.stores.batches.admit
        crashed = asyncio.Event()

        async def crash(*args: Any, **more: Any) -> Any:
            admission = await original(*args, **more)
            if (await house.look(waiting)).status is S.IN_PROGRESS:
                crashed.set()
                await asyncio.Event().wait()
            return admission

        house.stores.batches.admit = crash
        held.set()
        await house.clock.run_until(crashed.is_set)
        await house.kill()
        await house.reopen()
        town.quota.open()
        holding = await town.quota.enqueued()
        house.start()
        await house.reach(waiting)

        ended = await town.check(running, waiting)

        assert holding == 3
        assert [batch.status for batch in ended] == [S.COMPLETED] * 2
        assert len(house.upstream.sent) == 7


class TestFilters:
    """Deployments with a content filter."""

    async def test_each_request_gives_its_room_back_once(self, house: House, town: Town) -> None:
        """A filtered prompt at once; the tokens of a filtered answer count, those of the guard do not."""
        add_filter(house, GUARD, guard)
        town.quota.set(8)
        held = asyncio.Event()

        def model(sent: Any) -> Reply:
            number = number_of(sent.body)
            return Reply(outcome=answer(text="bad" if number == 1 else "ok"), held=held if number > 1 else None)

        house.upstream.script = model
        # Each has 8 tokens: the text is one.
        batch = await house.submit([chat(number, "bad" if number == 0 else "word") for number in range(4)])
        house.start()
        await house.clock.advance(10)
        seen, enqueued = await house.look(batch), await town.quota.enqueued()
        held.set()
        await house.reach(batch)

        (ended,) = await town.check(batch)

        assert (seen.completed, seen.failed, enqueued) == (1, 1, 2)
        assert (ended.completed, ended.failed, ended.reserved_tokens) == (3, 1, 4 * EACH)
        assert ended.usage.total_tokens == 3 * 3

    @pytest.mark.parametrize("judged", [{Judged.PROMPT}, {Judged.ANSWER}, {Judged.PROMPT, Judged.ANSWER}])
    async def test_a_cap_stops_a_batch_whose_filter_is_slower_than_its_model(
        self, house: House, town: Town, judged: set[Judged]
    ) -> None:
        """What is not judged yet is not started yet: nothing may be waiting for the model when the cap is looked at."""
        rules = replace(MODERATION, judges=frozenset(judged))
        add_filter(house, rules, lambda sent: replace(moderation(sent), delay=5.37))
        house.upstream.script = always(answer(), delay=1)
        town.quota.set(60)
        batch = await house.submit([chat(number, "word") for number in range(60)])
        await set_cap(house, 9)
        house.start()
        await house.reach(batch)

        (ended,) = await town.check(batch)

        assert ended.status is S.CANCELLED
        assert 3 <= ended.completed < 60
        assert [problem.code for problem in ended.errors] == [CAP_CODE]

    async def test_an_answer_that_nobody_could_judge_counts_as_used(self, house: House, town: Town) -> None:
        """The model made it: a filter that is down must not be a way around a cap."""
        rules = replace(MODERATION, judges=frozenset({Judged.ANSWER}), on_trouble=OnTrouble.FAIL)
        add_filter(house, rules, always(unreachable()))
        town.quota.set(8)
        batch = await house.submit([chat(number, "word") for number in range(8)], Flavour.AZURE)
        await set_cap(house, 24)
        house.start()
        await house.reach(batch, within=7_200)
        after = await house.submit([chat(9, "word")])
        await house.reach(after)

        ended, refused = await town.check(batch, after)

        assert (ended.status, ended.completed, ended.failed) == (S.COMPLETED, 0, 8)
        assert ended.usage.total_tokens == 8 * 3
        assert [problem.code for problem in refused.errors] == [CAP_CODE]

    async def test_a_cap_books_the_answers_that_nobody_judged_in_time(self, house: House, town: Town) -> None:
        """They wait for a filter that is down until the grace of the stop is over; a retry does not ask them again."""
        judge = add_filter(house, replace(MODERATION, judges=frozenset({Judged.ANSWER})))
        judge.script = lambda sent: moderation(sent) if len(judge.sent) <= 4 else Reply(outcome=unreachable())
        house.upstream.script = always(answer(), delay=1)
        town.quota.set(60)
        batch = await house.submit([chat(number, "word") for number in range(60)])
        await set_cap(house, 9)
        house.start()
        stopped = await house.reach(batch)
        await set_cap(house, 1_000_000)
        judge.script = moderation
        again = await house.adopt(await town.retries.retry(ME, batch.id, NOT_RUN))
        await house.reach(again)

        await town.check(batch, again)

        assert stopped.status is S.CANCELLED
        assert stopped.failed > 0
        assert stopped.usage.total_tokens == 3 * (stopped.completed + stopped.failed)
        assert asked(house) == Counter(range(60))


class TestRetries:
    """Running again what a cap kept from running."""

    async def test_a_retry_runs_exactly_what_a_cap_kept_from_running(self, house: House, town: Town) -> None:
        """Once the cap is higher: before, it fails and holds nothing."""
        town.quota.set(20, OverQuota.QUEUE)
        house.upstream.script = always(answer(), delay=5)
        first = await house.submit(requests(20))
        await set_cap(house, 12)
        house.start()
        stopped = await house.reach(first)
        too_soon = await house.adopt(await town.retries.retry(ME, first.id, NOT_RUN))
        await house.reach(too_soon)
        await set_cap(house, 1_000_000)
        again = await house.adopt(await town.retries.retry(ME, first.id, NOT_RUN))
        await house.reach(again)

        ended = await town.check(first, too_soon, again)

        assert [batch.status for batch in ended] == [S.CANCELLED, S.FAILED, S.COMPLETED]
        assert ended[1].errors[0].code == CAP_CODE
        assert ended[2].completed == 20 - stopped.completed
        assert ended[2].reserved_tokens == EACH * (20 - stopped.completed)
        assert asked(house) == Counter(range(20))

    async def test_a_retry_of_what_was_never_let_in_says_what_to_do(self, house: House, town: Town) -> None:
        """There is no request in it, but its input can make a new batch."""
        town.quota.set(2)
        batch = await house.submit(requests(3))
        house.start()
        await house.reach(batch)
        files = await town.files()

        with pytest.raises(Conflict, match=f"new batch from its input file '{batch.input_file_id}'"):
            await town.retries.retry(ME, batch.id, NOT_RUN)

        assert await town.files() == files
        await town.check(batch)


class TestKeys:
    """A request that is sent again under its ``Idempotency-Key``."""

    async def test_a_create_that_a_quota_refused_may_use_its_key_again(self, house: House, town: Town) -> None:
        """Refused, it used nothing up; let in, it is told of its batch though that one took the room."""
        town.quota.set(5, OverQuota.FAIL_FAST)
        town.refuse_early()
        held = hold(house)
        first = await house.submit(requests(4))
        house.start()
        await house.reach(first, S.IN_PROGRESS)
        file = await house.upload(b"\n".join(requests(5)))
        new = NewBatch(
            input_file_id=file.id, endpoint=first.endpoint, completion_window="24h", idempotency_key="k", metadata={}
        )
        with pytest.raises(TokenLimitExceeded):
            await house.batches.create(ME, Flavour.OPENAI, new)
        held.set()
        await house.reach(first)
        held.clear()
        let_in = await house.adopt(await house.batches.create(ME, Flavour.OPENAI, new))
        await house.reach(let_in, S.IN_PROGRESS)
        again = await house.batches.create(ME, Flavour.OPENAI, new)
        with pytest.raises(Conflict) as conflict:
            await house.batches.create(ME, Flavour.OPENAI, replace(new, metadata={"other": "body"}))
        held.set()
        await house.reach(let_in)

        ended = await town.check(first, let_in)

        assert again.id == let_in.id
        assert conflict.value.code == "idempotency_key_reused"
        assert [batch.status for batch in ended] == [S.COMPLETED] * 2

    async def test_a_retry_that_a_quota_refused_may_use_its_key_again(self, house: House, town: Town) -> None:
        """It leaves no file, and let in, it makes one batch however often it is sent."""
        town.quota.set(20, OverQuota.FAIL_FAST)
        town.refuse_early()
        house.upstream.script = always(answer(), delay=5)
        stopped = await house.submit(requests(20))
        house.start()
        await house.sent(8)
        await house.cancel(stopped)
        await house.reach(stopped)
        held = hold(house)
        other = await house.submit(requests(15))
        await house.reach(other, S.IN_PROGRESS)
        files = await town.files()
        keyed = replace(NOT_RUN, idempotency_key="k")
        with pytest.raises(TokenLimitExceeded):
            await town.retries.retry(ME, stopped.id, keyed)
        after_refusal = await town.files()
        held.set()
        await house.reach(other)
        held.clear()
        let_in = await house.adopt(await town.retries.retry(ME, stopped.id, keyed))
        again = await town.retries.retry(ME, stopped.id, keyed)
        with pytest.raises(Conflict) as conflict:
            await town.retries.retry(ME, stopped.id, replace(keyed, which=Which.ALL_UNFINISHED))
        held.set()
        await house.reach(let_in)

        ended = await town.check(stopped, other, let_in)

        assert after_refusal == files
        assert again.id == let_in.id
        assert conflict.value.code == "idempotency_key_reused"
        assert ended[2].completed == 20 - ended[0].completed

    async def test_a_retry_sent_again_needs_nothing_of_the_batch_any_more(self, house: House, town: Town) -> None:
        """Its answer was lost, and the input was deleted meanwhile."""
        town.quota.set(20)
        house.upstream.script = always(answer(400))
        batch = await house.submit(requests(3))
        house.start()
        await house.reach(batch)
        house.upstream.script = always(answer())
        first = await house.adopt(await town.retries.retry(ME, batch.id, NewRetry(idempotency_key="k")))
        await house.reach(first)
        await house.files.delete(ME, batch.input_file_id)
        await house.clock.advance(120)

        again = await town.retries.retry(ME, batch.id, NewRetry(idempotency_key="k"))

        assert (again.id, again.status) == (first.id, S.COMPLETED)
        await town.check(batch, first)


async def test_a_cap_on_money_counts_what_a_retry_used_too(house: House, town: Town) -> None:
    """Caps are of the resource, not of the batch: two batches with the same requests are paid for twice."""
    town.quota.set(20)
    batches = []
    house.start()
    for _ in range(2):
        batches.append(await house.submit(requests(10)))
        await house.reach(batches[-1])
    # Each answer has one token in, at 1, and two out, at 4 millionths.
    await set_cap(house, 2 * 10 * 9, Period.MONTH, Measure.SPEND)
    await house.clock.advance(1)
    refused = await house.submit(requests(1))
    await house.reach(refused)

    ended = await town.check(*batches, refused)

    assert [batch.status for batch in ended] == [S.COMPLETED, S.COMPLETED, S.FAILED]
