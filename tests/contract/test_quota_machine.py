"""Whatever happens in whatever order, on every store: what is enqueued is what a model says, and within the limit."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Coroutine
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule
from msgspec.structs import replace
from tests.contract.test_batches import MINE, NOW, a_batch

from overnight.adapters.sql.batches import SqlBatches
from overnight.adapters.sql.database import Database, sqlite_file
from overnight.domain.batch import Batch, BatchStatus, Expiry
from overnight.domain.ids import BatchId, WorkerId
from overnight.domain.result import Tally
from overnight.ports.batches import Batches, Verdict
from overnight.testing.stores import MemoryBatches, Tables

T = TypeVar("T")
S = BatchStatus
LIMIT = 100


@dataclass
class Held:
    """What the model knows of a running batch."""

    reserved: int
    total: int
    done: int = 0

    @property
    def tokens(self) -> int:
        """The exact share, rounded up."""
        return ceil(Fraction(self.reserved * (self.total - self.done), self.total))


class Books(RuleBasedStateMachine):
    """Batches of one resource and deployment; each knows its owner's view of it, as a worker does."""

    waiting: Bundle[BatchId] = Bundle("waiting")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.views: dict[BatchId, Batch] = {}
        self.model: dict[BatchId, Held] = {}
        self.queued: list[BatchId] = []
        self.created = 0
        self.batches: Batches

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do some work on the store."""
        return self.runner.run(work)

    @initialize()
    def open(self) -> None:
        """Open the store."""
        self.batches = self.run(self.opened())

    async def opened(self) -> Batches:
        """Give the store, as a process that starts finds it."""
        raise NotImplementedError

    @rule(target=waiting)
    def create(self) -> BatchId:
        """Somebody creates a batch."""
        self.created += 1
        batch = replace(a_batch(f"batch_{self.created}"), expiry=Expiry.EXPIRE)
        self.run(self.batches.add(batch))
        self.views[batch.id] = batch
        return batch.id

    @rule(name=waiting, tokens=st.integers(0, 60), total=st.integers(1, 7), in_turn=st.booleans())
    def reserve(self, name: BatchId, tokens: int, total: int, in_turn: bool) -> None:
        """A worker is through with its validation."""
        seen = self.views[name]
        if seen.status is not S.VALIDATING:
            return
        new = seen.to(S.IN_PROGRESS, NOW, total=total, deployment="chat", reserved_tokens=tokens)
        admission = self.run(self.batches.admit(new, expected=seen, limit=LIMIT, in_turn=in_turn))
        enqueued = sum(each.tokens for each in self.model.values())
        ahead = sum(int(each[6:]) < int(name[6:]) for each in self.queued) if in_turn else 0
        fits = not ahead and enqueued + tokens <= LIMIT
        assert admission.verdict is (Verdict.ADMITTED if fits else Verdict.FULL)
        assert (admission.enqueued, admission.ahead) == (enqueued, ahead)
        if fits:
            self.views[name] = new
            self.model[name] = Held(tokens, total)
            self.queued = [each for each in self.queued if each != name]
        elif in_turn and name not in self.queued:
            counted = replace(seen, prompt_tokens=tokens, deployment="chat")
            assert self.run(self.batches.save(counted, expected=seen))
            self.views[name] = counted
            self.queued.append(name)

    @rule(name=waiting, done=st.integers(1, 7))
    def progress(self, name: BatchId, done: int) -> None:
        """Results become durable."""
        held = self.model.get(name)
        if held is None:
            return
        held.done = min(held.done + done, held.total)
        assert self.run(self.batches.record_progress(self.views[name], Tally(completed=held.done), now=NOW))

    @rule(name=waiting)
    def cancel(self, name: BatchId) -> None:
        """The caller stops a batch; what is in flight still holds its tokens."""
        seen = self.views[name]
        if seen.status in {S.VALIDATING, S.IN_PROGRESS}:
            cancelling = seen.to(S.CANCELLING, NOW)
            assert self.run(self.batches.save(cancelling, expected=seen))
            self.views[name] = cancelling
            self.queued = [each for each in self.queued if each != name]

    @rule(name=consumes(waiting))
    def finish(self, name: BatchId) -> None:
        """A batch comes to its end, one way or the other."""
        batch = self.views[name]
        ways = {
            S.VALIDATING: [S.FAILED],
            S.IN_PROGRESS: [S.FINALIZING, S.COMPLETED],
            S.CANCELLING: [S.CANCELLED],
        }
        for status in ways[batch.status]:
            new = batch.to(status, NOW)
            assert self.run(self.batches.save(new, expected=batch))
            batch = new
        self.model.pop(name, None)
        self.queued = [each for each in self.queued if each != name]

    @rule()
    def crash(self) -> None:
        """The process dies; another one claims what it had, and a view of before is worth nothing."""
        self.batches = self.run(self.opened())
        before = dict(self.views)
        for batch in self.run(self.batches.claim(WorkerId("w"), now=NOW, until=NOW, limit=1_000)):
            self.views[batch.id] = batch
            late = before[batch.id]
            new = replace(late, reserved_tokens=10**6, deployment="chat")
            lost = self.run(self.batches.admit(new, expected=late, limit=10**9, in_turn=False))
            assert lost.verdict is Verdict.LOST
            self.run(self.batches.release(batch, WorkerId("w")))

    @invariant()
    def the_books_are_right(self) -> None:
        """They are what the model says, and never over the limit."""
        if not hasattr(self, "batches"):
            return
        enqueued = self.run(self.batches.enqueued(MINE, ["chat"]))["chat"]
        assert enqueued == sum(each.tokens for each in self.model.values())
        assert enqueued <= LIMIT

    def teardown(self) -> None:
        """Leave nothing behind."""
        self.run(self.closed())
        self.runner.close()

    async def closed(self) -> None:
        """Close the store."""


class MemoryBooks(Books):
    """On stores in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = Tables()

    async def opened(self) -> Batches:
        return MemoryBatches(self.tables)


class SqlBooks(Books):
    """On SQLite."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.database: Database | None = None

    async def opened(self) -> Batches:
        if self.database is not None:
            await self.database.close()
        self.database = Database(sqlite_file(Path(self.folder.name)))
        await self.database.migrate()
        return SqlBatches(self.database)

    async def closed(self) -> None:
        if self.database is not None:
            await self.database.close()
        self.folder.cleanup()


_QUIET = (HealthCheck.too_slow, HealthCheck.filter_too_much)
TestMemoryBooks = MemoryBooks.TestCase
TestMemoryBooks.settings = settings(max_examples=100, stateful_step_count=40, suppress_health_check=_QUIET)
TestSqlBooks = SqlBooks.TestCase
TestSqlBooks.settings = settings(max_examples=12, stateful_step_count=30, suppress_health_check=_QUIET)
