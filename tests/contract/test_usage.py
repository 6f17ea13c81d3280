"""The promises of ``ports/usage.py``: the books add up to what the batches count, whatever happens in between."""

import asyncio
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from msgspec.structs import replace
from tests.contract.records import Records, together
from tests.contract.test_batches import ANN, BOB, MINE, NOW, OTHERS, a_batch, a_file

from overnight.adapters.sql.batches import SqlBatches
from overnight.adapters.sql.database import Database, sqlite_file
from overnight.adapters.sql.usage import SqlBooks
from overnight.domain.accounting import Days, UsageDay, UsageTotal, difference, tally_of
from overnight.domain.batch import Batch, BatchStatus, InvalidTransition
from overnight.domain.cap import Cap, Measure, Period
from overnight.domain.ids import WorkerId
from overnight.domain.result import Tally
from overnight.domain.usage import Usage
from overnight.testing.stores import MemoryBatches, MemoryBooks, Tables

S = BatchStatus
EVER = Days(first="0000-00-00", last="9999-12-31")
DAY = 86_400
TODAY, TOMORROW = "2023-11-14", "2023-11-15"


def counted(completed: int, tokens: int = 0, failed: int = 0) -> Tally:
    used = Usage(input_tokens=tokens, cached_tokens=tokens // 2, output_tokens=2 * tokens, reasoning_tokens=tokens)
    return Tally(completed=completed, failed=failed, usage=used)


def entry(day: str, tally: Tally, deployment: str = "") -> UsageDay:
    return UsageDay(
        resource=MINE,
        deployment=deployment,
        day=day,
        completed=tally.completed,
        failed=tally.failed,
        usage=tally.usage,
    )


async def _claimed(records: Records, batch: Batch, worker: WorkerId = ANN, now: float = NOW) -> Batch:
    await records.batches.add(batch)
    [claimed] = await records.batches.claim(worker, now=now, until=now + 10, limit=10)
    return claimed


async def test_a_note_raises_the_day_of_the_note_by_what_is_new(records: Records) -> None:
    """Not by what was noted before."""
    batch = await _claimed(records, a_batch())

    await records.batches.record_progress(batch, counted(2, 10), now=NOW)
    await records.batches.record_progress(batch, counted(2, 10), now=NOW)
    await records.batches.record_progress(batch, counted(5, 30, failed=1), now=NOW + DAY)

    days = await records.books.days(MINE, EVER, limit=10)
    assert days == [entry(TODAY, counted(2, 10)), entry(TOMORROW, counted(3, 20, failed=1))]


async def test_the_last_save_books_what_no_note_told(records: Records) -> None:
    """On the day on which the batch ended."""
    batch = await _claimed(records, replace(a_batch(), status=S.FINALIZING, deployment="m"))
    await records.batches.record_progress(batch, counted(2, 10), now=NOW)
    final = counted(7, 40, failed=2)
    ended = batch.to(S.COMPLETED, NOW + DAY, completed=7, failed=2, usage=final.usage)

    assert await records.batches.save(ended, expected=batch)

    days = await records.books.days(MINE, EVER, limit=10)
    assert days == [
        entry(TODAY, counted(2, 10), "m"),
        entry(TOMORROW, difference(final, counted(2, 10)), "m"),
    ]


async def test_a_write_that_is_refused_books_nothing(records: Records) -> None:
    """Neither a note nor a save of an older epoch or status, nor one whose file cannot be stored."""
    old = await _claimed(records, replace(a_batch(), status=S.FINALIZING))
    [new] = await records.batches.claim(BOB, now=NOW + 11, until=NOW + 20, limit=1)
    await records.files.add(a_file("file-8"))

    assert await records.batches.record_progress(old, counted(9), now=NOW) is False
    assert await records.batches.save(old.to(S.COMPLETED, NOW, completed=9), expected=old) is False
    wrong = replace(new, status=S.IN_PROGRESS)
    assert await records.batches.save(wrong.to(S.CANCELLING, NOW, completed=9), expected=wrong) is False
    with pytest.raises(Exception, match="file"):
        await records.batches.save(new.to(S.COMPLETED, NOW, completed=9), expected=new, files=[a_file("file-8")])

    assert await records.books.days(MINE, EVER, limit=10) == []


async def test_many_batches_are_booked_side_by_side(records: Records) -> None:
    """No raise is lost."""
    batches = [a_batch(f"batch_{number}") for number in range(8)]
    for batch in batches:
        await records.batches.add(batch)

    await together(*(records.batches.record_progress(batch, counted(3, 5), now=NOW) for batch in batches))

    [found] = await records.books.days(MINE, EVER, limit=10)
    assert (found.completed, found.usage.input_tokens, found.usage.output_tokens) == (24, 40, 80)


async def test_days_are_told_in_order_and_in_part(records: Records) -> None:
    """By day, then by deployment; of one resource."""
    for number, (name, day) in enumerate([("b", 1), ("a", 1), ("a", 0), ("c", 2)]):
        batch = replace(a_batch(f"batch_{number}"), deployment=name)
        await records.batches.add(batch)
        await records.batches.record_progress(batch, counted(1), now=NOW + day * DAY)
    await records.batches.add(other := replace(a_batch("batch_9", OTHERS), deployment="a"))
    await records.batches.record_progress(other, counted(5), now=NOW)

    async def told(days: Days = EVER, limit: int = 10, **more: Any) -> list[tuple[str, str]]:
        return [(each.day[-2:], each.deployment) for each in await records.books.days(MINE, days, limit=limit, **more)]

    assert await told() == [("14", "a"), ("15", "a"), ("15", "b"), ("16", "c")]
    assert await told(limit=3) == [("14", "a"), ("15", "a"), ("15", "b")]
    assert await told(deployment="a") == [("14", "a"), ("15", "a")]
    assert await told(Days(first=TOMORROW, last=TOMORROW)) == [("15", "a"), ("15", "b")]
    totals = await records.books.totals(Days(first=TODAY, last=TOMORROW))
    assert totals == [
        UsageTotal(resource=MINE, deployment="a", completed=2),
        UsageTotal(resource=MINE, deployment="b", completed=1),
        UsageTotal(resource=OTHERS, deployment="a", completed=5),
    ]
    assert await records.books.totals(EVER, resource=OTHERS, deployment="a") == [totals[2]]
    assert await records.books.totals(EVER, resource=OTHERS, deployment="b") == []


async def test_a_cap_replaces_the_one_of_its_kind(records: Records) -> None:
    """And can be taken away."""
    caps = records.caps
    daily = Cap(resource=MINE, period=Period.DAY, measure=Measure.TOKENS, amount=5)
    others = [
        replace(daily, period=Period.MONTH),
        replace(daily, measure=Measure.SPEND, amount=2**62),
        replace(daily, resource=OTHERS),
    ]
    for cap in (daily, *others, replace(daily, amount=0)):
        await caps.put(cap)

    assert list(await caps.all()) == sorted(
        [replace(daily, amount=0), *others], key=lambda cap: (cap.resource, cap.period, cap.measure)
    )
    assert list(await caps.all(OTHERS)) == [others[2]]
    assert await caps.remove(MINE, Period.DAY, Measure.TOKENS) is True
    assert await caps.remove(MINE, Period.DAY, Measure.TOKENS) is False
    assert [cap.measure for cap in await caps.all(MINE)] == [Measure.SPEND, Measure.TOKENS]


class Owners(RuleBasedStateMachine):
    """Owners come, note and lose their batches in any order; the books of both stores must add up."""

    template: Path

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        path = sqlite_file(Path(self.folder.name))
        shutil.copy(self.template, path)
        self.database = Database(path)
        tables = Tables()
        self.stores = (MemoryBatches(tables), SqlBatches(self.database))
        self.books = (MemoryBooks(tables), SqlBooks(self.database))
        self.now = NOW
        self.seen: list[Batch] = []
        self.names: list[Batch] = []

    @initialize()
    def create(self) -> None:
        for number, (name, resource) in enumerate([("m", MINE), ("m", MINE), ("other", MINE), ("m", OTHERS)]):
            batch = replace(a_batch(f"batch_{number}", resource), status=S.IN_PROGRESS, deployment=name)
            self._both("add", batch)
            self.names.append(batch)
            self.seen.append(batch)

    @rule(worker=st.sampled_from([ANN, BOB]), limit=st.integers(1, 4))
    def claim(self, worker: WorkerId, limit: int) -> None:
        self.seen += self._both("claim", worker, now=self.now, until=self.now + 5, limit=limit)

    @rule(data=st.data(), more=st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 99)))
    def note(self, data: st.DataObject, more: tuple[int, int, int]) -> None:
        """Somebody notes what he believes; that counts only if he still owns the batch."""
        believed = data.draw(st.sampled_from(self.seen))
        self._both("record_progress", believed, self._grown(believed, more), now=self.now)

    @rule(
        data=st.data(),
        status=st.sampled_from([S.FINALIZING, S.CANCELLING, S.COMPLETED, S.EXPIRED, S.CANCELLED]),
        more=st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 99)),
    )
    def save(self, data: st.DataObject, status: S, more: tuple[int, int, int]) -> None:
        believed = data.draw(st.sampled_from(self.seen))
        tally = self._grown(believed, more)
        counts = {"completed": tally.completed, "failed": tally.failed, "usage": tally.usage}
        with suppress(InvalidTransition):
            new = believed.to(status, self.now, **(counts if status in {S.COMPLETED, S.EXPIRED, S.CANCELLED} else {}))
            if self._both("save", new, expected=believed):
                self.seen.append(self._stored(new))

    @rule(seconds=st.sampled_from([1.0, 7.0, 40_000.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def the_books_add_up(self) -> None:
        sums: dict[tuple[str, str], Tally] = {}
        for name in self.names:
            key = (str(name.resource), str(name.deployment))
            sums[key] = _plus(sums.get(key, Tally()), tally_of(self._stored(name)))
        memory, disk = (self.runner.run(books.totals(EVER)) for books in self.books)

        assert list(memory) == list(disk)
        booked = {
            (str(each.resource), each.deployment): Tally(completed=each.completed, failed=each.failed, usage=each.usage)
            for each in disk
        }
        assert booked == {key: tally for key, tally in sums.items() if key in booked or tally != Tally()}

    def _grown(self, believed: Batch, more: tuple[int, int, int]) -> Tally:
        """What an owner has found in the log: never less than was noted."""
        return _plus(tally_of(self._stored(believed)), counted(more[0], more[2], failed=more[1]))

    def _stored(self, batch: Batch) -> Batch:
        found: Batch = self._both("get", batch.resource, batch.id)
        return found

    def _both(self, call: str, *args: Any, **kwargs: Any) -> Any:
        async def one(store: Any) -> Any:
            return await getattr(store, call)(*args, **kwargs)

        memory, disk = (self.runner.run(one(store)) for store in self.stores)
        assert memory == disk
        return memory

    def teardown(self) -> None:
        with self.folder, self.runner:
            self.runner.run(self.database.close())


def _plus(one: Tally, other: Tally) -> Tally:
    return difference(one, difference(Tally(), other))


async def _template(folder: Path) -> Path:
    database = Database(sqlite_file(folder))
    await database.migrate()
    await database.close()
    return sqlite_file(folder)


def test_the_books_add_up_whatever_the_owners_do(tmp_path: Path) -> None:
    """Notes, lost leases, claims and ends in any order, on any days."""
    Owners.template = asyncio.run(_template(tmp_path))
    quiet = settings(max_examples=25, stateful_step_count=40, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(Owners, settings=quiet)
