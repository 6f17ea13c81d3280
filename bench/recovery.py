"""``kill -9`` in the middle of 100,000 requests: how soon a new process goes on, and what is run twice."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

from bench.figures import Figure
from bench.parts import make_file, nginx, service
from overnight.adapters.results.segment import WRITE_AHEAD

_REQUESTS = 100_000
_SLOTS = 64


def run(folder: Path) -> list[Figure]:
    """Measure."""
    path = make_file(folder / "many.jsonl", _REQUESTS, (40, 100), seed=4)
    seen = folder / "nginx" / "seen"
    config = folder / "overnight.toml"
    with nginx(folder / "nginx", log=True) as upstream:
        bounds = f"max_concurrency = {_SLOTS}\nstart_concurrency = {_SLOTS}\n"
        config.write_text(f'[[upstreams]]\nurl = "{upstream}"\n{bounds}')
        with service(folder / "data", "--config", str(config)) as first:
            batch_id = first.create(first.upload(path))
            while first.until(batch_id, "in_progress")["request_counts"]["completed"] < _REQUESTS // 3:
                time.sleep(0.05)
            os.kill(first.pid, signal.SIGKILL)
        time.sleep(0.5)
        asked = _posts(seen)
        began = time.time()
        with service(folder / "data", "--config", str(config)) as second:
            batch = second.until(batch_id, "completed", every=0.2)
        times = [moment for moment in _times(seen) if moment >= began - 0.3]
    twice = _posts(seen) - _REQUESTS
    assert batch["request_counts"]["completed"] == _REQUESTS
    pause = min(times) - began
    return [
        Figure(
            bench="recovery",
            what="start to first new request",
            value=pause,
            unit="s",
            beside=f"{asked:,} asked before",
            goal="< 2",
            met=pause < 2,
        ),
        Figure(
            bench="recovery",
            what="requests run twice",
            value=twice,
            unit="",
            beside=f"{_SLOTS} in flight, and up to {WRITE_AHEAD} answers that were not yet written",
            goal=f"<= {_SLOTS + WRITE_AHEAD}",
            met=twice <= _SLOTS + WRITE_AHEAD,
        ),
    ]


def _posts(seen: Path) -> int:
    return len(_times(seen))


def _times(seen: Path) -> list[float]:
    return [float(moment) for moment in re.findall(r"^([0-9.]+) POST", seen.read_text(), re.MULTILINE)]
