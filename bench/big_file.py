"""A 200 MB file of 100,000 requests: the bare check on one core, and the whole way through, with 200 MB of answers."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from bench.figures import Figure
from bench.parts import Watch, make_file, nginx, service
from overnight.domain.flavour import Flavour
from overnight.domain.request import RequestHead
from overnight.domain.validation import Rules
from overnight.services.validate import check_file

_NAME = "big file"
_SENTENCES = 34


def run(folder: Path) -> list[Figure]:
    """Measure."""
    path = make_file(folder / "big.jsonl", 100_000, (280, 300))
    return [*_check(path, folder), *_service(path, folder)]


def _check(path: Path, folder: Path) -> list[Figure]:
    size = path.stat().st_size / 1e6
    rules = Rules(
        flavour=Flavour.AZURE,
        requests_per_file=100_000,
        line_bytes=2**26,
        endpoint="/chat/completions",
        models=frozenset({"m"}),
    )
    bare, ours = [], []
    for _ in range(3):
        began = time.process_time()
        decoder = msgspec.json.Decoder(RequestHead)
        with path.open("rb") as file:
            for line in file:
                decoder.decode(line)
        bare.append(time.process_time() - began)
        began = time.process_time()
        report = check_file(path, rules, folder / "index")
        ours.append(time.process_time() - began)
        assert report.requests == 100_000
        assert report.problem_count == 0
    speed = size / sorted(ours)[1]
    beside = f"{size / sorted(bare)[1]:.0f} MB/s bare msgspec pass"
    return [
        Figure(
            bench=_NAME,
            what="validate, one core",
            value=speed,
            unit="MB/s",
            beside=beside,
            goal=">= 400",
            met=speed >= 400,
        )
    ]


def _service(path: Path, folder: Path) -> list[Figure]:
    with (
        nginx(folder / "nginx", sentences=_SENTENCES) as upstream,
        service(folder / "big", "--upstream", upstream) as running,
    ):
        with Watch(running) as watch:
            began = time.perf_counter()
            file_id = running.upload(path)
            uploaded = time.perf_counter()
            batch_id = running.create(file_id)
            batch = running.until(batch_id, "in_progress", "completed")
            validated = time.perf_counter()
            batch = running.until(batch_id, "completed", every=0.2)
            done = time.perf_counter()
        assert batch["request_counts"] == {"total": 100_000, "completed": 100_000, "failed": 0}
        answers = running.call("GET", f"/openai/files/{batch['output_file_id']}")["bytes"] / 1e6
    size = path.stat().st_size / 1e6
    return [
        Figure(bench=_NAME, what="upload through the API", value=size / (uploaded - began), unit="MB/s"),
        Figure(bench=_NAME, what="create to in_progress", value=validated - uploaded, unit="s"),
        Figure(bench=_NAME, what="in_progress to completed", value=100_000 / (done - validated), unit="requests/s"),
        Figure(
            bench=_NAME,
            what="memory growth, all processes",
            value=watch.growth,
            unit="MB",
            beside=f"{watch.before / 1e6:.0f} MB before; {size:.0f} MB in, {answers:.0f} MB out",
            goal="< 150",
            met=watch.growth < 150,
        ),
        Figure(
            bench=_NAME,
            what="memory at most, all processes",
            value=watch.peak / 1e6,
            unit="MB",
            goal="< 250",
            met=watch.peak / 1e6 < 250,
        ),
        Figure(
            bench=_NAME,
            what="slowest other call meanwhile",
            value=watch.slowest(),
            unit="ms",
            beside=f"p99 {watch.slowest(0.99):.1f} ms of {len(watch.waits)} calls",
            goal="< 100",
            met=watch.slowest() < 100,
        ),
    ]
