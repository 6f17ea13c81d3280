"""A process that has imported the service already: what it forks need not do that again, which takes over a second.

What is forked is a process like any other, with arguments, environment, folder, streams and signals of its own; it
runs a module as ``python -m`` does. Its parent is a keeper, also forked, which tells how it ended.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

WARM = (
    "overnight.bootstrap.doctor",
    "overnight.bootstrap.server",
    "overnight.cli.keys",
    "overnight.cli.main",
    "overnight.cli.quota",
    "overnight.cli.serve",
    "overnight.cli.usage",
    "overnight.client",
    "overnight.testing.crashing",
    "aiosqlite",
    "alembic.context",
    "sqlalchemy.dialects.sqlite",
)
_NUMBER = struct.Struct("=q")
_LARGEST_ORDER = 1 << 18
_STREAMS = 3


class Process:
    """A process out of the nursery; speaks as a ``subprocess.Popen`` does."""

    def __init__(self, status: int) -> None:
        self.returncode: int | None = None
        self._status = status
        self.pid = self._read()

    def poll(self) -> int | None:
        """Give the exit code if it has ended, a signal as a negative number."""
        if self.returncode is None and select.select([self._status], [], [], 0)[0]:
            self._ended()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the exit code. Raises ``TimeoutExpired``."""
        if self.returncode is None:
            if not select.select([self._status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
            self._ended()
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)

    def _ended(self) -> None:
        self.returncode = self._read()
        os.close(self._status)

    def _read(self) -> int:
        (number,) = _NUMBER.unpack(os.read(self._status, _NUMBER.size))
        return int(number)


class _Nursery:
    """Forks processes on demand; ends with the process that made it."""

    def __init__(self) -> None:
        self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        home = Path(__file__).parents[2]
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.nursery", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                cwd=home,
            )
        self._lock = threading.Lock()

    def close(self) -> None:
        """Let it end; what it has forked goes on."""
        self._orders.close()
        self._process.wait()

    def fork(self, order: Mapping[str, Any], streams: Sequence[int]) -> Process:
        ours, theirs = os.pipe()
        try:
            with self._lock:
                socket.send_fds(self._orders, [json.dumps(order).encode()], [*streams, theirs])
        finally:
            os.close(theirs)
        return Process(ours)


@cache
def _nursery() -> _Nursery:
    nursery = _Nursery()
    atexit.register(nursery.close)
    return nursery


def start(
    arguments: Sequence[str],
    *,
    streams: Sequence[int],
    cwd: Path,
    env: Mapping[str, str],
    new_session: bool = False,
) -> Process:
    """Run a module with arguments in a new process; ``streams`` are its standard input, output and errors."""
    order = {"arguments": list(arguments), "cwd": str(cwd), "env": dict(env), "new_session": new_session}
    return _nursery().fork(order, streams)


def main() -> None:
    """Import everything, then fork for each order that comes in."""
    orders = socket.socket(fileno=int(sys.argv[1]))
    for name in WARM:
        importlib.import_module(name)
    # Nobody waits for the keepers.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        order, descriptors, _, _ = socket.recv_fds(orders, _LARGEST_ORDER, _STREAMS + 1)
        if not order:
            return
        if os.fork() == 0:
            break
        for descriptor in descriptors:
            os.close(descriptor)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    orders.close()
    *streams, status = descriptors
    pid = os.fork()
    if pid != 0:
        _keep(pid, streams, status)
    os.close(status)
    _become(json.loads(order), streams)


def _keep(pid: int, streams: Sequence[int], status: int) -> NoReturn:
    """Tell who the child is, and how it ended."""
    for descriptor in (*streams, *range(_STREAMS)):
        os.close(descriptor)
    # Whoever asked may be gone.
    with suppress(BrokenPipeError):
        os.write(status, _NUMBER.pack(pid))
        _, ended = os.waitpid(pid, 0)
        os.write(status, _NUMBER.pack(os.waitstatus_to_exitcode(ended)))
    os._exit(0)


def _become(order: Mapping[str, Any], streams: Sequence[int]) -> None:
    if order["new_session"]:
        os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["env"])
    for target, source in enumerate(streams):
        os.dup2(source, target)
        os.close(source)
    # As the interpreter makes them: what is written to a terminal is seen line by line.
    sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
    module, *rest = order["arguments"]
    sys.argv = [module, *rest]
    sys.modules.pop(module, None)
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
