"""Transcripts of `overnight upstreams`, and the calls of the client behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.cli.conftest import Cli, Outcome, plain, request, wait_until
from tests.support.service import Service

from overnight.bootstrap.keys import with_keys
from overnight.cli import upstreams
from overnight.cli.doctor import paused
from overnight.cli.failures import CliError
from overnight.client import AttemptCounts, Client, NotFound, Readiness, ReadyUpstream, RecentFigures, Upstream
from overnight.config import Settings
from overnight.domain.key import Scope
from overnight.services.keys import NewKey
from overnight.testing.upstream import Gate, ScriptedUpstream, by_text, held


@pytest.fixture
def name(shared_service: Service, shared_upstream: ScriptedUpstream) -> Iterator[str]:
    """The one upstream of the service, called by host and port; no test leaves it paused."""
    name = f"127.0.0.1:{shared_upstream.port}"
    yield name
    with Client(f"{shared_service.url}/v1") as client:
        client.upstreams.resume(name)


def test_an_upstream_is_paused_and_resumed(
    cli: Cli, name: str, upstream: ScriptedUpstream, write: Callable[..., Path]
) -> None:
    """What is in flight ends, the rest waits, and the command says how long this lasts."""
    gate = Gate()
    upstream.script = by_text({"held": held(gate)})
    write(request("held", "held"))
    batch = cli("batches", "create", "prompts.jsonl", "-q").stdout.strip()
    wait_until(lambda: any(b"held" in each.body for each in upstream.asked))
    stopped = cli("upstreams", "pause", name)
    doctor = cli("doctor", "--upstream", upstream.url)
    gate.open()
    ended = cli("batches", "wait", batch)
    late = cli("batches", "create", "prompts.jsonl", "-q").stdout.strip()
    waiting = cli("batches", "get", late, "--json=status")
    started = cli("upstreams", "resume", name)
    again = cli("upstreams", "resume", name)

    assert (stopped.code, stopped.stdout.split("\t")[:2]) == (0, [name, "paused"])
    assert stopped.stderr == (
        f"nothing more is sent to {name}, until it is resumed or the service restarts; 1 request in flight will end\n"
        "no other upstream serves test-model now: those requests wait\n"
    )
    assert f"upstream {name}\tnote\tpaused: it is sent nothing\n" in doctor.stdout
    assert (doctor.code, ended.code) == (0, 0)
    assert waiting.json[0]["status"] in {"validating", "in_progress"}
    assert (started.stdout.split("\t")[1], started.stderr) == ("answers", f"requests go to {name} again\n")
    assert again.stderr == f"{name} was not paused\n"
    assert cli("batches", "wait", late).code == 0


def test_upstreams_are_listed_within_80_columns(cli: Cli, name: str) -> None:
    """Plain in a pipe, a table on a terminal, the whole object as JSON."""
    alone = cli("upstreams")
    listed = cli("upstreams", "list")
    shown = plain(cli.on_terminal("upstreams", "list")[0])
    one = plain(cli.on_terminal("upstreams", "get", name)[0])
    chosen = cli("upstreams", "list", "--json=id,state,models")

    assert [row.split("\t")[:2] for row in (alone.stdout, listed.stdout)] == [[name, "answers"]] * 2
    assert shown.splitlines()[0].split() == ["name", "state", "in", "flight", "p50", "p95", "succeeded", "problem"]
    assert max(len(line) for line in shown.splitlines()) <= 80
    assert [line.split()[0] for line in one.splitlines()[:4]] == ["name", "state", "url", "models"]
    assert chosen.json == [{"id": name, "state": "answers", "models": ["test-model"]}]
    assert cli("upstreams", "list", "-q").stdout == f"{name}\n"


def test_a_test_says_what_came_of_it(cli: Cli, name: str) -> None:
    """A script hears it by the exit code."""
    well = cli("upstreams", "test", name)
    as_json = cli("upstreams", "test", name, "--json=id,answered,problem")

    assert (well.code, well.stdout.split("\t")[:2], well.stdout.split("\t")[3]) == (0, [name, "ok"], "test-model")
    assert as_json.json == [{"id": name, "answered": True, "problem": None}]


def a_key(data_dir: Path, scope: Scope) -> str:
    """Make a key as `overnight keys create` does."""
    new = NewKey(scopes=(scope,))
    return with_keys(Settings(data_dir=data_dir), lambda keys: keys.create(new), new=True).secret


def test_with_keys_an_admin_key_is_asked_for(bare: Cli, tmp_path: Path) -> None:
    """Its one upstream is away: a test ends with 5, and pausing it tells of no model that waits."""
    admin, user = (a_key(tmp_path / "data", scope) for scope in (Scope.ADMIN, Scope.SUBMIT))
    with Service(tmp_path, upstreams=["http://127.0.0.1:9/v1"]) as service:
        bare.environment.update({"OVERNIGHT_URL": f"{service.url}/v1", "OVERNIGHT_API_KEY": admin})
        silent = bare("upstreams", "test", "127.0.0.1:9")
        stopped = bare("upstreams", "pause", "127")
        wrong = bare("upstreams", "pause", "127.0.0.2:9")
        refused = bare("upstreams", "list", OVERNIGHT_API_KEY=user)

    assert (silent.code, silent.stdout.split("\t")[:2]) == (5, ["127.0.0.1:9", "none"])
    assert silent.stdout.endswith("\t\tconnection refused\n")
    assert stopped.stderr == "nothing more is sent to 127.0.0.1:9, until it is resumed or the service restarts\n"
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


def test_the_client_has_the_calls(shared_service: Service, name: str) -> None:
    """A name goes as one piece of the path, whatever is in it."""
    with Client(f"{shared_service.url}/v1") as client:
        states = [client.upstreams.pause(name).state, client.upstreams.resume(name).state]
        tested = client.upstreams.test(name)
        with pytest.raises(NotFound, match="'a/b c\\?'"):
            client.upstreams.get("a/b c?")

        assert states == ["paused", "answers"]
        assert (tested.id, tested.answered, tested.models) == (name, True, ["test-model"])
        assert client.upstreams.get(name).id == client.upstreams.list()[0].id == name


def test_a_server_without_such_a_call_is_told_from_a_wrong_name(cli: Cli) -> None:
    """Below another prefix there is nothing."""
    cli.environment["OVERNIGHT_URL"] += "/elsewhere"
    found = cli("upstreams", "list")

    assert found.code == 1
    assert "tells nothing of its upstreams (404)" in found.stderr


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
    two = [ReadyUpstream(name="small", paused=True), ReadyUpstream(name="large")]
    (found,) = paused(Readiness(status="ok", upstreams=two))

    assert (found.name, found.state) == ("upstream small", "note")
    assert found.remedy == "`overnight upstreams resume small` ends the pause"
    assert list(paused(None)) == []
