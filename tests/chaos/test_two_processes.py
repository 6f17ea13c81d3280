"""Two processes on one data folder: one takes over from the other, and none of them can do the other harm."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from random import Random, SystemRandom

import pytest
from tests.chaos.two import CONCURRENCY, LAUNCHER, LEASE, api_of, is_frozen, keep_clear_of_the_database, two_services
from tests.chaos.world import GONE, name_of
from tests.support.api import OPENAI, TERMINAL, jsonl, request
from tests.support.service import Service, eventually

from overnight.testing.invariants import History, check_results, check_runs, runs_of
from overnight.testing.upstream import ScriptedUpstream, answer

DELAY = 0.15


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("point", "nth"),
    [
        ("log.written", 3),
        pytest.param("log.synced", 3, marks=pytest.mark.long),
        pytest.param("index.placed", 1, marks=pytest.mark.long),
        pytest.param("log.pinned", 1, marks=pytest.mark.long),
        pytest.param("batch.claimed", 1, marks=pytest.mark.long),
        pytest.param("batch.finalizing", 1, marks=pytest.mark.long),
        pytest.param("output_file.placed", 1, marks=pytest.mark.long),
    ],
)
def test_the_other_takes_over_from_one_that_hangs_and_it_wakes_up_fenced(tmp_path: Path, point: str, nth: int):
    """Frozen in the middle of a step, past its lease, and then woken: it may not write anything that counts."""
    names = [f"r-{number}" for number in range(80)]
    content = jsonl(*(request(name, OPENAI.endpoint) for name in names))
    with ScriptedUpstream(script=answer(delay=DELAY)) as upstream, two_services(tmp_path, upstream) as (first, second):
        first.start([*LAUNCHER, "--at", point, "--nth", str(nth), "--action", "stop", "--"])
        batch_id = api_of(first).create(api_of(first).upload(content))
        eventually(lambda: is_frozen(first), 60)
        keep_clear_of_the_database(first)
        frozen = time.time()
        second.start([*LAUNCHER, "--"])
        history = History()

        batch = api_of(second).end(batch_id, timeout=60)
        history.saw(batch)
        output, errors = (api_of(second).content(batch[name]) for name in ("output_file_id", "error_file_id"))
        before = len(upstream.asked)
        os.kill(first.pid, signal.SIGCONT)
        eventually(lambda: "batch.lost" in first.log(), 60)
        time.sleep(3 * DELAY)
        after = len(upstream.asked)
        problems = history.check_end(api_of(first).batch(batch_id))

        assert problems + check_results(batch, names, output, errors) == []
        assert batch["status"] == "completed"
        assert api_of(second).content(batch["output_file_id"]) == output
        runs = runs_of(upstream, name_of)[:before]
        assert check_runs(runs, [frozen], max_concurrency=CONCURRENCY, settle=LEASE) == []
        assert after == before


@pytest.mark.long
@pytest.mark.timeout(400)
def test_either_is_killed_at_random_while_both_work(tmp_path: Path):
    seed = SystemRandom().randrange(1_000_000)
    sys.stdout.write(f"seed {seed}\n")
    random = Random(seed)
    crashes: list[float] = []
    history = History()
    with ScriptedUpstream(script=answer(delay=0.05)) as upstream, two_services(tmp_path, upstream) as both:
        for service in both:
            service.start([*LAUNCHER, "--"])
        inputs = {_submit(both[number % 2], number): _names(number) for number in range(6)}
        for _ in range(4):
            _look_for(random.uniform(0.2, 1.0), both, history, list(inputs))
            victim = random.choice(both)
            victim.kill()
            crashes.append(time.time())
            victim.start([*LAUNCHER, "--"])
        problems = []
        for batch_id, names in inputs.items():
            batch = api_of(both[0]).end(batch_id, timeout=60)
            files = [api_of(both[1]).content(batch[name]) for name in ("output_file_id", "error_file_id")]
            problems += history.check_end(batch) + check_results(batch, names, *files)
        problems += history.problems
        problems += check_runs(runs_of(upstream, name_of), crashes, max_concurrency=2 * CONCURRENCY)

        assert problems == []


def _names(number: int) -> list[str]:
    return [f"b{number}-{line}" for line in range(60)]


def _submit(service: Service, number: int) -> str:
    lines = (request(name, OPENAI.endpoint) for name in _names(number))
    return api_of(service).create(api_of(service).upload(jsonl(*lines)))


def _look_for(seconds: float, both: tuple[Service, Service], history: History, batch_ids: list[str]) -> None:
    """Poll both in turn; what one has shown, the other must not take back."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for service in both:
            for batch_id in batch_ids:
                try:
                    batch = api_of(service).batch(batch_id)
                except GONE:
                    continue
                history.saw(batch)
                if batch["status"] in TERMINAL:
                    api_of(service).content(batch["output_file_id"])
