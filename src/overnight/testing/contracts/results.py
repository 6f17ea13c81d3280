"""What ``ports/results.py`` promises."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from overnight.domain.frame import scan
from overnight.domain.ids import BatchId
from overnight.domain.result import Result, ResultKind, Tally
from overnight.domain.usage import Usage
from overnight.testing.contracts.expect import expect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from overnight.ports.results import ResultLog, ResultLogs

_BATCH = BatchId("batch_1")
_OTHER = BatchId("batch_2")
_TOTAL = 20
_LONGEST = 10.0


async def what_was_flushed_is_counted_and_can_be_read(logs: ResultLogs) -> None:
    """Each result once, with its kind and its usage."""
    counted = _Counter()
    async with _opened(logs, 1, counted) as log:
        log.append(_result(3))
        log.append(_result(1, kind=ResultKind.FAILED))
        await log.room()
        await log.flush()
        expect(Tally(completed=1, failed=1, usage=Usage(input_tokens=4, output_tokens=2)), counted.tally)
        expect({1: "", 3: ""}, await _read(logs, 1))


async def leaving_the_context_flushes(logs: ResultLogs) -> None:
    """So a shutdown loses nothing."""
    counted = _Counter()
    async with _opened(logs, 1, counted) as log:
        for line in range(10):
            log.append(_result(line))
    expect(10, counted.tally.completed)
    expect(list(range(10)), sorted(await _read(logs, 1)))


async def results_become_durable_without_a_flush(logs: ResultLogs) -> None:
    """The commit comes by itself."""
    durable = asyncio.Event()
    async with _opened(logs, 1, lambda _: durable.set()) as log:
        log.append(_result(0))
        async with asyncio.timeout(_LONGEST):
            await durable.wait()


async def the_next_epoch_recovers_what_was_counted(logs: ResultLogs) -> None:
    """The same lines and the same sums, over several epochs."""
    counted = _Counter()
    for epoch in (1, 2, 3):
        async with _opened(logs, epoch, counted) as log:
            expect(list(range(epoch - 1)), [line for line, done in enumerate(log.recovered.done) if done])
            if epoch > 1:
                expect(counted.tally, log.recovered.tally)
            log.append(_result(epoch - 1))


async def a_second_result_for_a_line_is_ignored(logs: ResultLogs) -> None:
    """Within an epoch and over epochs."""
    counted = _Counter()
    async with _opened(logs, 1, counted) as log:
        log.append(_result(7, "first"))
        log.append(_result(7, "second"))
    async with _opened(logs, 2, counted) as log:
        log.append(_result(7, "third"))
    expect(1, counted.tally.completed)
    expect({7: "first"}, await _read(logs, 2))


async def what_an_older_epoch_still_writes_is_ignored(logs: ResultLogs) -> None:
    """Whatever its owner believes, and for ever."""
    async with _opened(logs, 1) as old:
        old.append(_result(0, "old"))
        await old.flush()
        async with _opened(logs, 2) as new:
            old.append(_result(1, "late"))
            await old.flush()
            new.append(_result(1, "new"))
    expect({0: "old", 1: "new"}, await _read(logs, 2))
    async with _opened(logs, 3):
        expect({0: "old", 1: "new"}, await _read(logs, 3))


async def an_epoch_that_never_appended_can_be_read(logs: ResultLogs) -> None:
    """A worker may take a batch over only to write its files."""
    async with _opened(logs, 1) as log:
        log.append(_result(4))
    expect([4], sorted(await _read(logs, 2)))


async def what_is_durable_can_be_read_while_it_is_written(logs: ResultLogs) -> None:
    """By whoever knows the batch, before and after an epoch has begun, and without one being pinned by it."""
    expect([], list(await logs.durable(_BATCH, epoch=1)))
    async with _opened(logs, 1) as log:
        log.append(_result(3, "first"))
        await log.flush()
        expect({3: "first"}, await _read_durable(logs, 1))
        log.append(_result(1, "second"))
        await log.flush()
        expect({1: "second", 3: "first"}, await _read_durable(logs, 2))
        log.append(_result(2, "third"))
    async with _opened(logs, 2) as newer:
        newer.append(_result(4, "fourth"))
        await newer.flush()
        everything = {1: "second", 2: "third", 3: "first", 4: "fourth"}
        expect(everything, await _read_durable(logs, 1))
        expect(everything, await _read_durable(logs, 2))
    segment = (await logs.durable(_BATCH, epoch=2))[0].path
    await logs.delete(_BATCH)
    expect([], list(await logs.durable(_BATCH, epoch=2)))
    try:
        await logs.read(_BATCH, segment, offset=0, length=1)
    except FileNotFoundError:
        return
    expect("FileNotFoundError", "a removed log was read")


async def what_an_older_epoch_still_writes_is_not_durable(logs: ResultLogs) -> None:
    """Once a newer one has begun."""
    async with _opened(logs, 1) as old:
        old.append(_result(0, "old"))
        await old.flush()
        async with _opened(logs, 2):
            old.append(_result(1, "late"))
            await old.flush()
            expect({0: "old"}, await _read_durable(logs, 1))
            expect({0: "old"}, await _read_durable(logs, 2))


async def batches_do_not_see_each_other(logs: ResultLogs) -> None:
    """One log for each, and deleting one leaves the others; deleting twice is fine."""
    async with _opened(logs, 1) as log, _opened(logs, 1, batch=_OTHER) as other:
        log.append(_result(1))
        other.append(_result(2))
    expect([1], sorted(await _read(logs, 1)))
    expect([_BATCH, _OTHER], sorted(await logs.batch_ids()))
    await logs.delete(_BATCH)
    await logs.delete(_BATCH)
    expect([_OTHER], list(await logs.batch_ids()))


RESULT_LOG: tuple[Callable[[ResultLogs], Awaitable[None]], ...] = (
    what_was_flushed_is_counted_and_can_be_read,
    leaving_the_context_flushes,
    results_become_durable_without_a_flush,
    the_next_epoch_recovers_what_was_counted,
    a_second_result_for_a_line_is_ignored,
    what_an_older_epoch_still_writes_is_ignored,
    an_epoch_that_never_appended_can_be_read,
    what_is_durable_can_be_read_while_it_is_written,
    what_an_older_epoch_still_writes_is_not_durable,
    batches_do_not_see_each_other,
)
"""What ``ports/results.py`` promises."""


class _Counter:
    def __init__(self) -> None:
        self.tally = Tally()

    def __call__(self, durable: Tally) -> None:
        self.tally = Tally(
            completed=self.tally.completed + durable.completed,
            failed=self.tally.failed + durable.failed,
            usage=self.tally.usage + durable.usage,
        )


def _result(line: int, text: str = "", kind: ResultKind = ResultKind.SUCCEEDED) -> Result:
    usage = Usage(input_tokens=line, output_tokens=1)
    return Result(line=line, kind=kind, record=f'"{text}"'.encode(), usage=usage)


@asynccontextmanager
async def _opened(
    logs: ResultLogs, epoch: int, on_durable: Callable[[Tally], None] = lambda _: None, *, batch: BatchId = _BATCH
) -> AsyncIterator[ResultLog]:
    async with logs.open(batch, epoch=epoch, total=_TOTAL, on_durable=on_durable) as log:
        yield log


async def _read(logs: ResultLogs, epoch: int) -> dict[int, str]:
    """Read the log as merging does: of each line the first record."""
    records: dict[int, str] = {}
    async with logs.segments(_BATCH, epoch=epoch) as segments:
        for segment in segments:
            data = await asyncio.to_thread(Path(segment.path).read_bytes)
            for frame in scan(BytesIO(data), segment.length):
                records.setdefault(frame.line, data[frame.offset : frame.offset + frame.length].decode().strip('"'))
    return records


async def _read_durable(logs: ResultLogs, epoch: int) -> dict[int, str]:
    """Read the log as one does who looks on: of each line the first record."""
    records: dict[int, str] = {}
    for segment in await logs.durable(_BATCH, epoch=epoch):
        data = await logs.read(_BATCH, segment.path, offset=0, length=segment.length)
        for frame in scan(BytesIO(data), segment.length):
            records.setdefault(frame.line, data[frame.offset : frame.offset + frame.length].decode().strip('"'))
    return records
