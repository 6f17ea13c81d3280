"""The official SDK in several versions, each in an environment of its own beside the packages of the tests."""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

VERSIONS = ("3.54.0", "2.8.1", "1.109.1", "1.40.0")

ROOT = Path(__file__).parents[2]
PROBE = ROOT / "tests" / "conformance" / "probe.py"
LONGEST_PROBE = 280


def python_of(version: str) -> Path:
    """Give the interpreter that has this version of the SDK; the environment is made on first use, and kept."""
    pinned = ROOT / "requirements" / f"sdk-{version}.txt"
    digest = hashlib.sha256(pinned.read_bytes()).hexdigest()[:12]
    folder = Path(sys.prefix) / "sdk" / version
    stamp, python = folder / f"made-from-{digest}", folder / "bin" / "python"
    folder.parent.mkdir(exist_ok=True)
    with (folder.parent / f"{version}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.exists():
            shutil.rmtree(folder, ignore_errors=True)
            _run([sys.executable, "-m", "venv", "--without-pip", str(folder)])
            install = ["install", "--quiet", "--no-deps", "--require-hashes", "--requirement", str(pinned)]
            _run([sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python), *install])
            stamp.touch()
    return python


def probe(version: str, task: Mapping[str, object]) -> dict[str, Any]:
    """Let the probe do a task with this version, and give what it found."""
    done = subprocess.run(
        [str(python_of(version)), "-I", str(PROBE)],
        input=json.dumps(task),
        capture_output=True,
        text=True,
        timeout=LONGEST_PROBE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
