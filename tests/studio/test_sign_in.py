"""Who may come in, for how long, and what another page or another resource can do: nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.studio.conftest import BLUE, Visitor, token_in
from tests.support.api import Api, chats
from tests.support.service import Service, environment, eventually

from overnight.testing.upstream import ScriptedUpstream

CHAT = "/v1/chat/completions"
WRONG = "This key does not open anything here."


@pytest.mark.parametrize("path", ["/studio", "/studio/batches/batch_x?a=b", "/studio/batches/batch_x/requests/events"])
def test_whoever_is_not_signed_in_is_led_to_the_form(stranger: Visitor, path: str):
    reply = stranger.get(path)

    assert reply.status == 303
    assert reply.headers["location"].startswith("/studio/sign-in?next=%2Fstudio")


@pytest.mark.parametrize(
    "path",
    [
        "events?topics=batches",
        "parts?topics=batches",
        "batches/batch_x/requests",
        "batches/batch_x/throughput",
        "batches/batch_x/results",
        "files/file-x/content",
        "files/file-x/check",
        "traffic",
    ],
)
def test_what_is_no_page_is_closed_without_a_form(stranger: Visitor, path: str):
    """A script would show it in the middle of a page, and a browser store it as what was to be downloaded."""
    reply = stranger.get(f"/studio/{path}")

    assert (reply.status, reply.body) == (401, b"Sign in again.")


def test_part_of_a_page_is_refused_in_words_alone(stranger: Visitor, blue: Visitor):
    of_htmx = {"hx-request": "true"}
    refused = [
        stranger.get("/studio/batches", of_htmx),
        stranger.post("/studio/recipes", of_htmx),
        blue.post("/studio/recipes", of_htmx, csrf="0" * 32),
        blue.get("/studio/batches/batch_none", of_htmx),
    ]

    assert [reply.status for reply in refused] == [401, 401, 403, 404]
    assert not any(b"<" in reply.body for reply in refused)


def test_form_of_an_ended_session_leads_to_the_sign_in(stranger: Visitor):
    reply = stranger.post("/studio/new", csrf="0" * 32)

    assert reply.status == 401
    assert b"nothing was done" in reply.body
    assert b'href="/studio/sign-in"' in reply.body


def test_wrong_key_does_not_lose_the_way_back(stranger: Visitor):
    token = token_in(stranger.page("/studio/sign-in"))

    again = stranger.post("/studio/sign-in", csrf=token, key="wrong", next="/studio/batches?q=a")

    assert again.status == 401
    assert b'name="next" value="/studio/batches?q=a"' in again.body


def test_key_opens_a_session_in_a_cookie_that_no_script_can_read(stranger: Visitor):
    reply = stranger.sign_in(BLUE)

    assert (reply.status, reply.headers["location"]) == (303, "/studio")
    flags = {flag.strip().lower() for flag in reply.headers["set-cookie"].split(";")[1:]}
    assert flags == {"httponly", "samesite=strict", "path=/studio"}
    assert BLUE not in reply.headers["set-cookie"]
    assert "blue" in stranger.page("/studio")


def test_cookie_of_an_encrypted_connection_never_travels_in_the_clear(stranger: Visitor):
    token = token_in(stranger.page("/studio/sign-in"))

    reply = stranger.post("/studio/sign-in", {"x-forwarded-proto": "https"}, csrf=token, key=BLUE)

    assert "secure" in reply.headers["set-cookie"].lower()


@pytest.mark.parametrize("key", ["", "wrong", f"{BLUE}x", "ovn_" + "0" * 32, "\u202e", "x" * 5000])
def test_failed_sign_in_is_answered_in_constant_words(stranger: Visitor, key: str):
    reply = stranger.sign_in(key)

    assert reply.status == 401
    assert WRONG in reply.body.decode()
    assert "set-cookie" not in reply.headers


@pytest.mark.parametrize(
    "wanted", ["https://elsewhere.example", "//elsewhere.example", "/v1/batches", "/studio/../v1", "/studio/\\x"]
)
def test_sign_in_leads_nowhere_else(stranger: Visitor, wanted: str):
    token = token_in(stranger.page("/studio/sign-in"))

    reply = stranger.post("/studio/sign-in", csrf=token, key=BLUE, next=wanted)

    assert reply.headers["location"] == "/studio"


def test_sign_in_leads_back_to_what_was_asked_for(stranger: Visitor):
    token = token_in(stranger.page("/studio/sign-in"))

    reply = stranger.post("/studio/sign-in", csrf=token, key=BLUE, next="/studio/batches?q=a")

    assert reply.headers["location"] == "/studio/batches?q=a"


def test_signing_out_ends_the_session_for_good(blue: Visitor):
    cookie = blue.cookie

    reply = blue.submit("/studio/sign-out")

    blue.cookie = cookie
    assert reply.status == 303
    assert blue.get("/studio").status == 303


def test_forms_need_the_token_of_their_visitor(blue: Visitor, green: Visitor, blue_api: Api):
    file_id = blue_api.upload(chats(1, CHAT))
    path = f"/studio/files/{file_id}/delete"

    assert blue.post(path).status == 403
    assert blue.post(path, csrf="0" * 32).status == 403
    assert blue.post(path, csrf=green.token()).status == 403
    assert blue.get(f"/studio/files/{file_id}").status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://elsewhere.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_forms_of_other_pages_are_refused_even_with_the_token(visitor: Visitor, api: Api, headers: dict[str, str]):
    file_id = api.upload(chats(1, CHAT))

    deleting = visitor.post(f"/studio/files/{file_id}/delete", headers, csrf=visitor.token())
    uploading = visitor.http.call(
        "POST", "/studio/upload?name=a.jsonl", chats(1, CHAT), {"x-csrf-token": visitor.token(), **headers}
    )

    assert (deleting.status, uploading.status) == (403, 403)


def test_uploads_need_the_token(visitor: Visitor):
    reply = visitor.http.call("POST", "/studio/upload?name=a.jsonl", chats(1, CHAT))

    assert reply.status == 403
    assert "another sign-in" in reply.json()["error"]


def test_resources_do_not_see_each_other(blue: Visitor, green: Visitor, blue_api: Api):
    batch = blue_api.run(chats(1, CHAT), metadata={"name": "blues own"})
    file_id = batch["input_file_id"]

    assert "blues own" in blue.page("/studio")
    assert "blues own" not in green.page("/studio")
    for path in (
        f"/studio/batches/{batch['id']}",
        f"/studio/batches/{batch['id']}/throughput",
        f"/studio/files/{file_id}",
        f"/studio/files/{file_id}/content",
        f"/studio/new?from={batch['id']}",
        f"/studio/parts?topics=batch:{batch['id']}",
    ):
        assert blue.get(path).status == 200, path
        assert green.get(path).status == 404, path
    assert "input.jsonl" not in green.page(f"/studio/new?file={file_id}")
    assert green.submit(f"/studio/files/{file_id}/delete").status == 404
    assert green.submit(f"/studio/batches/{batch['id']}/cancel").status == 404
    assert green.submit("/studio/new", file_id=file_id, endpoint=CHAT).status == 400


def test_without_keys_there_is_no_sign_in(visitor: Visitor):
    assert visitor.get("/studio").status == 200


@pytest.mark.parametrize("host", ["elsewhere.example", "127.0.0.1.elsewhere.example:80", "[::ffff:7f00:2:1]x"])
def test_without_keys_only_this_machine_is_let_in(visitor: Visitor, host: str):
    assert visitor.get("/studio", {"host": host}).status == 403


def keys(service: Service, *arguments: str) -> str:
    command = [sys.executable, "-m", "overnight.cli.main", "keys", *arguments, "--data-dir", str(service.data_dir)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment(service.data_dir.parent))
    return done.stdout


def test_key_that_may_only_read_changes_nothing_and_revoking_it_ends_the_session(
    upstream: ScriptedUpstream, tmp_path: Path
):
    with Service(tmp_path, upstreams=[upstream.url]) as service:
        created = keys(service, "create", "--scope", "read", "--json=id,key")
        key_id, secret = (json.loads(created)[name] for name in ("id", "key"))
        visitor = Visitor(service.url)
        eventually(lambda: visitor.sign_in(secret).status == 303)

        refused = visitor.submit("/studio/new", file_id="file-x", endpoint=CHAT)
        page = visitor.page("/studio/new")
        keys(service, "revoke", key_id, "--yes")

        assert refused.status == 403
        assert "This key may only read." in page
        assert eventually(lambda: visitor.get("/studio").status == 303, timeout=8)
