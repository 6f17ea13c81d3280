"""Pages of the Studio for a batch of 100,000 requests, as a browser gets them: from the request to the last byte."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median

from bench.figures import Figure
from bench.parts import Service, make_file, nginx, service

_REQUESTS = 100_000
_ROUNDS = 20
_GOAL = 100
_MIDDLE = f"?offset={_REQUESTS // 2}&limit=100"


def run(folder: Path) -> list[Figure]:
    """Measure."""
    many = make_file(folder / "many.jsonl", _REQUESTS, (40, 100), seed=5)
    with nginx(folder / "nginx") as upstream, service(folder / "data", "--upstream", upstream) as running:
        batch_id = running.create(running.upload(many))
        running.until(batch_id, "completed", every=0.5)
        page = f"/studio/batches/{batch_id}"
        return [
            _figure(running, "the batch with its first 50 requests", page),
            _figure(running, "100 requests in its middle", page + _MIDDLE),
            _figure(running, "one of its requests", f"{page}/requests/r-{_REQUESTS // 2}?line={_REQUESTS // 2}"),
            _figure(running, "a small page, for comparison", "/studio/system"),
        ]


def _figure(running: Service, what: str, path: str) -> Figure:
    spans, size = [], 0
    for _ in range(_ROUNDS):
        began = time.perf_counter()
        reply = running.client.get(running.url + path).build().send()
        size = len(bytes(reply.bytes()))
        spans.append((time.perf_counter() - began) * 1_000)
        if reply.status != 200:
            message = f"{path} answered {reply.status}"
            raise RuntimeError(message)
    spent = median(spans)
    beside = f"first {spans[0]:.0f} ms, slowest other {max(spans[1:]):.0f} ms, {size / 1000:.0f} kB"
    return Figure(
        bench="studio", what=what, value=spent, unit="ms", beside=beside, goal=f"< {_GOAL}", met=spent < _GOAL
    )
