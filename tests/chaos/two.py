"""Two services on one data folder."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from tests.support.api import OPENAI, Api
from tests.support.http import Http
from tests.support.service import Service

from overnight.testing.upstream import ScriptedUpstream

CONCURRENCY = 8
LEASE = 3.0
DISPATCHER = "overnight.dispatch.dispatcher"
QUICK = [
    argument
    for assignment in (f"LEASE={LEASE}", "_RENEW_EVERY=0.75", "_CLAIM_EVERY=0.2")
    for argument in ("--set", f"{DISPATCHER}:{assignment}")
]
LAUNCHER = ("overnight.testing.crashing", *QUICK)


@contextmanager
def two_services(folder: Path, upstream: ScriptedUpstream) -> Iterator[tuple[Service, Service]]:
    """Lend both, not yet started; what was frozen is killed at the end."""
    config = folder / "two.toml"
    config.write_text(f'stop_grace = 0.3\n[[upstreams]]\nurl = "{upstream.url}"\nmax_concurrency = {CONCURRENCY}\n')
    first, second = (Service(folder, arguments=["--config", str(config)], name=name) for name in ("first", "second"))
    try:
        yield first, second
    finally:
        first.kill()
        second.kill()


def api_of(service: Service) -> Api:
    """Call one of them."""
    return Api(Http(service.url), OPENAI)


def is_frozen(service: Service) -> bool:
    """Say whether its process was stopped."""
    stat = Path(f"/proc/{service.pid}/stat").read_text()
    return stat.rpartition(")")[2].split()[0] == "T"


def keep_clear_of_the_database(service: Service) -> None:
    """Freeze the process a little later if it holds SQLite's lock, which nobody can take from it while it lives."""
    while _is_locked(service.data_dir):
        os.kill(service.pid, signal.SIGCONT)
        time.sleep(0.02)
        os.kill(service.pid, signal.SIGSTOP)


def _is_locked(data_dir: Path) -> bool:
    with closing(sqlite3.connect(data_dir / "overnight.db", timeout=0.5, isolation_level=None)) as database:
        try:
            database.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return True
        database.execute("ROLLBACK")
    return False
