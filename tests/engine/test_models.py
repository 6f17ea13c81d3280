"""Parts of the engine against models too simple to be wrong: the store of batches, and what a run hands out."""

import asyncio
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from tests.engine.house import URL

from overnight.adapters.sql.batches import SqlBatches
from overnight.adapters.sql.database import Database, sqlite_file
from overnight.dispatch.run import Run
from overnight.dispatch.work import Attempt
from overnight.domain.batch import TRANSITIONS, Batch, BatchStatus, Expiry, InvalidTransition, StopCause
from overnight.domain.deployment import Deployment
from overnight.domain.flavour import Flavour
from overnight.domain.ids import BatchId, FileId, ResourceId, WorkerId
from overnight.domain.index import Index, pack
from overnight.domain.result import Tally
from overnight.testing.results import MemoryResultLogs
from overnight.testing.stores import MemoryBatches, Tables

T = TypeVar("T")

MINE = ResourceId("mine")
WORKERS = [WorkerId("ann"), WorkerId("bob")]
NAMES = [BatchId(f"batch_{number}") for number in range(3)]
QUIET = settings(max_examples=25, stateful_step_count=40, suppress_health_check=list(HealthCheck))


def a_batch(name: BatchId) -> Batch:
    """Make a batch as it is created."""
    return Batch(
        id=name,
        resource=MINE,
        flavour=Flavour.OPENAI,
        endpoint=URL,
        input_file_id=FileId("file-1"),
        completion_window="24h",
        created_at=0,
        expires_at=1_000,
        expiry=Expiry.EXPIRE,
    )


class Owners(RuleBasedStateMachine):
    """Two workers and a caller write batches with whatever they last saw of them; the table of steps is the model."""

    template: Path

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        path = sqlite_file(Path(self.folder.name))
        shutil.copy(self.template, path)
        self.database = Database(path)
        self.stores = (MemoryBatches(Tables()), SqlBatches(self.database))
        self.now = 0.0
        # What somebody has seen at some time, and may still believe.
        self.seen: list[Batch] = []
        self.truth: dict[BatchId, Batch] = {}

    def both(self, call: str, *args: Any, **kwargs: Any) -> Any:
        """Ask both stores the same, and give what both said."""
        memory, disk = (self.runner.run(_call(store, call, args, kwargs)) for store in self.stores)
        assert memory == disk
        return memory

    @initialize()
    def create(self) -> None:
        for name in NAMES:
            self.truth[name] = a_batch(name)
            self.seen.append(self.truth[name])
            self.both("add", self.truth[name])

    @rule(worker=st.sampled_from(WORKERS), limit=st.integers(0, 3), lease=st.sampled_from([1.0, 5.0]))
    def claim(self, worker: WorkerId, limit: int, lease: float) -> None:
        waiting = self.both("waiting", worker, now=self.now)
        claimed = self.both("claim", worker, now=self.now, until=self.now + lease, limit=limit)

        assert len(claimed) == min(limit, sum(waiting.values()))
        for batch in claimed:
            before = self.truth[batch.id]
            assert batch.epoch == before.epoch + 1
            assert not before.ended
            self._learn(batch)

    @rule(data=st.data(), status=st.sampled_from(BatchStatus))
    def save(self, data: st.DataObject, status: BatchStatus) -> None:
        """Somebody takes a step from what he believes; it counts only if that is still so."""
        believed = data.draw(st.sampled_from(self.seen))
        with suppress(InvalidTransition):
            new = believed.to(status, self.now)
            assert status in TRANSITIONS[believed.status]
            truth = self.truth[believed.id]
            current = (believed.status, believed.epoch) == (truth.status, truth.epoch)

            assert self.both("save", new, expected=believed) is current
            if current:
                self._learn(self._stored(believed.id))
                assert self.truth[believed.id].status is status

    @rule(data=st.data(), completed=st.integers(0, 5))
    def record_progress(self, data: st.DataObject, completed: int) -> None:
        believed = data.draw(st.sampled_from(self.seen))
        current = believed.epoch == self.truth[believed.id].epoch

        assert self.both("record_progress", believed, Tally(completed=completed), now=self.now) is current
        if current:
            self._learn(self._stored(believed.id))
            assert self.truth[believed.id].completed == completed

    @rule(data=st.data(), worker=st.sampled_from(WORKERS))
    def renew(self, data: st.DataObject, worker: WorkerId) -> None:
        believed = data.draw(st.sampled_from(self.seen))
        stored = self.both("renew", believed, worker, until=self.now + 5)

        assert stored is None or stored == self.truth[believed.id]

    @rule(data=st.data(), worker=st.sampled_from(WORKERS), pause=st.sampled_from([0.0, 2.0]))
    def release(self, data: st.DataObject, worker: WorkerId, pause: float) -> None:
        self.both("release", data.draw(st.sampled_from(self.seen)), worker, until=self.now + pause if pause else 0.0)

    @rule(worker=st.sampled_from(WORKERS))
    def a_worker_died(self, worker: WorkerId) -> None:
        self.both("release_all", worker)

    @rule(seconds=st.sampled_from([0.5, 2.0, 10.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def the_truth_is_stored(self) -> None:
        for name, batch in self.truth.items():
            assert self._stored(name) == batch

    def _stored(self, name: BatchId) -> Batch:
        batch: Batch = self.both("get", MINE, name)
        return batch

    def _learn(self, batch: Batch) -> None:
        self.truth[batch.id] = batch
        self.seen.append(batch)

    def teardown(self) -> None:
        with self.folder, self.runner:
            self.runner.run(self.database.close())


async def _call(store: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return await getattr(store, name)(*args, **kwargs)


def test_batches_are_written_only_by_whoever_knows_them_as_they_are(template: Path) -> None:
    """Memory and SQLite say the same, and both what the table of steps says."""
    Owners.template = template
    run_state_machine_as_test(Owners, settings=QUIET)


class HandingOut(RuleBasedStateMachine):
    """A run hands its requests out; the model knows where each of them is."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.waiting: dict[int, tuple[float, int]] = {}
        self.in_flight: dict[int, int] = {}
        self.done: set[int] = set()
        self.stopped = False

    @initialize(total=st.integers(1, 12), recovered=st.sets(st.integers(0, 11)))
    def start(self, total: int, recovered: set[int]) -> None:
        self.done = {line for line in recovered if line < total}
        self.fresh = set(range(total)) - self.done
        index = Index(b"".join(pack(line, 1) for line in range(total)))
        deployment = Deployment(name="m", model="m", upstreams=())
        self.source = os.open(os.devnull, os.O_RDONLY)
        self.run_ = Run(a_batch(NAMES[0]), deployment, index, self.source)
        asyncio.run(self._open(total))

    async def _open(self, total: int) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            logs = MemoryResultLogs(Path(scratch))
            async with logs.open(NAMES[0], epoch=1, total=total, on_durable=lambda _: None) as log:
                for line in self.done:
                    log.recovered.done[line] = 1
                object.__setattr__(log, "recovered", _with_count(log.recovered, len(self.done)))
                self.run_.start(log)

    @rule()
    def take(self) -> None:
        due = {line for line, (when, _) in self.waiting.items() if when <= self.now}
        taken = self.run_.take(self.now, self.now)
        if taken is None:
            assert self.stopped or not (due or self.fresh)
            return
        line, attempt = taken.line, taken.number
        assert not self.stopped
        assert line in (due or self.fresh)
        assert attempt == (self.waiting.pop(line)[1] if line in due else 1)
        self.fresh.discard(line)
        self.in_flight[line] = attempt

    @rule(data=st.data(), after=st.floats(0.1, 20))
    @precondition(lambda self: self.in_flight)
    def put_back(self, data: st.DataObject, after: float) -> None:
        line = data.draw(st.sampled_from(sorted(self.in_flight)))
        attempt = self.in_flight.pop(line) + 1
        self.waiting[line] = (self.now + after, attempt)
        self.run_.put_back(Attempt(line, attempt), not_before=self.now + after)

    @rule(data=st.data())
    @precondition(lambda self: self.in_flight)
    def record(self, data: st.DataObject) -> None:
        line = data.draw(st.sampled_from(sorted(self.in_flight)))
        del self.in_flight[line]
        self.done.add(line)
        self.run_.on_durable(Tally(completed=1))

    @rule(seconds=st.floats(0.1, 30))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(cause=st.sampled_from([StopCause.CANCEL, StopCause.SHUTDOWN, StopCause.LEASE_LOST]))
    @precondition(lambda self: not self.stopped and len(self.done) > 2)
    def stop(self, cause: StopCause) -> None:
        self.run_.stop(cause)
        self.stopped = True

    @invariant()
    def it_knows_what_is_left(self) -> None:
        if not hasattr(self, "run_"):
            return
        left = len(self.fresh) + len(self.waiting) + len(self.in_flight)
        assert self.run_.remaining == left
        assert self.run_.halted.is_set() is (self.stopped or left == 0)
        earliest = 0.0 if self.fresh else min((when for when, _ in self.waiting.values()), default=None)
        assert self.run_.due_at(self.now) == (None if self.run_.halted.is_set() else earliest)

    def teardown(self) -> None:
        os.close(self.source)


def _with_count(recovered: Any, completed: int) -> Any:
    return type(recovered)(done=recovered.done, tally=Tally(completed=completed))


def test_a_run_hands_each_request_out_once_at_a_time_and_not_before_it_is_due() -> None:
    """Whatever is put back, recorded or stopped in between."""
    run_state_machine_as_test(HandingOut, settings=QUIET)
