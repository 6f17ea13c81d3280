"""The promises of ``ports/results.py``."""

import asyncio
import errno
import os
import signal
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from tests.contract.logs import BATCH, TOTAL, Counter, a_result, lines_of, opened, read

from overnight.adapters.results import committing, local
from overnight.adapters.results import segment as local_segment
from overnight.adapters.results.local import LocalResultLogs
from overnight.domain.frame import encode, scan
from overnight.domain.ids import BatchId
from overnight.domain.result import ResultKind, Tally
from overnight.domain.usage import Usage
from overnight.ports.results import ResultLogs
from overnight.services.troubles import TroublesInMind


async def test_what_was_flushed_is_counted_and_can_be_read(logs: ResultLogs) -> None:
    """Each once."""
    counter = Counter()
    async with opened(logs, 1, counter) as log:
        log.append(a_result(3))
        log.append(a_result(1, kind=ResultKind.FAILED))
        await log.room()
        await log.flush()

        assert counter.tally == Tally(completed=1, failed=1, usage=Usage(input_tokens=4, output_tokens=2))
        assert sorted(await read(logs, 1)) == [1, 3]


async def test_leaving_the_context_flushes(logs: ResultLogs) -> None:
    """So a shutdown loses nothing."""
    counter = Counter()
    async with opened(logs, 1, counter) as log:
        for line in range(10):
            log.append(a_result(line))

    assert counter.completed == 10
    assert sorted(await read(logs, 1)) == list(range(10))


async def test_leaving_the_context_with_an_error_flushes_too(logs: ResultLogs) -> None:
    """What has arrived is worth keeping."""
    with pytest.raises(BaseExceptionGroup):  # noqa: PT012 - leaving the context is what is looked at
        async with opened(logs, 1) as log:
            log.append(a_result(0))
            raise KeyError

    assert sorted(await read(logs, 1)) == [0]


async def test_flushing_nothing_returns_at_once(logs: ResultLogs) -> None:
    """Before the first result and after the last."""
    async with opened(logs, 1) as log:
        await log.flush()
        log.append(a_result(0))
        await log.flush()
        await log.flush()

    assert sorted(await read(logs, 1)) == [0]


async def test_results_go_on_being_committed_without_a_flush(logs: ResultLogs) -> None:
    """The group commit comes by itself."""
    durable = asyncio.Event()
    async with opened(logs, 1, lambda _: durable.set()) as log:
        log.append(a_result(0))
        await asyncio.wait_for(durable.wait(), 10)
        durable.clear()
        log.append(a_result(1))
        await asyncio.wait_for(durable.wait(), 10)

    assert sorted(await read(logs, 1)) == [0, 1]


async def test_a_log_that_is_new_has_recovered_nothing(logs: ResultLogs) -> None:
    """One byte a request."""
    async with opened(logs, 1) as log:
        assert bytes(log.recovered.done) == bytes(TOTAL)
        assert log.recovered.tally == Tally()

    assert await read(logs, 1) == {}


async def test_the_next_epoch_recovers_what_was_counted(logs: ResultLogs) -> None:
    """The same lines and the same sums, over several epochs."""
    counter = Counter()
    for epoch in (1, 2, 5):
        async with opened(logs, epoch, counter) as log:
            for line in range(epoch, epoch + 3):
                if not log.recovered.done[line]:
                    log.append(a_result(line, kind=ResultKind(line % 2)))
    async with opened(logs, 6) as log:
        assert lines_of(log.recovered.done) == [1, 2, 3, 4, 5, 6, 7]
        assert log.recovered.tally == counter.tally

    assert sorted(await read(logs, 6)) == [1, 2, 3, 4, 5, 6, 7]


async def test_a_second_result_of_a_line_is_ignored(logs: ResultLogs) -> None:
    """In the same commit, in a later one, and in a later epoch; it is not counted either."""
    counter = Counter()
    async with opened(logs, 1, counter) as log:
        log.append(a_result(7, "first"))
        log.append(a_result(7, "second"))
        await log.flush()
        log.append(a_result(7, "third"))
    async with opened(logs, 2, counter) as log:
        log.append(a_result(7, "fourth"))

    assert await read(logs, 2) == {7: '{"line":7,"text":"first"}'}
    assert counter.completed == 1


async def test_a_second_result_of_a_line_is_ignored_at_recovery(logs: ResultLogs) -> None:
    """Whatever was counted, the truth is one result a line."""
    async with opened(logs, 1) as log:
        log.append(a_result(7, "first"))
    async with opened(logs, 2) as log:
        log.append(a_result(7, "second", ResultKind.FAILED))
    async with opened(logs, 3) as log:
        assert log.recovered.tally == Tally(completed=1, usage=Usage(input_tokens=7, output_tokens=1))

    assert await read(logs, 3) == {7: '{"line":7,"text":"first"}'}


async def test_what_an_old_epoch_still_writes_is_ignored(logs: ResultLogs) -> None:
    """Whatever the old owner believes, and for ever."""
    async with opened(logs, 1) as old:
        old.append(a_result(0, "old"))
        await old.flush()
        async with opened(logs, 2) as new:
            assert lines_of(new.recovered.done) == [0]
            old.append(a_result(1, "late"))
            await old.flush()
            new.append(a_result(1, "new"))
            await new.flush()
            old.append(a_result(2, "later"))
            await old.flush()
    expected = {0: '{"line":0,"text":"old"}', 1: '{"line":1,"text":"new"}'}

    assert await read(logs, 2) == expected
    async with opened(logs, 3) as log:
        assert lines_of(log.recovered.done) == [0, 1]
    assert await read(logs, 3) == expected


async def test_an_old_epoch_that_opens_its_log_late_is_ignored(logs: ResultLogs) -> None:
    """A worker may lose its lease before it opened anything."""
    async with opened(logs, 2) as new:
        new.append(a_result(0, "new"))
    async with opened(logs, 1) as old:
        old.append(a_result(1, "old"))
    async with opened(logs, 3) as log:
        assert lines_of(log.recovered.done) == [0]

    assert sorted(await read(logs, 3)) == [0]


async def test_an_epoch_that_never_appended_can_be_read(logs: ResultLogs) -> None:
    """A worker that takes a batch over only to write its files."""
    async with opened(logs, 1) as log:
        log.append(a_result(4))

    assert sorted(await read(logs, 2)) == [4]


async def test_batches_do_not_see_each_other(logs: ResultLogs) -> None:
    """One log a batch."""
    async with opened(logs, 1) as log, opened(logs, 1, batch=BatchId("batch_2")) as other:
        log.append(a_result(1))
        other.append(a_result(2))

    assert sorted(await read(logs, 1)) == [1]
    assert sorted(await read(logs, 1, BatchId("batch_2"))) == [2]
    assert sorted(await logs.batch_ids()) == ["batch_1", "batch_2"]


async def test_a_deleted_log_is_gone_and_deleting_is_fine_twice(logs: ResultLogs) -> None:
    """Only of its own batch."""
    async with opened(logs, 1) as log, opened(logs, 1, batch=BatchId("batch_2")) as other:
        log.append(a_result(1))
        other.append(a_result(2))

    await logs.delete(BATCH)
    await logs.delete(BATCH)
    await logs.delete(BatchId("batch_9"))

    assert list(await logs.batch_ids()) == ["batch_2"]


class TestDisk:
    """What only a disk can do."""

    @pytest.fixture(autouse=True, params=[1, 1000], ids=["written ahead", "written with the sync"])
    def _quick(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(committing, "_TRY_AGAIN", 0.001)
        monkeypatch.setattr(local_segment, "WRITE_AHEAD", request.param)

    @pytest.fixture
    def logs(self, tmp_path: Path, troubles: TroublesInMind) -> LocalResultLogs:
        return LocalResultLogs(tmp_path, troubles)

    async def _segment(self, logs: LocalResultLogs, epoch: int = 1) -> Path:
        async with logs.segments(BATCH, epoch=epoch) as segments:
            return Path(segments[-1].path)

    async def test_a_torn_tail_is_cut(self, logs: LocalResultLogs, tmp_path: Path, troubles: TroublesInMind) -> None:
        """Wherever the crash cut it: whole results stay, the torn one runs again."""
        async with opened(logs, 1) as log:
            log.append(a_result(0))
            log.append(a_result(1))
        path = await self._segment(logs)
        whole = path.read_bytes()
        second = whole.index(b'{"line":1')
        for cut in (second - 40, second - 32, second - 1, second, second + 1, len(whole) - 1):
            path.write_bytes(whole[:cut])
            async with opened(LocalResultLogs(tmp_path, troubles), 2) as log:
                assert lines_of(log.recovered.done) == ([0] if cut >= second - 32 else [])
            assert 1 not in await read(logs, 2)
            (tmp_path / "results" / BATCH / "00000002.pin").unlink()

    async def test_a_tail_of_noughts_or_noise_is_cut(self, logs: LocalResultLogs, tmp_path: Path) -> None:
        """What a file system may leave after a power cut."""
        async with opened(logs, 1) as log:
            log.append(a_result(0))
        path = await self._segment(logs)
        whole = path.read_bytes()
        for epoch, tail in enumerate((bytes(4096), b"\xff" * 100, whole[8:-1] + b"X"), start=2):
            path.write_bytes(whole + tail)
            async with opened(logs, epoch) as log:
                assert lines_of(log.recovered.done) == [0]

    async def test_a_segment_without_a_beginning_is_empty(self, logs: LocalResultLogs, tmp_path: Path) -> None:
        """A crash right after it was made."""
        folder = tmp_path / "results" / BATCH
        folder.mkdir()
        (folder / "00000001-0000.log").write_bytes(b"ovn")
        async with opened(logs, 2) as log:
            log.append(a_result(3))

        assert sorted(await read(logs, 2)) == [3]

    async def test_a_crash_while_pinning_does_no_harm(self, logs: LocalResultLogs, tmp_path: Path) -> None:
        """The pin appears whole or not at all."""
        async with opened(logs, 1) as log:
            log.append(a_result(0))
        (tmp_path / "results" / BATCH / "00000002.new").write_bytes(b"[{")
        async with opened(logs, 2) as log:
            assert lines_of(log.recovered.done) == [0]

        assert sorted(await read(logs, 2)) == [0]

    @pytest.mark.parametrize("call", ["pwrite", "fdatasync", "fsync", "open"])
    async def test_results_wait_for_a_disk_in_trouble_and_are_not_lost(
        self, logs: LocalResultLogs, monkeypatch: pytest.MonkeyPatch, call: str
    ) -> None:
        """They count only once they are durable, and then once."""
        counter = Counter()
        trouble = _Trouble(monkeypatch, call)
        async with opened(logs, 1, counter) as log:
            log.append(a_result(0))
            await log.flush()
            trouble.start()
            log.append(a_result(1))
            if call in {"pwrite", "fdatasync"}:
                await asyncio.wait_for(trouble.met(), 10)
                assert counter.completed == 1
            trouble.stop()
            await log.flush()
            assert counter.completed == 2
        async with opened(logs, 2) as log:
            assert lines_of(log.recovered.done) == [0, 1]
            assert log.recovered.tally == counter.tally

    @pytest.mark.parametrize("call", ["pwrite", "fdatasync", "fsync", "open"])
    async def test_the_first_result_waits_for_a_disk_in_trouble(
        self, logs: LocalResultLogs, monkeypatch: pytest.MonkeyPatch, call: str
    ) -> None:
        """When the segment itself cannot be made."""
        counter = Counter()
        trouble = _Trouble(monkeypatch, call)
        async with opened(logs, 1, counter) as log:
            trouble.start()
            log.append(a_result(0))
            await asyncio.wait_for(trouble.met(), 10)
            assert counter.completed == 0
            trouble.stop()
            await log.flush()
        async with opened(logs, 2) as log:
            assert lines_of(log.recovered.done) == [0]

        assert counter.completed == 1

    async def test_a_write_that_stops_half_way_is_finished_in_place(
        self, logs: LocalResultLogs, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A disk that fills up in the middle of a result."""
        real = os.pwrite
        calls: list[int] = []

        def half(descriptor: int, data: Any, offset: int) -> int:
            calls.append(offset)
            if len(calls) == 3:
                raise OSError(errno.ENOSPC, "no space left on device")
            return real(descriptor, data[:17] if len(calls) == 2 else data, offset)

        monkeypatch.setattr(os, "pwrite", half)
        async with opened(logs, 1) as log:
            log.append(a_result(0))
            await log.flush()
            log.append(a_result(1))

        monkeypatch.undo()
        async with opened(logs, 2) as log:
            assert lines_of(log.recovered.done) == [0, 1]

    async def test_a_disk_in_trouble_at_the_end_is_an_error(
        self, logs: LocalResultLogs, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nobody may believe that all was flushed."""
        trouble = _Trouble(monkeypatch, "pwrite")
        counter = Counter()
        trouble.start()
        with pytest.raises(BaseExceptionGroup) as raised:
            async with opened(logs, 1, counter) as log:
                log.append(a_result(0))

        assert raised.group_contains(OSError)
        assert counter.completed == 0

    async def test_many_results_wait_until_there_is_room(
        self, logs: LocalResultLogs, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Memory stays bounded while the disk does not keep up."""
        monkeypatch.setattr(committing, "_MOST_WAITING", 200)
        trouble = _Trouble(monkeypatch, "fdatasync")
        async with opened(logs, 1) as log:
            trouble.start()
            log.append(a_result(0))
            await asyncio.wait_for(trouble.met(), 10)
            for line in range(1, 9):
                log.append(a_result(line))
            waiting = asyncio.ensure_future(log.room())
            await asyncio.sleep(0)
            assert not waiting.done()
            trouble.stop()
            await asyncio.wait_for(waiting, 10)

        assert sorted(await read(logs, 1)) == list(range(9))

    async def test_a_large_commit_does_not_wait_for_its_time(
        self, logs: LocalResultLogs, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """By size, whichever comes first."""
        monkeypatch.setattr(local, "COMMIT_EVERY", 3_600.0)
        monkeypatch.setattr(committing, "COMMIT_BYTES", 100)
        durable = asyncio.Event()
        async with opened(logs, 1, lambda _: durable.set()) as log:
            for line in range(4):
                log.append(a_result(line))
            await asyncio.wait_for(durable.wait(), 10)

        assert sorted(await read(logs, 1)) == [0, 1, 2, 3]


class TestWrittenAhead:
    """What was written but not synced: a killed process leaves it behind, and a failed sync may take it away."""

    @pytest.fixture
    def logs(self, tmp_path: Path, troubles: TroublesInMind) -> LocalResultLogs:
        return LocalResultLogs(tmp_path, troubles)

    @pytest.fixture(autouse=True)
    def _at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(committing, "_TRY_AGAIN", 0.001)
        monkeypatch.setattr(local_segment, "WRITE_AHEAD", 1)

    async def _written(self, folder: Path, text: bytes) -> None:
        """Return once a segment has the text."""
        async with asyncio.timeout(10):
            while not any(text in path.read_bytes() for path in folder.rglob("*.log")):  # noqa: ASYNC110, ASYNC240 - another thread writes it
                await asyncio.sleep(0.001)

    async def test_it_does_not_count(
        self, logs: LocalResultLogs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Not before its sync."""
        monkeypatch.setattr(local, "COMMIT_EVERY", 3_600.0)
        counter = Counter()
        async with opened(logs, 1, counter) as log:
            log.append(a_result(0))
            await self._written(tmp_path, b'"line":0')
            assert counter.completed == 0

        assert counter.completed == 1

    async def test_it_is_written_again_after_a_failed_sync(
        self, logs: LocalResultLogs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Into a new segment, with all that came since the last good sync; it counts and is read once."""
        counter = Counter()
        trouble = _Trouble(monkeypatch, "fdatasync")
        async with opened(logs, 1, counter) as log:
            log.append(a_result(0))
            await log.flush()
            trouble.start()
            for line in range(1, 6):
                log.append(a_result(line))
            await asyncio.wait_for(trouble.met(), 10)
            assert counter.completed == 1
            trouble.stop()
            await log.flush()
        async with logs.segments(BATCH, epoch=1) as segments:
            newest = segments[-1]
            data = await asyncio.to_thread(Path(newest.path).read_bytes)
        async with opened(logs, 2) as log:
            assert log.recovered.tally == counter.tally

        assert [frame.line for frame in scan(BytesIO(data), newest.length)] == [1, 2, 3, 4, 5]
        assert counter.completed == 6

    async def test_it_is_found_after_the_process_was_killed(self, logs: LocalResultLogs, tmp_path: Path) -> None:
        """All but the last few that were not written yet."""
        child = await asyncio.create_subprocess_exec(sys.executable, "-c", _DIES_BEFORE_ITS_SYNC, str(tmp_path))
        assert await asyncio.wait_for(child.wait(), 30) == -signal.SIGKILL
        async with opened(logs, 2) as log:
            found = lines_of(log.recovered.done)
            tally = log.recovered.tally

        assert found == list(range(40))
        assert tally.completed == 40

    async def test_what_a_late_owner_adds_during_recovery_is_not_trusted(
        self, logs: LocalResultLogs, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is behind the sync that recovery waits for."""
        async with opened(logs, 1) as log:
            log.append(a_result(0))
        async with logs.segments(BATCH, epoch=1) as segments:
            path = Path(segments[0].path)
        real = os.fsync

        def late(descriptor: int) -> None:
            real(descriptor)
            if Path(f"/proc/self/fd/{descriptor}").readlink() == path:
                with path.open("ab") as file:
                    file.write(encode(a_result(1)))

        monkeypatch.setattr(os, "fsync", late)
        async with opened(logs, 2) as log:
            assert lines_of(log.recovered.done) == [0]

    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO])
    @pytest.mark.parametrize("call", ["pwrite", "fdatasync"])
    async def test_a_disk_in_trouble_is_noted_until_it_is_over(
        self, logs: LocalResultLogs, troubles: TroublesInMind, monkeypatch: pytest.MonkeyPatch, call: str, number: int
    ) -> None:
        """For whoever watches over the service."""
        trouble = _Trouble(monkeypatch, call, number)
        async with opened(logs, 1) as log:
            assert troubles.known() == []
            trouble.start()
            log.append(a_result(0))
            await asyncio.wait_for(trouble.met(), 10)
            await asyncio.sleep(0)
            noted = troubles.known()
            trouble.stop()
            await log.flush()
            assert troubles.known() == []

        assert [(each.batch_id, each.problem) for each in noted] == [(BATCH, os.strerror(number))]
        assert noted[0].bytes_waiting == len(encode(a_result(0)))


_DIES_BEFORE_ITS_SYNC = """
import asyncio, os, signal, sys
from pathlib import Path
from overnight.adapters.results import local
from overnight.adapters.results import segment as local_segment
from overnight.domain.frame import encode
from overnight.domain.result import Result, ResultKind
from overnight.services.troubles import TroublesInMind
from overnight.adapters.system import SystemClock

local.COMMIT_EVERY = 3_600
local_segment.WRITE_AHEAD = 1

async def main():
    folder = Path(sys.argv[1])
    logs = local.LocalResultLogs(folder, TroublesInMind(SystemClock()))
    async with logs.open("batch_1", epoch=1, total=50, on_durable=lambda tally: os._exit(1)) as log:
        size = 8
        for line in range(40):
            result = Result(line=line, kind=ResultKind.SUCCEEDED, record=b"{}")
            log.append(result)
            size += len(encode(result))
        path = folder / "results" / "batch_1" / "00000001-0000.log"
        while not path.exists() or path.stat().st_size < size:
            await asyncio.sleep(0.001)
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


class _Trouble:
    """A call of the operating system that fails for a while."""

    def __init__(self, patch: pytest.MonkeyPatch, call: str, number: int = errno.EIO) -> None:
        self._number = number
        self._real = getattr(os, call)
        self._failing = False
        self._met = 0
        patch.setattr(os, call, self._do)

    def start(self) -> None:
        self._failing = True

    def stop(self) -> None:
        self._failing = False

    async def met(self) -> None:
        """Return once the call has failed a few times."""
        while self._met < 3:  # noqa: ASYNC110 - it is met in another thread
            await asyncio.sleep(0)

    def _do(self, *args: Any, **kwargs: Any) -> Any:
        if self._failing:
            self._met += 1
            raise OSError(self._number, os.strerror(self._number))
        return self._real(*args, **kwargs)
