"""A service that is killed again and again, a client that does not mind, and a model server that remembers all."""

from __future__ import annotations

import http.client
import json
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from tests.support.api import AZURE, OPENAI, TERMINAL, Api, Prefix, jsonl, request
from tests.support.http import Http, Part, Reply
from tests.support.service import Service

from overnight.crash_points import POINTS
from overnight.domain.frame import scan
from overnight.testing.invariants import (
    History,
    Run,
    check_answers_ran,
    check_never_again,
    check_results,
    check_runs,
    runs_of,
)
from overnight.testing.upstream import Received, ScriptedUpstream, answer, by_text, error, in_turn

CONCURRENCY = 16
ALLOWED = '[webhooks]\nallow = ["127.0.0.1"]\n'
LONGEST_ROUND = 4.0
LONGEST_END = 90.0
MOST_ACTIVE = 6
QUICK = ("--set", "overnight.dispatch.dispatcher:LEASE=2", "--set", "overnight.dispatch.dispatcher:_RENEW_EVERY=0.3")
CRASHING = ("overnight.testing.crashing", *QUICK)

# What a client meets when the service dies under it.
GONE = (OSError, http.client.HTTPException)


@dataclass(kw_only=True)
class Plan:
    """How a round ends: at a point, or so many seconds after the start; ``starting`` counts them from the launch."""

    point: str | None = None
    nth: int = 1
    after: float = LONGEST_ROUND
    starting: bool = False


@dataclass(kw_only=True)
class Input:
    """An input file: its bytes, and the names of its requests in order; a bad one has none."""

    content: bytes
    names: list[str]


@dataclass(kw_only=True)
class Figures:
    """What a run came to."""

    kills: int = 0
    at_points: Counter[str] = field(default_factory=Counter)
    batches: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    runs: int = 0
    repeats: int = 0
    calls: int = 0
    calls_cut: int = 0


class World:
    """One data folder and its client. Everything that is decided by chance is drawn from ``random``."""

    def __init__(
        self,
        folder: Path,
        upstream: ScriptedUpstream,
        random: Random,
        figures: Figures,
        *,
        name: str = "w",
    ) -> None:
        self.upstream = upstream
        self.problems: list[str] = []
        self.history = History()
        self.crashes: list[float] = []
        self._random = random
        self._figures = figures
        self._name = name
        self._made = 0
        self._inputs: dict[str, Input] = {}
        self._batches: dict[str, Prefix] = {}
        self._deleted: set[str] = set()
        self._contents: dict[str, bytes] = {}
        self._durable: dict[float, set[str]] = {}
        config = folder / "chaos.toml"
        config.write_text(
            f'stop_grace = 0.3\n[[upstreams]]\nurl = "{upstream.url}"\nmax_concurrency = {CONCURRENCY}\n{ALLOWED}'
        )
        arguments = ["--config", str(config)]
        self.service = Service(folder, arguments=arguments)
        upstream.forget()
        upstream.script = by_text(
            {
                "wrong": error(400, "no such thing"),
                "flaky": in_turn(error(500), answer()),
                "slow": answer(delay=0.3),
                "steady": answer(delay=0.02),
            }
        )

    def round(self, plan: Plan) -> bool:
        """Start the service, use it until it dies, see what had become durable; says whether it died as planned."""
        if plan.point == "batch.expired" or self._random.random() < 0.2:
            self.close_a_window()
        armed = ["--at", plan.point, "--nth", str(plan.nth)] if plan.point else []
        self.service.launch([*CRASHING, *armed, "--"])
        end = time.monotonic() + plan.after
        if plan.starting:
            time.sleep(plan.after)
        else:
            with suppress(RuntimeError):
                self.service.wait_until_ready()
                end = time.monotonic() + plan.after
                self._use_until(lambda: not self.service.alive or time.monotonic() > end, plan.point)
        as_planned = plan.point is None or not self.service.alive
        if plan.point and as_planned:
            self._figures.at_points[plan.point] += 1
        self.kill()
        return as_planned

    def kill(self) -> None:
        """Let the service die now, if it has not yet, and see what had become durable."""
        self.service.kill()
        self._figures.kills += 1
        now = time.time()
        self.crashes.append(now)
        self._durable[now] = self._durable_names()

    def statuses(self) -> set[str]:
        """Look at every batch, and give the statuses that there are."""
        for batch_id in self._batches:
            self._look(batch_id)
        return {batch["status"] for batch in self.history.last.values()}

    def settle(self) -> list[str]:
        """Let all end, in a service that is not armed, and say which promises were broken."""
        if not self.service.alive:
            self.service.start([*CRASHING, "--"])
        end = time.monotonic() + LONGEST_END
        while time.monotonic() < end and any(batch["status"] not in TERMINAL for batch in self._all_batches()):
            time.sleep(0.1)
        for batch in self._all_batches():
            self._check(batch)
        self._check_files()
        self.service.stop()
        runs = runs_of(self.upstream, name_of)
        self.problems += self.history.problems
        self.problems += check_runs(runs, self.crashes, max_concurrency=CONCURRENCY)
        self.problems += check_never_again(self._durable, runs)
        self._count(runs)
        return self.problems

    def _use_until(self, over: Callable[[], bool], point: str | None) -> None:
        weights = {
            self.submit: 5,
            self.submit_in_parts: 1,
            self.cancel_upload: 1,
            self.poll: 20,
            self.cancel: 1,
            self.delete: 1,
            self.look_at_lists: 2,
            self.spoil: 1,
        }
        leads_to = {
            "upload": self.submit_in_parts,
            "upload.cancel": self.cancel_upload,
            "batch.cancel": self.submit_and_cancel,
            "batch.failed": self.spoil,
            "file.": self.delete,
            "blob.deleted": self.delete,
            "webhook.": self.watch,
        }
        wanted = [step for start, step in leads_to.items() if point and point.startswith(start)]
        self._tolerantly(self.submit)
        while not over():
            (step,) = self._random.choices(list(weights), list(weights.values()))
            self._tolerantly(step)
            if wanted and self._random.random() < 0.5:
                self._tolerantly(wanted[-1])

    def _tolerantly(self, step: Callable[[], None]) -> None:
        self._figures.calls += 1
        try:
            step()
        except GONE:
            self._figures.calls_cut += 1
            time.sleep(0.01)

    def api(self, prefix: Prefix = OPENAI) -> Api:
        """Call the service where it listens now."""
        return Api(Http(self.service.url), prefix)

    def _new_input(self) -> Input:
        self._made += 1
        mood = self._random.choice(["steady", "steady", "slow", "flaky", "mixed"])
        names = [
            f"{self._name}-{self._made}-{number}-{self._mood(mood)}" for number in range(self._random.randint(1, 60))
        ]
        return _input(names)

    def _mood(self, mood: str) -> str:
        return self._random.choice(["steady", "wrong", "flaky", "slow"]) if mood == "mixed" else mood

    def submit(self) -> None:
        """Upload a file and create a batch of it, unless enough are under way."""
        if self._active() <= MOST_ACTIVE:
            self._start(self._new_input())

    def watch(self) -> None:
        """Have somebody told what ends; nobody listens there, so each message is tried and fails."""
        hook = {"name": "w", "url": "http://127.0.0.1:1/", "event_types": ["batch.completed", "batch.failed"]}
        # Once there are as many as there may be, another is refused.
        self.api().post("/webhook_endpoints", hook)

    def submit_held(self) -> str:
        """Create a batch that takes so long that it can be met while it runs, and give its id."""
        self._made += 1
        return self._start(_input([f"{self._name}-{self._made}-{number}-slow" for number in range(200)]), OPENAI)

    def submit_and_cancel(self) -> None:
        """Create a batch and cancel it at once."""
        self.history.saw_cancel(_ok(self.api().cancel(self.submit_held())).json())

    def _start(self, new: Input, prefix: Prefix | None = None) -> str:
        file_id = self.api().upload(new.content)
        self._inputs[file_id] = new
        return self._create(file_id, prefix)

    def submit_in_parts(self) -> None:
        """Upload a file in parts and create a batch of it."""
        upload_id, part_ids, new = self._send_parts()
        done = _ok(self.api().post(f"/uploads/{upload_id}/complete", {"part_ids": part_ids})).json()
        self._inputs[done["file"]["id"]] = new
        self._create(done["file"]["id"])

    def cancel_upload(self) -> None:
        """Upload parts and think better of it."""
        upload_id, _, _ = self._send_parts()
        _ok(self.api().post(f"/uploads/{upload_id}/cancel"))

    def _send_parts(self) -> tuple[str, list[str], Input]:
        new = self._new_input()
        cut = len(new.content) // 2
        wish = {"bytes": len(new.content), "filename": "a.jsonl", "mime_type": "application/jsonl", "purpose": "batch"}
        upload_id = _ok(self.api().post("/uploads", wish)).json()["id"]
        pieces = [new.content[:cut], new.content[cut:]]
        return upload_id, [self._send_part(upload_id, piece) for piece in pieces], new

    def _send_part(self, upload_id: str, piece: bytes) -> str:
        part = Part(name="data", data=piece, filename="upload")
        return str(_ok(self.api().post_form(f"/uploads/{upload_id}/parts", [part])).json()["id"])

    def spoil(self) -> None:
        """Have a batch fail in validation."""
        file_id = self.api().upload(jsonl(request("bad", OPENAI.endpoint, url="/v1/elsewhere")))
        self._inputs[file_id] = Input(content=self.api().content(file_id), names=[])
        self._create(file_id, OPENAI)

    def _create(self, file_id: str, prefix: Prefix | None = None) -> str:
        prefix = prefix or self._random.choice([OPENAI, AZURE])
        batch_id = self.api(prefix).create(file_id)
        self._batches[batch_id] = prefix
        return batch_id

    def poll(self) -> None:
        """Look at a few batches."""
        for batch_id in self._random.sample(sorted(self._batches), min(3, len(self._batches))):
            self._look(batch_id)

    def _look(self, batch_id: str) -> None:
        batch = self.api(self._batches[batch_id]).batch(batch_id)
        self.history.saw(batch)
        self._read_files(batch)

    def _read_files(self, batch: dict[str, Any]) -> None:
        """Read what is published, at once: it must be whole, and never change."""
        for file_id in filter(None, (batch["output_file_id"], batch["error_file_id"])):
            reply = self.api().get(f"/files/{file_id}/content")
            if reply.status != 200:
                self.problems.append(f"{batch['id']} shows the file {file_id}, which cannot be read ({reply.status})")
            elif self._contents.setdefault(file_id, reply.body) != reply.body:
                self.problems.append(f"the content of {file_id} has changed")

    def cancel(self) -> None:
        """Cancel some batch."""
        active = [name for name in self._batches if not self._has_ended(name)]
        if active:
            batch_id = self._random.choice(active)
            reply = self.api(self._batches[batch_id]).cancel(batch_id)
            if reply.status == 200:
                self.history.saw_cancel(reply.json())
            elif reply.status != 409:
                self.problems.append(f"the cancel of {batch_id} was answered with {reply.status}")

    def delete(self) -> None:
        """Delete the input of a batch that has ended."""
        ended = [name for name in self._batches if self._has_ended(name)]
        if ended:
            file_id = self.history.last[self._random.choice(ended)]["input_file_id"]
            # What was asked may have been done, whatever became of the answer.
            self._deleted.add(file_id)
            self.api().delete(f"/files/{file_id}")

    def look_at_lists(self) -> None:
        """Look at the lists."""
        _ok(self.api().get("/files?limit=20"))
        _ok(self.api().get("/batches?limit=20"))

    def _has_ended(self, batch_id: str) -> bool:
        return self.history.last.get(batch_id, {"status": ""})["status"] in TERMINAL

    def _active(self) -> int:
        return sum(not self._has_ended(name) for name in self._batches)

    def close_a_window(self) -> None:
        """Let the window of some batch be over, if one runs."""
        running = [
            name
            for name, prefix in self._batches.items()
            if prefix is OPENAI and self.history.last.get(name, {"status": ""})["status"] == "in_progress"
        ]
        if not running:
            return
        self.close_window(self._random.choice(running))

    def close_window(self, batch_id: str) -> None:
        """Let the window of a batch be over at the next start."""
        past = int(time.time()) - 1
        with closing(sqlite3.connect(self.service.data_dir / "overnight.db")) as database, database:
            database.execute("UPDATE batches SET expires_at = ? WHERE id = ?", (past, batch_id))
        self.history.last[batch_id]["expires_at"] = past

    def _durable_names(self) -> set[str]:
        """Read the result logs as they lie there now: what is in them may never be asked again."""
        names = set()
        for folder in (self.service.data_dir / "results").glob("*"):
            asked = self._names_of(folder.name)
            for segment in folder.glob("*.log"):
                with segment.open("rb") as file:
                    names |= {asked[frame.line] for frame in scan(file, segment.stat().st_size) if asked}
        return names

    def _names_of(self, batch_id: str) -> list[str]:
        with closing(sqlite3.connect(self.service.data_dir / "overnight.db")) as database:
            row = database.execute("SELECT input_file_id FROM batches WHERE id = ?", (batch_id,)).fetchone()
        return self._inputs[row[0]].names if row and row[0] in self._inputs else []

    def _all_batches(self) -> list[dict[str, Any]]:
        """Give every batch that there is, also those whose creation was never acknowledged."""
        found: list[dict[str, Any]] = []
        more = ""
        while True:
            page = _ok(self.api().get(f"/batches?limit=100{more}")).json()
            found += page["data"]
            if not page["has_more"]:
                return [self.api(self._batches.get(batch["id"], OPENAI)).batch(batch["id"]) for batch in found]
            more = f"&after={page['last_id']}"

    def _check(self, batch: dict[str, Any]) -> None:
        self.problems += self.history.check_end(batch)
        self._figures.batches[batch["status"]] += 1
        self._read_files(batch)
        asked = self._inputs[batch["input_file_id"]].names if batch["input_file_id"] in self._inputs else None
        if asked is None or batch["in_progress_at"] is None:
            return
        output, errors = (
            self._contents.get(file_id, b"") for file_id in (batch["output_file_id"], batch["error_file_id"])
        )
        self.problems += check_results(batch, asked, output, errors)
        self.problems += check_answers_ran(output, runs_of(self.upstream, name_of))

    def _check_files(self) -> None:
        """Whatever was acknowledged is there."""
        known = {batch["id"] for batch in self._all_batches()}
        self.problems += [f"{name} was acknowledged and is gone" for name in self._batches if name not in known]
        for file_id, kept in self._inputs.items():
            reply = self.api().get(f"/files/{file_id}/content")
            if file_id not in self._deleted and (reply.status != 200 or reply.body != kept.content):
                self.problems.append(f"{file_id} was acknowledged and cannot be read ({reply.status})")

    def _count(self, runs: Sequence[Run]) -> None:
        self._figures.runs += len(runs)
        names = {run.name for run in runs}
        self._figures.requests += len(names)
        flaky = sum("flaky" in name for name in names)
        self._figures.repeats += len(runs) - len(names) - flaky


def plans(random: Random) -> list[Plan]:
    """Give one round for each point, in a random order, and as many that end at a random moment."""
    at_points = [Plan(point=point, nth=random.choice([1, 1, 2, 3, 5])) for point in POINTS]
    at_random = [
        Plan(after=random.uniform(0.05, 1.3), starting=True)
        if random.random() < 0.15
        else Plan(after=random.uniform(0.0, 2.0))
        for _ in POINTS
    ]
    mixed = at_points + at_random
    random.shuffle(mixed)
    return mixed


def name_of(received: Received) -> str:
    """Tell a request by what it says."""
    return str(json.loads(received.body)["messages"][0]["content"])


def _input(names: list[str]) -> Input:
    return Input(content=jsonl(*(request(name, OPENAI.endpoint) for name in names)), names=names)


def _ok(reply: Reply) -> Reply:
    assert reply.status in {200, 201}, reply
    return reply
