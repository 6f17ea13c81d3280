"""The embedded model behind an adaptive limit, against the same model asked with as many requests as it has slots."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from bench.figures import Figure
from bench.parts import Service, service
from overnight.adapters.upstreams.embedded import MODEL_NAME, find_model

if TYPE_CHECKING:
    from collections.abc import Iterator

_NAME = "embedded"
_SLOTS = 4
_REQUESTS = 240
_STARTED = 80
"""After so many answers the start-up is over."""


def run(folder: Path) -> list[Figure]:
    """Measure."""
    path = _make_file(folder / "chats.jsonl")
    with _model() as url:
        fixed, _ = _rate(path, folder / "fixed", url, f"max_concurrency = {_SLOTS}\nstart_concurrency = {_SLOTS}\n")
        found, limit = _rate(path, folder / "found", url, "")
    share = found / fixed
    return [
        Figure(
            bench=_NAME,
            what="share of its capacity with a limit found by trying",
            value=share,
            unit="",
            beside=f"{found:.2f}/s at a limit of {limit}, {fixed:.2f}/s with {_SLOTS} requests for {_SLOTS} slots",
            goal=">= 0.9",
            met=share >= 0.9,
        )
    ]


def _rate(path: Path, folder: Path, url: str, bounds: str) -> tuple[float, int]:
    """Run the file, and give answers a second after the start-up and the limit at the end."""
    config = folder.with_suffix(".toml")
    config.write_text(f'[[upstreams]]\nname = "model"\nurl = "{url}/v1"\n{bounds}')
    with service(folder, "--config", str(config)) as running:
        batch_id = running.create(running.upload(path))
        first, began = _wait_for(running, batch_id, _STARTED)
        last, ended = _wait_for(running, batch_id, _REQUESTS - _SLOTS)
        limit = running.call("GET", "/ready")["upstreams"][0]["limit"]
        batch = running.until(batch_id, "completed", every=0.2)
    assert batch["request_counts"]["completed"] == _REQUESTS
    return (last - first) / (ended - began), limit


def _wait_for(running: Service, batch_id: str, count: int) -> tuple[int, float]:
    while True:
        done = running.call("GET", f"/openai/batches/{batch_id}")["request_counts"]["completed"]
        if done >= count:
            return done, time.perf_counter()
        time.sleep(0.05)


@contextmanager
def _model() -> Iterator[str]:
    """Run the model as the service does, as a server of its own."""
    command = [sys.executable, "-m", "overnight.adapters.upstreams.llama", str(find_model()), MODEL_NAME, str(_SLOTS)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        if process.stdout is None:
            raise RuntimeError("no standard output")
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def _make_file(path: Path) -> Path:
    with path.open("w") as file:
        for number in range(_REQUESTS):
            messages = [{"role": "user", "content": f"Name a thing that is larger than {number} apples."}]
            body = {"model": MODEL_NAME, "messages": messages, "max_tokens": 8, "temperature": 0}
            line = {"custom_id": f"r-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
            file.write(json.dumps(line) + "\n")
    return path
