"""What the HTTP sender of webhooks promises, against real receivers on loopback."""

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from overnight.adapters.webhooks.lookups import Resolver
from overnight.adapters.webhooks.sender import HttpSender
from overnight.domain.addresses import Policy, parse_policy
from overnight.domain.ids import ResourceId
from overnight.ports.webhooks import Sent

LOOPBACK = parse_policy(["127.0.0.0/8", "::1"])
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
HEADERS = {"content-type": "application/json", "webhook-id": "evt_1"}

Handle = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Server:
    """Answers each connection by a function; ``requests`` are the heads and bodies that came in."""

    def __init__(self, handle: Handle) -> None:
        self.connections = 0
        self.requests: list[bytes] = []
        self._handle = handle

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].split(b"\r")[0])
            self.requests.append(head + await reader.readexactly(length))
            await self._handle(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


def says(answer: bytes) -> Handle:
    """Send these bytes and close."""

    async def handle(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()

    return handle


async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    """Say nothing until the other side has gone."""
    await reader.read()


async def endless(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send a body without an end."""
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"10000\r\n" + bytes(0x10000) + b"\r\n")
        await writer.drain()


async def endless_head(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send headers without an end."""
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"a: b\r\n" * 1_000)
        await writer.drain()


async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send a head byte by byte, so that no single read takes long."""
    for byte in b"HTTP/1.1 200 OK\r\nA: " + b"a" * 10_000:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0.01)


@asynccontextmanager
async def listening(handle: Handle, tls: ssl.SSLContext | None = None) -> AsyncIterator[tuple[Server, int]]:
    """Listen on loopback, on any free port."""
    server = Server(handle)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=tls)
    async with listener:
        yield server, listener.sockets[0].getsockname()[1]


def leads_to(*answers: Sequence[str]) -> Callable[[str, ResourceId], Awaitable[Sequence[str]]]:
    """Make a resolver that gives one answer after the other."""
    left = list(answers)

    async def resolve(_host: str, _resource: ResourceId) -> Sequence[str]:
        return left.pop(0)

    return resolve


async def send(url: str, *, policy: Policy = LOOPBACK, resolve=None, seconds: float = 5.0, body: bytes = b"{}") -> Sent:
    """Make one attempt."""
    resolver = Resolver()
    sender = HttpSender(policy, resolve or resolver, seconds=seconds)
    try:
        return await sender.send(url, HEADERS, body, resource=ResourceId("mine"))
    finally:
        resolver.close()


async def test_a_body_arrives_with_its_headers_as_it_is() -> None:
    body = '{"a": "ä"}'.encode()
    async with listening(says(OK)) as (server, port):
        sent = await send(f"http://127.0.0.1:{port}/hook?a=b", body=body)
    (request,) = server.requests
    head, _, received = request.partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")

    assert sent == Sent(status_code=200)
    assert received == body
    assert lines[0] == b"post /hook?a=b http/1.1"
    assert f"host: 127.0.0.1:{port}".encode() in lines
    assert b"webhook-id: evt_1" in lines
    assert lines.count(b"content-length: 11") == 1


@pytest.mark.parametrize("status", [201, 204, 301, 307, 400, 404, 410, 429, 500, 503])
async def test_a_status_is_given_as_it_is_and_no_redirect_followed(status: int) -> None:
    async with listening(says(b"")) as (other, elsewhere):
        answer = f"HTTP/1.1 {status} X\r\nLocation: http://127.0.0.1:{elsewhere}/\r\nContent-Length: 0\r\n\r\n"
        async with listening(says(answer.encode())) as (_, port):
            sent = await send(f"http://127.0.0.1:{port}/")

    assert sent == Sent(status_code=status)
    assert other.connections == 0


async def test_the_environment_names_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    async with listening(says(OK)) as (proxy, elsewhere), listening(says(OK)) as (server, port):
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{elsewhere}")
        await send(f"http://127.0.0.1:{port}/")

    assert (proxy.connections, server.connections) == (0, 1)


@pytest.mark.parametrize("handle", [silent, drip], ids=["silent", "drip"])
async def test_an_attempt_is_over_in_its_time(handle: Handle) -> None:
    """Also where every single byte comes in time."""
    loop = asyncio.get_running_loop()
    async with listening(handle) as (_, port):
        began = loop.time()
        sent = await send(f"http://127.0.0.1:{port}/", seconds=0.3)

    assert sent == Sent(error="no answer within 0.3 seconds")
    assert loop.time() - began < 3


async def test_a_silent_name_server_does_not_hold_up_an_attempt() -> None:
    async def resolve(_host: str, _resource: ResourceId) -> Sequence[str]:
        await asyncio.Event().wait()
        return []

    sent = await send("http://example.com/", resolve=resolve, seconds=0.1)

    assert sent == Sent(error="no answer within 0.1 seconds")


async def test_an_endless_body_is_not_read() -> None:
    async with listening(endless) as (_, port):
        sent = await send(f"http://127.0.0.1:{port}/")

    assert sent == Sent(status_code=200)


@pytest.mark.parametrize(
    ("handle", "error"),
    [
        (says(b""), "it does not speak HTTP"),
        (says(b"SSH-2.0-OpenSSH_9.9\r\n"), "it does not speak HTTP"),
        (says(b"HTTP/1.1 200 OK\r\nA"), "it does not speak HTTP"),
        (endless_head, "it does not speak HTTP"),
    ],
)
async def test_what_is_no_answer_is_none(handle: Handle, error: str) -> None:
    async with listening(handle) as (_, port):
        sent = await send(f"http://127.0.0.1:{port}/")

    assert sent == Sent(error=error)


async def test_nobody_listens() -> None:
    async with listening(says(OK)) as (_, port):
        pass
    sent = await send(f"http://127.0.0.1:{port}/")

    assert sent == Sent(error="connection refused")


async def test_a_name_that_is_not_known() -> None:
    sent = await send("http://name.invalid/")

    assert sent == Sent(error="the host name is not known")


async def test_a_url_that_was_stored_and_cannot_be_used() -> None:
    sent = await send("http://user@127.0.0.1/")

    assert sent == Sent(error="the URL cannot be used: a user or password does not belong into it")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "0177.0.0.1", "127.1", "[::1]"])
async def test_by_default_nothing_reaches_this_machine(host: str) -> None:
    """In no notation that the system's resolver takes."""
    async with listening(says(OK)) as (server, port):
        sent = await send(f"http://{host}:{port}/", policy=Policy())

    assert "which webhooks may not reach" in str(sent.error)
    assert server.connections == 0


@pytest.mark.parametrize("address", ["127.0.0.1", "::ffff:127.0.0.1", "169.254.169.254", "::1", "fe80::1%lo"])
async def test_a_name_that_leads_inside_is_refused(address: str) -> None:
    async with listening(says(OK)) as (server, port):
        sent = await send(f"http://example.com:{port}/", policy=Policy(), resolve=leads_to([address]))

    assert "which webhooks may not reach" in str(sent.error)
    assert address not in str(sent.error)
    assert server.connections == 0


async def test_a_name_that_changes_its_mind_is_asked_once() -> None:
    """The connection goes to the address that was checked: the second answer of a rebinding name comes too late."""
    asked: list[str] = []

    async def resolve(host: str, _resource: ResourceId) -> Sequence[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["127.0.0.2"]

    async with listening(says(OK)) as (server, port):
        sent = await send(f"http://rebinding.example:{port}/", policy=parse_policy(["127.0.0.1"]), resolve=resolve)
        again = await send(f"http://rebinding.example:{port}/", policy=parse_policy(["127.0.0.1"]), resolve=resolve)

    assert sent == Sent(status_code=200)
    assert "which webhooks may not reach" in str(again.error)
    assert len(asked) == 2
    assert server.connections == 1


async def test_of_several_addresses_those_that_may_be_reached_are_tried() -> None:
    resolve = leads_to(["10.0.0.1", "127.0.0.9", "127.0.0.1"])
    async with listening(says(OK)) as (server, port):
        sent = await send(f"http://example.com:{port}/", resolve=resolve)

    assert sent == Sent(status_code=200)
    assert server.connections == 1


async def test_a_name_without_an_address() -> None:
    sent = await send("http://example.com/", resolve=leads_to([]))

    assert sent == Sent(error="the host has no address")


async def test_an_allowed_host_may_lead_anywhere() -> None:
    async with listening(says(OK)) as (_, port):
        policy = parse_policy(["hooks.internal"])
        sent = [
            await send(f"http://{host}:{port}/", policy=policy, resolve=leads_to(["127.0.0.1"]))
            for host in ("hooks.internal", "HOOKS.internal.", "other.internal")
        ]

    assert sent[:2] == [Sent(status_code=200)] * 2
    assert "which webhooks may not reach" in str(sent[2].error)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of hooks.example and its key, in one file."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("tls")
    key, cert = folder / "key.pem", folder / "cert.pem"
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=hooks.example", "-addext", "subjectAltName=DNS:hooks.example"]
    subprocess.run([*command, *names, "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
    both = folder / "both.pem"
    both.write_bytes(key.read_bytes() + cert.read_bytes())
    return both


@pytest.mark.parametrize(
    ("host", "trusted", "error"),
    [
        ("hooks.example", True, None),
        ("other.example", True, "its certificate is not valid: Hostname mismatch"),
        ("hooks.example", False, "its certificate is not valid: self-signed certificate"),
    ],
)
async def test_a_certificate_is_checked_against_the_name(
    certificate: Path, monkeypatch: pytest.MonkeyPatch, host: str, trusted: bool, error: str | None
) -> None:
    """And the name is told in the handshake, though the connection is made to an address."""
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    names: list[str] = []
    tls.sni_callback = lambda _socket, name, _context: names.append(name)
    async with listening(says(OK), tls) as (_, port):
        sent = await send(f"https://{host}:{port}/", resolve=leads_to(["127.0.0.1"]))

    assert names == [host]
    if error is None:
        assert sent == Sent(status_code=200)
    else:
        assert str(sent.error).startswith(error)


async def test_a_server_without_tls_is_told_as_such() -> None:
    async with listening(says(OK)) as (_, port):
        sent = await send(f"https://127.0.0.1:{port}/", seconds=2)

    assert sent.status_code is None
    assert sent.error is not None
