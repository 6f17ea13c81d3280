"""What only a result log in an object store can meet (``ports/results.py``, ``adapters/results/objects.py``)."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog
from obstore.exceptions import GenericError
from obstore.store import MemoryStore, ObjectStore
from structlog.testing import capture_logs
from tests.contract.logs import BATCH, Counter, a_result, lines_of, opened, read

from overnight.adapters.results import committing, objects
from overnight.adapters.results.objects import ObjectResultLogs, open_store, probe
from overnight.domain.errors import Unavailable
from overnight.domain.frame import MAGIC, Segment, encode
from overnight.services.troubles import TroublesInMind

FOLDER = f"results/{BATCH}"


class Faulty:
    """A store whose calls of some kinds fail: they do nothing, or they do it and the answer is lost."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self.failing: set[str] = set()
        self.answer_lost = False
        self.met = 0

    async def has_met(self, times: int = 3) -> None:
        while self.met < times:  # noqa: ASYNC110 - the store answers in another thread
            await asyncio.sleep(0.001)

    def __getattr__(self, name: str) -> Any:
        real: Callable[..., Any] = getattr(self._store, name)
        if name == "list":
            return self._list

        async def call(*args: Any, **kwargs: Any) -> Any:
            if name in self.failing:
                self.met += 1
                if self.answer_lost:
                    await real(*args, **kwargs)
                raise GenericError("no answer\n\nDebug source: ...")
            return await real(*args, **kwargs)

        return call

    async def _list(self, *args: Any, **kwargs: Any) -> Any:
        if "list" in self.failing:
            raise GenericError("no answer")
        async for metas in self._store.list(*args, **kwargs):
            yield metas


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committing, "_TRY_AGAIN", 0.001)


@pytest.fixture
def faulty(store: ObjectStore) -> Faulty:
    return Faulty(store)


@pytest.fixture
def logs(faulty: Faulty, tmp_path: Path, troubles: TroublesInMind) -> ObjectResultLogs:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    store: Any = faulty
    return ObjectResultLogs(store, scratch, troubles)


async def keys(store: ObjectStore) -> list[str]:
    return sorted([meta["path"] async for metas in store.list(FOLDER) for meta in metas])


async def test_each_commit_is_one_object(logs: ObjectResultLogs, store: ObjectStore) -> None:
    """Numbered within its epoch, whatever the number of results."""
    async with opened(logs, 1) as log:
        for line in range(10):
            log.append(a_result(line))
        await log.flush()
        log.append(a_result(10))
    async with opened(logs, 2) as log:
        log.append(a_result(11))

    assert await keys(store) == [
        f"{FOLDER}/00000001-00000000.log",
        f"{FOLDER}/00000001-00000001.log",
        f"{FOLDER}/00000001.pin",
        f"{FOLDER}/00000002-00000000.log",
        f"{FOLDER}/00000002.pin",
    ]


async def test_results_wait_for_a_store_in_trouble_and_are_not_lost(logs: ObjectResultLogs, faulty: Faulty) -> None:
    """They count only once they are stored, and then once; the operator is told when it begins and when it ends."""
    counter = Counter()
    structlog.reset_defaults()
    with capture_logs() as events:
        async with opened(logs, 1, counter) as log:
            log.append(a_result(0))
            await log.flush()
            faulty.failing = {"put_async"}
            log.append(a_result(1))
            await asyncio.wait_for(faulty.has_met(), 10)
            assert counter.completed == 1
            faulty.failing = set()
            await log.flush()
            assert counter.completed == 2

    assert [(event["event"], event.get("problem")) for event in events] == [
        ("results.not_durable", "no answer"),
        ("results.durable_again", None),
    ]
    async with opened(logs, 2) as log:
        assert lines_of(log.recovered.done) == [0, 1]
        assert log.recovered.tally == counter.tally


async def test_a_put_whose_answer_was_lost_has_succeeded(
    logs: ObjectResultLogs, faulty: Faulty, store: ObjectStore
) -> None:
    """The second try finds the same bytes: they count, once, and the next commit takes the next number."""
    counter = Counter()
    async with opened(logs, 1, counter) as log:
        faulty.failing, faulty.answer_lost = {"put_async"}, True
        log.append(a_result(0))
        await asyncio.wait_for(faulty.has_met(1), 10)
        faulty.failing = set()
        await log.flush()
        log.append(a_result(1))

    assert counter.completed == 2
    assert await keys(store) == [
        f"{FOLDER}/00000001-00000000.log",
        f"{FOLDER}/00000001-00000001.log",
        f"{FOLDER}/00000001.pin",
    ]
    async with opened(logs, 2) as log:
        assert log.recovered.tally == counter.tally


async def test_a_lost_answer_is_looked_into_until_the_store_tells(logs: ObjectResultLogs, faulty: Faulty) -> None:
    """Nothing counts before it is known whose the object is."""
    counter = Counter()
    async with opened(logs, 1, counter) as log:
        faulty.failing, faulty.answer_lost = {"put_async"}, True
        log.append(a_result(0))
        await asyncio.wait_for(faulty.has_met(1), 10)
        faulty.failing, faulty.answer_lost = {"get_async"}, False
        await asyncio.wait_for(faulty.has_met(5), 10)
        assert counter.completed == 0
        faulty.failing = set()
        await log.flush()

    assert counter.completed == 1


async def test_a_key_that_another_has_taken_is_left_alone(logs: ObjectResultLogs, store: ObjectStore) -> None:
    """Nothing is overwritten, and nothing of ours lost."""
    foreign = MAGIC + encode(a_result(5, "foreign"))
    async with opened(logs, 1) as log:
        await store.put_async(f"{FOLDER}/00000001-00000000.log", foreign)
        log.append(a_result(0))
        await log.flush()

        assert sorted(await read(logs, 1)) == [0, 5]


async def test_a_store_in_trouble_at_the_end_is_an_error(logs: ObjectResultLogs, faulty: Faulty) -> None:
    """Nobody may believe that all was flushed."""
    counter = Counter()
    with pytest.raises(BaseExceptionGroup) as raised:  # noqa: PT012 - leaving the context is what is looked at
        async with opened(logs, 1, counter) as log:
            faulty.failing = {"put_async"}
            log.append(a_result(0))

    assert raised.group_contains(OSError, match=r"^no answer$")
    assert counter.completed == 0


async def test_many_results_wait_until_there_is_room(
    logs: ObjectResultLogs, faulty: Faulty, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory stays bounded while the store does not keep up."""
    monkeypatch.setattr(committing, "_MOST_WAITING", 200)
    async with opened(logs, 1) as log:
        faulty.failing = {"put_async"}
        log.append(a_result(0))
        await asyncio.wait_for(faulty.has_met(), 10)
        for line in range(1, 9):
            log.append(a_result(line))
        waiting = asyncio.ensure_future(log.room())
        await asyncio.sleep(0)
        assert not waiting.done()
        faulty.failing = set()
        await asyncio.wait_for(waiting, 10)

    assert sorted(await read(logs, 1)) == list(range(9))


@pytest.mark.parametrize("lost", [False, True])
async def test_an_epoch_begins_when_its_pin_could_be_put(logs: ObjectResultLogs, faulty: Faulty, lost: bool) -> None:
    """Also when only the answer was lost: then the pin that is there holds, and not what came after it."""
    async with opened(logs, 1) as old:
        old.append(a_result(0))
        await old.flush()
        faulty.failing, faulty.answer_lost = {"put_async"}, lost
        with pytest.raises(Unavailable, match="no answer"):
            async with opened(logs, 2):
                pass
        faulty.failing = set()
        old.append(a_result(1))
        await old.flush()
        async with opened(logs, 2) as log:
            seen = lines_of(log.recovered.done)

    assert seen == ([0] if lost else [0, 1])


async def test_a_pin_that_another_put_first_is_the_truth(logs: ObjectResultLogs, store: ObjectStore) -> None:
    """Between the look and the put."""
    async with opened(logs, 1) as log:
        log.append(a_result(0))
        await log.flush()
        log.append(a_result(1))
    first = f"{FOLDER}/00000001-00000000.log"
    size = (await store.head_async(first))["size"]
    await store.put_async(f"{FOLDER}/00000002.pin", msgspec.json.encode([Segment(path=first, length=size)]))
    async with opened(logs, 2) as log:
        assert lines_of(log.recovered.done) == [0]


@pytest.mark.parametrize("call", ["list", "get_async", "delete_async"])
async def test_a_store_that_is_away_is_named(logs: ObjectResultLogs, faulty: Faulty, call: str) -> None:
    """The dispatcher tells it from a defect of ours, and asks again later."""
    async with opened(logs, 1) as log:
        log.append(a_result(0))
    faulty.failing = {call}
    works = {"list": logs.batch_ids, "delete_async": lambda: logs.delete(BATCH)}
    with pytest.raises(Unavailable, match=r"the object store of the results .*: no answer$"):
        await works.get(call, lambda: read(logs, 1))()


async def test_what_is_lent_is_removed_afterwards(logs: ObjectResultLogs, tmp_path: Path) -> None:
    """Also after an error; and it is one file, however many objects there are."""
    async with opened(logs, 1) as log:
        for line in range(3):
            log.append(a_result(line))
            await log.flush()
    with pytest.raises(KeyError):  # noqa: PT012 - leaving the context is what is looked at
        async with logs.segments(BATCH, epoch=1) as segments:
            assert [Path(segment.path).parent for segment in segments] == [tmp_path / "scratch"]
            raise KeyError

    assert list((tmp_path / "scratch").iterdir()) == []


async def test_a_long_log_is_read_piece_by_piece(
    logs: ObjectResultLogs, faulty: Faulty, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So many objects, or so many bytes, are in memory at once."""
    monkeypatch.setattr(objects, "_FETCHED_AT_ONCE", 3)
    monkeypatch.setattr(objects, "_FETCHED_BYTES", 250)
    async with opened(logs, 1) as log:
        for line in range(20):
            log.append(a_result(line, "x" * (line % 4) * 60))
            await log.flush()
    async with opened(logs, 2) as log:
        assert lines_of(log.recovered.done) == list(range(20))

    assert sorted(await read(logs, 2)) == list(range(20))


async def test_a_damaged_object_loses_only_its_own_tail(logs: ObjectResultLogs, store: ObjectStore) -> None:
    """What recovery runs again and what merging reads are the same."""
    async with opened(logs, 1) as log:
        log.append(a_result(0))
        log.append(a_result(1))
        await log.flush()
        log.append(a_result(2))
    damaged = MAGIC + encode(a_result(0)) + encode(a_result(1))[:-1] + b"X"
    await store.put_async(f"{FOLDER}/00000001-00000000.log", damaged)
    async with opened(logs, 2) as log:
        assert lines_of(log.recovered.done) == [0, 2]

    assert sorted(await read(logs, 2)) == [0, 2]


async def test_a_large_commit_does_not_wait_for_its_time(
    logs: ObjectResultLogs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By size, whichever comes first."""
    monkeypatch.setattr(objects, "COMMIT_EVERY", 3_600.0)
    monkeypatch.setattr(committing, "COMMIT_BYTES", 100)
    durable = asyncio.Event()
    async with opened(logs, 1, lambda _: durable.set()) as log:
        for line in range(4):
            log.append(a_result(line))
        await asyncio.wait_for(durable.wait(), 10)

    assert sorted(await read(logs, 1)) == [0, 1, 2, 3]


class TestProbe:
    """What ``overnight doctor`` asks of a store."""

    async def test_a_store_that_serves_passes_and_keeps_nothing(self, store: ObjectStore) -> None:
        """Put, read, removed."""
        await probe(store)

        assert [meta async for metas in store.list() for meta in metas] == []

    @pytest.mark.parametrize("call", ["put_async", "get_async", "delete_async"])
    async def test_a_store_that_fails_is_told_with_its_words(self, faulty: Faulty, call: str) -> None:
        """The first line of them."""
        faulty.failing = {call}
        store: Any = faulty
        with pytest.raises(OSError, match=r"^no answer$"):
            await probe(store)

    async def test_a_store_that_overwrites_is_refused(self) -> None:
        """An old S3 server may not know the condition, and then two owners could pin one epoch."""

        class Careless(MemoryStore):
            async def put_async(self, path: str, file: Any, **_: Any) -> Any:
                return await super().put_async(path, file)

        with pytest.raises(OSError, match="overwrites"):
            await probe(Careless())


@pytest.mark.parametrize(
    ("url", "reason"),
    [("az://c/p", "Account must be specified"), ("file://here/x", "recognise"), ("file:///dev/null/x", "directory")],
)
def test_a_url_that_names_no_store_is_refused(url: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line."""
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    with pytest.raises(ValueError, match=reason) as refused:
        open_store(url)

    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("failing", ["list", "get_async", "get_range_async"])
async def test_one_who_looks_on_is_told_of_a_store_that_does_not_answer(
    logs: ObjectResultLogs, faulty: Faulty, failing: str
) -> None:
    """It is no reason to show a request as waiting."""
    async with opened(logs, 1) as log:
        log.append(a_result(0))
    faulty.failing = {failing}

    with pytest.raises(Unavailable, match="does not answer"):  # noqa: PT012 - either call may be the one
        for segment in await logs.durable(BATCH, epoch=1):
            await logs.read(BATCH, segment.path, offset=0, length=8)
