"""The steps that most tests begin with, on any prefix of the API: upload, create, wait, read the results."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.support.http import Http, Part, Reply
from tests.support.service import eventually

TERMINAL = frozenset({"completed", "failed", "expired", "cancelled"})
MODEL = "test-model"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefix:
    """A prefix under which the API answers, and what is special there."""

    name: str
    path: str
    query: str = ""
    azure: bool = True
    batch_created: int = 201
    file_created: int = 201
    endpoint: str = "/chat/completions"

    def url(self, rest: str) -> str:
        """Give the path and query of a call."""
        if not self.query:
            return self.path + rest
        return f"{self.path}{rest}{'&' if '?' in rest else '?'}{self.query}"


OPENAI = Prefix(
    name="openai", path="/v1", azure=False, batch_created=200, file_created=200, endpoint="/v1/chat/completions"
)
AZURE = Prefix(name="azure", path="/openai", query="api-version=2024-10-21")
AZURE_V1 = Prefix(name="azure-v1", path="/openai/v1", file_created=200, endpoint="/v1/chat/completions")
DEPLOYMENTS = Prefix(name="deployments", path="/openai/deployments/test-model", query="api-version=2024-07-01-preview")
PREFIXES = (OPENAI, AZURE, AZURE_V1, DEPLOYMENTS)


class Api:
    """One prefix of one server."""

    def __init__(self, http: Http, prefix: Prefix = OPENAI) -> None:
        self.http = http
        self.prefix = prefix

    def get(self, rest: str) -> Reply:
        """GET below the prefix."""
        return self.http.get(self.prefix.url(rest))

    def post(self, rest: str, content: object = None) -> Reply:
        """POST below the prefix."""
        return self.http.post(self.prefix.url(rest), content)

    def delete(self, rest: str) -> Reply:
        """DELETE below the prefix."""
        return self.http.delete(self.prefix.url(rest))

    def post_form(self, rest: str, parts: Sequence[Part]) -> Reply:
        """POST a form below the prefix."""
        return self.http.post_form(self.prefix.url(rest), parts)

    def upload(self, content: bytes, filename: str = "input.jsonl", purpose: str = "batch") -> str:
        """Upload a file and give its id."""
        file = Part(name="file", data=content, filename=filename, kind="application/octet-stream")
        reply = self.post_form("/files", [Part(name="purpose", data=purpose), file])
        assert reply.status == self.prefix.file_created, reply
        return str(reply.json()["id"])

    def new_batch(self, file_id: str | None, **changes: object) -> dict[str, object]:
        """Give the body that creates a batch."""
        body = {"input_file_id": file_id, "endpoint": self.prefix.endpoint, "completion_window": "24h"}
        return {name: value for name, value in {**body, **changes}.items() if value is not None}

    def create(self, file_id: str, **changes: object) -> str:
        """Create a batch and give its id."""
        reply = self.post("/batches", self.new_batch(file_id, **changes))
        assert reply.status == self.prefix.batch_created, reply
        return str(reply.json()["id"])

    def batch(self, batch_id: str) -> dict[str, Any]:
        """Get a batch."""
        reply = self.get(f"/batches/{batch_id}")
        assert reply.status == 200, reply
        batch: dict[str, Any] = reply.json()
        return batch

    def reach(self, batch_id: str, *statuses: str, timeout: float = 15.0) -> dict[str, Any]:
        """Wait until the batch has one of the statuses."""
        wanted = frozenset(statuses)

        def there() -> dict[str, Any] | None:
            batch = self.batch(batch_id)
            assert batch["status"] in wanted or batch["status"] not in TERMINAL, batch
            return batch if batch["status"] in wanted else None

        found: dict[str, Any] = eventually(there, timeout)
        return found

    def end(self, batch_id: str, timeout: float = 15.0) -> dict[str, Any]:
        """Wait until the batch has ended."""
        return self.reach(batch_id, *TERMINAL, timeout=timeout)

    def run(self, content: bytes, **changes: object) -> dict[str, Any]:
        """Upload, create, and wait for the end."""
        return self.end(self.create(self.upload(content), **changes))

    def cancel(self, batch_id: str) -> Reply:
        """Cancel a batch."""
        return self.post(f"/batches/{batch_id}/cancel")

    def content(self, file_id: str | None) -> bytes:
        """Get the bytes of a file; no file has none."""
        if file_id is None:
            return b""
        reply = self.get(f"/files/{file_id}/content")
        assert reply.status == 200, reply
        return reply.body

    def results(self, batch: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Give the lines of the output file and of the error file."""
        files = (self.content(batch["output_file_id"]), self.content(batch["error_file_id"]))
        output, errors = ([json.loads(line) for line in content.splitlines()] for content in files)
        return output, errors


def chat_body(text: str = "hello", model: str = MODEL, **more: object) -> dict[str, object]:
    """Give the body of a chat request."""
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


def request(custom_id: str, url: str, body: object = None, /, **changes: object) -> dict[str, object]:
    """Give a line of an input file as an object; a change to ``None`` leaves the member out."""
    line = {
        "custom_id": custom_id,
        "method": "POST",
        "url": url,
        "body": chat_body(custom_id) if body is None else body,
    }
    return {name: value for name, value in {**line, **changes}.items() if value is not None}


def jsonl(*lines: object) -> bytes:
    """Write an input file; bytes and strings are taken as they are."""
    return b"".join(_line(line) + b"\n" for line in lines)


def _line(line: object) -> bytes:
    if isinstance(line, bytes):
        return line
    return line.encode() if isinstance(line, str) else json.dumps(line).encode()


def chats(count: int, url: str) -> bytes:
    """Write an input file of so many chat requests, called ``r-0`` and so on."""
    return jsonl(*(request(f"r-{number}", url) for number in range(count)))
