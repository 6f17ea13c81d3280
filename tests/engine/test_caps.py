"""Caps: a resource that has used all that it may starts nothing more, and everything done is kept."""

import asyncio
from typing import Any

import pytest
from tests.engine.accounts import CAP_CODE, check_books, set_cap
from tests.engine.house import House, number_of

from overnight.domain.batch import Batch, BatchStatus
from overnight.domain.cap import Cap, Measure, Period
from overnight.domain.errors import Unavailable
from overnight.domain.ids import DEFAULT_RESOURCE, ResourceId
from overnight.testing.in_process import Reply, always, answer

S = BatchStatus


def _tokens_of(batch: Batch) -> int:
    return batch.usage.total_tokens


class TestInValidation:
    """A batch that is created when nothing is left fails."""

    async def test_a_batch_fails_once_the_cap_is_reached(self, house: House) -> None:
        """The message says which cap, and what to do."""
        await set_cap(house, 0)
        batch = await house.submit(3)
        house.start()

        done = await house.reach(batch)

        assert done.status is S.FAILED
        [problem] = done.errors
        assert problem.code == CAP_CODE
        assert "0 tokens a day" in problem.message
        assert "ask the operator" in problem.message
        assert house.upstream.sent == []

    async def test_a_higher_cap_lets_new_batches_run_at_once(self, house: House) -> None:
        """No second is waited for."""
        await set_cap(house, 0)
        house.start()
        await house.reach(await house.submit(1))
        await set_cap(house, 1_000_000)

        assert (await house.reach(await house.submit(1))).status is S.COMPLETED

    async def test_a_cap_that_was_taken_away_stops_nothing(self, house: House) -> None:
        """As if it had never been."""
        await set_cap(house, 0)
        house.start()
        await house.reach(await house.submit(1))
        await house.usage.remove_cap(DEFAULT_RESOURCE, Period.DAY, Measure.TOKENS)

        assert (await house.reach(await house.submit(1))).status is S.COMPLETED

    async def test_the_cap_of_another_resource_is_not_ours(self, house: House) -> None:
        """Nothing crosses resources."""
        await house.usage.set_cap(
            Cap(resource=ResourceId("other"), period=Period.DAY, measure=Measure.TOKENS, amount=0)
        )
        house.start()

        assert (await house.reach(await house.submit(1))).status is S.COMPLETED

    async def test_a_cap_a_day_begins_anew_the_next_day(self, house: House) -> None:
        """In UTC, which is less than two hours away here; and a cap a month does not."""
        house.start()
        used = _tokens_of(await house.reach(await house.submit(3)))
        await set_cap(house, used)
        await house.clock.advance(1)
        assert (await house.reach(await house.submit(1))).status is S.FAILED
        house.clock.jump(7_200)

        assert (await house.reach(await house.submit(1))).status is S.COMPLETED

        await set_cap(house, used, Period.MONTH)
        assert (await house.reach(await house.submit(1))).status is S.FAILED


class TestInMidRun:
    """What runs is stopped cleanly."""

    async def test_a_running_batch_keeps_what_is_done_and_starts_nothing_more(self, house: House) -> None:
        """In flight is recorded; what was not run says why."""
        house.upstream.script = always(answer(), delay=5)
        batch = await house.submit(60)
        await set_cap(house, 40)
        house.start()

        done = await house.reach(batch)

        sent = len(house.upstream.sent)
        assert done.status is S.CANCELLED
        assert done.cancelling_at is not None
        assert [problem.code for problem in done.errors] == [CAP_CODE]
        output, errors = await house.check(done)
        assert 0 < len(output) == sent < 60
        assert {entry["error"]["code"] for entry in errors} == {CAP_CODE}
        assert _tokens_of(done) >= 40
        await check_books(house, done)
        await house.clock.advance(600)
        assert len(house.upstream.sent) == sent

    async def test_it_is_shown_as_cancelling_while_requests_are_in_flight(self, house: House) -> None:
        """With the reason."""
        held = asyncio.Event()
        house.upstream.script = lambda sent: Reply(outcome=answer(), held=None if number_of(sent.body) < 5 else held)
        batch = await house.submit(60)
        await set_cap(house, 10)
        house.start()

        stopping = await house.reach(batch, S.CANCELLING)

        assert [problem.code for problem in stopping.errors] == [CAP_CODE]
        held.set()
        done = await house.reach(batch)
        await house.check(done)
        assert done.failed == 0

    async def test_money_is_capped_as_tokens_are(self, house: House) -> None:
        """By the price of the deployment."""
        house.upstream.script = always(answer(), delay=5)
        batch = await house.submit(60)
        await set_cap(house, 100, measure=Measure.SPEND)
        house.start()

        done = await house.reach(batch)

        assert done.status is S.CANCELLED
        assert "0.0001 EUR a day" in done.errors[0].message
        await house.check(done)

    async def test_both_batches_of_a_resource_stop(self, house: House) -> None:
        """The cap is of the resource."""
        house.upstream.script = always(answer(), delay=5)
        batches = [await house.submit(60), await house.submit(60)]
        await set_cap(house, 60)
        house.start()

        ended = [await house.reach(batch) for batch in batches]

        assert [batch.status for batch in ended] == [S.CANCELLED, S.CANCELLED]
        assert [problem.code for batch in ended for problem in batch.errors] == [CAP_CODE, CAP_CODE]
        for batch in ended:
            await house.check(batch)
        await check_books(house, *ended)

    async def test_a_batch_with_nothing_left_to_start_just_completes(self, house: House) -> None:
        """It would have used as much anyway."""
        batch = await house.submit(3)
        house.upstream.script = lambda sent: Reply(outcome=answer(), delay=5.0 * number_of(sent.body) + 5)
        await set_cap(house, 1)
        house.start()

        done = await house.reach(batch)

        assert done.status is S.COMPLETED
        await house.check(done)

    async def test_the_cancel_of_the_owner_wins_over_a_cap_that_comes_later(self, house: House) -> None:
        """Its requests say that it was cancelled."""
        house.upstream.script = always(answer(), delay=5)
        batch = await house.submit(60)
        house.start()
        await house.sent(8)
        await house.cancel(batch)
        await set_cap(house, 0)

        done = await house.reach(batch)

        assert (done.status, done.errors) == (S.CANCELLED, ())
        _, errors = await house.check(done)
        assert {entry["error"]["code"] for entry in errors} == {"batch_cancelled"}

    async def test_a_cancel_just_before_the_stop_is_stored_is_a_cancel(self, house: House) -> None:
        """The write names the status that it expects."""
        house.upstream.script = always(answer(), delay=5)
        batch = await house.submit(60)
        house.start()
        await house.sent(8)
        original = house.usage.why_stopped

        async def cancel_first(resource: ResourceId) -> Any:
            problem = await original(resource)
            if problem is not None:
                await house.batches.cancel(DEFAULT_RESOURCE, batch.id)
            return problem

        house.usage.why_stopped = cancel_first  # type: ignore[method-assign]
        await set_cap(house, 1)

        done = await house.reach(batch)

        assert (done.status, done.errors) == (S.CANCELLED, ())
        await house.check(done)

    async def test_a_cap_that_cannot_be_looked_up_now_is_looked_up_again(self, house: House) -> None:
        """The batch goes on meanwhile."""
        house.upstream.script = always(answer(), delay=5)
        batch = await house.submit(200)
        house.start()
        await house.sent(8)
        original = house.stores.caps.all
        failed: list[int] = []

        async def fail_some(*args: Any) -> Any:
            if len(failed) < 3:
                failed.append(1)
                message = "locked"
                raise Unavailable(message)
            return await original(*args)

        await set_cap(house, 1)
        house.stores.caps.all = fail_some

        done = await house.reach(batch)

        assert done.status is S.CANCELLED
        assert len(failed) == 3
        await house.check(done)


class TestCrashes:
    """Whatever dies in the middle of it."""

    @pytest.mark.parametrize("moment", ["before the stop is stored", "after it"])
    async def test_a_stop_goes_on_after_a_crash(self, house: House, moment: str) -> None:
        """Nothing more is started: by the status if that was stored, else by the books."""
        house.upstream.script = always(answer(), delay=5)
        batch = await house.submit(60)
        house.start()
        await house.sent(8)
        original = house.stores.batches.save
        crashed = asyncio.Event()

        async def crash(new: Batch, **more: Any) -> bool:
            if new.status is S.CANCELLING:
                if moment == "after it":
                    await original(new, **more)
                crashed.set()
                await asyncio.Event().wait()
            return bool(await original(new, **more))

        await set_cap(house, 20)
        house.stores.batches.save = crash
        await house.clock.run_until(crashed.is_set)
        await house.kill()
        sent = len(house.upstream.sent)
        await house.reopen()
        house.start()

        done = await house.reach(batch)

        assert done.status is S.CANCELLED
        assert [problem.code for problem in done.errors] == [CAP_CODE]
        assert len(house.upstream.sent) == sent < 60
        _, errors = await house.check(done)
        assert {entry["error"]["code"] for entry in errors} == {CAP_CODE}
        await check_books(house, done)

    async def test_what_a_crash_kept_from_being_noted_counts_before_anything_is_started(self, house: House) -> None:
        """The next owner finds it in the log."""
        house.upstream.script = always(answer(), delay=5)
        batch = await house.submit(60)

        async def never(*_: Any, **__: Any) -> bool:
            return True

        house.stores.batches.record_progress = never
        await set_cap(house, 20)
        house.start()
        await house.sent(16)
        await house.clock.advance(1)
        await house.kill()
        sent = len(house.upstream.sent)
        assert _tokens_of(await house.look(batch)) == 0
        await house.reopen()
        house.start()

        done = await house.reach(batch)

        assert (done.status, len(house.upstream.sent)) == (S.CANCELLED, sent)
        await house.check(done)
        await check_books(house, done)

    async def test_a_batch_that_was_done_completes_though_the_cap_is_reached(self, house: House) -> None:
        """Only its last note was lost."""
        batch = await house.submit(6)
        original = house.stores.batches.save
        crashed = asyncio.Event()

        async def crash(new: Batch, **more: Any) -> bool:
            if new.status is S.FINALIZING:
                crashed.set()
                await asyncio.Event().wait()
            return bool(await original(new, **more))

        house.stores.batches.save = crash
        house.start()
        await house.clock.run_until(crashed.is_set)
        await house.kill()
        await set_cap(house, 1)
        await house.reopen()
        house.start()

        done = await house.reach(batch)

        assert done.status is S.COMPLETED
        await house.check(done)
        await check_books(house, done)

    async def test_a_lease_that_was_lost_stops_nothing_of_the_new_owner(self, house: House) -> None:
        """The old one cannot write the stop."""
        house.upstream.script = always(answer(), delay=5)
        batch = await house.submit(60)
        house.start()
        await house.sent(8)
        original = house.usage.why_stopped

        async def lose_first(resource: ResourceId) -> Any:
            problem = await original(resource)
            if problem is not None:
                house.usage.why_stopped = original  # type: ignore[method-assign]
                await house.usage.remove_cap(DEFAULT_RESOURCE, Period.DAY, Measure.TOKENS)
                now = house.clock.now() + 60
                await house.stores.batches.claim("thief", now=now, until=now - 59, limit=9)
            return problem

        house.usage.why_stopped = lose_first  # type: ignore[method-assign]
        await set_cap(house, 1)

        done = await house.reach(batch)

        assert (done.status, done.errors) == (S.COMPLETED, ())
        await house.check(done)
        await check_books(house, done)
