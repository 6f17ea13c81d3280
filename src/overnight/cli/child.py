"""The service as a child process of the demo: started, waited for, and never left behind."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from urllib.parse import urlsplit

from overnight.cli.exit_codes import ExitCode
from overnight.cli.failures import CliError

START_TIMEOUT = 120.0
STOP_TIMEOUT = 20.0
POLL = 0.05
HTTP_OK = 200
LOG_LINES = 12


@dataclass(frozen=True, slots=True)
class Service:
    """A running service."""

    url: str
    models: list[str]
    process: subprocess.Popen[bytes]


@contextmanager
def service(port: int) -> Iterator[Service]:
    """Run a service of our own on a temporary folder; it is stopped and the folder removed on exit."""
    with tempfile.TemporaryDirectory(prefix="overnight-demo-", ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        log = home / "service.log"
        process = _start(home, log, port)
        try:
            yield _once_ready(process, log)
        finally:
            _stop(process)


def _start(home: Path, log: Path, port: int) -> subprocess.Popen[bytes]:
    settings = home / "overnight.toml"
    settings.touch()
    command = (
        *(sys.executable, "-m", "overnight.cli.main", "serve", "--json"),
        *("--config", str(settings), "--data-dir", str(home / "data"), "--port", str(port), "--log-level", "warning"),
    )
    # Whoever runs the demo may have settings for a service of their own; they have no business here.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OVERNIGHT_")}
    with log.open("wb") as stderr:
        return subprocess.Popen(  # noqa: S603 - our own program
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=environment,
            process_group=0,  # Ctrl-C reaches the demo alone, which then stops its child in order
        )


def _once_ready(process: subprocess.Popen[bytes], log: Path) -> Service:
    import msgspec

    deadline = time.monotonic() + START_TIMEOUT
    line = _first_line(process, deadline)
    if not line:
        raise _did_not_start(process, log)
    said = msgspec.json.decode(line)
    found = Service(url=said["url"], models=said["models"], process=process)
    while not _answers(found.url):
        if process.poll() is not None or time.monotonic() > deadline:
            raise _did_not_start(process, log)
        time.sleep(POLL)
    return found


def _first_line(process: subprocess.Popen[bytes], deadline: float) -> bytes:
    assert process.stdout is not None  # noqa: S101 - it was asked for
    readable, _, _ = select.select([process.stdout], [], [], deadline - time.monotonic())
    return process.stdout.readline() if readable else b""


def _answers(url: str) -> bool:
    parts = urlsplit(url)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=5)
    try:
        connection.request("GET", "/ready")
        return connection.getresponse().status == HTTP_OK
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _did_not_start(process: subprocess.Popen[bytes], log: Path) -> CliError:
    status = process.poll()
    reason = "it is still starting" if status is None else f"exit code {status}"
    said = "\n".join(log.read_text(errors="replace").splitlines()[-LOG_LINES:])
    return CliError(
        f"the service of the demo did not start ({reason})\n\n{said}", "`overnight doctor` checks every part"
    )


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.stdout is not None:
        process.stdout.close()


def until_gone(running: Service) -> None:
    """Wait until the service ends, which it should not do by itself."""
    status = running.process.wait()
    raise CliError(f"the service ended by itself (exit code {status})", None, ExitCode.FAILED)
