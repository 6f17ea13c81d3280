"""The command line as its users meet it: a process with arguments, two streams and an exit code."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import pytest
from tests.support import nursery
from tests.support.service import Service, log_shown

from overnight.testing.upstream import ScriptedUpstream, answer

MODULE = "overnight.cli.main"
COMMAND = (sys.executable, "-m", MODULE)
MODEL = "test-model"
LONGEST_RUN = 60.0
ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a command left."""

    stdout: str
    stderr: str
    code: int

    @property
    def json(self) -> list[dict[str, Any]]:
        """The JSON objects on stdout, one a line."""
        return [json.loads(line) for line in self.stdout.splitlines()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cli:
    """Runs `overnight` in one folder, against one server."""

    folder: Path
    environment: dict[str, str]

    def __call__(self, *arguments: str, stdin: str = "", **environment: str) -> Outcome:
        """Run it as a script does: no terminal anywhere."""
        with TemporaryFile("w+") as given, TemporaryFile("w+") as out, TemporaryFile("w+") as errors:
            given.write(stdin)
            given.seek(0)
            streams = [each.fileno() for each in (given, out, errors)]
            env = self.environment | environment
            process = nursery.start([MODULE, *arguments], streams=streams, cwd=self.folder, env=env)
            try:
                code = process.wait(LONGEST_RUN)
            finally:
                process.kill()
            out.seek(0)
            errors.seek(0)
            return Outcome(stdout=out.read(), stderr=errors.read(), code=code)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start it and go on."""
        return subprocess.Popen(
            [*COMMAND, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            env=self.environment,
        )

    def on_terminal(self, *arguments: str, interrupt_at: str | None = None, keys: str = "") -> tuple[str, int]:
        """Run it on a terminal of 100 columns; give all that was shown, and the exit code."""
        ours, theirs = pty.openpty()
        env = self.environment | {"COLUMNS": "100", "LINES": "60", "TERM": "xterm"}
        process = nursery.start([MODULE, *arguments], streams=[theirs] * 3, cwd=self.folder, env=env, new_session=True)
        os.close(theirs)
        os.write(ours, keys.encode())
        try:
            shown = _read(ours, process, interrupt_at)
        finally:
            os.close(ours)
        return shown.replace("\r\n", "\n"), process.wait(LONGEST_RUN)


def _read(terminal: int, process: nursery.Process, interrupt_at: str | None) -> str:
    shown = b""
    while True:
        try:
            piece = os.read(terminal, 65_536)
        except OSError:  # how Linux says that nobody holds the other end any more
            break
        if not piece:
            break
        shown += piece
        if interrupt_at and interrupt_at.encode() in shown:
            process.send_signal(signal.SIGINT)
            interrupt_at = None
    return shown.decode()


def plain(shown: str) -> str:
    """What stays on a terminal: the lines after all redrawing, without colours."""
    lines = (line.rpartition("\r\x1b[2K")[2] for line in shown.split("\n"))
    return ESCAPES.sub("", "\n".join(lines))


def request(custom_id: str, text: str = "Hello", **changes: object) -> dict[str, Any]:
    """One request, right unless it is changed."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": text}], "max_tokens": 16}
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body} | changes


@pytest.fixture(scope="session")
def shared_upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream(models=[MODEL]) as upstream:
        yield upstream


@pytest.fixture(scope="session")
def shared_service(shared_upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service(tmp_path_factory.mktemp("cli"), upstreams=[shared_upstream.url]) as service:
        yield service


@pytest.fixture
def upstream(shared_upstream: ScriptedUpstream) -> Iterator[ScriptedUpstream]:
    """The model server behind the service; it answers well again after the test."""
    yield shared_upstream
    shared_upstream.script = answer()


@pytest.fixture
def bare(tmp_path: Path) -> Cli:
    """The command line where no server is named: the default port of this machine must not matter."""
    foreign = ("OVERNIGHT_", "OPENAI_", "AZURE_OPENAI_", "NO_COLOR")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return Cli(folder=tmp_path, environment=kept | {"HOME": str(tmp_path), "OVERNIGHT_URL": "http://127.0.0.1:9/v1"})


@pytest.fixture
def cli(bare: Cli, shared_service: Service) -> Iterator[Cli]:
    """The command line with the real service."""
    bare.environment["OVERNIGHT_URL"] = f"{shared_service.url}/v1"
    with log_shown(shared_service):
        yield bare


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write a file of requests into the folder of the test."""

    def write_file(*requests: dict[str, Any] | str, name: str = "prompts.jsonl") -> Path:
        path = tmp_path / name
        lines = [each if isinstance(each, str) else json.dumps(each) for each in requests]
        path.write_text("".join(f"{line}\n" for line in lines))
        return path

    return write_file


def wait_until(condition: Callable[[], bool], timeout: float = 20.0) -> None:
    """Wait until something is so."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "it never came to be"
        time.sleep(0.02)
