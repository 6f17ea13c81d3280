"""The real service on a disk in trouble: what waits is said clearly, goes on by itself, and nothing is lost."""

import json
import os
import resource
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.support.api import OPENAI, Api, chats
from tests.support.http import Http
from tests.support.service import Service, eventually, log_shown

from overnight.testing.upstream import ScriptedUpstream, answer

REQUESTS = 400
BEFORE = 100
MEBIBYTE = 1024 * 1024


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of a few megabytes as the data folder."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root may mount a small disk")
    folder = tmp_path / "data"
    folder.mkdir()
    mounted = _run("mount", "-t", "tmpfs", "-o", "size=8m", "overnight-test", str(folder))
    if mounted.returncode:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr}")
    yield folder
    _run("umount", str(folder)).check_returncode()


def test_a_full_disk_makes_the_batch_wait(tmp_path: Path, small_disk: Path) -> None:
    """Until somebody frees space."""
    filler = small_disk / "filler"

    def fill(_: Service) -> None:
        with filler.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))

    doctor = _waits_and_goes_on(tmp_path, fill, lambda _: filler.unlink(), "No space left on device")

    assert "free some space" in doctor["data folder"]["remedy"]
    assert not doctor["data folder"]["ok"]


def test_a_bound_on_the_size_of_files_makes_the_batch_wait(tmp_path: Path) -> None:
    """The same for everybody, without a disk of its own."""

    def bound(service: Service) -> None:
        resource.prlimit(service.pid, resource.RLIMIT_FSIZE, (64 * 1024, resource.RLIM_INFINITY))

    def unbound(service: Service) -> None:
        resource.prlimit(service.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    doctor = _waits_and_goes_on(tmp_path, bound, unbound, "File too large")

    assert doctor["data folder"]["ok"]


def test_a_read_only_disk_is_named_and_the_batch_goes_on_after_it(tmp_path: Path, small_disk: Path) -> None:
    """A service cannot start on it; once it can be written again, what was recorded is there."""
    with ScriptedUpstream(models=("test-model",), script=answer(delay=0.3)) as upstream:
        service = Service(tmp_path, upstreams=[upstream.url])
        with service:
            batch_id = _api(service).create(_api(service).upload(chats(REQUESTS, OPENAI.endpoint)))
            upstream.wait_for(BEFORE, timeout=30)
        _run("mount", "-o", "remount,ro", str(small_disk)).check_returncode()
        with pytest.raises(RuntimeError, match=r"the data folder `.*` cannot be used: .*Read-only file system"):
            service.start()
        doctor = _doctor(tmp_path, upstream.url)
        _run("mount", "-o", "remount,rw", str(small_disk)).check_returncode()
        with log_shown(service), service:
            batch = _api(service).end(batch_id, timeout=60)
            _each_once(_api(service), batch)

    assert "Read-only file system" in doctor["data folder"]["detail"]
    assert "remount,rw" in doctor["data folder"]["remedy"]
    assert not doctor["database"]["ok"]


def _waits_and_goes_on(
    folder: Path, begin: Callable[[Service], None], end: Callable[[Service], None], problem: str
) -> dict[str, Any]:
    """Break the disk in the middle of a batch, look around, mend it; gives what the doctor found meanwhile."""
    with ScriptedUpstream(models=("test-model",), script=answer(delay=0.3)) as upstream:
        service = Service(folder, upstreams=[upstream.url])
        with log_shown(service), service:
            api = _api(service)
            batch_id = api.create(api.upload(chats(REQUESTS, OPENAI.endpoint)))
            upstream.wait_for(BEFORE, timeout=30)
            begin(service)
            try:
                ready = eventually(lambda: _not_ready(service))
                before = api.batch(batch_id)["request_counts"]["completed"]
                doctor = _doctor(folder, upstream.url, "--url", f"{service.url}/v1")
                during = api.batch(batch_id)
            finally:
                end(service)
            batch = api.end(batch_id, timeout=60)
            _each_once(api, batch)
            after = eventually(lambda: (reply := Http(service.url).get("/ready")).status == 200 and reply)
            logged = service.log()
        tries = Counter(received.body for received in upstream.asked)

    assert ready["waiting"]["batches"] == 1
    assert ready["waiting"]["bytes"] > 0
    assert batch_id not in str(ready)
    assert problem in ready["problem"]
    assert during["status"] == "in_progress"
    assert before <= during["request_counts"]["completed"] < REQUESTS
    assert after.json()["waiting"] is None
    assert "results.not_durable" in logged
    assert "results.durable_again" in logged
    assert (len(tries), max(tries.values())) == (REQUESTS, 1)
    assert problem in doctor["service"]["detail"]
    assert "in memory" in doctor["results"]["detail"]
    return doctor


def _not_ready(service: Service) -> Any:
    reply = Http(service.url).get("/ready")
    found = reply.json()
    assert (reply.status, found["status"]) in {(200, "ok"), (503, "not ready")}
    return found if found["waiting"] else None


def _each_once(api: Api, batch: Any) -> None:
    output, errors = api.results(batch)

    assert batch["status"] == "completed"
    assert batch["request_counts"] == {"total": REQUESTS, "completed": REQUESTS, "failed": 0}
    assert [entry["custom_id"] for entry in output] == [f"r-{number}" for number in range(REQUESTS)]
    assert errors == []


def _doctor(folder: Path, upstream: str, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "overnight.cli.main", "doctor", "--json=name,ok,detail,remedy"]
    found = _run(*command, "--upstream", upstream, "--data-dir", str(folder / "data"), *arguments)
    assert found.returncode == 1, found.stderr
    return {each["name"]: each for each in map(json.loads, found.stdout.splitlines())}


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def _api(service: Service) -> Api:
    return Api(Http(service.url), OPENAI)
