"""A reader who types in what a page says, on a terminal, and looks whether the same thing comes out.

Pages speak of a service on `127.0.0.1:8080` and of model servers on `localhost:8000` and `localhost:8001`; here these
are whatever ports are free. In expected output `…` stands for any text, every number for any number, and `^C` for
the key that stops the service.
"""

from __future__ import annotations

import contextlib
import os
import pty
import random
import re
import select
import signal
import socket
import subprocess
import sys
import termios
import time
from collections.abc import Mapping
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import TYPE_CHECKING

from overnight.testing.upstream import ScriptedUpstream

if TYPE_CHECKING:
    from typing import Self

    from tests.docs.pages import Block

MODELS: Mapping[str, tuple[str, ...]] = {
    "localhost:8000": ("qwen2.5-7b-instruct",),
    "localhost:8001": ("qwen2.5-7b-instruct", "bge-m3"),
}
SERVICE = "127.0.0.1:8080"
SERVES = ("overnight serve", "make serve")
# These run this very test, or what takes as long: here they only have to exist.
TOO_LONG = ("make test", "make ci", "make chaos")
# The environment that runs the tests is there; nothing is installed in the middle of them.
MAKE = "make -o .venv/.stamp-run -o .venv/.stamp-dev"
CTRL_C = "^C"
LONGEST = 60.0

_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_WILD = re.compile(r"(…|\d[\d,.:]*|[█░]+| +)")
_ROWS, _COLUMNS = 50, 100


class Mismatch(AssertionError):
    """A block does not do what the page says."""


class Reader:
    """Works through the blocks of one page, in a folder of its own."""

    def __init__(self, page: str, folder: Path) -> None:
        self.upstreams = {address: ScriptedUpstream(models) for address, models in MODELS.items()}
        self._page = page
        self._folder = folder
        self._state = folder.parent / f"{folder.name}.state"
        self._addresses = {SERVICE: f"127.0.0.1:{_free_port()}"}
        self._stack = contextlib.ExitStack()
        self._serving: subprocess.Popen[bytes] | None = None
        self._last = ""

    def __enter__(self) -> Self:
        for address, upstream in self.upstreams.items():
            self._stack.enter_context(upstream)
            self._addresses[address] = f"127.0.0.1:{upstream.port}"
        self._stack.callback(self._stop_serving)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def follow(self, block: Block) -> None:
        """Do what one block asks for. Raises ``Mismatch``."""
        text = self._localised(block.text)
        if block.title == "output":
            self._compare(block, text.splitlines(), self._last)
        elif block.title:
            path = self._folder / block.title
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        elif block.language == "console":
            self._type(block, text)
        elif block.language in {"python", "bash"}:
            program = [sys.executable, "-c", text] if block.language == "python" else ["bash", "-ec", text]
            status, self._last = self._on_terminal(program)
            if status:
                raise self._mismatch(block, f"it ended with {status}", self._last)

    def _type(self, block: Block, text: str) -> None:
        commands = _commands(text)
        status = 0
        for place, (command, expected) in enumerate(commands):
            looked_at = place + 1 < len(commands) and commands[place + 1][0] == "echo $?"
            if command.startswith(SERVES):
                self._stop_serving()
            if command.startswith(SERVES) and not looked_at:
                output = self._serve(block, command)
            else:
                status, output = self._run(command, status)
                if status and not looked_at:
                    raise self._mismatch(block, f"`{command}` ended with {status}", output)
            self._compare(block, [line for line in expected if line != CTRL_C], output)
            self._last = output
            if CTRL_C in expected:
                self._stop_serving()

    def _run(self, command: str, status_before: int) -> tuple[int, str]:
        """Run a command as a line of one long shell session: `$?`, `cd` and `export` carry on."""
        lines = [
            f"source {self._state} 2>/dev/null",
            f"(exit {status_before})",
            _typed(command),
            "status=$?",
            f'{{ export -p; echo "cd $(printf %q "$PWD")"; }} > {self._state}',
            "exit $status",
        ]
        return self._on_terminal(["bash", "-c", "\n".join(lines)])

    def _serve(self, block: Block, command: str) -> str:
        """Start the service in the background and wait until it answers."""
        lines = f"source {self._state} 2>/dev/null\nexec {_typed(command)}"
        log = self._folder.parent / f"{self._folder.name}.log"
        with log.open("wb") as out:
            self._serving = subprocess.Popen(
                ["bash", "-c", lines],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=self._folder,
                env=self._environment(),
                process_group=0,
            )
        end = time.monotonic() + LONGEST
        while not _answers(self._addresses[SERVICE]):
            if self._serving.poll() is not None or time.monotonic() > end:
                raise self._mismatch(block, f"`{command}` does not answer", log.read_text())
            time.sleep(0.05)
        return log.read_text()

    def _stop_serving(self) -> None:
        if self._serving is None:
            return
        serving, self._serving = self._serving, None
        if serving.poll() is None:
            os.killpg(serving.pid, signal.SIGTERM)
        try:
            serving.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(serving.pid, signal.SIGKILL)
            serving.wait()

    def _on_terminal(self, program: list[str]) -> tuple[int, str]:
        """Run a program on a terminal and give its exit status and all that it showed."""
        leader, follower = pty.openpty()
        termios.tcsetwinsize(follower, (_ROWS, _COLUMNS))
        with subprocess.Popen(
            program,
            stdin=follower,
            stdout=follower,
            stderr=follower,
            cwd=self._folder,
            env=self._environment(),
            start_new_session=True,
        ) as running:
            os.close(follower)
            try:
                return self._watched(running, leader)
            finally:
                os.close(leader)

    def _watched(self, running: subprocess.Popen[bytes], leader: int) -> tuple[int, str]:
        shown = bytearray()
        end = time.monotonic() + LONGEST
        while time.monotonic() < end:
            readable, _, _ = select.select([leader], [], [], 0.2)
            if not readable and running.poll() is not None:
                break
            if readable:
                try:
                    piece = os.read(leader, 65536)
                except OSError:  # the other end of a terminal is closed: Linux says EIO
                    break
                shown += piece
        else:
            os.killpg(running.pid, signal.SIGKILL)
        return running.wait(), _plain(shown.decode(errors="replace"))

    def _environment(self) -> dict[str, str]:
        service = self._addresses[SERVICE]
        ours = ("OVERNIGHT_", "OPENAI_", "AZURE_OPENAI_", "COV_", "COVERAGE_", "MAKE", "MFLAGS")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        return kept | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "HOME": str(self._folder.parent),
            "NO_COLOR": "1",
            "NO_PROXY": "*",
            "TERM": "xterm",
            "OVERNIGHT_PORT": service.rpartition(":")[2],
            "OVERNIGHT_URL": f"http://{service}/v1",
        }

    def _localised(self, text: str) -> str:
        for written, actual in self._addresses.items():
            text = text.replace(written, actual)
        return text

    def _compare(self, block: Block, expected: list[str], output: str) -> None:
        """Look for the expected lines among those that were shown, in their order."""
        shown = iter(output.splitlines())
        for line in filter(str.strip, expected):
            wanted = _pattern(line)
            if not any(wanted.fullmatch(each.strip()) for each in shown):
                raise self._mismatch(block, f"the line `{line}` did not appear", output)

    def _mismatch(self, block: Block, what: str, output: str) -> Mismatch:
        return Mismatch(f"{self._page}:{block.line}: {what}\n--- it showed:\n{output}")


def _commands(text: str) -> list[tuple[str, list[str]]]:
    """Tell what is typed (after `$ `, or `> ` where it goes on) from what is shown."""
    found: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        elif line.startswith("> ") and not found[-1][1]:
            found[-1] = (f"{found[-1][0]}\n{line[2:]}", [])
        else:
            found[-1][1].append(line)
    return found


def _typed(command: str) -> str:
    if command in TOO_LONG:
        return command.replace("make", f"{MAKE} --dry-run", 1)
    return command.replace("make", MAKE, 1) if command.startswith("make ") else command


def _pattern(line: str) -> re.Pattern[str]:
    return re.compile("".join(map(_wider, _WILD.split(line.strip()))))


def _wider(part: str) -> str:
    if part == "…":
        return ".*"
    if part[:1].isdigit():
        return r"\d[\d,.:]*"
    if part[:1] in {"█", "░"}:
        return "[█░]*"
    return r"\s+" if part.isspace() else re.escape(part)


def _plain(shown: str) -> str:
    return _ANSI.sub("", shown.replace("\r\n", "\n")).replace("\r", "\n")


def _free_port() -> int:
    """Find a port that the system does not give to outgoing connections: it must stay free until it is used."""
    while True:
        port = random.randrange(20_000, 32_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def _answers(address: str) -> bool:
    connection = HTTPConnection(address, timeout=5)
    try:
        connection.request("GET", "/ready")
        return connection.getresponse().status == HTTPStatus.OK
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
