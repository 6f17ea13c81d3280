"""The real service as a process of its own: started, stopped, killed and started again on the same data."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from tests.support import nursery

if TYPE_CHECKING:
    from typing import Self

LONGEST_START = 60.0
LONGEST_STOP = 30.0


class Service:
    """``overnight serve`` on one data folder. ``url`` changes with each start, since the port is any free one.

    Two with different names share their data folder, and log to files of their own.
    """

    def __init__(
        self, folder: Path, *, upstreams: Sequence[str] = (), arguments: Sequence[str] = (), name: str = "service"
    ) -> None:
        self.data_dir = folder / "data"
        self.log_path = folder / f"{name}.log"
        self.url = ""
        self._arguments = [argument for url in upstreams for argument in ("--upstream", url)] + list(arguments)
        self._process: nursery.Process | None = None
        self._stdout: IO[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The process that runs."""
        assert self._process is not None, "the service is not running"
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        return self._process is not None and self._process.poll() is None

    def exit_code(self, timeout: float) -> int:
        """Wait until it has ended by itself, and say how. Raises ``TimeoutExpired``."""
        assert self._process is not None
        return self._process.wait(timeout)

    def start(self, launcher: Sequence[str] = ("overnight.cli.main",)) -> None:
        """Start it and wait until it listens. Raises ``RuntimeError`` with the log if it does not."""
        self.launch(launcher)
        self.wait_until_ready()

    def launch(self, launcher: Sequence[str] = ("overnight.cli.main",)) -> None:
        """Start it; ``launcher`` is the module that runs, and what stands before the arguments of the service."""
        command = [*launcher, "serve", "--json", "--port", "0", "--data-dir", str(self.data_dir), *self._arguments]
        ours, theirs = os.pipe()
        self._stdout = os.fdopen(ours, "rb")
        with self.log_path.open("ab") as log, Path(os.devnull).open("rb") as nothing, os.fdopen(theirs, "wb") as out:
            streams = [nothing.fileno(), out.fileno(), log.fileno()]
            env = environment(self.data_dir.parent)
            self._process = nursery.start(command, streams=streams, cwd=Path.cwd(), env=env)

    def wait_until_ready(self) -> None:
        """Wait until it listens. Raises ``RuntimeError`` with the log if it does not."""
        assert self._stdout is not None
        answered, _, _ = select.select([self._stdout], [], [], LONGEST_START)
        line = self._stdout.readline() if answered else b""
        if not line:
            self.kill()
            message = f"the service did not start:\n{self.log()}"
            raise RuntimeError(message)
        self.url = json.loads(line)["url"]

    def stop(self) -> None:
        """Ask it to end; kill it if it does not."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once (``kill -9``)."""
        self._end(signal.SIGKILL)

    def log(self, start: int = 0) -> str:
        """Give what it logged, from a byte on."""
        with self.log_path.open("rb") as log:
            log.seek(start)
            return log.read().decode(errors="replace")

    def log_size(self) -> int:
        """Say how much it logged so far."""
        return self.log_path.stat().st_size

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        process, self._process = self._process, None
        if process.poll() is None:
            process.send_signal(number)
        try:
            process.wait(LONGEST_STOP)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        _close(self._stdout)


def overnight(service: Service, *arguments: str) -> str:
    """Run a command of ours beside a service and give what it printed."""
    home = service.data_dir.parent
    command = [sys.executable, "-m", "overnight.cli.main", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(home), check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def log_shown(service: Service) -> Iterator[Service]:
    """Write what the service logs meanwhile to stdout, which pytest shows for a test that failed."""
    start = service.log_size() if service.log_path.exists() else 0
    try:
        yield service
    finally:
        sys.stdout.write(service.log(start))


def environment(home: Path) -> Mapping[str, str]:
    """Give the environment for a service: what whoever runs the tests has set there for ours is left out."""
    foreign = ("OVERNIGHT_", "OPENAI_", "AZURE_OPENAI_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    # No settings of whoever runs the tests: neither from the environment nor from the home folder.
    return kept | {"HOME": str(home)}


def _close(stream: IO[bytes] | None) -> None:
    if stream is not None:
        stream.close()


def eventually(condition, timeout: float = 20.0, every: float = 0.02):
    """Wait until the condition gives something, and give that. Raises ``TimeoutError``."""
    end = time.monotonic() + timeout
    while not (found := condition()):
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(every)
    return found
