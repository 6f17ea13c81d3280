"""The client: against the real service, and against a server that misbehaves in ways the real one does not."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
import pytest
from tests.cli.conftest import MODEL, request
from tests.support.service import Service

from overnight.client import (
    ApiError,
    Client,
    InvalidUrl,
    NewBatch,
    NotAuthorised,
    NotFound,
    Patience,
    Readiness,
    UnexpectedAnswer,
    Unreachable,
    Waiting,
)
from overnight.client.transport import Base

Handler = Callable[[BaseHTTPRequestHandler], None]
EMPTY_LIST = b'{"object":"list","data":[],"has_more":false}'


@dataclass
class Misbehaving:
    """A server that handles each request in turn as it is told; the last handler repeats."""

    handlers: list[Handler]
    seen: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def serve() -> Iterator[Callable[..., Misbehaving]]:
    """Start such a server."""
    servers: list[ThreadingHTTPServer] = []

    def start(*handlers: Handler) -> Misbehaving:
        told = Misbehaving(list(handlers))

        class Told(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                self.rfile.read(int(self.headers.get("content-length") or 0))
                told.seen.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}))
                handler = told.handlers.pop(0) if len(told.handlers) > 1 else told.handlers[0]
                handler(self)

            do_GET = do_POST = do_DELETE = handle_any  # noqa: N815 - http.server's names

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Told)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        told.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        return told

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def answer(body: bytes = EMPTY_LIST, status: int = 200, **headers: str) -> Handler:
    """Answer like this."""

    def handle(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name.replace("_", "-"), value)
        request.send_header("content-length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    return handle


def cut_off(body: bytes, after: int) -> Handler:
    """Promise all of it, and go after a part."""

    def handle(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("content-length", str(len(body)))
        request.end_headers()
        request.wfile.write(body[:after])
        request.wfile.flush()
        request.close_connection = True

    return handle


def ranged(body: bytes) -> Handler:
    """Answer with what was asked for."""

    def handle(request: BaseHTTPRequestHandler) -> None:
        answer(body[start_of(request.headers["range"]) :], 206)(request)

    return handle


def start_of(byte_range: str) -> int:
    """Read the header `Range`."""
    return int(byte_range.removeprefix("bytes=").removesuffix("-"))


@pytest.fixture
def client(shared_service: Service) -> Iterator[Client]:
    """A client of the real service."""
    with Client(f"{shared_service.url}/v1", "any") as found:
        yield found


def test_a_file_goes_up_and_comes_down_unchanged(client: Client, tmp_path: Path) -> None:
    """Name, size and bytes, and no leftover beside the download."""
    path = tmp_path / "größe.jsonl"
    path.write_bytes(b'{"a":1}\n' * 300_000)
    heard: list[tuple[int, int]] = []
    uploaded = client.files.upload(path, on_bytes=lambda sent, total: heard.append((sent, total)))
    (tmp_path / "back").mkdir()
    size = client.files.download(uploaded.id, tmp_path / "back" / "copy.jsonl")

    assert (uploaded.filename, uploaded.bytes, uploaded.purpose) == ("größe.jsonl", 2_400_000, "batch")
    assert heard[-1] == (2_400_000, 2_400_000)
    assert size == 2_400_000
    assert (tmp_path / "back" / "copy.jsonl").read_bytes() == path.read_bytes()
    assert [each.name for each in (tmp_path / "back").iterdir()] == ["copy.jsonl"]


def test_an_upload_needs_little_memory(shared_service: Service, tmp_path: Path) -> None:
    """200 MB must not become 200 MB of memory; measured on a process of its own."""
    path = tmp_path / "big.jsonl"
    with path.open("wb") as big:
        for _ in range(150):
            big.write(b'{"a":"' + b"x" * 1_048_568 + b'"}\n')
    code = """
import resource, sys
from pathlib import Path
from overnight.client import Client
with Client(sys.argv[1]) as client:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    uploaded = client.files.upload(Path(sys.argv[2]))
    client.files.download(uploaded.id, Path(sys.argv[2] + ".back"))
    client.files.delete(uploaded.id)
    print(uploaded.bytes, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    command = [sys.executable, "-c", code, f"{shared_service.url}/v1", str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    sent, grown_mb = map(int, done.stdout.split())

    assert sent == path.stat().st_size
    assert grown_mb < 60


def test_lists_are_read_page_by_page(client: Client, tmp_path: Path) -> None:
    """All of them, newest first, each once."""
    path = tmp_path / "a.jsonl"
    path.write_text("{}\n")
    made = [client.files.upload(path, purpose="user_data").id for _ in range(3)]
    found = [each.id for each in client.files.list(purpose="user_data")]

    assert sorted(found) == sorted(made)
    assert [each.id for each in client.files.list(purpose="user_data", limit=2)] == found[:2]
    assert [each.id for each in client.files.list(purpose="user_data", after=found[0])] == found[1:]


def test_a_batch_keeps_the_bytes_that_the_server_sent(client: Client, tmp_path: Path) -> None:
    """What the record does not know is still there."""
    path = tmp_path / "a.jsonl"
    path.write_text("{}\n")
    new = NewBatch(input_file_id=client.files.upload(path).id, endpoint="/v1/chat/completions", metadata={"größe": "1"})
    batch = client.batches.create(new)

    assert batch.metadata == {"größe": "1"}
    assert f'"id":"{batch.id}"'.encode() in batch.raw
    assert b'"object":"batch"' in batch.raw
    assert not batch.ended


def test_models_are_listed(client: Client) -> None:
    """What requests may name."""
    assert [each.id for each in client.models()] == [MODEL]


def test_a_server_says_whether_it_is_ready(client: Client) -> None:
    """Beside the API, whatever its prefix."""
    readiness = client.ready()

    assert readiness is not None
    assert (readiness.status, readiness.problem, readiness.waiting) == ("ok", None, None)
    assert [(each.answers, each.paused) for each in readiness.upstreams] == [(True, False)]


@pytest.mark.parametrize(
    ("base", "page"),
    [
        ("http://a", "http://a/ready"),
        ("http://a/v1", "http://a/ready"),
        ("http://a/x/openai/v1/", "http://a/x/ready"),
        ("http://a/openai?api-version=1", "http://a/ready"),
    ],
)
def test_readiness_stands_beside_the_api(base: str, page: str) -> None:
    """Not below it."""
    assert page == Base(base).beside("ready")


def test_a_server_says_why_it_is_not_ready(serve: Callable[..., Misbehaving]) -> None:
    """With a status of its own; one that does not know the page cannot tell."""
    waiting = Waiting(batches=1, since=1, bytes=2)
    said = Readiness(status="not ready", problem="1 batch waits", waiting=waiting)
    unready = serve(answer(msgspec.json.encode(said), 503, x_should_retry="false"))
    other = serve(answer(b'{"error":{"message":"no such page"}}', 404))

    with Client(unready.url) as client, Client(other.url) as of_other:
        found = client.ready()
        unknown = of_other.ready()

    assert found == said
    assert unknown is None


def test_errors_carry_fields(client: Client) -> None:
    """Callers branch on them."""
    with pytest.raises(NotFound) as missing:
        client.files.get("file-nix/../x")
    with pytest.raises(ApiError) as refused:
        client.batches.create(NewBatch(input_file_id="f", endpoint="/v1/nix"))

    assert missing.value.status == 404
    assert (refused.value.status, refused.value.param, refused.value.code) == (400, "endpoint", "invalid_value")


@pytest.mark.parametrize("prefix", ["/v1", "", "/", "/openai/v1", "/openai?api-version=2024-10-21"])
def test_each_flavour_of_the_api_is_spoken(shared_service: Service, tmp_path: Path, prefix: str) -> None:
    """OpenAI, Azure and Azure with a dated version, by the base URL alone."""
    path = tmp_path / "a.jsonl"
    endpoint = "/chat/completions" if "api-version" in prefix else "/v1/chat/completions"
    path.write_text(json.dumps(request("a") | {"url": endpoint}) + "\n")
    with Client(shared_service.url + prefix, "any") as client:
        uploaded = client.files.upload(path)
        batch = client.batches.create(NewBatch(input_file_id=uploaded.id, endpoint=endpoint))
        while not (batch := client.batches.get(batch.id)).ended:
            time.sleep(0.05)

        assert (batch.status, batch.counts.completed) == ("completed", 1)
        assert b'"custom_id":"a"' in b"".join(client.files.content(batch.output_file_id or ""))


@pytest.mark.parametrize(
    ("base", "path", "url"),
    [
        ("http://h", "files", "http://h/v1/files"),
        ("http://h/v1/", "/files", "http://h/v1/files"),
        ("http://h/v1", "/v1/files?limit=1", "http://h/v1/files?limit=1"),
        ("http://h/openai?api-version=x", "files?limit=1", "http://h/openai/files?limit=1&api-version=x"),
        ("http://h:1/a/openai/v1", "files", "http://h:1/a/openai/v1/files"),
    ],
)
def test_paths_hang_below_the_base(base: str, path: str, url: str) -> None:
    """Whatever of them people repeat."""
    assert Base(base).join(path, {}) == url


@pytest.mark.parametrize("url", ["", "h/v1", "ftp://h", "http://", "http://h:x/v1", "http://[::1/v1"])
def test_an_unusable_url_is_refused_at_once(url: str) -> None:
    """Not as a strange failure later."""
    with pytest.raises(InvalidUrl):
        Client(url)


def test_reads_are_tried_again(serve: Callable[..., Misbehaving]) -> None:
    """Overload, a broken server, a cut connection: all pass."""
    server = serve(answer(b"{}", 429), answer(b"{}", 503), cut_off(EMPTY_LIST, 3), answer())
    pauses: list[float] = []
    with Client(server.url, sleep=pauses.append) as client:
        assert client.models() == []

    assert len(server.seen) == 4
    assert all(0.1 < pause <= 0.8 for pause in pauses)


def test_reads_are_not_tried_for_ever(serve: Callable[..., Misbehaving]) -> None:
    """In the end the caller decides."""
    server = serve(answer(b'{"error":{"message":"away","code":"x"}}', 500))
    with Client(server.url, sleep=lambda _: None) as client, pytest.raises(ApiError, match="away"):
        client.models()

    assert len(server.seen) == 4


@pytest.mark.parametrize("status", [400, 401, 404, 409, 422])
def test_what_cannot_help_is_not_tried_again(serve: Callable[..., Misbehaving], status: int) -> None:
    """A wrong request stays wrong."""
    server = serve(answer(b"{}", status))
    with Client(server.url) as client, pytest.raises(ApiError) as caught:
        client.models()

    assert len(server.seen) == 1
    assert caught.value.message == f"the server answered {status} without saying why"


def test_a_create_is_tried_again_under_the_same_key(serve: Callable[..., Misbehaving]) -> None:
    """The server knows it again by its key; the next batch has another."""
    batch = b'{"id":"batch_1","object":"batch","status":"validating","endpoint":"/e","created_at":1}'
    server = serve(cut_off(batch, 3), answer(b"{}", 503), answer(batch))
    with Client(server.url, sleep=lambda _: None) as client:
        first = client.batches.create(NewBatch(input_file_id="f", endpoint="/e"))
        client.batches.create(NewBatch(input_file_id="f", endpoint="/e"))

    *tries, second = [headers["idempotency-key"] for _, _, headers in server.seen]
    assert first.id == "batch_1"
    assert len(tries) == 3
    assert len(set(tries)) == 1
    assert second not in tries


def test_a_retry_of_a_batch_is_tried_again_under_the_same_key(serve: Callable[..., Misbehaving]) -> None:
    """Else an answer that got lost would cost its requests twice."""
    batch = b'{"id":"batch_2","object":"batch","status":"validating","endpoint":"/e","created_at":1}'
    server = serve(cut_off(batch, 3), answer(batch))
    with Client(server.url, sleep=lambda _: None) as client:
        again = client.batches.retry("batch_1")

    keys = [headers["idempotency-key"] for _, _, headers in server.seen]
    assert again.id == "batch_2"
    assert len(keys) == 2
    assert len(set(keys)) == 1


def test_other_posts_are_never_tried_again(serve: Callable[..., Misbehaving], tmp_path: Path) -> None:
    """A second try could make a second file."""
    server = serve(answer(b"{}", 503))
    path = tmp_path / "a.jsonl"
    path.write_text("{}\n")
    with Client(server.url) as client, pytest.raises(ApiError):
        client.files.upload(path)

    assert len(server.seen) == 1


@pytest.mark.parametrize(
    ("headers", "pauses"),
    [
        ({"Retry_After": "7"}, [7.0]),
        ({"retry_after_ms": "1500"}, [1.5]),
        ({"Retry_After": "3600"}, None),
        ({"x_should_retry": "false"}, None),
    ],
)
def test_the_server_says_when_to_come_back(
    serve: Callable[..., Misbehaving], headers: dict[str, str], pauses: list[float] | None
) -> None:
    """Or that it makes no sense; an hour is not waited for."""
    server = serve(answer(b"{}", 429, **headers), answer())
    slept: list[float] = []
    with Client(server.url, sleep=slept.append) as client:
        if pauses is None:
            with pytest.raises(ApiError):
                client.models()
        else:
            client.models()

    assert slept == (pauses or [])


@pytest.mark.parametrize("honours_ranges", [True, False])
def test_a_broken_download_goes_on_where_it_stopped(
    serve: Callable[..., Misbehaving], tmp_path: Path, honours_ranges: bool
) -> None:
    """No byte twice, none missing, whether the server knows ranges or not."""
    body = bytes(range(256)) * 5000
    server = serve(cut_off(body, 700_000), ranged(body) if honours_ranges else answer(body))
    with Client(server.url, sleep=lambda _: None) as client:
        client.files.download("f", tmp_path / "f")

    assert (tmp_path / "f").read_bytes() == body
    assert 0 < start_of(server.seen[1][2]["range"]) <= 700_000


def test_a_download_that_fails_leaves_nothing(serve: Callable[..., Misbehaving], tmp_path: Path) -> None:
    """Half a file under the right name is a trap."""
    server = serve(cut_off(b"x" * 1000, 10))
    with Client(server.url, patience=Patience(attempts=1)) as client, pytest.raises(Unreachable):
        client.files.download("f", tmp_path / "f")

    assert list(tmp_path.iterdir()) == []


def test_the_key_travels_in_both_spellings_and_to_no_other_host(serve: Callable[..., Misbehaving]) -> None:
    """A redirect to a blob store must not get it."""
    elsewhere = serve(answer(b"bytes"))
    other = elsewhere.url.replace("127.0.0.1", "localhost").removesuffix("/v1")
    server = serve(answer(b"", 302, Location=f"{other}/blob?sig=1"))
    with Client(f"{server.url}?api-version=1", "sk-secret") as client:
        assert b"".join(client.files.content("f")) == b"bytes"

    first, second = server.seen[0], elsewhere.seen[0]
    assert (first[2]["authorization"], first[2]["api-key"]) == ("Bearer sk-secret", "sk-secret")
    assert first[1] == "/v1/files/f/content?api-version=1"
    assert second[1] == "/blob?sig=1"
    assert not {"authorization", "api-key"} & second[2].keys()


def test_a_circle_of_redirects_ends(serve: Callable[..., Misbehaving]) -> None:
    """With words."""
    server = serve(answer(b"", 302, Location="/v1/models"))
    with Client(server.url, patience=Patience(attempts=1)) as client, pytest.raises(Unreachable, match="redirects"):
        client.models()


@pytest.mark.parametrize("body", [b"<html></html>", b"[]", b'{"data": 5}', b'{"data":[{"no":"id"}]}'])
def test_an_answer_of_something_else_is_named(serve: Callable[..., Misbehaving], body: bytes) -> None:
    """A proxy's page is no list of models."""
    server = serve(answer(body))
    with Client(server.url) as client, pytest.raises(UnexpectedAnswer):
        client.models()


@pytest.mark.parametrize(
    ("body", "message", "code"),
    [
        (b'{"error":{"message":"m","code":"c"}}', "m", "c"),
        (b'{"error":{"message":"m","code":401}}', "m", "401"),
        (b'{"error":"m"}', "m", None),
        (b'{"statusCode":401,"message":"m"}', "m", None),
        (b"<html>", "the server answered 401 without saying why", None),
    ],
)
def test_each_vendor_says_no_in_its_own_way(
    serve: Callable[..., Misbehaving], body: bytes, message: str, code: str | None
) -> None:
    """The envelopes of OpenAI, Azure, its gateway, and none."""
    server = serve(answer(body, 401))
    with Client(server.url) as client, pytest.raises(NotAuthorised) as caught:
        client.models()

    assert (caught.value.message, caught.value.code) == (message, code)


def test_nobody_there_is_unreachable() -> None:
    """With the reason that people know."""
    with Client("http://127.0.0.1:9/v1", patience=Patience(attempts=1)) as client, pytest.raises(Unreachable) as caught:
        client.models()

    assert caught.value.reason == "connection refused"


def test_ctrl_c_is_heard_while_the_server_is_silent(serve: Callable[..., Misbehaving]) -> None:
    """The library waits outside Python, where signals are only noticed when the call is over."""
    server = serve(lambda _: time.sleep(15))
    code = "import sys; from overnight.client import Client; Client(sys.argv[1]).models()"
    process = subprocess.Popen([sys.executable, "-c", code, server.url], stderr=subprocess.PIPE, text=True)
    try:
        while not server.seen:
            time.sleep(0.02)
        started = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=10)
    finally:
        process.kill()

    assert time.monotonic() - started < 5
    assert said.rstrip().endswith("KeyboardInterrupt")
