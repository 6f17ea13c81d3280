"""Transcripts of `overnight upstreams`, and the calls of the client behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from tests.cli.conftest import Cli, Outcome, plain, request
from tests.support.service import Service, log_shown

from overnight.bootstrap.keys import with_keys
from overnight.cli import upstreams
from overnight.cli.doctor import paused
from overnight.cli.failures import CliError
from overnight.cli.table import Heading, lay_out
from overnight.client import AttemptCounts, Client, NotFound, Readiness, ReadyUpstream, RecentFigures, Upstream
from overnight.config import Settings
from overnight.domain.key import Scope
from overnight.services.keys import NewKey
from overnight.testing.upstream import Gate, ScriptedUpstream, held

AWAY = "127.0.0.1:9"


@pytest.fixture(scope="module")
def model() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def operated(model: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with keys and two upstreams, one of which is not there."""
    folder = tmp_path_factory.mktemp("operated")
    with Service(folder, upstreams=[model.url, f"http://{AWAY}/v1"]) as service:
        yield service


@pytest.fixture(scope="module")
def keys(operated: Service) -> Mapping[Scope, str]:
    """A key of each kind, made as `overnight keys create` does."""
    settings = Settings(data_dir=operated.data_dir)

    def make(scope: Scope) -> str:
        return with_keys(settings, lambda service: service.create(NewKey(scopes=(scope,))), new=True).secret

    return {scope: make(scope) for scope in (Scope.SUBMIT, Scope.ADMIN)}


@pytest.fixture
def operator(bare: Cli, operated: Service, keys: Mapping[Scope, str]) -> Iterator[Cli]:
    """The command line of whoever has the admin key."""
    bare.environment.update({"OVERNIGHT_URL": f"{operated.url}/v1", "OVERNIGHT_API_KEY": keys[Scope.ADMIN]})
    with log_shown(operated):
        yield bare


@pytest.fixture
def name(model: ScriptedUpstream) -> str:
    """The upstream that answers, called by host and port."""
    return f"127.0.0.1:{model.port}"


def test_an_upstream_is_paused_and_resumed(
    operator: Cli, keys: Mapping[Scope, str], name: str, model: ScriptedUpstream, write: Callable[..., Path]
) -> None:
    """What is in flight ends, the rest waits, and the command says how long this lasts."""
    gate = Gate()
    model.script = held(gate)
    user = {"OVERNIGHT_API_KEY": keys[Scope.SUBMIT]}
    write(request("a"))
    batch = operator("batches", "create", "prompts.jsonl", "-q", **user).stdout.strip()
    model.wait_for(1)
    stopped = operator("upstreams", "pause", name)
    doctor = operator("doctor", "--upstream", model.url, **user)
    gate.open()
    ended = operator("batches", "wait", batch, **user)
    late = operator("batches", "create", "prompts.jsonl", "-q", **user).stdout.strip()
    started = operator("upstreams", "resume", name)
    again = operator("upstreams", "resume", name)

    assert (stopped.code, stopped.stdout.split("\t")[:2]) == (0, [name, "paused"])
    assert stopped.stderr == (
        f"nothing more is sent to {name}, until it is resumed or the service restarts; 1 request in flight will end\n"
        "no other upstream serves test-model now: those requests wait\n"
    )
    assert f"upstream {name}\tnote\tpaused: it is sent nothing\n" in doctor.stdout
    assert (doctor.code, ended.code) == (0, 0)
    assert (started.stdout.split("\t")[1], started.stderr) == ("answers", f"requests go to {name} again\n")
    assert again.stderr == f"{name} was not paused\n"
    assert operator("batches", "wait", late, **user).code == 0


def test_upstreams_are_listed(operator: Cli, name: str) -> None:
    """Plain in a pipe, a table on a terminal, the whole object as JSON."""
    alone = operator("upstreams")
    listed = operator("upstreams", "list")
    shown = plain(operator.on_terminal("upstreams", "list")[0]).splitlines()
    one = plain(operator.on_terminal("upstreams", "get", name)[0]).splitlines()
    chosen = operator("upstreams", "list", "--json=id,state,models")

    assert [line.split("\t")[:2] for line in listed.stdout.splitlines()] == [[name, "answers"], [AWAY, "left_alone"]]
    assert alone.stdout.count("\n") == 2
    assert shown[0].split() == ["name", "state", "in", "flight", "p50", "p95", "ok", "problem"]
    assert [line.split()[0] for line in one[:4]] == ["name", "state", "url", "models"]
    assert chosen.json[0] == {"id": name, "state": "answers", "models": ["test-model"]}
    assert operator("upstreams", "list", "-q").stdout == f"{name}\n{AWAY}\n"


def test_a_test_says_what_came_of_it(operator: Cli, name: str) -> None:
    """A script hears it by the exit code."""
    well = operator("upstreams", "test", name)
    silent = operator("upstreams", "test", AWAY)
    as_json = operator("upstreams", "test", AWAY, "--json=id,answered,problem")

    assert (well.code, well.stdout.split("\t")[:2], well.stdout.split("\t")[3]) == (0, [name, "ok"], "test-model")
    assert (silent.code, silent.stdout.split("\t")[:2]) == (5, [AWAY, "none"])
    assert as_json.json == [{"id": AWAY, "answered": False, "problem": "connection refused"}]


def test_a_wrong_name_and_a_wrong_key_are_told_apart(operator: Cli, keys: Mapping[Scope, str]) -> None:
    """Each with what to do about it."""
    wrong = operator("upstreams", "pause", "127.0.0.2:9")
    refused = operator("upstreams", "list", OVERNIGHT_API_KEY=keys[Scope.SUBMIT])

    assert wrong == Outcome(
        stdout="",
        stderr="error: no upstream is called `127.0.0.2:9`\n\nhint: did you mean `127.0.0.1:9`?\n",
        code=1,
    )
    assert refused == Outcome(
        stdout="",
        stderr="error: This key may not do that: it needs the scope 'admin'. Use another key. (403, forbidden)\n\n"
        "hint: this needs an admin key in OVERNIGHT_API_KEY: `overnight keys create --admin` makes one\n",
        code=4,
    )


def test_a_server_without_such_a_call_is_told(operator: Cli, operated: Service) -> None:
    """Below another prefix there is nothing."""
    operator.environment["OVERNIGHT_URL"] = f"{operated.url}/nowhere"
    found = operator("upstreams", "list")

    assert found.code == 1
    assert "tells nothing of its upstreams (404)" in found.stderr


def test_the_client_has_the_calls(operated: Service, keys: Mapping[Scope, str], name: str) -> None:
    """A name goes as one piece of the path, whatever is in it."""
    with Client(f"{operated.url}/v1", keys[Scope.ADMIN]) as client:
        states = [client.upstreams.pause(name).state, client.upstreams.resume(name).state]
        tested = client.upstreams.test(name)
        with pytest.raises(NotFound, match=r"'a/b c\?'"):
            client.upstreams.get("a/b c?")

        assert states == ["paused", "answers"]
        assert (tested.id, tested.answered, tested.models) == (name, True, ["test-model"])
        assert [client.upstreams.get(each.id).id for each in client.upstreams.list()] == [name, AWAY]


def known(*names: str) -> list[Upstream]:
    return [Upstream(id=name, state="answers", models=["m"]) for name in names]


@pytest.mark.parametrize(("said", "expected"), [("gpu", "gpu"), ("gpu-1", "gpu-1"), ("sm", "small")])
def test_a_name_is_whole_or_a_beginning_that_no_other_has(said: str, expected: str) -> None:
    """A whole name may begin another."""
    assert upstreams._find(known("gpu", "gpu-1", "small"), said).id == expected  # noqa: SLF001 - what decides


@pytest.mark.parametrize(
    ("said", "message", "hint", "code"),
    [
        ("gpu", "`gpu` fits 2 upstreams", "write more of it: gpu-1, gpu-2", 2),
        ("", "the name of the upstream is empty", "`overnight upstreams list` shows them", 2),
        ("gpo-1", "no upstream is called `gpo-1`", "did you mean `gpu-1`?", 1),
        ("x", "no upstream is called `x`", "there are gpu-1, gpu-2, small", 1),
    ],
)
def test_a_name_that_is_not_clear_is_refused(said: str, message: str, hint: str, code: int) -> None:
    """Guessing could pause the wrong one."""
    with pytest.raises(CliError) as caught:
        upstreams._find(known("gpu-1", "gpu-2", "small"), said)  # noqa: SLF001 - what decides

    assert (caught.value.message, caught.value.hint, caught.value.code) == (message, hint, code)


def test_what_nobody_else_serves_waits() -> None:
    """Another that is paused or left alone serves nothing now."""
    first, second = known("a", "b")
    idle = Upstream(id="c", state="left_alone", models=["n"])
    paused_one = Upstream(id="d", state="paused", models=["m", "n"])

    assert upstreams._left_without([first, second, paused_one], paused_one) == ["n"]  # noqa: SLF001
    assert upstreams._left_without([idle, first, paused_one], paused_one) == ["n"]  # noqa: SLF001
    assert upstreams._left_without([first, second], first) == []  # noqa: SLF001


def test_a_list_of_upstreams_needs_no_more_than_80_columns() -> None:
    """Also with the names of hosts, and with whole sentences as problems."""
    attempts = AttemptCounts(total=1000, succeeded=975)
    busy = Upstream(
        id="gpu-07.cluster.local:8000",
        state="left_alone",
        problem="The upstream answers with status 503.",
        in_flight=128,
        limit=512,
        recent=RecentFigures(attempts=attempts, p50_seconds=0.32, p95_seconds=12.0),
    )
    headings = [Heading(each.name, right=each.right, wraps=each.wraps) for each in upstreams.UPSTREAMS.columns]
    lines = lay_out(headings, [[each.on_terminal(busy) for each in upstreams.UPSTREAMS.columns]], 80)

    assert max(map(len, lines)) <= 80
    assert lines[1].split()[0] == busy.id
    assert "320 ms" in lines[1]
    assert "97.5 %" in lines[1]


def test_attempts_are_told_in_words() -> None:
    """Only those that there are."""
    counts = AttemptCounts(total=8, succeeded=4, status_429=1, status_5xx=1, other_status=1, unanswered=1)
    found = Upstream(id="a", recent=RecentFigures(attempts=counts), left_alone_seconds=65.0)
    cells = {column.name: column.on_terminal(found) for column in upstreams.UPSTREAM.columns}

    assert cells["last minutes"] == (
        "50 % succeeded, 12.5 % refused (429), 12.5 % failed (5xx), 12.5 % other errors, 12.5 % not answered"
    )
    assert cells["left alone for"] == "1 min 05 s"
    assert cells["since start"] == "none"


def test_the_doctor_reminds_of_a_pause() -> None:
    """It is easily forgotten, and no fault."""
    two = [ReadyUpstream(name="rack 2/small", paused=True), ReadyUpstream(name="large")]
    (found,) = paused(Readiness(status="ok", upstreams=two))

    assert (found.name, found.state) == ("upstream rack 2/small", "note")
    assert found.remedy == "`overnight upstreams resume 'rack 2/small'` ends the pause"
    assert list(paused(None)) == []
