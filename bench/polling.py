"""Status calls while a batch is dispatched at full speed, and an upload of 200 MB idle and busy."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.figures import Figure
from bench.parts import Service, Watch, make_file, nginx, processor_time, send_form, service
from bench.raw_upload import raw_server

_SECONDS = 6
_ROUNDS = 7


def run(folder: Path) -> list[Figure]:
    """Measure."""
    many = make_file(folder / "many.jsonl", 100_000, (40, 100), seed=5)
    big = make_file(folder / "big.jsonl", 100_000, (280, 300))
    with nginx(folder / "nginx") as upstream, service(folder / "data", "--upstream", upstream) as running:
        figures = [*_idle_upload(running, big, folder), *_watched_upload(running, big)]
        batch_id = running.create(running.upload(many))
        running.until(batch_id, "in_progress")
        figures += _poll(running, batch_id)
        figures += _busy_upload(running, big)
    return figures


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sent:
    """One upload: its speed in MB/s, and the server's seconds of processor time for a GB."""

    speed: float
    processor: float


def _send(url: str, pid: int, big: Path) -> _Sent:
    size = big.stat().st_size
    used, began = processor_time(pid), time.perf_counter()
    with big.open("rb") as file:
        send_form(url, big.name, size, file)
    speed = _speed(big, began)
    return _Sent(speed=speed, processor=(processor_time(pid) - used) / (size / 1e9))


def _idle_upload(running: Service, big: Path, folder: Path) -> list[Figure]:
    """Send the same bytes to the bare server and to ours in turn, so that both see the same noise."""
    raw, ours = [], []
    with raw_server(folder / "raw") as (url, pid):
        for _ in range(_ROUNDS):
            raw.append(_send(url, pid, big))
            ours.append(_send(running.url, running.pid, big))
    speed, bare = (median(sent.speed for sent in each) for each in (ours, raw))
    used, least = (median(sent.processor for sent in each) for each in (ours, raw))
    share = median(our.speed / its.speed for our, its in zip(ours, raw, strict=True))
    beside = f"{bare:.0f} MB/s for a bare server that writes the body and syncs it"
    return [
        Figure(
            bench="upload",
            what="200 MB, idle",
            value=speed,
            unit="MB/s",
            beside=beside,
            goal=">= 300",
            met=speed >= 300,
        ),
        Figure(bench="upload", what="share of the bare server's speed", value=share, unit=""),
        Figure(
            bench="upload",
            what="processor time",
            value=used,
            unit="s/GB",
            beside=f"{least:.2f} s/GB for the bare server",
        ),
    ]


def _watched_upload(running: Service, big: Path) -> list[Figure]:
    with Watch(running) as watch:
        for _ in range(_ROUNDS):
            running.upload(big)
    p99 = watch.slowest(0.99)
    return [
        Figure(
            bench="upload",
            what="p99 of polling during uploads, else idle",
            value=p99,
            unit="ms",
            beside=f"{len(watch.waits)} calls, slowest {watch.slowest():.1f} ms",
            goal="< 50",
            met=p99 < 50,
        ),
        Figure(bench="upload", what="memory growth during uploads", value=watch.growth, unit="MB"),
    ]


def _busy_upload(running: Service, big: Path) -> list[Figure]:
    with Watch(running) as watch:
        began = time.perf_counter()
        running.upload(big)
        speed = _speed(big, began)
    p99 = watch.slowest(0.99)
    return [
        Figure(bench="upload", what="200 MB while a batch runs", value=speed, unit="MB/s"),
        Figure(bench="upload", what="p99 of polling meanwhile", value=p99, unit="ms", goal="< 50", met=p99 < 50),
    ]


def _poll(running: Service, batch_id: str) -> list[Figure]:
    program = shutil.which("wrk")
    if program is None:
        sys.exit("error: wrk is missing\n\nhint: apt-get install wrk")
    counts: list[int] = []
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            counts.append(running.call("GET", f"/openai/batches/{batch_id}")["request_counts"]["completed"])
            time.sleep(0.5)

    watcher = threading.Thread(target=watch)
    watcher.start()
    url = f"{running.url}/v1/batches/{batch_id}"
    command = [program, "-t1", "-c8", f"-d{_SECONDS}s", "--latency", url]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    over.set()
    watcher.join()
    rate = float(re.findall(r"Requests/sec:\s+([0-9.]+)", told)[0])
    amount, unit = re.findall(r"99%\s+([0-9.]+)(us|ms|s)", told)[0]
    p99 = float(amount) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[unit]
    dispatched = (counts[-1] - counts[0]) / _SECONDS
    beside = f"{dispatched:,.0f} requests/s dispatched meanwhile"
    return [
        Figure(
            bench="polling",
            what="status calls",
            value=rate,
            unit="/s",
            beside=beside,
            goal=">= 1,000",
            met=rate >= 1000,
        ),
        Figure(bench="polling", what="p99", value=p99, unit="ms", goal="< 50", met=p99 < 50),
    ]


def _speed(path: Path, began: float) -> float:
    return path.stat().st_size / 1e6 / (time.perf_counter() - began)
