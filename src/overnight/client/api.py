"""The calls: files, batches, models, and any other path of the same server."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self, TypeVar
from urllib.parse import quote

import msgspec
from pyreqwest.multipart import FormBuilder, PartBuilder

from overnight.client.errors import ApiError, UnexpectedAnswer
from overnight.client.models import (
    Batch,
    Deleted,
    File,
    Model,
    Page,
    Quota,
    Readiness,
    Resource,
    Upstream,
    UpstreamTest,
    UsageReport,
    WebhookDelivery,
    WebhookEndpoint,
    WebhookTest,
    decode,
)
from overnight.client.transport import CHUNK, Call, Exchange, Patience, Transport

R = TypeVar("R", bound=Resource)

BATCHES_PER_PAGE = 100
FILES_PER_PAGE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class NewBatch:
    """What a batch is created from."""

    input_file_id: str
    endpoint: str
    completion_window: str = "24h"
    metadata: Mapping[str, str] | None = None

    def to_json(self) -> bytes:
        body: dict[str, object] = {
            "input_file_id": self.input_file_id,
            "endpoint": self.endpoint,
            "completion_window": self.completion_window,
        }
        if self.metadata:
            body["metadata"] = dict(self.metadata)
        return msgspec.json.encode(body)


class Client:
    """A connection to one server; close it, or use it in a `with` statement."""

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        patience: Patience | None = None,
        observe: Callable[[Exchange], None] | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._transport = Transport(url, api_key, patience=patience, observe=observe, sleep=sleep)
        self.files = FilesApi(self._transport)
        self.batches = BatchesApi(self._transport)
        self.webhooks = WebhooksApi(self._transport)
        self.upstreams = UpstreamsApi(self._transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._transport.close()

    @property
    def url(self) -> str:
        """The base of all calls."""
        return self._transport.base.url

    def models(self) -> list[Model]:
        page = _page(self._transport, Call(method="GET", path="models"))
        return [_decode(self._transport, Model, raw) for raw in page.data]

    def quotas(self) -> list[Quota]:
        """The quota of each deployment; raises `ApiError` on a server that has none."""
        page = _page(self._transport, Call(method="GET", path="quotas"))
        return [_decode(self._transport, Quota, raw) for raw in page.data]

    def ready(self) -> Readiness | None:
        """Whether batches can be taken and recorded; None from a server that cannot tell."""
        try:
            said = self._transport.fetch(Call(method="GET", path="ready", beside=True))
        except ApiError as error:
            # It says why it is not ready with a status of its own.
            said = error.body
        try:
            return msgspec.json.decode(said, type=Readiness)
        except msgspec.MsgspecError:
            return None

    def usage(self, *, first: str | None = None, last: str | None = None, deployment: str | None = None) -> UsageReport:
        """What the caller's resource used; days are YYYY-MM-DD (UTC)."""
        given = {"from": first, "to": last, "deployment": deployment}
        query: dict[str, str | int] = {name: value for name, value in given.items() if value is not None}
        raw = self._transport.fetch(Call(method="GET", path="usage", query=query))
        try:
            return msgspec.structs.replace(msgspec.json.decode(raw, type=UsageReport), raw=raw)
        except msgspec.MsgspecError as error:
            raise UnexpectedAnswer(self.url, _lowered(error)) from error

    def raw(self, method: str, path: str, body: bytes | None = None) -> Iterator[bytes]:
        """Any call of the same server; the pieces of a 2xx answer, whatever it is."""
        return self._transport.stream(Call(method=method.upper(), path=path, body=body))


class FilesApi:
    """`…/files`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def upload(
        self,
        path: Path,
        *,
        purpose: str = "batch",
        filename: str | None = None,
        on_bytes: Callable[[int, int], None] = lambda _sent, _total: None,
    ) -> File:
        """Send a file from disk in constant memory; `on_bytes` hears (sent, total)."""
        with _chunks(path, on_bytes) as chunks:

            def form() -> FormBuilder:
                part = PartBuilder.from_stream_with_length(chunks, path.stat().st_size)
                part = part.file_name(filename or path.name).mime("application/octet-stream")
                return FormBuilder().text("purpose", purpose).part("file", part)

            raw = self._transport.fetch(Call(method="POST", path="files", form=form))
        return _decode(self._transport, File, raw)

    def get(self, file_id: str) -> File:
        raw = self._transport.fetch(Call(method="GET", path=f"files/{_segment(file_id)}"))
        return _decode(self._transport, File, raw)

    def list(self, *, purpose: str | None = None, after: str | None = None, limit: int | None = None) -> Iterator[File]:
        """Newest first, page by page as they are asked for."""
        query: dict[str, str | int] = {"purpose": purpose} if purpose else {}
        yield from _iterate(self._transport, File, "files", query, _Window(after, limit, FILES_PER_PAGE))

    def delete(self, file_id: str) -> Deleted:
        raw = self._transport.fetch(Call(method="DELETE", path=f"files/{_segment(file_id)}"))
        return _decode(self._transport, Deleted, raw)

    def content(self, file_id: str) -> Iterator[bytes]:
        """The bytes of a file in pieces."""
        path = f"files/{_segment(file_id)}/content"
        return self._transport.stream(Call(method="GET", path=path))

    def download(
        self,
        file_id: str,
        path: Path,
        *,
        on_bytes: Callable[[int], None] = lambda _received: None,
    ) -> int:
        """Write a file to disk, whole or not at all; returns its size."""
        partial = path.with_name(f".{path.name}.{os.getpid()}.part")
        received = 0
        try:
            with partial.open("wb") as target:
                for chunk in self.content(file_id):
                    target.write(chunk)
                    received += len(chunk)
                    on_bytes(received)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        return received


class BatchesApi:
    """`…/batches`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(self, new: NewBatch) -> Batch:
        call = Call(method="POST", path="batches", body=new.to_json(), idempotency_key=str(uuid.uuid4()))
        return _decode(self._transport, Batch, self._transport.fetch(call))

    def get(self, batch_id: str) -> Batch:
        call = Call(method="GET", path=f"batches/{_segment(batch_id)}")
        return _decode(self._transport, Batch, self._transport.fetch(call))

    def list(self, *, after: str | None = None, limit: int | None = None) -> Iterator[Batch]:
        """Newest first, page by page as they are asked for."""
        window = _Window(after, limit, BATCHES_PER_PAGE)
        yield from _iterate(self._transport, Batch, "batches", {}, window)

    def cancel(self, batch_id: str) -> Batch:
        call = Call(method="POST", path=f"batches/{_segment(batch_id)}/cancel")
        return _decode(self._transport, Batch, self._transport.fetch(call))

    def retry(self, batch_id: str, which: str = "failed") -> Batch:
        """A new batch of requests that had no success: `failed`, `not_run` or `all_unfinished`."""
        body = msgspec.json.encode({"which": which})
        path = f"batches/{_segment(batch_id)}/retry"
        call = Call(method="POST", path=path, body=body, idempotency_key=str(uuid.uuid4()))
        return _decode(self._transport, Batch, self._transport.fetch(call))


class WebhooksApi:
    """`…/webhook_endpoints`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        # Azure has them elsewhere.
        below = "dashboard/" if transport.base.path.endswith("/openai/v1") else ""
        self._path = f"{below}webhook_endpoints"

    def create(self, *, name: str, url: str, event_types: Sequence[str]) -> WebhookEndpoint:
        """The only answer, besides that of `rotate`, with the signing secret."""
        return self._post(WebhookEndpoint, self._path, name=name, url=url, event_types=list(event_types))

    def get(self, endpoint_id: str) -> WebhookEndpoint:
        raw = self._transport.fetch(Call(method="GET", path=f"{self._path}/{_segment(endpoint_id)}"))
        return _decode(self._transport, WebhookEndpoint, raw)

    def list(self, *, after: str | None = None, limit: int | None = None) -> Iterator[WebhookEndpoint]:
        """Newest first, page by page as they are asked for."""
        window = _Window(after, limit, BATCHES_PER_PAGE)
        yield from _iterate(self._transport, WebhookEndpoint, self._path, {}, window)

    def delete(self, endpoint_id: str) -> Deleted:
        raw = self._transport.fetch(Call(method="DELETE", path=f"{self._path}/{_segment(endpoint_id)}"))
        return _decode(self._transport, Deleted, raw)

    def rotate(self, endpoint_id: str, *, keep_old: bool = False) -> WebhookEndpoint:
        """Replace the secret; the old one signs for another day if it is kept."""
        path = f"{self._path}/{_segment(endpoint_id)}/rotate_secret"
        return self._post(WebhookEndpoint, path, keep_old_secret_active_for_24_hours=keep_old)

    def test(self, endpoint_id: str, event_type: str) -> WebhookTest:
        """Have a sample event sent now."""
        return self._post(WebhookTest, f"{self._path}/{_segment(endpoint_id)}/test", event_type=event_type)

    def deliveries(
        self, endpoint_id: str, *, after: str | None = None, limit: int | None = None
    ) -> Iterator[WebhookDelivery]:
        """What a receiver was told, newest first; an addition of ours to the API."""
        path = f"{self._path}/{_segment(endpoint_id)}/deliveries"
        yield from _iterate(self._transport, WebhookDelivery, path, {}, _Window(after, limit, BATCHES_PER_PAGE))

    def _post(self, kind: type[R], path: str, **body: object) -> R:
        raw = self._transport.fetch(Call(method="POST", path=path, body=msgspec.json.encode(body)))
        return _decode(self._transport, kind, raw)


class UpstreamsApi:
    """`/admin/upstreams`, beside the base URL: only `overnight` has it, and it asks for an admin key."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self) -> list[Upstream]:
        page = _page(self._transport, Call(method="GET", path="admin/upstreams", beside=True))
        return [_decode(self._transport, Upstream, raw) for raw in page.data]

    def get(self, name: str) -> Upstream:
        return self._call(Upstream, "GET", _segment(name))

    def pause(self, name: str) -> Upstream:
        """Nothing more is sent there, until it is resumed or the server restarts; what is in flight ends."""
        return self._call(Upstream, "POST", f"{_segment(name)}/pause")

    def resume(self, name: str) -> Upstream:
        return self._call(Upstream, "POST", f"{_segment(name)}/resume")

    def test(self, name: str) -> UpstreamTest:
        """Have it asked for its models now; that it does not answer is no error but a `problem`."""
        return self._call(UpstreamTest, "POST", f"{_segment(name)}/test")

    def _call(self, kind: type[R], method: str, rest: str) -> R:
        raw = self._transport.fetch(Call(method=method, path=f"admin/upstreams/{rest}", beside=True))
        return _decode(self._transport, kind, raw)


@dataclass(frozen=True, slots=True)
class _Window:
    """Which part of a list is wanted."""

    after: str | None
    limit: int | None
    page_size: int


def _iterate(
    transport: Transport, kind: type[R], path: str, query: dict[str, str | int], window: _Window
) -> Iterator[R]:
    after, left = window.after, window.limit
    while left is None or left > 0:
        size = window.page_size if left is None else min(left, window.page_size)
        cursor: dict[str, str | int] = {"after": after} if after else {}
        call = Call(method="GET", path=path, query={**query, "limit": size, **cursor})
        page = _page(transport, call)
        for raw in page.data:
            value = _decode(transport, kind, raw)
            after = value.id
            yield value
        if not (page.has_more and page.data):
            return
        left = None if left is None else left - len(page.data)


def _page(transport: Transport, call: Call) -> Page:
    raw = transport.fetch(call)
    try:
        return msgspec.json.decode(raw, type=Page)
    except msgspec.MsgspecError as error:
        raise UnexpectedAnswer(transport.base.url, _lowered(error)) from error


def _decode(transport: Transport, kind: type[R], raw: bytes | msgspec.Raw) -> R:
    try:
        return decode(kind, bytes(raw))
    except msgspec.MsgspecError as error:
        raise UnexpectedAnswer(transport.base.url, _lowered(error)) from error


def _lowered(error: msgspec.MsgspecError) -> str:
    text = str(error)
    return text[:1].lower() + text[1:]


def _segment(value: str) -> str:
    return quote(value, safe="")


@contextmanager
def _chunks(path: Path, on_bytes: Callable[[int, int], None]) -> Iterator[Iterator[bytes]]:
    """The pieces of a file; they end early once the caller has gone (Ctrl-C)."""
    total = path.stat().st_size
    gone = False

    def read(source: IO[bytes]) -> Iterator[bytes]:
        sent = 0
        while not gone and (chunk := source.read(CHUNK)):
            yield chunk
            sent += len(chunk)
            on_bytes(sent, total)

    with path.open("rb") as source:
        try:
            yield read(source)
        finally:
            gone = True
