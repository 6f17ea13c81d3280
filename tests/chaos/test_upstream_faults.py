"""A model server with every fault: the batch ends, each line is right, and the service answers meanwhile."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from tests.support.api import OPENAI, Api, jsonl, request
from tests.support.http import Http
from tests.support.service import Service, eventually, log_shown

from overnight.testing.invariants import check_results
from overnight.testing.upstream import (
    Reply,
    Script,
    ScriptedUpstream,
    answer,
    by_text,
    endless,
    gzipped,
    html,
    huge,
    in_turn,
    invalid_json,
    pretty,
    reset,
    stalled,
    too_many,
    trickle,
    wrong_type,
)

if TYPE_CHECKING:
    from typing import Self

MB = 1_000_000
TIMEOUT = 2.0
ANSWER_BYTES = 60 * MB

# What the first tries bring; without more, the server is sound again afterwards.
PASSING: dict[str, Reply | Script] = {
    "reset-in-mid-body": in_turn(reset(20), answer()),
    "reset-before-the-answer": in_turn(reset(-1), answer()),
    "stalled": in_turn(stalled(), answer()),
    "invalid-json-once": in_turn(invalid_json(), answer()),
    "html-once": in_turn(html(), answer()),
    "busy": in_turn(too_many(), too_many(), too_many(0.2), too_many("Wed, 21 Oct 2015 07:28:00 GMT"), answer()),
    "trickling": trickle(piece=64, pause=0.02),
    "pretty": pretty(),
    "gzipped": gzipped(),
    "wrong-type": wrong_type(),
    "sound": answer(),
}
# These stay as they are: which status and code stand in the error file.
LASTING: dict[str, tuple[Reply, int | None, str]] = {
    "always-html": (html(), 502, "upstream_unreadable"),
    "always-invalid-json": (invalid_json(), 502, "upstream_unreadable"),
    "always-reset": (reset(20), 502, "upstream_broken_off"),
    "always-stalled": (stalled(), None, "request_timeout"),
    "endless-data": (endless(b" " * 4 * MB), 502, "upstream_too_large"),
    "over-the-bound": (huge(ANSWER_BYTES + 1), 502, "upstream_too_large"),
}


class Seen(NamedTuple):
    """What became of the one batch with a request for each fault."""

    batch: dict[str, Any]
    output: dict[str, dict[str, Any]]
    errors: dict[str, dict[str, Any]]
    broken: list[str]
    slowest: float


def start(folder: Path, upstream: ScriptedUpstream, concurrency: int) -> Service:
    """Make a service of the upstream, with a short patience."""
    config = folder / "faults.toml"
    config.write_text(
        f"answer_bytes = {ANSWER_BYTES}\n"
        f'[[upstreams]]\nurl = "{upstream.url}"\nmax_concurrency = {concurrency}\ntimeout = {TIMEOUT}\n'
    )
    return Service(folder, upstreams=(), arguments=["--config", str(config)])


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    """Run them all in one batch, since most of the time is waiting."""
    script = by_text({**{name: reply for name, (reply, _, _) in LASTING.items()}, **PASSING})
    names = [*PASSING, *LASTING]
    folder = tmp_path_factory.mktemp("faults")
    with ScriptedUpstream(script=script) as upstream, start(folder, upstream, 32) as service, log_shown(service):
        api = Api(Http(service.url))
        batch_id = api.create(api.upload(jsonl(*(request(name, OPENAI.endpoint) for name in names))))
        with Watch(service) as watch:
            batch = api.end(batch_id, timeout=100)
        files = [api.content(batch[name]) for name in ("output_file_id", "error_file_id")]
        output, errors = (
            {line["custom_id"]: line for line in map(json.loads, content.splitlines())} for content in files
        )
        yield Seen(batch, output, errors, check_results(batch, names, *files), watch.slowest)


class Watch:
    """Asks whether the service is well, and how much memory it has, as long as something goes on."""

    def __init__(self, service: Service) -> None:
        self.slowest = 0.0
        self.most_memory = 0
        self._service = service
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        api = Api(Http(self._service.url))
        while not self._over.wait(0.1):
            began = time.monotonic()
            assert api.get("/models").status == 200
            self.slowest = max(self.slowest, time.monotonic() - began)
            self.most_memory = max(self.most_memory, memory_of(self._service.pid))


def memory_of(pid: int) -> int:
    """Give the resident bytes of a process."""
    fields = Path(f"/proc/{pid}/status").read_text().split("VmRSS:")[1].split()
    return int(fields[0]) * 1024


@pytest.mark.timeout(300)
def test_the_batch_ends_and_adds_up(seen: Seen):
    assert seen.broken == []
    assert seen.batch["status"] == "completed"
    assert seen.batch["request_counts"] == {
        "total": len(PASSING) + len(LASTING),
        "completed": len(PASSING),
        "failed": len(LASTING),
    }


@pytest.mark.parametrize("name", PASSING)
def test_a_fault_that_passes_costs_time_and_no_request(seen: Seen, name: str):
    body = seen.output[name]["response"]["body"]

    assert body["choices"][0]["message"]["content"] == f"echo: {name}"


@pytest.mark.parametrize("name", LASTING)
def test_a_fault_that_lasts_is_told_in_the_error_file(seen: Seen, name: str):
    _, status, code = LASTING[name]
    line = seen.errors[name]

    if status is None:
        assert (line["response"], line["error"]["code"]) == (None, code)
    else:
        assert line["response"]["status_code"] == status
        assert line["response"]["body"]["error"]["code"] == code


def test_the_service_answers_meanwhile(seen: Seen):
    """Generous, since other work may share the machine: what is meant is that nothing blocks the loop for long."""
    assert seen.slowest < 3


@pytest.mark.long
@pytest.mark.timeout(300)
def test_memory_stays_bounded_when_answers_have_50_megabytes(tmp_path: Path):
    """What is in memory grows with what is in flight, not with the number of answers."""
    large, concurrency = huge(50 * MB), 2
    names = [f"r-{number}" for number in range(8)]
    with ScriptedUpstream(script=large) as upstream, start(tmp_path, upstream, concurrency) as service:
        api = Api(Http(service.url))
        before = memory_of(service.pid)
        batch_id = api.create(api.upload(jsonl(*(request(name, OPENAI.endpoint) for name in names))))
        with Watch(service) as watch:
            batch = api.end(batch_id, timeout=200)
        size = _size_of(api, batch["output_file_id"])

    assert batch["request_counts"] == {"total": 8, "completed": 8, "failed": 0}
    assert size > 8 * 50 * MB
    assert watch.most_memory - before < 8 * 50 * MB


def _size_of(api: Api, file_id: str) -> int:
    return int(api.get(f"/files/{file_id}").json()["bytes"])


@pytest.mark.timeout(240)
def test_a_model_server_that_restarts_in_mid_run_is_waited_for(tmp_path: Path):
    """Refused, reset, and there again: no request is lost, and none ends in an error."""
    names = [f"r-{number}" for number in range(60)]
    with ScriptedUpstream(script=answer(delay=0.1)) as upstream, start(tmp_path, upstream, 8) as service:
        api = Api(Http(service.url))
        batch_id = api.create(api.upload(jsonl(*(request(name, OPENAI.endpoint) for name in names))))
        for asked in (10, 35):
            upstream.wait_for(asked, timeout=60)
            upstream.stop()
            assert api.batch(batch_id)["status"] == "in_progress"
            eventually(lambda: "upstream.left_alone" in service.log(), 30)
            upstream.start()
        batch = api.end(batch_id, timeout=90)
        files = [api.content(batch[name]) for name in ("output_file_id", "error_file_id")]

    assert check_results(batch, names, *files) == []
    assert batch["request_counts"] == {"total": 60, "completed": 60, "failed": 0}


@pytest.mark.long
@pytest.mark.timeout(240)
@pytest.mark.parametrize("retry_after", [None, 0.3], ids=["without-retry-after", "with-retry-after"])
def test_a_storm_of_429_passes_over_every_request(tmp_path: Path, retry_after: float | None):
    names = [f"r-{number}" for number in range(40)]
    storm = in_turn(too_many(retry_after), too_many(retry_after), answer())
    with ScriptedUpstream(script=storm) as upstream, start(tmp_path, upstream, 8) as service:
        api = Api(Http(service.url))
        batch = api.end(api.create(api.upload(jsonl(*(request(name, OPENAI.endpoint) for name in names)))), timeout=100)
        files = [api.content(batch[name]) for name in ("output_file_id", "error_file_id")]

    assert check_results(batch, names, *files) == []
    assert batch["request_counts"] == {"total": 40, "completed": 40, "failed": 0}
    assert len(upstream.asked) == 3 * len(names)
