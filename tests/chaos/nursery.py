"""A process that has imported the service already, so that 300 starts do not cost 300 imports.

What is forked from it is a service like any other: the same code, with a process, a data folder and a port of its own.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from tests.support.service import LONGEST_START, LONGEST_STOP, Service, environment

if TYPE_CHECKING:
    from typing import Self

WARM = ("overnight.bootstrap", "overnight.cli.serve", "overnight.cli.main", "aiosqlite", "sqlalchemy.dialects.sqlite")


class Nursery:
    """Forks processes on demand."""

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "tests.chaos.nursery"]
        home = Path(__file__).parents[2]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=home, env=environment(home)
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def fork(self, arguments: Sequence[str], out: Path, log: Path, home: Path) -> int:
        """Run a module's ``main`` with arguments in a new process, and give its id."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        order = {"arguments": list(arguments), "out": str(out), "log": str(log), "home": str(home)}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


class Forked(Service):
    """A service out of the nursery."""

    def __init__(self, nursery: Nursery, folder: Path, arguments: Sequence[str]) -> None:
        super().__init__(folder, arguments=arguments)
        self._nursery = nursery
        self._out = folder / "out"
        self._pid: int | None = None

    @property
    def pid(self) -> int:
        assert self._pid is not None, "the service is not running"
        return self._pid

    @property
    def alive(self) -> bool:
        try:
            os.kill(self._pid or -1, 0)
        except (ProcessLookupError, PermissionError):
            return False
        return self._pid is not None

    def launch(self, launcher: Sequence[str] = ("overnight.testing.crashing", "--")) -> None:
        self._out.write_bytes(b"")
        self._pid = self._nursery.fork(self.command(launcher)[2:], self._out, self.log_path, self.data_dir.parent)

    def wait_until_ready(self) -> None:
        end = time.monotonic() + LONGEST_START
        while not (line := self._out.read_bytes()).endswith(b"\n"):
            if not self.alive or time.monotonic() > end:
                self.kill()
                message = f"the service did not start:\n{self.log()}"
                raise RuntimeError(message)
            time.sleep(0.005)
        self.url = json.loads(line)["url"]

    def _end(self, number: signal.Signals) -> None:
        for signal_number in (number, signal.SIGKILL):
            if self.alive:
                os.kill(self.pid, signal_number)
            end = time.monotonic() + LONGEST_STOP
            while self.alive and time.monotonic() < end:
                time.sleep(0.005)
        self._pid = None


def main() -> None:
    """Import everything, then fork for each line that comes in."""
    for name in WARM:
        importlib.import_module(name)
    # Nobody waits for the children: who wants to know asks whether they are there.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            _become(json.loads(line))
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()


def _become(order: dict[str, Any]) -> NoReturn:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.environ["HOME"] = order["home"]
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for source, target in ((os.open(os.devnull, os.O_RDONLY), 0), (os.open(order["out"], os.O_WRONLY), 1), (log, 2)):
        os.dup2(source, target)
        os.close(source)
    module, *arguments = order["arguments"]
    importlib.import_module(module).main(arguments)
    os._exit(0)


if __name__ == "__main__":
    main()
