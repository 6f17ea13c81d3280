"""Absurd addresses, hosts and bodies, and ids of others: answered as if they were merely wrong, and leaving nothing."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
from starlette.requests import Request
from tests.studio.conftest import GREEN, Visitor
from tests.support.api import Api, chats
from tests.support.service import Service

from overnight.domain.errors import Unauthorized
from overnight.domain.ids import ResourceId
from overnight.studio.context import Caller
from overnight.studio.session import COOKIE, Sessions
from overnight.testing.clock import ManualClock
from overnight.testing.entropy import CountedEntropy
from overnight.testing.upstream import ScriptedUpstream

CHAT = "/v1/chat/completions"
POLICY = "content-security-policy"


@pytest.mark.parametrize("host", ["[", "[::1", "a]b", "[x]"])
@pytest.mark.parametrize("path", ["/studio", "/studio/batches/x", "/studio/batches/", "/studio/sign-in"])
def test_host_that_is_no_address_is_no_error_of_ours(visitor: Visitor, stranger: Visitor, host: str, path: str):
    for who in (visitor, stranger):
        reply = who.get(path, {"host": host})

        assert reply.status < 500, reply
        assert reply.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("origin", ["http://[", "[", "//", "http://[::1"])
def test_origin_that_is_no_address_is_another_page(visitor: Visitor, origin: str):
    assert visitor.post("/studio/sign-out", {"origin": origin}, csrf=visitor.token()).status == 403


@pytest.mark.parametrize(
    "query",
    [
        "offset=99999999999999999999999999",
        "offset=-1&limit=-5",
        "offset=2147483648&limit=100",
        "status=%00&code=%00&custom_id=%00",
        "custom_id=%ED%A0%80&code=%FF",
        "custom_id=" + "a" * 20_000,
        "line=9999999999",
        "q=%00+created%3A%3E0000-00-00+status%3A%ED%A0%80+meta.%3Ax",
        "q=%22&view=%00",
        "span=%00&purpose=batch",
        "topics=overview",
    ],
)
def test_absurd_parameters_are_answered(visitor: Visitor, api: Api, query: str):
    batch = api.run(chats(1, CHAT))
    file_id = batch["input_file_id"]

    for path in (
        "/studio/batches",
        f"/studio/batches/{batch['id']}",
        f"/studio/batches/{batch['id']}/requests",
        f"/studio/batches/{batch['id']}/requests/r-0",
        "/studio/files",
        f"/studio/files/{file_id}",
        f"/studio/files/{file_id}/check",
        "/studio/new",
        "/studio/traffic",
        "/studio/parts",
    ):
        reply = visitor.get(f"{path}?{query}")

        assert reply.status < 500, (path, reply)
        assert POLICY in reply.headers


@pytest.mark.parametrize("name", ["a\r\nx-injected: 1.jsonl", 'a";x="b.jsonl', "../../a.jsonl", "ü\u202e\u0000.jsonl"])
def test_name_of_a_file_cannot_steer_the_headers_of_its_download(visitor: Visitor, name: str):
    sent = visitor.http.call(
        "POST", f"/studio/upload?name={quote(name)}", chats(1, CHAT), {"x-csrf-token": visitor.token()}
    )
    assert sent.status == 201, sent
    reply = visitor.get(f"/studio/files/{sent.json()['id']}/content")

    assert "x-injected" not in reply.headers
    assert f"attachment; filename*=UTF-8''{quote(name, safe='')}" == reply.headers["content-disposition"]
    assert reply.headers["x-content-type-options"] == "nosniff"


def test_signing_in_again_ends_the_session_before(blue: Visitor):
    before = blue.cookie
    again = blue.sign_in(GREEN)
    blue.cookie = before

    assert again.status == 303
    assert blue.get("/studio").status == 303


def test_sessions_that_are_over_lock_nobody_out(upstream: ScriptedUpstream, tmp_path: Path):
    (tmp_path / "keys.txt").write_text("the-only-key blue\n")
    arguments = ["--keys-file", str(tmp_path / "keys.txt")]
    with Service(tmp_path, upstreams=[upstream.url], arguments=arguments) as service:
        tabs, others = Visitor(service.url), Visitor(service.url)
        tabs.cookie = "overnight_session=of-before-the-restart"
        statuses = {tabs.get("/studio/parts?topics=overview").status for _ in range(130)}

        assert statuses == {401}
        assert others.sign_in("the-only-key").status == 303
        assert others.get("/studio").status == 200


def test_id_of_another_resource_answers_as_one_that_is_unknown(blue: Visitor, green: Visitor, blue_api: Api):
    batch = blue_api.run(chats(1, CHAT))
    ids = {"batches": batch["id"], "files": batch["input_file_id"]}
    for path in (
        "batches/ID",
        "batches/ID/throughput",
        "batches/ID/requests",
        "batches/ID/requests/r-0",
        "batches/ID/requests/?line=0",
        "batches/ID/results",
        "parts?topics=batch:ID",
        "parts?topics=inside:ID",
        "parts?topics=rows:ID",
        "batches/cancel?id=ID",
        "new?from=ID",
    ):
        _same(green, f"/studio/{path}", ids["batches"])
    for path in ("files/ID", "files/ID/content", "files/ID/check", "files/delete?id=ID", "new?file=ID"):
        _same(green, f"/studio/{path}", ids["files"])
    for path, kind in (
        ("batches/ID/cancel", "batches"),
        ("batches/ID/retry?which=failed", "batches"),
        ("files/ID/delete", "files"),
    ):
        own, unknown = ids[kind], ids[kind][:-4] + "beef"
        answers = [green.submit(f"/studio/{path}".replace("ID", each)) for each in (own, unknown)]
        assert [answer.status for answer in answers] == [404, 404]
        assert answers[0].body.replace(own.encode(), b"ID") == answers[1].body.replace(unknown.encode(), b"ID")
    green.submit("/studio/files/delete", id=ids["files"])
    green.submit("/studio/batches/cancel", id=ids["batches"])

    assert blue.get(f"/studio/files/{ids['files']}").status == 200


def _same(visitor: Visitor, path: str, known: str) -> None:
    unknown = known[:-4] + "beef"
    foreign, none = (visitor.get(path.replace("ID", each)) for each in (known, unknown))

    assert foreign.status == none.status, path
    assert _like(foreign.body, known) == _like(none.body, unknown), path


def _like(body: bytes, known: str) -> bytes:
    """Leave out what differs from page to page: the id, and the token of a form."""
    return re.sub(rb'name="once" value="\w+"', b"", body.replace(known.encode(), b"ID"))


def test_upload_that_breaks_off_leaves_no_file_and_is_no_error_of_the_service(visitor: Visitor, open_service: Service):
    address = urlsplit(open_service.url)
    head = (
        f"POST /studio/upload?name=broken-off.jsonl HTTP/1.1\r\nhost: {address.netloc}\r\n"
        f"x-csrf-token: {visitor.token()}\r\ncontent-length: 1000000\r\n\r\n"
    )
    before = {path for path in open_service.data_dir.rglob("*") if path.is_file()}
    with socket.create_connection((str(address.hostname), int(address.port or 80)), timeout=10) as connection:
        connection.sendall(head.encode() + chats(10, CHAT))
    visitor.page("/studio")

    assert "broken-off" not in visitor.page("/studio/files")
    left = {path for path in open_service.data_dir.rglob("*") if path.is_file()} - before
    assert [path for path in left if "files" in path.parts] == []
    assert "studio.broke" not in open_service.log()


class Everybody:
    """Any key opens the Studio."""

    bearers = False

    async def open_to(self, host: str) -> Caller | None:
        return None

    async def recall(self, digest: str) -> Caller | None:
        return Caller(resource=ResourceId(digest), may_submit=True, may_operate=False)


def with_cookie(name: str) -> Request:
    return Request({"type": "http", "headers": [(b"cookie", f"{COOKIE}={name}".encode())]})


async def test_whoever_signs_in_without_end_pushes_out_nobody_else(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("overnight.studio.session._MOST", 5)
    monkeypatch.setattr("overnight.studio.session._MOST_OF_A_KEY", 3)
    sessions = Sessions(Everybody(), ManualClock(), CountedEntropy())
    own = await sessions.sign_in("mine")

    greedy = [await sessions.sign_in("greedy") for _ in range(10)]

    assert (await sessions.visitor(with_cookie(own))).signed_in
    assert (await sessions.visitor(with_cookie(greedy[-1]))).signed_in
    with pytest.raises(Unauthorized):
        await sessions.visitor(with_cookie(greedy[0]))


async def test_with_very_many_keys_the_session_that_rests_longest_goes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("overnight.studio.session._MOST", 2)
    clock = ManualClock()
    sessions = Sessions(Everybody(), clock, CountedEntropy())
    first = await sessions.sign_in("first")
    clock.jump(1.0)
    second = await sessions.sign_in("second")
    clock.jump(1.0)
    await sessions.visitor(with_cookie(first))
    await sessions.sign_in("third")

    assert (await sessions.visitor(with_cookie(first))).signed_in
    with pytest.raises(Unauthorized):
        await sessions.visitor(with_cookie(second))
