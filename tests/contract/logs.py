"""What the tests of result logs have in common: results, and how a log is opened, read and counted."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from io import BytesIO
from pathlib import Path

from overnight.domain.frame import scan
from overnight.domain.ids import BatchId
from overnight.domain.result import Result, ResultKind, Tally
from overnight.domain.usage import NO_USAGE, Usage
from overnight.ports.results import ResultLog, ResultLogs

BATCH = BatchId("batch_1")
TOTAL = 50


def a_result(line: int, text: str = "", kind: ResultKind = ResultKind.SUCCEEDED) -> Result:
    record = f'{{"line":{line},"text":"{text}"}}'.encode()
    return Result(line=line, kind=kind, record=record, usage=Usage(input_tokens=line, output_tokens=1))


class Counter:
    """Adds up what became durable."""

    def __init__(self) -> None:
        self.completed = 0
        self.failed = 0
        self.usage = NO_USAGE

    def __call__(self, tally: Tally) -> None:
        self.completed += tally.completed
        self.failed += tally.failed
        self.usage += tally.usage

    @property
    def tally(self) -> Tally:
        return Tally(completed=self.completed, failed=self.failed, usage=self.usage)


@asynccontextmanager
async def opened(
    logs: ResultLogs, epoch: int, on_durable: Callable[[Tally], None] | None = None, batch: BatchId = BATCH
) -> AsyncIterator[ResultLog]:
    async with logs.open(batch, epoch=epoch, total=TOTAL, on_durable=on_durable or Counter()) as log:
        yield log


async def read(logs: ResultLogs, epoch: int, batch: BatchId = BATCH) -> dict[int, str]:
    """Read the log as merging does: of each line the first record."""
    records: dict[int, str] = {}
    async with logs.segments(batch, epoch=epoch) as segments:
        for segment in segments:
            data = await asyncio.to_thread(Path(segment.path).read_bytes)
            for frame in scan(BytesIO(data), segment.length):
                records.setdefault(frame.line, data[frame.offset : frame.offset + frame.length].decode())
    return records


def lines_of(done: bytearray) -> list[int]:
    return [line for line, mark in enumerate(done) if mark]
