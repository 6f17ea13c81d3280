"""A disk and a database in trouble: nothing that was recorded is lost, the batch waits, and then it goes on."""

from __future__ import annotations

import os
import resource
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.chaos.world import name_of
from tests.support.api import OPENAI, Api, jsonl, request
from tests.support.http import Http
from tests.support.service import Service, eventually

from overnight.testing.invariants import History, check_results, runs_of
from overnight.testing.upstream import ScriptedUpstream, answer, raw

KIB, MIB = 1 << 10, 1 << 20
NAMES = [f"r-{number}" for number in range(60)]
# So that there is time to look and to break something while the batch runs.
DELAY = 0.25
CRASHING = "overnight.testing.crashing"
BUSY = ("--set", "overnight.adapters.sql.database:_BUSY_MILLISECONDS=300")


def api_of(service: Service) -> Api:
    """Call the service."""
    return Api(Http(service.url))


def start_batch(service: Service) -> str:
    """Create the batch that meets the fault."""
    content = jsonl(*(request(name, OPENAI.endpoint) for name in NAMES))
    return api_of(service).create(api_of(service).upload(content))


def completed(service: Service, batch_id: str) -> int:
    """Say how many results are shown."""
    return int(api_of(service).batch(batch_id)["request_counts"]["completed"])


@contextmanager
def running(folder: Path, upstream: ScriptedUpstream, *launcher: str) -> Iterator[Service]:
    """Lend a service whose upstream has eight slots."""
    config = folder.parent / f"{folder.name}.toml"
    config.write_text(f'[[upstreams]]\nurl = "{upstream.url}"\nmax_concurrency = 8\n')
    service = Service(folder, arguments=["--config", str(config)])
    service.start([CRASHING, *launcher, "--"])
    try:
        yield service
    finally:
        service.stop()


def end(service: Service, batch_id: str, upstream: ScriptedUpstream, history: History) -> dict[str, Any]:
    """Wait for the end, and check all that must hold: no request was asked twice, for nothing had been lost."""
    batch = api_of(service).end(batch_id, timeout=90)
    files = [api_of(service).content(batch[name]) for name in ("output_file_id", "error_file_id")]

    assert history.check_end(batch) + history.problems + check_results(batch, NAMES, *files) == []
    assert batch["request_counts"] == {"total": 60, "completed": 60, "failed": 0}
    assert sorted(run.name for run in runs_of(upstream, name_of)) == sorted(NAMES)
    return batch


@pytest.mark.timeout(240)
@pytest.mark.parametrize("call", ["fdatasync", pytest.param("fsync", marks=pytest.mark.long)])
def test_results_wait_for_a_disk_that_cannot_sync(tmp_path: Path, call: str):
    """`fdatasync` is the result log's, `fsync` that of the files which are published at the end."""
    switch, history = tmp_path / "broken", History()
    with (
        ScriptedUpstream(script=answer(delay=DELAY)) as upstream,
        running(tmp_path, upstream, "--fail", f"{call}={switch}") as service,
    ):
        batch_id = start_batch(service)
        eventually(lambda: completed(service, batch_id) >= 10, 60)
        switch.touch()
        signs = {"fdatasync": "results.not_durable", "fsync": "dispatcher.waits"}
        eventually(lambda: signs[call] in service.log(), 60)
        history.saw(api_of(service).batch(batch_id))
        time.sleep(1)
        stuck = api_of(service).batch(batch_id)
        history.saw(stuck)
        switch.unlink()

        assert (stuck["status"], stuck["output_file_id"]) == (
            "in_progress" if call == "fdatasync" else "finalizing",
            None,
        )
        end(service, batch_id, upstream, history)


@pytest.mark.long
@pytest.mark.timeout(240)
def test_an_upload_to_a_disk_that_cannot_sync_is_refused_and_leaves_nothing(tmp_path: Path):
    switch = tmp_path / "broken"
    with ScriptedUpstream() as upstream, running(tmp_path, upstream, "--fail", f"fsync={switch}") as service:
        switch.touch()
        with pytest.raises(AssertionError, match="status=5"):
            start_batch(service)
        listed = api_of(service).get("/files").json()["data"]
        switch.unlink()

        assert listed == []
        end(service, start_batch(service), upstream, History())


@pytest.mark.timeout(240)
def test_a_database_that_is_locked_for_seconds_is_waited_for(tmp_path: Path):
    """By a backup, or by whoever looks into it; reads go on meanwhile."""
    history = History()
    with ScriptedUpstream(script=answer(delay=DELAY)) as upstream, running(tmp_path, upstream, *BUSY) as service:
        batch_id = start_batch(service)
        eventually(lambda: completed(service, batch_id) >= 10, 60)
        with closing(sqlite3.connect(service.data_dir / "overnight.db", isolation_level=None, timeout=10)) as other:
            other.execute("BEGIN EXCLUSIVE")
            end_of_lock = time.monotonic() + 3
            while time.monotonic() < end_of_lock:
                history.saw(api_of(service).batch(batch_id))
            refused = api_of(service).post("/batches", api_of(service).new_batch("file-1"))
            other.execute("ROLLBACK")

        assert refused.status == 503
        assert "database is locked" in service.log()
        end(service, batch_id, upstream, history)


def can_mount(folder: Path) -> bool:
    """Say whether a disk of its own can be made here."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        return False
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)], check=False)
    return done.returncode == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 3 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if not can_mount(folder):
        pytest.skip("only root can mount a small disk; the test with a limit on file sizes runs everywhere")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def answers_of(size: int) -> Callable[[object], Any]:
    """Answer with so many bytes, so that the result log grows quickly."""
    reply = raw(b'{"x":"%s"}' % (b"x" * size))
    return lambda _: reply


@pytest.mark.timeout(240)
def test_a_batch_waits_while_the_disk_is_full_and_then_goes_on(small_disk: Path):
    """What fills it is somebody else's file, which is removed later."""
    history = History()
    with ScriptedUpstream(script=answer(delay=DELAY)) as upstream, running(small_disk, upstream) as service:
        batch_id = start_batch(service)
        eventually(lambda: completed(service, batch_id) >= 5, 60)
        fill(small_disk / "filler")
        eventually(lambda: "results.not_durable" in service.log(), 60)
        history.saw(api_of(service).batch(batch_id))
        time.sleep(1)
        history.saw(api_of(service).batch(batch_id))
        models = api_of(service).get("/models")
        (small_disk / "filler").unlink()

        assert models.status == 200
        end(service, batch_id, upstream, history)


def fill(path: Path) -> None:
    """Write until nothing more goes in."""
    with path.open("wb", buffering=0) as filler:
        try:
            while True:
                filler.write(bytes(4 * KIB))
        except OSError:
            return


@pytest.mark.long
@pytest.mark.timeout(240)
def test_a_batch_waits_at_a_limit_on_file_sizes_and_then_goes_on(tmp_path: Path):
    """The same without a disk of its own: no file may grow beyond what the result log needs."""
    history = History()
    script = answers_of(64 * KIB)
    with ScriptedUpstream(script=script) as upstream, running(tmp_path, upstream) as service:
        limit_file_size(service.pid, 1 * MIB)
        batch_id = start_batch(service)
        eventually(lambda: "results.not_durable" in service.log(), 60)
        history.saw(api_of(service).batch(batch_id))
        time.sleep(1)
        stuck = api_of(service).batch(batch_id)
        history.saw(stuck)
        limit_file_size(service.pid, resource.RLIM_INFINITY)

        assert stuck["status"] == "in_progress"
        assert stuck["request_counts"]["completed"] < 60
        end(service, batch_id, upstream, history)


def limit_file_size(pid: int, size: int) -> None:
    """Let no file of a process, nor of those that it started, grow beyond so many bytes."""
    started = [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in _children(task)]
    for process in (pid, *started):
        resource.prlimit(process, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def _children(task: Path) -> list[str]:
    return (task / "children").read_text().split()
