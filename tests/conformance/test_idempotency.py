"""A create that is sent again makes no second batch (section 6.4 of the contract)."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tests.support import sdk
from tests.support.api import OPENAI, Api
from tests.support.http import Http, Reply
from tests.support.service import Service

from overnight.testing.upstream import ScriptedUpstream

KEY = "Idempotency-Key"
COUNT = "x-stainless-retry-count"

# What a user of the SDK writes; it runs where nothing but the SDK is.
SCRIPT = """
import json, sys
import openai

task = json.load(sys.stdin)
client = openai.OpenAI(base_url=f"{task['url']}/v1", api_key=task["key"])
new = {"input_file_id": "file-1", "endpoint": "/v1/chat/completions", "completion_window": "24h"}
headers = {"Idempotency-Key": "ours"}
first, second = (client.batches.create(**new, extra_headers=headers) for _ in range(2))
try:
    client.batches.create(**new | {"metadata": {"a": "b"}}, extra_headers=headers)
except openai.ConflictError as error:
    refused = [error.status_code, error.code]
stored = [each.id for each in client.batches.list()]
print(json.dumps({"ids": [first.id, second.id], "refused": refused, "all": stored}))
"""


def create(api: Api, headers: Mapping[str, str], **changes: object) -> Reply:
    """Create a batch of a file that there is not; it fails later, which is all the same here."""
    body = json.dumps(api.new_batch("file-1", **changes)).encode()
    return api.http.call("POST", api.prefix.url("/batches"), body, {"content-type": "application/json", **headers})


def created(api: Api, headers: Mapping[str, str], **changes: object) -> str:
    """Give the id of the batch that the call got."""
    reply = create(api, headers, **changes)
    assert reply.status == api.prefix.batch_created, reply
    return str(reply.json()["id"])


def names(api: Api) -> set[str]:
    """Give the ids of all batches."""
    return {batch["id"] for batch in api.get("/batches?limit=100").json()["data"]}


def test_same_key_gets_the_same_batch_as_it_stands(each: Api):
    first = created(each, {KEY: "ours"})
    ended = each.end(first)

    reply = create(each, {KEY: "ours"})

    assert (reply.status, reply.json()) == (each.prefix.batch_created, ended)
    assert names(each) == {first}


def test_other_key_makes_another_batch(each: Api):
    assert created(each, {KEY: "ours"}) != created(each, {KEY: "yours"})


@pytest.mark.parametrize("changes", [{"input_file_id": "file-2"}, {"metadata": {"a": "b"}}], ids=str)
def test_same_key_with_another_request_is_a_conflict(each: Api, changes: Mapping[str, object]):
    first = created(each, {KEY: "ours"})

    reply = create(each, {KEY: "ours"}, **changes)

    error = reply.json()["error"]
    assert (reply.status, reply.headers["x-should-retry"]) == (409, "false")
    assert error["code"] == ("conflict" if each.prefix.azure else "idempotency_key_reused")
    assert error["param"] == KEY
    assert first in error["message"]


def test_key_belongs_to_a_resource(api: Api, new_key: Iterator[str]):
    other = Api(api.http.with_headers({"authorization": f"Bearer {next(new_key)}"}), OPENAI)

    assert created(api, {KEY: "ours"}) != created(other, {KEY: "ours"})


@pytest.mark.parametrize(("key", "code"), [("", "invalid_value"), ("k" * 256, "string_above_max_length")])
def test_key_of_a_wrong_length_is_refused(each: Api, key: str, code: str):
    reply = create(each, {KEY: key})

    error = reply.json()["error"]
    assert (reply.status, error["code"], error["param"]) == (400, code, KEY)
    assert names(each) == set()


def test_refused_create_does_not_use_its_key_up(each: Api):
    assert create(each, {KEY: "ours"}, completion_window="1h").status == 400

    assert created(each, {KEY: "ours"})


@pytest.mark.parametrize("count", ["1", "2"])
def test_what_the_sdk_sends_again_by_itself_gets_the_first_batch(each: Api, count: str):
    first = created(each, {COUNT: "0"}, metadata={"a": "b"})

    assert created(each, {COUNT: count}, metadata={"a": "b"}) == first
    assert created(each, {COUNT: count}, metadata={"a": "c"}) != first


@pytest.mark.parametrize("headers", [{}, {COUNT: "0"}, {COUNT: "-1"}, {COUNT: "x"}, {COUNT: ""}], ids=str)
def test_two_deliberate_creates_make_two_batches(each: Api, headers: Mapping[str, str]):
    assert created(each, headers) != created(each, headers)


@pytest.fixture
def two_services(upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, ...]]:
    """Two processes on one data folder."""
    folder = tmp_path_factory.mktemp("two")
    with (
        Service(folder, upstreams=[upstream.url], name="one") as one,
        Service(folder, upstreams=[upstream.url], name="two") as two,
    ):
        yield one, two


@pytest.mark.parametrize("headers", [{KEY: "ours"}, {COUNT: "1"}], ids=str)
def test_of_many_equal_creates_at_once_in_two_processes_one_makes_a_batch(
    two_services: tuple[Service, ...], headers: Mapping[str, str]
):
    apis = [Api(Http(service.url), OPENAI) for service in two_services]
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda number: created(apis[number % 2], headers), range(48)))

    assert {*found} == names(apis[0]) == names(apis[1])
    assert len({*found}) == 1


@pytest.mark.parametrize("version", sdk.VERSIONS)
def test_key_sent_through_the_sdk_makes_one_batch(service: Service, new_key: Iterator[str], version: str):
    found = run_script(version, {"url": service.url, "key": next(new_key)})

    first, second = found["ids"]
    assert first == second
    assert found["all"] == [first]
    assert found["refused"] == [409, "idempotency_key_reused"]


def run_script(version: str, task: Mapping[str, str]) -> dict[str, Any]:
    """Run the script with a version of the SDK, and give what it found."""
    command = [str(sdk.python_of(version)), "-I", "-c", SCRIPT]
    done = subprocess.run(
        command, input=json.dumps(task), capture_output=True, text=True, timeout=sdk.LONGEST_PROBE, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found
