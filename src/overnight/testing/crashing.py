"""Runs the command line of the service so that it dies, freezes or meets a broken disk at a moment that is named.

    python -m overnight.testing.crashing --at log.written --nth 3 -- serve --port 0

starts ``overnight serve``, which kills itself with ``SIGKILL`` when it comes to that point for the third time. The
names are in ``overnight.crash_points.POINTS``. Other faults:

- ``--action stop`` freezes the process (``SIGSTOP``) instead; ``SIGCONT`` wakes it.
- ``--record FILE`` adds a line with the name of each point that is reached.
- ``--fail CALL=FILE`` lets ``os.CALL`` (such as ``fdatasync``) raise an input/output error as long as FILE exists.
- ``--set MODULE:NAME=NUMBER`` changes a constant of the service, such as
  ``overnight.dispatch.dispatcher:LEASE=1.5``, so that a test need not wait.

Only the process itself is armed, not those that it starts.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import os
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from overnight import crash_points

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ACTIONS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}
"""What can happen at a point: the signal that the process sends to itself."""


def crash_at(point: str, nth: int = 1, action: Callable[[], object] | None = None) -> None:
    """Arm this process: when it comes to a point for the nth time, ``action`` is called; without one, it is killed.

    Raises:
        ValueError: there is no such point.
    """
    if point not in crash_points.POINTS:
        message = f"there is no crash point {point!r}"
        raise ValueError(message)
    act = action or (lambda: os.kill(os.getpid(), signal.SIGKILL))
    lock = threading.Lock()
    left = nth

    def count(name: str) -> None:
        nonlocal left
        if name != point:
            return
        with lock:
            left -= 1
            due = left == 0
        if due:
            act()

    crash_points.watch(count)


def record_to(path: Path) -> None:
    """Write down each point that this process reaches, as a line of its own in a file."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def write(name: str) -> None:
        os.write(descriptor, f"{name}\n".encode())

    crash_points.watch(write)


def fail_while(call: str, switch: Path) -> None:
    """Let ``os.<call>`` raise an input/output error as long as a file exists."""
    real = getattr(os, call)

    def failing(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - whatever the real one takes and gives
        if switch.exists():
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(*args, **kwargs)

    setattr(os, call, failing)


def set_constant(assignment: str) -> None:
    """Change a number of a module: ``package.module:NAME=1.5``.

    Raises:
        ValueError: the value is no number.
        TypeError: the module has no such number.
    """
    place, _, value = assignment.partition("=")
    module, _, name = place.partition(":")
    target = importlib.import_module(module)
    if not isinstance(getattr(target, name, None), (int, float)):
        message = f"{module} has no number {name}"
        raise TypeError(message)
    setattr(target, name, type(getattr(target, name))(value))


def main(arguments: Sequence[str] | None = None) -> None:
    """Arm this process as the arguments say, then run the command line with those after ``--``."""
    parser = argparse.ArgumentParser(prog="python -m overnight.testing.crashing", description=__doc__.splitlines()[0])
    parser.add_argument("--at", choices=crash_points.POINTS, metavar="POINT", help="where it happens")
    parser.add_argument("--nth", type=int, default=1, help="the how-manieth time it is reached [1]")
    parser.add_argument("--action", choices=sorted(ACTIONS), default="kill", help="what happens [kill]")
    parser.add_argument("--record", type=Path, metavar="FILE", help="write down each point that is reached")
    parser.add_argument("--fail", action="append", default=[], metavar="CALL=FILE", help="fail while FILE exists")
    parser.add_argument("--set", action="append", default=[], metavar="MODULE:NAME=NUMBER", help="change a constant")
    parser.add_argument("command", nargs="+", help="the arguments of `overnight`, after --")
    options = parser.parse_args(arguments)
    for assignment in options.set:
        set_constant(assignment)
    for fault in options.fail:
        call, _, switch = fault.partition("=")
        fail_while(call, Path(switch))
    if options.record is not None:
        record_to(options.record)
    if options.at is not None:
        number = ACTIONS[options.action]
        crash_at(options.at, options.nth, lambda: os.kill(os.getpid(), number))
    from overnight.cli.main import main as run  # noqa: PLC0415 - the constants are changed before anything is built

    run(options.command)


if __name__ == "__main__":
    main()
