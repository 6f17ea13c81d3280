"""20,000 short requests from create to completed, against a bare loop on the same file and the same nginx."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import uvloop
from pyreqwest.client import Client, ClientBuilder

from bench.figures import Figure
from bench.parts import make_file, nginx, service

if TYPE_CHECKING:
    from collections.abc import Iterator

_NAME = "dispatch"
_REQUESTS = 20_000
_SLOTS = 64
_ROUNDS = 3


class _Line(msgspec.Struct):
    custom_id: msgspec.Raw
    body: msgspec.Raw


def run(folder: Path) -> list[Figure]:
    """Measure."""
    path = make_file(folder / "small.jsonl", _REQUESTS, (40, 100))
    ours, bare = [], []
    with nginx(folder / "nginx") as upstream, service(folder / "dispatch", "--upstream", upstream) as running:
        file_id = running.upload(path)
        for _ in range(_ROUNDS):
            bare.append(_REQUESTS / uvloop.run(_bare(path, upstream, folder / "bare.jsonl")))
            began = time.perf_counter()
            batch = running.until(running.create(file_id), "completed")
            ours.append(_REQUESTS / (time.perf_counter() - began))
            assert batch["request_counts"]["completed"] == _REQUESTS
            assert running.content(batch["output_file_id"]).count(b"\n") == _REQUESTS
    speed, loop = sorted(ours)[_ROUNDS // 2], sorted(bare)[_ROUNDS // 2]
    return [
        Figure(
            bench=_NAME,
            what="create to completed, durable",
            value=speed,
            unit="requests/s",
            beside=f"{loop:,.0f}/s bare loop",
            goal=">= 10,000",
            met=speed >= 10_000,
        ),
        Figure(
            bench=_NAME,
            what="share of the bare loop",
            value=speed / loop,
            unit="",
            goal=">= 0.7",
            met=speed / loop >= 0.7,
        ),
    ]


async def _bare(path: Path, upstream: str, output: Path) -> float:
    began = time.perf_counter()
    with path.open("rb") as source, output.open("wb") as target:
        lines = iter(source)
        async with ClientBuilder().build() as client, asyncio.TaskGroup() as group:
            for _ in range(_SLOTS):
                group.create_task(_slot(client, lines, upstream, target))
    return time.perf_counter() - began


async def _slot(client: Client, lines: Iterator[bytes], upstream: str, target: object) -> None:
    decoder = msgspec.json.Decoder(_Line)
    for line in lines:
        request = decoder.decode(line)
        call = client.post(f"{upstream}/chat/completions").header("content-type", "application/json")
        response = await call.body_bytes(bytes(request.body)).build().send()
        body = bytes(await response.bytes())
        target.write(b'{"custom_id":%s,"response":%s}\n' % (bytes(request.custom_id), body))  # type: ignore[attr-defined]
