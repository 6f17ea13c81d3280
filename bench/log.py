"""The result log by itself: results recorded each second with group commit, against the same work without the disk."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import uvloop

from bench.figures import Figure
from overnight.adapters.results.local import LocalResultLogs
from overnight.adapters.system import SystemClock
from overnight.domain.frame import encode
from overnight.domain.ids import BatchId
from overnight.domain.result import Result, ResultKind, Tally
from overnight.domain.usage import Usage
from overnight.services.troubles import TroublesInMind

_RESULTS = 200_000
_RECORD = b"x" * 900


def run(folder: Path) -> list[Figure]:
    """Measure."""
    results = [
        Result(line=line, kind=ResultKind.SUCCEEDED, record=_RECORD, usage=Usage(input_tokens=9, output_tokens=9))
        for line in range(_RESULTS)
    ]
    began = time.perf_counter()
    for result in results:
        encode(result)
    bare = time.perf_counter() - began
    durable = uvloop.run(_record(folder, results))
    added = (durable - bare) / _RESULTS * 1e6
    return [
        Figure(bench="log", what="durable results", value=_RESULTS / durable, unit="/s"),
        Figure(
            bench="log",
            what="added by durability",
            value=added,
            unit="us/result",
            beside=f"{bare / _RESULTS * 1e6:.1f} us to encode",
            goal="< 10",
            met=added < 10,
        ),
    ]


async def _record(folder: Path, results: list[Result]) -> float:
    counted = 0

    def on_durable(tally: Tally) -> None:
        nonlocal counted
        counted += tally.completed

    logs = LocalResultLogs(folder, TroublesInMind(SystemClock()))
    began = time.perf_counter()
    async with logs.open(BatchId("batch_1"), epoch=1, total=len(results), on_durable=on_durable) as log:
        for number, result in enumerate(results):
            log.append(result)
            if number % 64 == 0:
                await log.room()
                await asyncio.sleep(0)
        await log.flush()
    span = time.perf_counter() - began
    assert counted == len(results)
    return span
