"""20,000 requests with a heavy tail on 512 slots, against the ideal schedule of the same requests in the same order."""

from __future__ import annotations

import heapq
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from bench.figures import Figure
from bench.parts import free_port, make_file, service, wait_for
from bench.tail_upstream import fate

_REQUESTS = 20_000
_SLOTS = 512


class _Line(msgspec.Struct):
    body: msgspec.Raw


def run(folder: Path) -> list[Figure]:
    """Measure."""
    path = make_file(folder / "tail.jsonl", _REQUESTS, (10, 20), seed=3)
    bodies = [bytes(msgspec.json.decode(line, type=_Line).body) for line in path.read_bytes().splitlines()]
    best = ideal([fate(body) for body in bodies], _SLOTS)
    port = free_port()
    config = folder / "overnight.toml"
    bounds = f"max_concurrency = {_SLOTS}\nstart_concurrency = {_SLOTS}\n"
    config.write_text(f'[[upstreams]]\nurl = "http://127.0.0.1:{port}/v1"\n{bounds}')
    with subprocess.Popen([sys.executable, "-m", "bench.tail_upstream", str(port)]) as upstream:
        wait_for(port)
        with service(folder / "tail", "--config", str(config)) as running:
            batch_id = running.create(running.upload(path))
            running.until(batch_id, "in_progress")
            began = time.perf_counter()
            batch = running.until(batch_id, "finalizing", "completed")
            span = time.perf_counter() - began
            batch = running.until(batch_id, "completed")
        upstream.terminate()
    lost = _REQUESTS - batch["request_counts"]["completed"]
    ratio = span / best
    return [
        Figure(
            bench="heavy tail",
            what="makespan over the ideal",
            value=ratio,
            unit="",
            beside=f"{span:.1f} s, ideal {best:.1f} s",
            goal="<= 1.03",
            met=ratio <= 1.03,
        ),
        Figure(bench="heavy tail", what="requests without an answer", value=lost, unit="", goal="0", met=lost == 0),
    ]


def ideal(fates: list[tuple[float, int]], slots: int) -> float:
    """Simulate the list schedule: each free slot takes the next request; a refused one comes back when it may."""
    free = [0.0] * slots
    retries: list[tuple[float, float]] = []
    waiting = list(reversed(fates))
    end = 0.0
    while waiting or retries:
        now = heapq.heappop(free)
        if retries and (retries[0][0] <= now or not waiting):
            due, latency = heapq.heappop(retries)
            finish = max(now, due) + latency
        else:
            latency, first = waiting.pop()
            if first != 200:
                heapq.heappush(retries, (now + (1.0 if first == 429 else 0.0), latency))
                heapq.heappush(free, now)
                continue
            finish = now + latency
        end = max(end, finish)
        heapq.heappush(free, finish)
    return end
