"""What people see: the same commands on a terminal."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

from tests.cli.conftest import MODEL, Cli, plain, request

from overnight.testing.upstream import Gate, ScriptedUpstream, answer, by_text, error, held

Write = Callable[..., Path]


def test_run_draws_its_progress_and_leaves_one_line_a_phase(cli: Cli, write: Write, upstream: ScriptedUpstream) -> None:
    """The bar moves while it runs; afterwards the screen reads like a report."""
    upstream.script = by_text({"wrong": error(400, code="odd")}, answer(delay=0.3))
    write(*(request(f"r-{number}", f"question {number}") for number in range(90)), request("w", "wrong"))
    shown, code = cli.on_terminal("run", "prompts.jsonl", "--no-color")
    lines = plain(shown).splitlines()

    assert "\r\x1b[2K  in progress   " in shown
    assert re.fullmatch(r"batch_\w+ created", lines[0])
    assert lines[1] == f"  validating    91 lines, model {MODEL}, no problems"
    assert re.fullmatch(r"  in progress   █{20}  91/91   1 failed   .*requests/(s|min)", lines[2])
    assert lines[3] == "  finalizing    91/91 results written"
    assert re.fullmatch(r"  completed     90 succeeded, 1 failed, .+ s", lines[4])
    assert lines[5:8] == [
        "file                     lines  codes",
        "prompts.output.jsonl  90 lines",
        "prompts.errors.jsonl    1 line  1\N{NO-BREAK SPACE}×\N{NO-BREAK SPACE}odd",
    ]
    assert lines[8].startswith("hint: `overnight batches errors batch_")
    assert code == 3


def test_without_progress_nothing_moves(cli: Cli, write: Write) -> None:
    """For terminals that are recorded."""
    write(request("a"))
    shown, _ = cli.on_terminal("run", "prompts.jsonl", "--no-progress")

    assert "\x1b[2K" not in shown


def test_waiting_shows_one_line_and_ctrl_c_keeps_the_batch(cli: Cli, write: Write, upstream: ScriptedUpstream) -> None:
    """The line goes, the way on stays."""
    gate = Gate()
    upstream.script = by_text({"slow": held(gate)})
    write(*(request(f"r-{number}") for number in range(30)), request("s", "slow"))
    batch = cli("batches", "create", "prompts.jsonl", "-q").stdout.strip()
    shown, code = cli.on_terminal("batches", "wait", batch, interrupt_at="30/31")
    gate.open()

    assert re.search(rf"\r\x1b\[2K{batch} in progress   \d+/31", shown)
    assert plain(shown).lstrip().splitlines() == [
        f"stopped waiting; the batch goes on: {batch}",
        "",
        f"hint: `overnight batches wait {batch}` resumes, `overnight batches cancel {batch}` stops it",
    ]
    assert code == 130


def test_lists_are_tables_with_headings(cli: Cli, write: Write) -> None:
    """Aligned, ages instead of times, and the whole id."""
    write(request("a"))
    cli("run", "prompts.jsonl")
    batch = cli("batches", "get", "@last", "-q").stdout.strip()
    shown, _ = cli.on_terminal("batches", "list", "--limit", "1")
    heading, row, hint = plain(shown).splitlines()

    assert heading.split() == ["id", "status", "done", "failed", "model", "endpoint", "created"]
    assert row.startswith(f"{batch}  completed   1/1       0  ")
    assert row.endswith(" ago")
    assert len(row) <= 100
    assert hint == f"hint: `overnight batches list --after {batch}` shows the next ones, if there are more"


def test_one_batch_is_shown_without_its_empty_fields(cli: Cli, write: Write) -> None:
    """A field a line, in words."""
    write(request("a"), request("a"), "nope")
    cli("run", "prompts.jsonl")
    shown, _ = cli.on_terminal("batches", "get", "@last")
    fields = [line[:14].strip() for line in plain(shown).splitlines()]

    assert fields == [
        *("id", "status", "requests", "failed", "endpoint", "window", "tokens", "input file", "created", "ended"),
        *("problems", ""),
    ]
    assert "line 3: This line is not parseable as valid JSON. (invalid_json_line)" in shown


def test_colours_can_be_switched_off(cli: Cli) -> None:
    """By the flag and by the convention; and JSON never has any."""
    colored, _ = cli.on_terminal("batches", "get", "nix")
    flagged, _ = cli.on_terminal("batches", "get", "nix", "--no-color")
    cli.environment["NO_COLOR"] = "1"
    by_convention, _ = cli.on_terminal("batches", "get", "nix")

    assert "\x1b[31m" in colored
    assert "\x1b[" not in flagged + by_convention
    assert plain(colored) == flagged == by_convention


def test_json_is_the_same_on_a_terminal(cli: Cli, write: Write) -> None:
    """The shape is chosen by the flag, never by where it goes."""
    write(request("a"))
    cli("run", "prompts.jsonl")
    shown, _ = cli.on_terminal("batches", "get", "@last", "--json=status,model", "-q")

    assert json.loads(shown) == {"status": "completed", "model": MODEL}


def test_a_question_is_asked_and_no_is_heeded(cli: Cli, write: Write) -> None:
    """What cannot be undone is asked for by name."""
    write(request("a"))
    file = cli("files", "upload", "prompts.jsonl", "-q").stdout.strip()
    kept, refused = cli.on_terminal("files", "delete", file, keys="n\n")
    gone, done = cli.on_terminal("files", "delete", file, keys="y\n")

    assert f"delete prompts.jsonl ({file}, " in kept
    assert "error: nothing was changed" in plain(kept)
    assert (refused, done) == (1, 0)
    assert f"{file}  deleted" in gone


def test_the_doctor_wraps_what_is_long(bare: Cli) -> None:
    """A remedy that is cut off is none."""
    shown, code = bare.on_terminal("doctor", "--upstream", "http://127.0.0.1:9/v1")

    assert "FAULT" in shown
    assert "start the model server, or name another with --upstream" in " ".join(plain(shown).split())
    assert all(len(line) <= 100 for line in plain(shown).splitlines() if not line.startswith("hint:"))
    assert code == 5
