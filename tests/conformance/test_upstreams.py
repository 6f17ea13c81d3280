"""The operators' part of the admin API with the real service: what is told of upstreams, and how they are switched."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.conformance.test_admin import an_admin_key
from tests.support.api import Api, chats, jsonl, request
from tests.support.http import Http
from tests.support.service import Service, eventually

from overnight.testing.upstream import Gate, ScriptedUpstream, answer, by_text, held

CHAT = "/v1/chat/completions"
SWITCHES = ("pause", "resume", "test")
SETTINGS = """
[[upstreams]]
name = "one"
url = "{one}"
max_concurrency = 2
start_concurrency = 2

[[upstreams]]
name = "rack 2/two"
url = "{two}"

[[upstreams]]
name = "away"
url = "http://127.0.0.1:9/v1"
"""


@pytest.fixture(scope="module")
def one() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream(models=("test-model",)) as upstream:
        yield upstream


@pytest.fixture(scope="module")
def two() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream(models=("other-model",)) as upstream:
        yield upstream


@pytest.fixture(scope="module")
def operated(
    one: ScriptedUpstream, two: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """A service with a key file and three upstreams, one of which is not there."""
    folder = tmp_path_factory.mktemp("operated")
    (folder / "keys.txt").write_text("sk-filed filed\n")
    (folder / "overnight.toml").write_text(SETTINGS.format(one=one.url, two=two.url))
    arguments = ("--keys-file", str(folder / "keys.txt"), "--config", str(folder / "overnight.toml"))
    with Service(folder, arguments=arguments) as service:
        yield service


@pytest.fixture(scope="module")
def admin_key(operated: Service) -> str:
    return an_admin_key(operated.data_dir)


@pytest.fixture
def operator(operated: Service, admin_key: str) -> Http:
    return Http(operated.url, {"authorization": f"Bearer {admin_key}"})


@pytest.fixture
def user(operated: Service) -> Api:
    return Api(Http(operated.url, {"authorization": "Bearer sk-filed"}))


def seen(operator: Http, name: str) -> dict[str, Any]:
    found: dict[str, Any] = operator.get(f"/admin/upstreams/{name}").json()
    return found


def test_a_paused_upstream_gets_nothing_more_and_what_is_in_flight_ends(
    operator: Http, user: Api, one: ScriptedUpstream
):
    gate = Gate()
    one.script = by_text({"held": held(gate)}, answer())
    one.forget()
    batch = user.create(user.upload(jsonl(*(request(f"held-{number}", CHAT) for number in range(5)))))
    one.wait_for(2)

    paused = operator.post("/admin/upstreams/one/pause")
    again = operator.post("/admin/upstreams/one/pause")
    gate.open()
    eventually(lambda: user.batch(batch)["request_counts"]["completed"] == 2)
    during, sent = seen(operator, "one"), len(one.asked)
    resumed = operator.post("/admin/upstreams/one/resume")
    done = user.end(batch)

    assert (paused.status, again.status, resumed.status) == (200, 200, 200)
    assert (paused.json()["state"], paused.json()["paused"], paused.json()["in_flight"]) == ("paused", True, 2)
    assert again.json()["state"] == "paused"
    assert (during["state"], during["in_flight"], during["since_start"]["succeeded"], sent) == ("paused", 0, 2, 2)
    assert (resumed.json()["state"], resumed.json()["paused"]) == ("answers", False)
    assert (done["status"], done["request_counts"]["completed"]) == ("completed", 5)
    assert len(one.asked) == 5


def test_all_that_the_studio_shows_is_told(operator: Http, user: Api, one: ScriptedUpstream):
    one.script = answer()
    user.run(chats(3, CHAT))

    listed = operator.get("/admin/upstreams").json()
    first = listed["data"][0]

    assert (listed["object"], [each["id"] for each in listed["data"]]) == ("list", ["one", "rack 2/two", "away"])
    assert first["recent"]["p50_seconds"] <= first["recent"]["p95_seconds"]
    assert first["recent"]["attempts"] == first["since_start"]
    assert first["since_start"]["total"] == first["since_start"]["succeeded"] >= 3
    assert first["recent"]["output_tokens_per_second"] > 0
    assert {name: first[name] for name in ("object", "url", "state", "problem", "in_flight", "limit", "models")} == {
        "object": "upstream",
        "url": one.url,
        "state": "answers",
        "problem": None,
        "in_flight": 0,
        "limit": 2,
        "models": ["test-model"],
    }
    assert first["left_alone_seconds"] == 0
    assert (listed["data"][2]["state"], listed["data"][2]["problem"]) == ("left_alone", "connection refused")


def test_an_upstream_is_tested_also_while_it_is_paused(operator: Http, two: ScriptedUpstream):
    """That is how one sees that it is back."""
    name = "rack%202/two"
    operator.post(f"/admin/upstreams/{name}/pause")
    found = operator.post(f"/admin/upstreams/{name}/test").json()
    state = seen(operator, name)["state"]
    operator.post(f"/admin/upstreams/{name}/resume")

    assert found.pop("seconds") >= 0
    assert found == {
        "id": "rack 2/two",
        "object": "upstream.test",
        "url": f"{two.url}/models",
        "answered": True,
        "problem": None,
        "models": ["other-model"],
    }
    assert (state, seen(operator, name)["state"]) == ("paused", "answers")


def test_a_test_of_one_that_is_away_says_why(operator: Http):
    reply = operator.post("/admin/upstreams/away/test")

    assert reply.status == 200
    assert {name: reply.json()[name] for name in ("answered", "problem", "models")} == {
        "answered": False,
        "problem": "connection refused",
        "models": [],
    }


def test_an_unknown_name_is_answered_with_those_that_there_are(operator: Http):
    replies = [
        operator.get("/admin/upstreams/nobody"),
        *(operator.post(f"/admin/upstreams/nobody/{each}") for each in SWITCHES),
    ]

    assert {(reply.status, reply.json()["error"]["param"]) for reply in replies} == {(404, "upstream")}
    assert {reply.json()["error"]["message"] for reply in replies} == {
        "No upstream found with name 'nobody'. There are: 'one', 'rack 2/two', 'away'."
    }


@pytest.mark.parametrize(("headers", "expected"), [({"api-key": "sk-filed"}, 403), ({}, 401)], ids=["user", "nobody"])
def test_whoever_is_no_operator_learns_and_switches_nothing(
    operated: Service, operator: Http, one: ScriptedUpstream, headers: dict[str, str], expected: int
):
    """Neither of those that there are, nor of those that there are not; the address is told nowhere."""
    caller = Http(operated.url, headers)
    replies = [caller.get("/admin/upstreams"), caller.get("/admin/upstreams/"), caller.get("/admin/upstreams/one")]
    for name in ("one", "nobody"):
        replies += [caller.post(f"/admin/upstreams/{name}/{each}") for each in SWITCHES]
    told = b"".join(caller.get(path).body for path in ("/ready", "/health", "/v1/models", "/openapi.json"))

    assert [reply.status for reply in replies] == [expected] * len(replies)
    assert len({reply.body for reply in replies}) == 1
    assert str(one.port).encode() not in told
    assert seen(operator, "one")["paused"] is False


def test_ready_tells_that_an_upstream_is_paused(operator: Http, operated: Service):
    operator.post("/admin/upstreams/one/pause")
    ready = Http(operated.url).get("/ready")
    operator.post("/admin/upstreams/one/resume")

    assert ready.status == 200
    assert {each["name"]: each["paused"] for each in ready.json()["upstreams"]} == {
        "one": True,
        "rack 2/two": False,
        "away": False,
    }


def test_a_pause_ends_with_the_process(operated: Service, admin_key: str):
    """The guide says so."""
    headers = {"authorization": f"Bearer {admin_key}"}
    before = Http(operated.url, headers).post("/admin/upstreams/one/pause").json()["state"]
    operated.stop()
    operated.start()

    assert (before, seen(Http(operated.url, headers), "one")["state"]) == ("paused", "answers")
