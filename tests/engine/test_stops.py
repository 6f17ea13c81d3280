"""Cancel, shutdown, restart and lost leases: one batch, one end, whatever happens on the way."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import pytest
from tests.engine.house import SHUTDOWN_GRACE, STOP_GRACE, House, Memory, number_of

from overnight.domain.batch import Batch, BatchStatus
from overnight.domain.errors import Conflict, Unavailable
from overnight.domain.flavour import Flavour
from overnight.domain.ids import DEFAULT_RESOURCE, BatchId, WorkerId
from overnight.testing.in_process import InProcessUpstream, Reply, ScriptedDeployments, always, answer, deployment

S = BatchStatus


class TestCancel:
    """A cancel keeps what is done and ends what is not."""

    async def test_a_batch_cancelled_while_validating_was_never_accepted(self, house: House) -> None:
        """CONTRACT 5.2: no counts, no files."""
        batch = await house.submit(3)
        await house.cancel(batch)
        house.start()

        done = await house.reach(batch)

        assert done.status is S.CANCELLED
        assert (done.total, done.in_progress_at, done.output_file_id, done.error_file_id) == (0, None, None, None)
        assert done.cancelling_at is not None
        assert house.upstream.sent == []

    async def test_a_batch_that_waits_for_its_deployment_can_be_cancelled(self, house: House) -> None:
        """Nobody should have to wait for a dead upstream to get rid of a batch."""
        house.deployments.now = ScriptedDeployments([], complete=False).now
        batch = await house.submit(3)
        house.start()
        await house.clock.advance(10)

        await house.cancel(batch)

        assert (await house.reach(batch, within=5)).status is S.CANCELLED

    async def test_a_running_batch_keeps_what_is_done_and_what_is_in_flight(self, house: House) -> None:
        """CONTRACT 5.2."""
        house.upstream.script = always(answer(), delay=10)
        batch = await house.submit(20)
        house.start()
        await house.sent(8)

        cancelling = await house.cancel(batch)

        assert cancelling.status is S.CANCELLING
        done = await house.reach(batch)
        assert done.status is S.CANCELLED
        output, errors = await house.check(done)
        assert (len(output), done.failed) == (8, 0)
        assert {entry["error"]["code"] for entry in errors} == {"batch_cancelled"}
        assert len(house.upstream.sent) == 8

    async def test_a_request_that_is_held_is_given_up_after_the_grace(self, house: House) -> None:
        """A hanging upstream cannot hold a cancel."""
        house.upstream.script = lambda sent: Reply(
            outcome=answer(), held=asyncio.Event() if number_of(sent.body) == 2 else None
        )
        batch = await house.submit(6)
        house.start()
        await house.sent(6)
        await house.cancel(batch)
        begun = house.clock.now()

        done = await house.reach(batch)

        assert STOP_GRACE <= house.clock.now() - begun <= STOP_GRACE + 10
        output, [entry] = await house.check(done)
        assert len(output) == 5
        assert (entry["custom_id"], entry["error"]["code"]) == ("r2", "batch_cancelled")

    async def test_a_held_slot_is_free_again_after_the_grace(self, house: House) -> None:
        """The next batch gets it."""
        house.upstream.script = lambda sent: Reply(
            outcome=answer(), held=asyncio.Event() if sent.attempt == 1 and number_of(sent.body) < 4 else None
        )
        first = await house.submit(4)
        house.start()
        await house.sent(4)
        await house.cancel(first)
        await house.reach(first)
        second = await house.submit(6)

        assert (await house.reach(second, within=20)).status is S.COMPLETED

    async def test_a_cancel_is_idempotent_and_a_late_one_is_a_conflict(self, house: House) -> None:
        """CONTRACT 3.5."""
        batch = await house.submit(2)
        await house.cancel(batch)

        assert (await house.cancel(batch)).status is S.CANCELLING

        house.start()
        await house.reach(batch)
        assert (await house.cancel(batch)).status is S.CANCELLED
        other = await house.submit(1)
        await house.reach(other)
        with pytest.raises(Conflict, match="completed"):
            await house.cancel(other)

    async def test_a_request_that_waits_for_a_retry_ends_as_not_executed(self, house: House) -> None:
        """It has no result yet, so it is neither lost nor failed."""
        house.upstream.script = always(answer(429, retry_after=300))
        batch = await house.submit(3)
        house.start()
        await house.sent(3)
        await house.clock.advance(1)

        await house.cancel(batch)
        done = await house.reach(batch, within=5)

        assert (done.status, done.failed) == (S.CANCELLED, 0)
        _, errors = await house.check(done)
        assert {entry["error"]["code"] for entry in errors} == {"batch_cancelled"}

    async def test_a_cancel_while_the_files_are_written_keeps_every_result(self, house: House) -> None:
        """CONTRACT 5.2: accepted first, so it ends as cancelled."""
        batch = await house.submit(3)
        original = house.stores.logs.segments
        cancelled: list[Batch] = []

        @asynccontextmanager
        async def cancel_first(batch_id, *, epoch):
            if not cancelled:
                cancelled.append(await house.cancel(batch))
            async with original(batch_id, epoch=epoch) as segments:
                yield segments

        house.stores.logs.segments = cancel_first
        house.start()

        done = await house.reach(batch)

        assert done.status is S.CANCELLED
        assert done.finalizing_at is not None
        output, errors = await house.check(done)
        assert (len(output), errors) == (3, [])

    async def test_a_cancelled_azure_batch_shows_both_files(self, house: House) -> None:
        """CONTRACT 4.3."""
        house.upstream.script = always(answer(), delay=10)
        batch = await house.submit(9, Flavour.AZURE)
        house.start()
        await house.sent(4)
        await house.cancel(batch)

        done = await house.reach(batch)

        assert done.output_file_id is not None
        assert done.error_file_id is not None
        await house.check(done)


class TestShutdown:
    """An orderly stop gives back what it owns, with everything recorded."""

    async def test_requests_in_flight_finish_and_are_recorded(self, house: House) -> None:
        """They are not asked again after the restart."""
        house.upstream.script = always(answer(), delay=SHUTDOWN_GRACE / 2)
        batch = await house.submit(10)
        house.start()
        await house.sent(4)

        await house.stop()

        left = await house.look(batch)
        assert (left.status, left.completed) == (S.IN_PROGRESS, 4)
        assert len(house.upstream.sent) == 4
        await house.reopen()
        house.start()
        output, _ = await house.check(await house.reach(batch))
        assert len(output) == 10
        assert len(house.upstream.sent) == 10

    async def test_a_held_request_does_not_hold_the_stop(self, house: House) -> None:
        """It runs again later: exactly one result all the same."""
        house.upstream.script = lambda sent: Reply(
            outcome=answer(), held=asyncio.Event() if sent.attempt == 1 else None
        )
        batch = await house.submit(2)
        house.start()
        await house.sent(2)

        await house.stop(within=SHUTDOWN_GRACE + 5)

        await house.reopen()
        house.start()
        await house.check(await house.reach(batch))
        assert len(house.upstream.sent) == 4

    async def test_a_stop_during_the_grace_of_a_cancel_is_not_slower_than_a_stop(self, house: House) -> None:
        """Whoever stops the service waits for the shutdown grace, not for the longer one of a cancel."""
        house.upstream.script = lambda sent: Reply(outcome=answer(), held=asyncio.Event())
        batch = await house.submit(2)
        house.start()
        await house.sent(2)
        await house.cancel(batch)
        await house.clock.advance(1)

        await house.stop(within=SHUTDOWN_GRACE + 5)

        assert (await house.look(batch)).status is S.CANCELLING

    async def test_a_stop_does_not_wait_for_a_disk_that_does_not_take_results(self, quick: House) -> None:
        """The requests run again; a service that cannot be stopped is worse."""
        batch = await quick.submit(2)
        assert isinstance(quick.kind, Memory)
        quick.kind.logs.hold()
        quick.start()
        await quick.sent(2)

        try:
            await quick.stop(within=300)
        finally:
            quick.kind.logs.go_on()

        assert (await quick.look(batch)).completed == 0

    async def test_a_stop_while_waiting_for_a_deployment_is_prompt(self, house: House) -> None:
        """There is nothing to wait for."""
        house.deployments.now = ScriptedDeployments([], complete=False).now
        batch = await house.submit(3)
        house.start()
        await house.clock.advance(10)

        await house.stop(within=1)

        assert (await house.look(batch)).status is S.VALIDATING

    async def test_a_batch_given_back_can_be_taken_at_once(self, house: House) -> None:
        """Nobody waits for the lease of a worker that stopped in order."""
        house.upstream.script = always(answer(), delay=5)
        batch = await house.submit(10)
        house.start()
        await house.sent(4)
        await house.stop()

        claimed = await house.stores.batches.claim(
            WorkerId("other"), now=house.clock.now(), until=house.clock.now() + 10, limit=5
        )

        assert [one.id for one in claimed] == [batch.id]

    async def test_an_idle_engine_stops_at_once(self, house: House) -> None:
        """Without waiting for any of its loops."""
        house.start()
        await house.clock.advance(5)

        await house.stop(within=0.5)

        assert not house.working


@pytest.mark.parametrize("kill", [True, False], ids=["killed", "stopped"])
class TestRestart:
    """A restart goes on with every batch that had not ended, whatever it was doing."""

    async def _restart(self, house: House, *, kill: bool) -> None:
        await (house.kill() if kill else house.stop())
        await house.reopen()
        house.start()

    async def test_while_validating(self, house: House, kill: bool) -> None:
        """The pass over the file is made again."""
        house.deployments.now = ScriptedDeployments([], complete=False).now
        batch = await house.submit(3)
        house.start()
        await house.clock.advance(3)
        house.deployments.now = ScriptedDeployments([deployment("m", house.upstream)]).now

        await self._restart(house, kill=kill)

        await house.check(await house.reach(batch))

    async def test_while_in_progress(self, house: House, kill: bool) -> None:
        """Recorded requests are not asked again."""
        house.upstream.script = always(answer(), delay=4)
        batch = await house.submit(30)
        house.start()
        await house.clock.run_until(lambda: len(house.upstream.sent) >= 12)

        await self._restart(house, kill=kill)

        done = await house.reach(batch)
        await house.check(done)
        assert len(house.upstream.sent) <= 34

    async def test_several_times_over(self, house: House, kill: bool) -> None:
        """Each epoch adds to what the ones before it recorded."""
        house.upstream.script = always(answer(), delay=4)
        batch = await house.submit(30)
        house.start()
        for restart in range(1, 6):
            await house.sent(5 * restart)
            await self._restart(house, kill=kill)

        done = await house.reach(batch)

        assert done.status is S.COMPLETED
        assert done.epoch >= 5
        await house.check(done)

    async def test_while_finalizing(self, house: House, kill: bool) -> None:
        """The files are written again, and only these are published."""
        batch = await house.submit(5)
        original, calls = house.stores.logs.segments, count()

        @asynccontextmanager
        async def stuck(batch_id, *, epoch):
            if next(calls) == 0:
                raise OSError
            async with original(batch_id, epoch=epoch) as segments:
                yield segments

        house.stores.logs.segments = stuck
        house.start()
        await house.reach(batch, S.FINALIZING)
        await house.clock.run_until(lambda: bool(house.troubles.known()))

        await self._restart(house, kill=kill)

        done = await house.reach(batch)
        assert done.status is S.COMPLETED
        assert house.troubles.known() == []
        await house.check(done)

    async def test_while_cancelling(self, house: House, kill: bool) -> None:
        """What was recorded before the restart is kept."""
        house.upstream.script = lambda sent: Reply(
            outcome=answer(), held=asyncio.Event() if number_of(sent.body) >= 4 else None
        )
        batch = await house.submit(9)
        house.start()
        await house.sent(8)
        await house.cancel(batch)
        await house.clock.advance(1)

        await self._restart(house, kill=kill)

        done = await house.reach(batch)
        assert (done.status, done.completed) == (S.CANCELLED, 4)
        await house.check(done)

    async def test_after_the_end_nothing_changes(self, house: House, kill: bool) -> None:
        """A terminal batch is left alone."""
        batch = await house.submit(3)
        house.start()
        done = await house.reach(batch)

        await self._restart(house, kill=kill)
        await house.clock.advance(100)

        assert await house.look(batch) == done


class TestLeases:
    """Two workers, one batch."""

    async def test_a_worker_that_lost_its_lease_writes_nothing_more(self, house: House) -> None:
        """The new owner's results are the ones that count."""
        house.upstream.script = always(answer(text="old"), delay=6)
        batch = await house.submit(12)
        house.start()
        await house.sent(8)
        now = house.clock.now()
        [claimed] = await house.stores.batches.claim(WorkerId("thief"), now=now + 1_000, until=now + 5, limit=5)

        assert claimed.epoch == (await house.look(batch)).epoch
        house.upstream.script = always(answer(text="new"), delay=1)
        done = await house.reach(batch)

        assert done.epoch > claimed.epoch
        await house.check(done)
        await house.clock.advance(30)
        assert house.working

    async def test_a_second_worker_takes_over_from_one_that_hangs(self, house: House) -> None:
        """When its lease runs out; the first one's requests are given up."""
        house.upstream.script = always(answer(), delay=5)
        batch = await house.submit(20)
        house.start()
        await house.sent(8)
        await house.kill()
        house.start()

        done = await house.reach(batch, within=60)

        assert done.status is S.COMPLETED
        await house.check(done)

    async def test_two_workers_on_one_store_run_each_batch_once(self, quick: House) -> None:
        """Several dispatchers over one database."""
        quick.upstream.script = always(answer(), delay=2)
        other_upstream = InProcessUpstream(quick.clock, always(answer(), delay=2))
        batches = [await quick.submit(6) for _ in range(6)]
        quick.start()
        quick.upstreams = [other_upstream]
        other = quick.make_dispatcher("other")
        task = asyncio.get_running_loop().create_task(other.run())

        for batch in batches:
            await quick.check(await quick.reach(batch))

        assert len(quick.upstream.sent) + len(other_upstream.sent) == 36
        other.stop()
        await quick.clock.run_until(task.done)

    async def test_an_owner_that_cannot_renew_its_lease_waits_without_work(
        self, quick: House, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It sends nothing and does not spin, and goes on once it holds the batch again."""
        quick.upstream.script = always(answer(), delay=1)
        batch = await quick.submit(60)
        quick.start()
        await quick.sent(8)
        renew = quick.stores.batches.renew

        async def locked(*_: object, **__: object) -> None:
            raise Unavailable("locked")

        monkeypatch.setattr(quick.stores.batches, "renew", locked)
        await quick.clock.advance(13)
        sent, waits = len(quick.upstream.sent), quick.clock.waits
        await quick.clock.settle()

        assert quick.clock.waits - waits <= 2
        await quick.clock.advance(5)
        assert len(quick.upstream.sent) == sent < 60
        monkeypatch.setattr(quick.stores.batches, "renew", renew)
        await quick.check(await quick.reach(batch))

    async def test_a_machine_that_slept_longer_than_its_leases_goes_on(self, house: House) -> None:
        """A closed laptop: the process takes its own batches up again."""
        house.upstream.script = always(answer(), delay=5)
        batch = await house.submit(20)
        house.start()
        await house.sent(8)
        house.clock.jump(100)

        done = await house.reach(batch, within=120)

        assert done.status is S.COMPLETED
        await house.check(done)
        await house.clock.advance(60)
        assert house.working
        await house.stop(within=60)

    async def test_a_batch_claimed_again_while_its_release_is_under_way_stays_owned(self, quick: House) -> None:
        """A claim may see the release before the releasing task goes on."""
        quick.upstream.script = always(answer(), delay=5)
        release = quick.stores.batches.release

        async def slow(batch, worker, *, until=0.0):
            await release(batch, worker, until=until)
            quick.batch_created()
            await quick.clock.sleep(0.5)

        quick.stores.batches.release = slow
        original, calls = quick.stores.batches.record_progress, count()

        async def fail_once(batch, tally, *, now):
            if next(calls) == 0:
                raise OSError
            return await original(batch, tally, now=now)

        quick.stores.batches.record_progress = fail_once
        batch = await quick.submit(20)
        quick.start()

        done = await quick.reach(batch, within=200)

        await quick.check(done)
        assert quick.working
        await quick.stop(within=60)


class TestTrouble:
    """Stores that fail now and then delay a batch; they neither lose nor end it."""

    @pytest.mark.parametrize("name", ["save", "record_progress", "renew", "release", "claim", "get"])
    async def test_a_database_that_fails_now_and_then(self, quick: House, name: str) -> None:
        """Every third call of one kind."""
        quick.upstream.script = always(answer(), delay=1)
        batch = await quick.submit(20)
        _fail_now_and_then(quick.stores.batches, name)
        quick.start()

        await quick.clock.run_until(lambda: _ended(quick, batch.id))

        done = await _stored(quick, batch.id)
        assert done.status is S.COMPLETED
        await quick.check(done)
        assert quick.working

    @pytest.mark.parametrize("name", ["local", "placing", "size", "delete"])
    async def test_a_blob_store_that_fails_now_and_then(self, quick: House, name: str) -> None:
        """Every fourth call of one kind: three blobs are placed at once where a batch ends."""
        batch = await quick.submit(5)
        _fail_now_and_then(quick.stores.blobs, name, every=4)
        quick.start()

        await quick.clock.run_until(lambda: _ended(quick, batch.id))
        await quick.clock.advance(20)

        assert (await quick.look(batch)).status is S.COMPLETED
        assert quick.working

    @pytest.mark.parametrize("name", ["open", "segments", "delete"])
    async def test_a_result_log_that_fails_now_and_then(self, quick: House, name: str) -> None:
        """Every third call of one kind."""
        batch = await quick.submit(5)
        _fail_now_and_then(quick.stores.logs, name)
        quick.start()

        await quick.clock.run_until(lambda: _ended(quick, batch.id))

        await quick.check(await quick.look(batch))
        assert quick.working

    async def test_an_input_that_was_damaged_on_disk_does_not_stop_the_others(self, house: House) -> None:
        """One batch in trouble must not end the engine."""
        house.upstream.script = always(answer(), delay=5)
        bad = await house.submit(12)
        house.start()
        accepted = await house.reach(bad, S.IN_PROGRESS)
        await house.kill()
        async with house.stores.blobs.writer(accepted.input_blob) as writer:
            await writer.write(b"x" * 10)
            await writer.commit()
        await house.reopen()
        house.start()
        good = await house.submit(3)

        done = await house.reach(good, within=300)

        assert done.status is S.COMPLETED
        assert house.working

    async def test_results_wait_for_a_disk_that_does_not_answer_and_are_not_counted(self, quick: House) -> None:
        """A result counts once it is durable."""
        assert isinstance(quick.kind, Memory)
        batch = await quick.submit(4)
        quick.kind.logs.hold()
        quick.start()
        await quick.sent(4)
        await quick.clock.advance(30)

        waiting = await quick.look(batch)

        assert (waiting.status, waiting.completed) == (S.IN_PROGRESS, 0)
        quick.kind.logs.go_on()
        await quick.check(await quick.reach(batch))

    async def test_a_crash_before_the_commit_runs_the_requests_again(self, quick: House) -> None:
        """Exactly one result each."""
        assert isinstance(quick.kind, Memory)
        batch = await quick.submit(4)
        quick.kind.logs.hold()
        quick.start()
        await quick.sent(4)
        await quick.clock.advance(1)
        await quick.kill()
        quick.kind.logs.go_on()
        await quick.reopen()
        quick.start()

        await quick.check(await quick.reach(batch))

        assert len(quick.upstream.sent) == 8

    async def test_nothing_is_left_behind_once_a_batch_has_ended(self, quick: House) -> None:
        """Index, log and the files of a crash go within some hours; the input, the results and their places stay."""
        quick.upstream.script = always(answer(), delay=5)
        batch = await quick.submit(6)
        quick.start()
        await quick.sent(6)
        await quick.kill()
        await quick.reopen()
        assert isinstance(quick.kind, Memory)
        quick.kind.blobs.put(f"batches/{batch.id}/1.output.jsonl", b"left by a crash")
        quick.start()
        done = await quick.reach(batch)

        await quick.clock.advance(7_300)

        assert quick.kind.logs.logs == {}
        output = await quick.stores.files.get(DEFAULT_RESOURCE, done.output_file_id, now=quick.clock.now())
        places = output.blob.replace(".output.jsonl", ".places")
        assert set(quick.kind.blobs.held) == {done.input_blob, output.blob, places}
        await quick.check(await quick.look(batch))

    async def test_a_sweep_takes_nothing_from_a_batch_that_runs_for_hours(self, quick: House) -> None:
        """Its index and its log are needed to the end."""
        quick.upstream.script = always(answer(), delay=3_000)
        batch = await quick.submit(12)
        quick.start()
        await quick.clock.advance(3_700)
        await quick.files.delete(DEFAULT_RESOURCE, batch.input_file_id)

        done = await quick.reach(batch, within=20_000)

        assert done.status is S.COMPLETED
        await quick.check(done)


def _fail_now_and_then(store: object, name: str, *, every: int = 3) -> None:
    original: Callable[..., Any] = getattr(store, name)
    calls = count(1)

    def fail_in_turn() -> None:
        if next(calls) % every == 0:
            raise OSError(name)

    async def failing(*args: Any, **kwargs: Any) -> Any:
        fail_in_turn()
        return await original(*args, **kwargs)

    @asynccontextmanager
    async def failing_context(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        fail_in_turn()
        async with original(*args, **kwargs) as lent:
            yield lent

    setattr(store, name, failing if inspect.iscoroutinefunction(original) else failing_context)


async def _ended(house: House, batch_id: BatchId) -> bool:
    return (await _stored(house, batch_id)).ended


async def _stored(house: House, batch_id: BatchId) -> Batch:
    house.complain()
    assert isinstance(house.kind, Memory)
    found = house.kind.tables.batches[batch_id]
    assert found.resource == DEFAULT_RESOURCE
    return found
