"""The limits on how much and how often, from outside; and what bodies that are bombs are answered."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests.support.api import AZURE, OPENAI, Api
from tests.support.http import BOUNDARY, Http, Part, Reply
from tests.support.service import Service, eventually, log_shown

from overnight.testing.upstream import ScriptedUpstream

SETTINGS = """
[rate]
failed_keys_per_minute = 5
concurrent_uploads = 24

[limits.openai]
batches_per_hour = 3
pending_uploads = 2
pending_bytes = 10
uploads_per_minute = 20

[limits.azure]
files_without_expiry = 5
"""
KEYS = tuple(f"key-of-resource-{number}" for number in range(40))
SECURITY = {
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
}


def started(folder: Path, settings: str, *, upstream: str, keys: bool = True) -> Service:
    (folder / "overnight.toml").write_text(settings)
    (folder / "keys.txt").write_text("".join(f"{key} resource-{number}\n" for number, key in enumerate(KEYS)))
    arguments = ["--config", str(folder / "overnight.toml")]
    if keys:
        arguments += ["--keys-file", str(folder / "keys.txt")]
    return Service(folder, upstreams=[upstream], arguments=arguments)


@pytest.fixture(scope="module")
def model() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def shared(model: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with started(tmp_path_factory.mktemp("limits"), SETTINGS, upstream=model.url) as service:
        yield service


@pytest.fixture(scope="module")
def fresh() -> Iterator[str]:
    return iter(KEYS[1:])


@pytest.fixture
def bounded(shared: Service) -> Iterator[Service]:
    with log_shown(shared):
        yield shared


@pytest.fixture
def http(bounded: Service, fresh: Iterator[str]) -> Http:
    return Http(bounded.url, {"authorization": f"Bearer {next(fresh)}"})


@pytest.fixture
def api(http: Http) -> Api:
    return Api(http, OPENAI)


def code(reply: Reply) -> tuple[int, str | None]:
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return reply.status, error["code"]


def wait(reply: Reply) -> int:
    seconds, millis = int(reply.headers["retry-after"]), int(reply.headers["retry-after-ms"])
    assert seconds - 1 <= millis / 1000 <= seconds
    return seconds


class TestCreations:
    """Batches in an hour."""

    def test_one_too_many_gets_429_and_a_time_to_wait(self, api: Api) -> None:
        """Not longer than SDKs wait at all; Azure's paths have no such limit, and repeats do not count."""
        wanted = api.new_batch("file-x")
        first = api.http.call("POST", "/v1/batches", json.dumps(wanted).encode(), {"idempotency-key": "k"})
        for _ in range(2):
            assert api.post("/batches", wanted).status == 200
        refused = api.post("/batches", wanted)
        again = api.http.call("POST", "/v1/batches", json.dumps(wanted).encode(), {"idempotency-key": "k"})
        azure = Api(api.http, AZURE)

        assert code(refused) == (429, "rate_limit_exceeded")
        assert (refused.json()["error"]["type"], wait(refused)) == ("requests", 120)
        assert again.json()["id"] == first.json()["id"]
        assert azure.post("/batches", azure.new_batch("file-x")).status == 201

    def test_of_sixteen_at_once_three_are_made(self, api: Api) -> None:
        """None too many."""
        wanted = api.new_batch("file-x")
        with ThreadPoolExecutor(16) as threads:
            replies = list(threads.map(lambda _: api.post("/batches", wanted).status, range(16)))

        assert sorted(replies) == [200] * 3 + [429] * 13

    def test_a_restart_forgets_none(self, model: ScriptedUpstream, tmp_path: Path) -> None:
        """They are counted from the records."""
        service = started(tmp_path, SETTINGS, upstream=model.url)
        key = {"authorization": f"Bearer {KEYS[0]}"}
        statuses = []
        for _ in range(2):
            with service:
                api = Api(Http(service.url, key))
                statuses += [api.post("/batches", api.new_batch("file-x")).status for _ in range(2)]

        assert statuses == [200, 200, 200, 429]


class TestFiles:
    """Files and uploads."""

    def test_of_sixteen_uploads_at_the_edge_none_is_too_many(self, http: Http) -> None:
        """CONTRACT 3.3."""
        api = Api(http, AZURE)
        parts = [Part(name="purpose", data="batch"), Part(name="file", data=b"{}\n", filename="a.jsonl")]
        with ThreadPoolExecutor(16) as threads:
            replies = list(threads.map(lambda _: api.post_form("/files", parts), range(16)))
        refused = [reply for reply in replies if reply.status != 201]

        assert len(refused) == 11
        assert {code(reply) for reply in refused} == {(400, "quotaExceeded")}
        assert (
            "The quota for files without expiry is reached. The maximum is 5." in refused[0].json()["error"]["message"]
        )
        assert len(api.get("/files").json()["data"]) == 5

    def test_unfinished_uploads_have_a_bound(self, api: Api) -> None:
        """On their number and on what is stored of them."""
        wanted = {"filename": "a.jsonl", "purpose": "batch", "bytes": 8, "mime_type": "text/plain"}
        first, second, third = (api.post("/uploads", wanted) for _ in range(3))
        parts = [Part(name="data", data="x" * 8, filename="p")]
        stored = api.post_form(f"/uploads/{first.json()['id']}/parts", parts)
        refused = api.post_form(f"/uploads/{second.json()['id']}/parts", parts)

        assert code(third) == (400, "quotaExceeded")
        assert stored.status == 200
        assert code(refused) == (400, "quotaExceeded")

    def test_files_and_uploads_in_a_minute_have_a_bound(self, api: Api) -> None:
        """Whatever becomes of them."""
        replies = [api.post("/uploads", {}) for _ in range(21)]

        assert [reply.status for reply in replies] == [400] * 20 + [429]
        assert code(replies[-1]) == (429, "rate_limit_exceeded")
        assert 1 <= wait(replies[-1]) <= 3

    def test_uploads_at_the_same_time_have_a_bound(self, bounded: Service, fresh: Iterator[str]) -> None:
        """Of the others each goes on."""
        key = next(fresh)
        head = f"POST /openai/files HTTP/1.1\r\nHost: localhost\r\napi-key: {key}\r\nContent-Length: 100\r\n"
        head += f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n\r\n"
        address = urlsplit(bounded.url)
        lines = [socket.create_connection((address.hostname, address.port)) for _ in range(24)]
        for line in lines:
            line.sendall(head.encode())
        api = Api(Http(bounded.url, {"api-key": key}), AZURE)

        def full() -> Reply | None:
            reply = api.post_form("/files", [Part(name="purpose", data="batch")])
            return reply if reply.status == 429 else None

        assert code(eventually(full)) == (429, "rate_limit_exceeded")

        for line in lines:
            line.close()
        eventually(lambda: api.post_form("/files", [Part(name="purpose", data="batch")]).status == 400)


class TestKeys:
    """Requests with a key, and with a wrong one."""

    def test_a_key_has_so_many_requests_in_a_minute(self, model: ScriptedUpstream, tmp_path: Path) -> None:
        """Each reply says how many are left; other keys are others."""
        with started(tmp_path, "rate.requests_per_minute = 3", upstream=model.url) as service:
            replies = [Http(service.url, {"api-key": KEYS[0]}).get("/v1/batches") for _ in range(4)]
            other = Http(service.url, {"api-key": KEYS[1]}).get("/v1/batches")
            watching = [Http(service.url).get("/ready").status for _ in range(5)]

        left = [reply.headers.get("x-ratelimit-remaining-requests") for reply in replies]
        assert left == ["2", "1", "0", None]
        assert {reply.headers["x-ratelimit-limit-requests"] for reply in replies[:3]} == {"3"}
        assert code(replies[3]) == (429, "rate_limit_exceeded")
        assert 18 <= wait(replies[3]) <= 20
        assert (other.status, watching) == (200, [200] * 5)

    def test_another_header_beside_the_key_makes_no_other_caller(self, model: ScriptedUpstream, tmp_path: Path) -> None:
        """Neither does another way to write the same key."""
        key = KEYS[0]
        ways = [
            {"api-key": key},
            {"api-key": key, "authorization": "Bearer anything"},
            {"authorization": f"bearer  {key}"},
            {"authorization": f"Bearer {key}"},
        ]
        with started(tmp_path, "rate.requests_per_minute = 3", upstream=model.url) as service:
            statuses = [Http(service.url, headers).get("/v1/batches").status for headers in ways]

        assert statuses == [200, 200, 200, 429]

    def test_an_id_that_reads_files_makes_no_body_unbounded(self, model: ScriptedUpstream, tmp_path: Path) -> None:
        """Only where files are taken a body may be large."""
        body = {"name": "x" * 2_000_000}
        with started(tmp_path, SETTINGS, upstream=model.url) as service:
            replies = [
                Http(service.url, {"api-key": KEYS[0]}).post(path, body)
                for path in ("/v1/webhook_endpoints/files", "/openai/v1/dashboard/webhook_endpoints/files")
            ]

        assert [reply.status for reply in replies] == [413, 413]

    def test_who_tries_one_wrong_key_after_the_other_has_to_wait(self, model: ScriptedUpstream, tmp_path: Path) -> None:
        """Who was let in before from the same address goes on."""
        with started(tmp_path, SETTINGS, upstream=model.url) as service:
            good = Http(service.url, {"api-key": KEYS[0]})
            before = good.get("/v1/batches")
            tries = [Http(service.url, {"api-key": f"wrong-{number}"}).get("/v1/batches") for number in range(7)]
            health = Http(service.url, {"api-key": KEYS[1]}).get("/health")
            guessed = Http(service.url, {"api-key": KEYS[1]}).get("/v1/batches")
            after = good.get("/v1/batches")

        assert [reply.status for reply in tries] == [401] * 5 + [429] * 2
        assert 1 <= wait(tries[-1]) <= 12
        assert (before.status, after.status) == (200, 200)
        # Otherwise `/health`, which knows no keys, would tell who may go on guessing.
        assert (health.status, guessed.status) == (429, 429)

    def test_tabs_whose_session_is_over_are_no_wrong_keys(self, model: ScriptedUpstream, tmp_path: Path) -> None:
        """They ask again after each restart, and many may come from one address; a sign-in counts all the same."""
        with started(tmp_path, SETTINGS, upstream=model.url) as service:
            visitor = Http(service.url)
            tabs = [visitor.get(f"/studio/{path}").status for path in ("events", "parts") for _ in range(4)]
            calls = [visitor.get("/v1/batches").status for _ in range(6)]

        assert tabs == [401] * 8
        assert calls == [401] * 5 + [429]


BOMBS: Mapping[str, bytes] = {
    "nested": b"[" * 500_000,
    "nested objects": b'{"a":' * 100_000,
    "a huge integer": b'{"input_file_id":"f","endpoint":"e","completion_window":%s}' % (b"9" * 100_000),
    "a huge number": b'{"input_file_id":1e999999,"endpoint":"e","completion_window":"24h"}',
    "no number": b'{"input_file_id":NaN,"endpoint":"e","completion_window":"24h"}',
    "a huge text": b'{"input_file_id":"f","endpoint":"%s","completion_window":"24h"}' % (b"x" * 900_000),
    "a huge key": b'{"input_file_id":"f","endpoint":"/v1/embeddings","completion_window":"24h","metadata":{"%s":1}}'
    % (b"k" * 900_000),
    "many pairs": b'{"input_file_id":"f","endpoint":"/v1/embeddings","completion_window":"24h","metadata":{%s}}'
    % b",".join(b'"%d":""' % number for number in range(50_000)),
    "an array for a text": b'{"input_file_id":"f","endpoint":"/v1/embeddings","completion_window":"24h","metadata":'
    b'{"a":[%s]}}' % b",".join([b"1"] * 200_000),
    "not UTF-8": b'{"input_file_id":"\xff"}',
    "nothing": b"",
    "a number": b"1",
}


class TestBodies:
    """Bodies that want to be expensive."""

    @pytest.mark.parametrize("body", BOMBS.values(), ids=BOMBS.keys())
    def test_json_that_is_a_bomb_is_refused_in_few_words(self, http: Http, body: bytes) -> None:
        """And never breaks the service."""
        reply = http.call("POST", "/v1/batches", body, {"content-type": "application/json"})

        assert code(reply)[0] == 400
        assert len(reply.body) < 5_000

    def test_the_last_of_equal_keys_counts(self, http: Http) -> None:
        """As everywhere in Python."""
        body = b'{"input_file_id":"f","endpoint":"bad","endpoint":"/v1/embeddings","completion_window":"24h"}'

        assert http.call("POST", "/v1/batches", body).json()["endpoint"] == "/v1/embeddings"

    @pytest.mark.parametrize(
        "form",
        [
            [Part(name=f"field-{number}", data="x") for number in range(40)],
            [Part(name="purpose", data="x" * 100_000)],
            [Part(name="n" * 20_000, data="x")],
            [Part(name="purpose", data="batch"), Part(name="file", data="{}\n", filename="x" * 600 + ".jsonl")],
            [Part(name="file", data="{}\n", kind="multipart/mixed; boundary=inner")],
            [Part(name="purpose", data="batch", kind="a/b\r\n" + "x: y\r\n" * 5_000 + "z: z")],
        ],
        ids=["parts", "field", "name", "file name", "nested", "headers"],
    )
    def test_forms_that_are_bombs_are_refused(self, api: Api, form: list[Part]) -> None:
        """Number of parts, size of a field, of a name and of headers."""
        reply = api.post_form("/files", form)

        assert code(reply)[0] == 400
        assert len(reply.body) < 5_000

    @pytest.mark.parametrize(
        ("boundary", "body"),
        [
            ("b" * 71, b"--" + b"b" * 71 + b"--\r\n"),
            ("b", b"\r\n" * 500_000),
            ("b", b"preamble\r\n--b--\r\n"),
            ("b", b"--b\r\nContent-Disposition: form-data; name=purpose\r\n\r\nbatch\r\n--b--\r\n" + b"x" * 500_000),
            ("b", b"\r\n--" * 200_000),
            ("", b"----\r\n"),
        ],
    )
    def test_bodies_that_are_no_forms_are_refused(self, http: Http, boundary: str, body: bytes) -> None:
        """Boundary, preamble and epilogue."""
        reply = http.call("POST", "/v1/files", body, {"content-type": f"multipart/form-data; boundary={boundary}"})

        assert code(reply)[0] == 400

    @pytest.mark.parametrize(
        ("path", "size", "expected"),
        [
            ("/v1/batches", 2 * 2**20, "request_too_large"),
            ("/v1/files", 2**33, "file_too_large"),
            ("/openai/files", 2**33, "file_too_large"),
            ("/v1/uploads/upload_1/parts", 2**27, "file_too_large"),
        ],
    )
    def test_a_body_that_announces_too_much_is_refused_unread(
        self, bounded: Service, path: str, size: int, expected: str
    ) -> None:
        """Also before the key is looked at."""
        address = urlsplit(bounded.url)
        with socket.create_connection((address.hostname, address.port), timeout=10) as line:
            line.sendall(f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n".encode())
            said = ""
            while "}}" not in said:
                said += line.recv(65_536).decode()

        assert said.startswith("HTTP/1.1 413 ")
        assert expected in said


class TestHeads:
    """URLs and headers."""

    @pytest.mark.parametrize(
        ("path", "headers", "expected"),
        [
            ("/v1/batches?after=" + "x" * 9_000, {}, (414, "url_too_long")),
            ("/v1/batches?" + "&".join(["a=b"] * 150), {}, (400, "too_many_parameters")),
            ("/v1/batches", {f"x-{number}": "y" for number in range(150)}, (431, "headers_too_large")),
            ("/v1/batches", {"x": "y" * 65_000, "z": "y" * 2_000}, (431, "headers_too_large")),
        ],
    )
    def test_what_is_too_long_is_refused(
        self, http: Http, path: str, headers: dict[str, str], expected: tuple[int, str]
    ) -> None:
        """In the envelope."""
        assert code(http.get(path, headers)) == expected

    def test_every_reply_keeps_browsers_from_making_more_of_it(self, api: Api) -> None:
        """Also errors, and files, which are never shown as pages."""
        file_id = api.upload(b"<script>alert(1)</script>", filename="<b>a;.html", purpose="user_data")
        content = api.get(f"/files/{file_id}/content")
        replies = [
            api.get("/batches"),
            content,
            api.get("/nothing"),
            api.http.get("/nothing"),
            api.http.get("/health"),
            api.http.with_headers({}).get("/v1/batches"),
            api.post("/batches", []),
            api.http.call("PUT", "/v1/batches"),
            api.http.get("/v1/batches?after=" + "x" * 9_000),
        ]

        for reply in replies:
            assert {name: reply.headers.get(name) for name in SECURITY} == SECURITY
            assert reply.headers["x-request-id"]
            assert "access-control-allow-origin" not in reply.headers
        assert content.headers["content-type"] == "application/octet-stream"
        assert content.headers["content-disposition"].startswith("attachment; filename*=UTF-8''%3Cb%3Ea%3B.html")
