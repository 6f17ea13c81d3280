"""Services in the states that pages are looked at in: nothing yet, ordinary, a lot, and in trouble."""

from __future__ import annotations

import json
import socket
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from tests.support.api import OPENAI, Api, jsonl, request
from tests.support.http import Http
from tests.support.service import Service, eventually

from overnight.adapters.sql.database import sqlite_file
from overnight.testing.upstream import Gate, Received, Reply, ScriptedUpstream, answer, error, held

CHAT = "/v1/chat/completions"
MANY = 20_000
# Of each kind that there is: so many that a page does not show them all.
COPIES = 100
PAGES = (
    ("/studio", "Overview"),
    ("/studio/batches", "Batches"),
    ("/studio/files", "Files"),
    ("/studio/upstreams", "Upstreams"),
    ("/studio/system", "System"),
    ("/studio/new", "New batch"),
)
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)> \x1b[31mred\x1b[0m \u202egnp.exe\u202c {{ 7*7 }}"
HOSTILE_NAME = "<img src=x onerror=alert(3)> \u202egnp.jsonl"


class Stage:
    """A running service with what stands behind it, and batches by the name of the state they are in."""

    def __init__(self, service: Service, upstream: ScriptedUpstream, gate: Gate) -> None:
        self.service = service
        self.upstream = upstream
        self.gate = gate
        self.batches: dict[str, str] = {}
        self.files: dict[str, str] = {}

    @property
    def api(self) -> Api:
        """The API at its present address."""
        return Api(Http(self.service.url), OPENAI)

    def run(self, name: str, content: bytes, filename: str = "requests.jsonl") -> None:
        """Run a batch to its end."""
        self.start(name, content, filename)
        self.api.end(self.batches[name], timeout=60)

    def done(self, name: str, count: int) -> None:
        """Wait until so many requests of a batch have succeeded."""
        eventually(lambda: self.api.batch(self.batches[name])["request_counts"]["completed"] == count)

    def start(self, name: str, content: bytes, filename: str = "requests.jsonl") -> None:
        """Create a batch."""
        self.files[name] = self.api.upload(content, filename)
        self.batches[name] = self.api.create(self.files[name], metadata={"name": name})


def scripted(gate: Gate) -> ScriptedUpstream:
    """Give a model server that refuses what says ``refuse``, and lets what says ``wait`` wait for the gate."""

    def script(received: Received) -> Reply:
        if b"refuse" in received.body:
            return error(400, "This model's maximum context length is 4096 tokens.", code="context_length_exceeded")
        return held(gate) if b"wait" in received.body else answer()

    return ScriptedUpstream(script=script)


@contextmanager
def stage(folder: Path, *arguments: str) -> Iterator[Stage]:
    """Lend a service that has nothing yet."""
    gate = Gate()
    with scripted(gate) as upstream, Service(folder, upstreams=[upstream.url], arguments=arguments) as service:
        try:
            yield Stage(service, upstream, gate)
        finally:
            gate.open()


def show_the_gallery(folder: Path) -> None:
    """Have the service that will start in this folder show every part in every state."""
    settings = folder / ".config" / "overnight" / "config.toml"
    settings.parent.mkdir(parents=True)
    settings.write_text("dev = true\n")


def free_port() -> int:
    """Give a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def said(*texts: str) -> bytes:
    """Write an input file whose requests say these."""
    return jsonl(*(request(f"r-{place}", CHAT, chat(text)) for place, text in enumerate(texts)))


def chat(text: str) -> dict[str, object]:
    """Give the body of a chat request."""
    return {"model": "test-model", "messages": [{"role": "user", "content": text}]}


def fill_normal(there: Stage) -> None:
    """Have a batch in each state."""
    there.start("expired", said(*["hello"] * 4, *["wait"] * 4))
    there.done("expired", 4)
    close_the_window(there, there.batches["expired"])
    there.run("all well", said(*["hello"] * 20))
    there.run("with failures", said(*["hello"] * 12, *["refuse"] * 3))
    there.run("all failed", said("refuse", "refuse"))
    there.run("files deleted", said("hello"))
    batch = there.api.batch(there.batches["files deleted"])
    for file_id in (batch["input_file_id"], batch["output_file_id"]):
        assert there.api.delete(f"/files/{file_id}").status == 200
    del there.files["files deleted"]
    there.run("refused", jsonl(request("a", CHAT), b"no json", request("a", CHAT), "{}"))
    there.start("cancelled", said(*["hello"] * 4, *["wait"] * 4))
    assert there.api.cancel(there.batches["cancelled"]).status == 200
    there.start("running", said(*["hello"] * 8, *["refuse"] * 2, *["wait"] * 10))
    there.api.reach(there.batches["running"], "in_progress")
    there.api.end(there.batches["cancelled"], timeout=60)


def close_the_window(there: Stage, batch_id: str) -> None:
    """Have the window of a batch be over, and the service begin anew: nobody waits 24 hours for it."""
    there.service.kill()
    with closing(sqlite3.connect(sqlite_file(there.service.data_dir))) as database, database:
        database.execute("UPDATE batches SET expires_at = ? WHERE id = ?", (int(time.time()), batch_id))
    there.service.start()
    there.api.reach(batch_id, "expired", timeout=60)


def fill_large(there: Stage) -> None:
    """Have one batch of many requests, some of them failed, and more batches than one page shows."""
    many = b"".join(
        json.dumps(request(f"r-{place}", CHAT, chat("refuse" if place % 100 == 7 else "hello"))).encode() + b"\n"
        for place in range(MANY)
    )
    there.run("small", said("hello", "refuse"))
    there.run("failed", said("refuse"))
    there.run("refused", jsonl("{}"))
    with closing(sqlite3.connect(sqlite_file(there.service.data_dir))) as database, database:
        _multiply(database, "batches")
        _multiply(database, "files")
    there.run("many requests", many)


def _multiply(database: sqlite3.Connection, table: str) -> None:
    """Copy each row under ids of its own: to run hundreds of batches would take longer than to look at them."""
    names = [name for _, name, *_ in database.execute(f"PRAGMA table_info({table})") if name not in {"seq", "id"}]
    columns = ", ".join(names)
    numbers = f"VALUES {', '.join(f'({number})' for number in range(COPIES))}"
    new_id = "substr(id, 1, length(id) - 32) || lower(hex(randomblob(16)))"
    database.execute(f"INSERT INTO {table} (id, {columns}) SELECT {new_id}, {columns} FROM ({numbers}), {table}")  # noqa: S608 - our own names


def fill_hostile(there: Stage) -> None:
    """Have content that would do harm if it were not escaped, and one very long line."""
    lines = (request(f"a<b>{place}", CHAT, chat(f"{HOSTILE} {place}")) for place in range(3))
    there.files["hostile"] = there.api.upload(jsonl(*lines), HOSTILE_NAME)
    metadata = {"name": HOSTILE[:200], "<b>key": HOSTILE}
    there.batches["hostile"] = there.api.create(there.files["hostile"], metadata=metadata)
    there.api.end(there.batches["hostile"])
    there.run("long line", said("x" * 5_000_000), "one long line.jsonl")


def bring_trouble(there: Stage) -> None:
    """Take the upstream away while a batch runs."""
    there.run("all well", said("hello"))
    there.start("stalled", said("hello", *["wait"] * 5))
    there.api.reach(there.batches["stalled"], "in_progress")
    there.upstream.stop()
