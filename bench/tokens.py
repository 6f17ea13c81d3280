"""Counting the prompt tokens of 200 MB of chat in one process: a sample of it, all of it, and a bare loop beside."""

from __future__ import annotations

import json
import random
import resource
import time
from collections.abc import Callable
from pathlib import Path

from bpe_openai._bindings import tokenizer_for_encoding

from bench.figures import Figure
from overnight.adapters.tokens.choice import ChosenCounters
from overnight.domain.tokens import O200K
from overnight.services.tokens import FileTokens, count_file

_NAME = "tokens"
_REQUESTS = 100_000
_EVERYTHING = 10**12
_COUNTERS = ChosenCounters({})


def run(folder: Path) -> list[Figure]:
    """Measure in processor time: only one core is busy, and other programs on the machine must not count."""
    path = _chat(folder / "chat.jsonl")
    size = path.stat().st_size / 1e6
    _COUNTERS.of("gpt-4o").count("loaded")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    sampled, of_sample = _timed(lambda: count_file(path, _COUNTERS))
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    exact, of_all = _timed(lambda: count_file(path, _COUNTERS, _EVERYTHING))
    _, of_bare = _timed(lambda: _bare(path))
    grown = (after - before) / 1e3
    found, truth = sampled.models[0], exact.models[0].prompt_tokens
    off = 100 * abs(found.prompt_tokens - truth) / truth
    bound = 100 * found.error / truth
    bare = f"{size / of_bare:.0f} MB/s for a bare loop of json and the tokenizer over all"
    return [
        Figure(bench=_NAME, what="all counted", value=size / of_all, unit="MB/s", beside=bare),
        Figure(bench=_NAME, what="by a sample", value=size / of_sample, unit="MB/s", beside=bare),
        Figure(
            bench=_NAME,
            what=f"{size:.0f} MB by a sample",
            value=of_sample,
            unit="s",
            beside=f"{of_all:.1f} s for all",
            goal="< 10",
            met=of_sample < 10,
        ),
        Figure(
            bench=_NAME,
            what="how far the sample is off",
            value=off,
            unit="%",
            beside=f"bound {bound:.3f} %, {truth:,} tokens",
            goal="within the bound",
            met=off <= bound,
        ),
        Figure(bench=_NAME, what="memory growth", value=grown, unit="MB", goal="< 20", met=grown < 20),
    ]


def _timed(work: Callable[[], FileTokens]) -> tuple[FileTokens, float]:
    began = time.process_time()
    found = work()
    return found, time.process_time() - began


def _bare(path: Path) -> FileTokens:
    count = tokenizer_for_encoding(O200K).count
    tokens = requests = 0
    with path.open("rb") as file:
        for line in file:
            requests += 1
            for message in json.loads(line)["body"]["messages"]:
                tokens += count(message["content"])
    assert tokens
    return FileTokens(requests=requests, unreadable=0, bytes=0, largest_line=0, largest_bytes=0, models=())


def _chat(path: Path) -> Path:
    """Write about 200 MB of questions from the words of this repository's documentation, the same each time."""
    draw = random.Random(1)  # noqa: S311 - made-up text
    pages = sorted((Path(__file__).parents[1] / "docs").rglob("*.md"))
    words = [word for page in pages for word in page.read_text().split()]
    with path.open("w") as file:
        for number in range(_REQUESTS):
            length = int(draw.lognormvariate(5.5, 0.6))
            start = draw.randrange(len(words))
            text = " ".join(words[start : start + length])
            messages = [{"role": "system", "content": "You are helpful."}, {"role": "user", "content": text}]
            body = {"model": "gpt-4o", "messages": messages, "max_tokens": 16}
            line = {"custom_id": f"r-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    return path
