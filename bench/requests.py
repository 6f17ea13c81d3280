"""Reading the requests of a batch of 100,000: pages while it runs and after its end, searches, and the merge."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import uvloop

from bench.figures import Figure
from overnight.adapters.blobs.local import LocalBlobs
from overnight.adapters.results.local import LocalResultLogs
from overnight.adapters.system import SystemClock
from overnight.domain.batch import Batch, BatchStatus, Expiry
from overnight.domain.blob_keys import error_key, index_key, output_key, places_key
from overnight.domain.file import File, Purpose
from overnight.domain.flavour import Flavour
from overnight.domain.ids import BatchId, FileId, ResourceId, request_id
from overnight.domain.index import ENTRY_BYTES, pack
from overnight.domain.places import State
from overnight.domain.result import BATCH_EXPIRED, Result, ResultKind, response_line
from overnight.domain.trail import Attempted, Trail, encode_trail
from overnight.domain.usage import Usage
from overnight.services.finalize import Merge, merge
from overnight.services.requests import RequestService
from overnight.services.sheets import RequestQuery
from overnight.services.troubles import TroublesInMind
from overnight.testing.stores import MemoryBatches, MemoryFiles, Tables

_REQUESTS = 100_000
_ROUNDS = 20
_MINE = ResourceId("mine")
_BATCH = Batch(
    id=BatchId("batch_1"),
    resource=_MINE,
    flavour=Flavour.OPENAI,
    endpoint="/v1/chat/completions",
    input_file_id=FileId("file-in"),
    completion_window="24h",
    created_at=1,
    expires_at=2,
    expiry=Expiry.CONTINUE,
    status=BatchStatus.IN_PROGRESS,
    epoch=1,
    in_progress_at=1,
    total=_REQUESTS,
    input_blob="files/file-in",
)


def run(folder: Path) -> list[Figure]:
    """Measure."""
    return uvloop.run(_run(folder))


async def _run(folder: Path) -> list[Figure]:
    clock, tables = SystemClock(), Tables()
    (folder / "tmp").mkdir()
    blobs = LocalBlobs(folder, folder / "tmp")
    logs = LocalResultLogs(folder, TroublesInMind(clock))
    service = RequestService(MemoryBatches(tables), MemoryFiles(tables), blobs, logs, clock)
    tables.batches[_BATCH.id] = _BATCH
    await _write_input(blobs)
    await _write_log(logs)
    first = await _time(lambda: service.page(_MINE, _BATCH.id, RequestQuery(limit=100)), rounds=1)
    figures = [
        Figure(bench="requests", what="first page while it runs, reading the whole log", value=first, unit="ms"),
        *await _pages(service, "while it runs"),
    ]
    merging = await _finish(blobs, logs, tables)
    size = await blobs.size(places_key(_BATCH)) or 0
    return [
        *figures,
        *await _pages(service, "after its end"),
        Figure(bench="requests", what="merge with places", value=merging, unit="ms"),
        Figure(
            bench="requests",
            what="places",
            value=size / _REQUESTS,
            unit="B/request",
            goal="< 96",
            met=size < 96 * _REQUESTS,
        ),
    ]


async def _pages(service: RequestService, when: str) -> list[Figure]:
    queries = {
        "page": RequestQuery(offset=_REQUESTS // 2, limit=100),
        "page of failures": RequestQuery(limit=100, state=State.FAILED),
        "search without a find": RequestQuery(limit=100, custom_id="no such"),
    }
    figures = []
    for what, query in queries.items():
        spent = await _time(partial(service.page, _MINE, _BATCH.id, query))
        figures.append(
            Figure(bench="requests", what=f"{what} {when}", value=spent, unit="ms", goal="< 100", met=spent < 100)
        )
    spent = await _time(lambda: service.failures(_MINE, _BATCH.id))
    drawn = await _time(lambda: service.throughput(_MINE, _BATCH.id))
    return [
        *figures,
        Figure(bench="requests", what=f"failure groups {when}", value=spent, unit="ms"),
        Figure(bench="requests", what=f"throughput {when}", value=drawn, unit="ms"),
    ]


async def _time(work: Callable[[], Awaitable[object]], rounds: int = _ROUNDS) -> float:
    """Give the median of some rounds, in milliseconds."""
    spans = []
    for _ in range(rounds):
        began = time.perf_counter()
        await work()
        spans.append((time.perf_counter() - began) * 1_000)
    return sorted(spans)[len(spans) // 2]


async def _write_input(blobs: LocalBlobs) -> None:
    offset = 0
    async with blobs.placing(str(_BATCH.input_blob)) as source, blobs.placing(index_key(_BATCH)) as index:
        with source.open("wb") as lines, index.open("wb") as places:
            for number in range(_REQUESTS):
                line = (
                    b'{"custom_id":"request-%d","method":"POST","url":"/v1/chat/completions","body":{"model":"m","messages":[{"role":"user","content":"%s"}]}}\n'
                    % (number, b"x" * 800)
                )
                lines.write(line)
                places.write(pack(offset, len(line)))
                offset += len(line)
    assert ENTRY_BYTES


async def _write_log(logs: LocalResultLogs) -> None:
    body = b'{"id":"x","choices":[{"message":{"content":"%s"}}]}' % (b"y" * 800)
    refused = b'{"error":{"message":"no","type":"server_error","param":null,"code":"rate_limit_exceeded"}}'
    async with logs.open(_BATCH.id, epoch=1, total=_REQUESTS, on_durable=lambda _: None) as log:
        for line in range(_REQUESTS):
            failed = line % 100 == 7
            custom_id = b'"request-%d"' % line
            record = response_line(
                custom_id, request_id(_BATCH.id, line), 429 if failed else 200, "q", refused if failed else body
            )
            kind = ResultKind.FAILED if failed else ResultKind.SUCCEEDED
            usage = Usage(input_tokens=200, output_tokens=200)
            log.append(Result(line=line, kind=kind, record=record, usage=usage, trail=_trail(line)))
            if line % 64 == 0:
                await log.room()
                await asyncio.sleep(0)
        await log.flush()


def _trail(line: int) -> bytes:
    """Say that a request was tried once, 100 of them a second."""
    return encode_trail(Trail((Attempted(upstream="vllm-1", at=1_790_000_000 + line / 100, seconds=1.5, status=200),)))


async def _finish(blobs: LocalBlobs, logs: LocalResultLogs, tables: Tables) -> float:
    async with (
        blobs.local(str(_BATCH.input_blob)) as source,
        blobs.local(index_key(_BATCH)) as index,
        logs.segments(_BATCH.id, epoch=1) as segments,
        blobs.placing(output_key(_BATCH)) as output,
        blobs.placing(error_key(_BATCH)) as errors,
        blobs.placing(places_key(_BATCH)) as places,
    ):
        job = Merge(
            batch_id=_BATCH.id, input_path=str(source), index_path=str(index), segments=segments, unrun=BATCH_EXPIRED
        )
        began = time.perf_counter()
        merge(job, output, errors, places)
        spent = (time.perf_counter() - began) * 1_000
    files = [_file("file-out", output_key(_BATCH)), _file("file-err", error_key(_BATCH))]
    tables.files.update({file.id: file for file in files})
    ended = _BATCH.to(BatchStatus.FINALIZING, 2).to(
        BatchStatus.COMPLETED, 3, output_file_id=files[0].id, error_file_id=files[1].id
    )
    tables.batches[_BATCH.id] = ended
    return spent


def _file(name: str, blob: str) -> File:
    return File(
        id=FileId(name), resource=_MINE, purpose=Purpose.BATCH_OUTPUT, filename=name, bytes=1, created_at=1, blob=blob
    )
