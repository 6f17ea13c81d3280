"""A request as a command to its upstream: it must say the same in a shell, whatever stands in it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from overnight.domain.deployment import Deployment, UpstreamName
from overnight.ports.upstream import UpstreamHealth
from overnight.studio.bubbles import PREVIEW, request_id
from overnight.studio.one_request import Target, curl, target_of

TARGET = Target(url="http://10.0.0.7:8000/v1", model="Qwen/Qwen3-32B")
HOSTILE = "$(reboot) `id` ' \" \\ \nEND_OF_REQUEST\nEOF\n\u202e\x1b[31m\x00 \u2028 é 猫"


def line(url: str = "/v1/chat/completions", **body: object) -> bytes:
    return json.dumps({"custom_id": "a", "method": "POST", "url": url, "body": body}, ensure_ascii=False).encode()


def run(command: str, folder: Path) -> tuple[list[str], bytes]:
    """Run a command in a shell whose curl only tells its arguments and its input."""
    fake = folder / "curl"
    fake.write_text('#!/bin/sh\nfor each in "$@"; do printf "%s\\n" "$each"; done >"$0.arguments"\ncat >"$0.input"\n')
    fake.chmod(0o755)
    environment = {"PATH": f"{folder}:/usr/bin:/bin", "KEY": "k", "UPSTREAM_URL": "http://localhost"}
    subprocess.run(["sh", "-c", command], check=True, env=environment, timeout=10)
    return (folder / "curl.arguments").read_text().splitlines(), (folder / "curl.input").read_bytes()


def test_command_says_the_same_whatever_the_prompt_holds(tmp_path: Path):
    body: dict[str, Any] = {"model": "alias", "messages": [{"role": "user", "content": HOSTILE}], HOSTILE: 1.50}

    arguments, sent = run(curl(line(**body), TARGET), tmp_path)

    assert json.loads(sent) == {**body, "model": "Qwen/Qwen3-32B"}
    assert arguments[0] == "http://10.0.0.7:8000/v1/chat/completions"
    assert "Authorization: Bearer k" in arguments


def test_command_shows_nothing_that_steers_a_terminal():
    text = curl(line(model="m", input=HOSTILE), None)

    assert [char for char in text if char in "\u202e\x1b\x00\u2028"] == []


def test_numbers_stay_as_they_were_written(tmp_path: Path):
    raw = b'{"url":"/v1/embeddings","body":{"model":"m","seed":123456789012345678901234567890,"top_p":1.50}}'

    _, sent = run(curl(raw, None), tmp_path)

    assert b"123456789012345678901234567890" in sent
    assert b"1.50" in sent
    assert json.loads(sent)["model"] == "m"


@pytest.mark.parametrize("url", ["/v1/chat/completions", "/chat/completions", "/v1/x; reboot"])
def test_address_is_left_open_where_it_is_not_shown(tmp_path: Path, url: str):
    arguments, _ = run(curl(line(url, model="m"), None), tmp_path)

    assert arguments[0] == f"http://localhost/v1{url.removeprefix('/v1')}"


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"{", b'{"url":1,"body":{}}', b'{"url":"/v1/x"}', b'{"url":"/","body":[]}', b"\xff"]
)
def test_what_is_no_request_has_no_command(raw: bytes):
    assert curl(raw, TARGET) == ""


def test_request_too_long_to_be_shown_has_no_command():
    assert curl(line(model="m", input="x" * PREVIEW), TARGET) == ""


def health(name: str, **changes: object) -> UpstreamHealth:
    return UpstreamHealth(name=UpstreamName(name), url=f"http://{name}/v1", **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ([health("a"), health("b")], "http://a/v1"),
        ([health("a", problem="refused"), health("b")], "http://b/v1"),
        ([health("a", paused=True), health("b")], "http://b/v1"),
        ([health("a", problem="refused"), health("b", paused=True)], "http://a/v1"),
        ([health("other"), health("b")], "http://b/v1"),
        ([], None),
    ],
)
def test_target_is_the_first_upstream_that_answers(states: list[UpstreamHealth], expected: str | None):
    deployment = Deployment(name="alias", model="m", upstreams=(UpstreamName("a"), UpstreamName("b")))

    found = target_of(deployment, states)

    assert (found and found.url) == expected


def test_model_that_nobody_serves_has_no_target():
    assert target_of(None, [health("a")]) is None


@pytest.mark.parametrize(
    ("raw", "expected"),
    [(b'{"response":{"request_id":"req_1\\u001b"}}', "req_1␛"), (b'{"response":null}', ""), (b"", "")],
)
def test_id_of_a_request_is_read_from_its_response(raw: bytes, expected: str):
    assert request_id(raw) == expected
