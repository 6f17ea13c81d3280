"""The Studio in the process of the test, on stores in memory and on a clock that is set by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlencode

import msgspec
from starlette.types import Message
from tests.studio.conftest import token_in

from overnight.dispatch.router import Router
from overnight.domain.flavour import Flavour
from overnight.domain.ids import ResourceId
from overnight.domain.key import hash_of
from overnight.domain.limits import DEFAULTS
from overnight.domain.rate import Rate
from overnight.ports.upstream import Known, UpstreamHealth
from overnight.services.batches import BatchService
from overnight.services.files import FileService
from overnight.services.rates import Allowances, Rates, Running
from overnight.services.requests import RequestService
from overnight.services.retry import RetryService
from overnight.services.traffic import Traffic
from overnight.services.upstreams import UpstreamService
from overnight.studio.app import Studio
from overnight.studio.context import Caller, Parts
from overnight.testing.blobs import MemoryBlobs
from overnight.testing.clock import ManualClock
from overnight.testing.entropy import CountedEntropy
from overnight.testing.in_process import ScriptedDeployments
from overnight.testing.results import MemoryResultLogs
from overnight.testing.stores import MemoryBatches, MemoryFiles, Tables

KEY = "key-of-the-team"
TEAM = ResourceId("team")


class Answer(msgspec.Struct, frozen=True):
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: str


class House:
    """A Studio that one key opens. ``requests`` and ``files`` are how many may be in a minute."""

    def __init__(self, folder: Path, *, requests: int | None = None, files: int | None = None) -> None:
        self.clock, tables = ManualClock(), Tables()
        self.callers: dict[str, Caller] = {
            hash_of(KEY): Caller(resource=TEAM, may_submit=True, may_operate=False),
        }
        self.bearers = False
        self.cookie = ""
        limits, entropy = dict(DEFAULTS), CountedEntropy()
        blobs, logs = MemoryBlobs(folder, self.clock.now), MemoryResultLogs(folder)
        self.store, records = MemoryBatches(tables), MemoryFiles(tables)
        self.files = FileService(records, blobs, self.clock, entropy, limits)
        self.batches = BatchService(self.store, self.clock, entropy, limits, self)
        looking = RequestService(self.store, records, blobs, logs, self.clock)
        new_files = {flavour: None if files is None else Rates(Rate(most=files), self.clock) for flavour in Flavour}
        self.allowances = Allowances(
            None if requests is None else Rates(Rate(most=requests), self.clock), new_files, Running(1)
        )
        traffic = Traffic(self.clock)
        parts = Parts(
            files=self.files,
            batches=self.batches,
            requests=looking,
            retries=RetryService(looking, self.batches, self.files),
            checks=_unused(),
            estimates=_unused(),
            quotas=_unused(),
            deployments=ScriptedDeployments([]),
            troubles=tuple,
            problem=self._problem,
            callers=self,
            operations=_unused(),
            upstreams=UpstreamService(cast("Any", _NoUpstreams()), Router((), self.clock)),
            traffic=traffic,
            usage=_unused(),
            allowances=self.allowances,
            neighbourhood=str,
            clock=self.clock,
            entropy=entropy,
        )
        self.studio = Studio(parts)

    def batch_created(self) -> None:
        """Nobody works here."""

    def batch_changed(self, batch_id: str) -> None:
        """Nobody works here."""

    async def open_to(self, host: str) -> Caller | None:
        del host
        return None

    async def recall(self, digest: str) -> Caller | None:
        return self.callers.get(digest)

    async def _problem(self) -> str | None:
        return None

    async def call(
        self,
        method: str,
        path: str,
        body: Sequence[bytes] = (),
        headers: Mapping[str, str] | None = None,
        before: Callable[[int], None] = lambda _: None,
    ) -> Answer:
        """Call a page; ``before`` is told the number of each piece of the body before that arrives."""
        path, _, query = path.partition("?")
        given = {"host": "localhost", "cookie": self.cookie, **(headers or {})}
        scope: dict[str, Any] = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "scheme": "http",
            "root_path": "",
            "client": ("127.0.0.1", 1),
            "server": ("localhost", 80),
            "headers": [(name.encode(), value.encode()) for name, value in given.items()],
        }
        pieces = _messages(body or (b"",), before)
        sent: list[Message] = []

        async def receive() -> Message:
            return await anext(pieces)

        async def send(message: Message) -> None:
            sent.append(message)

        await self.studio.app(scope, receive, send)
        start, *rest = sent
        told = {name.decode(): value.decode() for name, value in start["headers"]}
        return Answer(start["status"], told, b"".join(each.get("body", b"") for each in rest).decode())

    async def get(self, path: str, **headers: str) -> Answer:
        return await self.call("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})

    async def post(self, path: str, **fields: str) -> Answer:
        return await self.call("POST", path, [urlencode(fields).encode()])

    async def sign_in(self) -> None:
        page = await self.get("/studio/sign-in")
        reply = await self.post("/studio/sign-in", csrf=token_in(page.body), key=KEY)
        assert reply.status == 303, reply
        self.cookie = reply.headers["set-cookie"].partition(";")[0]

    async def submit(self, path: str, **fields: str) -> Answer:
        """Send a form with the token that the pages carry."""
        return await self.post(path, csrf=token_in((await self.get("/studio/upstreams")).body), **fields)

    async def upload(self, *pieces: bytes, before: Callable[[int], None] = lambda _: None) -> Answer:
        token = token_in((await self.get("/studio/upstreams")).body)
        headers = {"x-csrf-token": token, "content-type": "application/octet-stream"}
        return await self.call("POST", "/studio/upload?name=a.jsonl", pieces, headers, before)


async def _messages(body: Sequence[bytes], before: Callable[[int], None]) -> AsyncIterator[Message]:
    for number, piece in enumerate(body):
        before(number)
        yield {"type": "http.request", "body": piece, "more_body": number < len(body) - 1}
    # Nobody goes away before the answer is there.
    await asyncio.Event().wait()


class _NoUpstreams:
    """Upstreams of a service that has none."""

    def health(self) -> list[UpstreamHealth]:
        return []

    def known(self) -> Known:
        return Known(deployments=(), complete=True)


def _unused() -> Any:
    return cast("Any", None)
