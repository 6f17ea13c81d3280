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
LONGEST_ROUND = 4.0
LONGEST_END = 90.0
QUICK = ("--set", "overnight.dispatch.dispatcher:LEASE=2", "--set", "overnight.dispatch.dispatcher:_RENEW_EVERY=0.3")
CRASHING = ("overnight.testing.crashing", *QUICK)

# The first step of the client that leads to points whose names begin like this, by its place in ``_use_until``.
_LEADS_TO = {"upload": 1, "batch.cancel": 3, "file.": 4, "blob.deleted": 4, "batch.failed": 6}

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
    used: bool = False


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

    def __init__(self, folder: Path, upstream: ScriptedUpstream, random: Random, figures: Figures, name: str) -> None:
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
        config.write_text(f'stop_grace = 0.3\n[[upstreams]]\nurl = "{upstream.url}"\nmax_concurrency = {CONCURRENCY}\n')
        self.service = Service(folder, arguments=["--config", str(config)])
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
        self._maybe_close_a_window(always=plan.point == "batch.expired")
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
        self.service.kill()
        self._figures.kills += 1
        now = time.time()
        self.crashes.append(now)
        self._durable[now] = self._durable_names()
        return as_planned

    def settle(self) -> list[str]:
        """Start the service unarmed, let all end, and say which promises were broken."""
        self.service.start([*CRASHING, "--"])
        end = time.monotonic() + LONGEST_END
        while time.monotonic() < end and any(batch["status"] not in TERMINAL for batch in self._all_batches()):
            time.sleep(0.1)
        for batch in self._all_batches():
            self._check(batch)
        self._check_files()
        self.service.stop()
        runs = runs_of(self.upstream, _name_of)
        self.problems += self.history.problems
        self.problems += check_runs(runs, self.crashes, max_concurrency=CONCURRENCY)
        self.problems += check_never_again(self._durable, runs)
        self._count(runs)
        return self.problems

    def _use_until(self, over: Callable[[], bool], point: str | None) -> None:
        steps = [self._submit, self._submit_in_parts, self._poll, self._cancel, self._delete, self._list, self._spoil]
        weights = [5, 1, 20, 1, 1, 2, 1]
        wanted = [steps[number] for start, number in _LEADS_TO.items() if point and point.startswith(start)]
        self._tolerantly(self._submit)
        while not over():
            (step,) = self._random.choices(steps, weights)
            self._tolerantly(step)
            if wanted and self._random.random() < 0.5:
                self._tolerantly(wanted[0])

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
        lines = [request(name, OPENAI.endpoint) for name in names]
        return Input(content=jsonl(*lines), names=names)

    def _mood(self, mood: str) -> str:
        return self._random.choice(["steady", "wrong", "flaky", "slow"]) if mood == "mixed" else mood

    def _submit(self) -> None:
        if self._active() > 6:
            return
        new = self._new_input()
        file_id = self.api().upload(new.content)
        self._inputs[file_id] = new
        self._create(file_id)

    def _submit_in_parts(self) -> None:
        new = self._new_input()
        cut = len(new.content) // 2
        wish = {"bytes": len(new.content), "filename": "a.jsonl", "mime_type": "application/jsonl", "purpose": "batch"}
        upload_id = _ok(self.api().post("/uploads", wish)).json()["id"]
        pieces = [new.content[:cut], new.content[cut:]]
        part_ids = [self._send_part(upload_id, piece) for piece in pieces]
        if self._random.random() < 0.3:
            _ok(self.api().post(f"/uploads/{upload_id}/cancel"))
            return
        done = _ok(self.api().post(f"/uploads/{upload_id}/complete", {"part_ids": part_ids})).json()
        self._inputs[done["file"]["id"]] = new
        if self._active() <= 6:
            self._create(done["file"]["id"])

    def _send_part(self, upload_id: str, piece: bytes) -> str:
        part = Part(name="data", data=piece, filename="upload")
        return str(_ok(self.api().post_form(f"/uploads/{upload_id}/parts", [part])).json()["id"])

    def _spoil(self) -> None:
        """Have a batch fail in validation."""
        file_id = self.api().upload(jsonl(request("bad", OPENAI.endpoint, url="/v1/elsewhere")))
        self._inputs[file_id] = Input(content=self.api().content(file_id), names=[])
        self._create(file_id)

    def _create(self, file_id: str) -> None:
        self._inputs[file_id].used = True
        prefix = self._random.choice([OPENAI, AZURE]) if self._inputs[file_id].names else OPENAI
        batch_id = self.api(prefix).create(file_id)
        self._batches[batch_id] = prefix

    def _poll(self) -> None:
        for batch_id in self._random.sample(sorted(self._batches), min(3, len(self._batches))):
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

    def _cancel(self) -> None:
        active = [name for name in self._batches if not self._has_ended(name)]
        if active:
            batch_id = self._random.choice(active)
            reply = self.api(self._batches[batch_id]).cancel(batch_id)
            if reply.status == 200:
                self.history.saw_cancel(reply.json())
            elif reply.status != 409:
                self.problems.append(f"the cancel of {batch_id} was answered with {reply.status}")

    def _delete(self) -> None:
        """Delete the input of a batch that has ended."""
        ended = [name for name in self._batches if self._has_ended(name)]
        if ended:
            file_id = self.history.last[self._random.choice(ended)]["input_file_id"]
            # What was asked may have been done, whatever became of the answer.
            self._deleted.add(file_id)
            self.api().delete(f"/files/{file_id}")

    def _list(self) -> None:
        _ok(self.api().get("/files?limit=20"))
        _ok(self.api().get("/batches?limit=20"))

    def _has_ended(self, batch_id: str) -> bool:
        return self.history.last.get(batch_id, {"status": ""})["status"] in TERMINAL

    def _active(self) -> int:
        return sum(not self._has_ended(name) for name in self._batches)

    def _maybe_close_a_window(self, *, always: bool) -> None:
        """Let the window of a batch be over at the next start, now and then or always."""
        running = [
            name
            for name, prefix in self._batches.items()
            if prefix is OPENAI and self.history.last.get(name, {"status": ""})["status"] == "in_progress"
        ]
        if not running or (self._random.random() > 0.2 and not always):
            return
        batch_id, past = self._random.choice(running), int(time.time()) - 1
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
        self.problems += check_answers_ran(output, runs_of(self.upstream, _name_of))

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


def _name_of(received: Received) -> str:
    return str(json.loads(received.body)["messages"][0]["content"])


def _ok(reply: Reply) -> Reply:
    assert reply.status in {200, 201}, reply
    return reply
