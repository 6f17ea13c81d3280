"""Transcripts: command, stdout, stderr, exit code, against the real service and no terminal anywhere."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.cli.conftest import COMMAND, MODEL, Cli, Outcome, request, wait_until
from tests.support.service import Service

from overnight.testing.upstream import Gate, ScriptedUpstream, answer, by_text, error, held

Write = Callable[..., Path]

BATCH = r"batch_[0-9a-f]+"
FILE = r"file-[0-9a-f]+"
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
ENDPOINT = "/v1/chat/completions"


def created(found: Outcome) -> str:
    """The id of the batch that a command speaks of first."""
    match = re.search(BATCH, found.stdout + found.stderr)
    assert match, found
    return match[0]


# --- run ---------------------------------------------------------------------------------------------------------


def test_run_takes_a_file_of_requests_to_a_file_of_results(cli: Cli, write: Write) -> None:
    """The most common act, in one command."""
    write(*(request(f"r-{number}", f"question {number}") for number in range(3)))
    found = cli("run", "prompts.jsonl")

    assert (found.stdout, found.code) == ("prompts.output.jsonl\t3\t\n", 0)
    assert re.fullmatch(
        rf"{BATCH} created\n"
        rf"  validating    3 lines, model {MODEL}, no problems\n"
        r"  in progress   3/3.*\n"
        r"  finalizing    3/3 results written\n"
        r"  completed     3 succeeded, \d\.\d s\n",
        found.stderr,
    )
    lines = [json.loads(line) for line in (cli.folder / "prompts.output.jsonl").read_text().splitlines()]
    assert [line["custom_id"] for line in lines] == ["r-0", "r-1", "r-2"]
    assert lines[2]["response"]["body"]["choices"][0]["message"]["content"] == "echo: question 2"
    assert not (cli.folder / "prompts.errors.jsonl").exists()


def test_run_says_which_requests_failed(cli: Cli, write: Write, upstream: ScriptedUpstream) -> None:
    """Exit code 3: finished, but not all well."""
    upstream.script = by_text({"wrong": error(400, "no", code="context_length_exceeded")})
    write(request("a"), request("b", "wrong"), request("c", "wrong"))
    found = cli("run", "prompts.jsonl", "--to", "out")

    assert found.stdout == "out/prompts.output.jsonl\t1\t\nout/prompts.errors.jsonl\t2\t2 × context_length_exceeded\n"
    assert "  completed     1 succeeded, 2 failed, " in found.stderr
    assert found.code == 3


def test_run_reports_a_file_that_is_refused_by_line(cli: Cli, write: Write) -> None:
    """Exit code 1, and the lines as an editor understands them."""
    write(request("a"), request("a"))
    found = cli("run", "prompts.jsonl")
    batch = created(found)

    assert (found.stdout, found.code) == ("", 1)
    assert "\nprompts.jsonl:2: The custom_id 'a' for this request is a duplicate" in found.stderr
    assert found.stderr.endswith(
        f"error: {batch} failed validation: 1 problem\n\nhint: `overnight batches errors {batch}` lists them\n"
    )


def test_run_reads_stdin(cli: Cli) -> None:
    """A pipe is a file, too."""
    found = cli("run", "-", stdin=json.dumps(request("a")))

    assert (found.stdout, found.code) == ("stdin.output.jsonl\t1\t\n", 0)


def test_run_prints_the_object_of_the_api(cli: Cli, write: Write) -> None:
    """With `--json`, exactly that, on one line, and all talk on stderr."""
    write(request("a"))
    found = cli("run", "prompts.jsonl", "--json", "--metadata", "team=search", "--metadata", "x=a=b")

    assert [(each["object"], each["status"], each["metadata"]) for each in found.json] == [
        ("batch", "completed", {"team": "search", "x": "a=b"})
    ]


def test_run_can_leave_at_once(cli: Cli, write: Write) -> None:
    """The batch goes on without us."""
    write(request("a"))
    found = cli("run", "prompts.jsonl", "--no-wait", "-q")
    batch = found.stdout.strip()

    assert re.fullmatch(BATCH, batch)
    assert (found.stderr, found.code) == ("", 0)
    assert cli("batches", "wait", batch, "-q").code == 0


def test_run_never_overwrites_results_unasked(cli: Cli, write: Write) -> None:
    """Without a terminal there is nobody to ask: exit code 2, and the flag that answers."""
    write(request("a"))
    (cli.folder / "prompts.output.jsonl").write_text("precious")
    refused = cli("run", "prompts.jsonl")

    assert refused == Outcome(
        stdout="",
        stderr="error: this needs an answer: overwrite prompts.output.jsonl?\n\n"
        "hint: `--yes` answers it, there is no terminal to ask on\n",
        code=2,
    )
    assert (cli.folder / "prompts.output.jsonl").read_text() == "precious"
    assert cli("run", "prompts.jsonl", "--yes").code == 0


def test_a_run_without_errors_leaves_no_errors_of_the_run_before(cli: Cli, write: Write) -> None:
    """An old error file beside new results would lie."""
    write(request("a"))
    (cli.folder / "prompts.errors.jsonl").write_text("old")

    assert cli("run", "prompts.jsonl", "--yes").code == 0
    assert not (cli.folder / "prompts.errors.jsonl").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "nix.jsonl"), "error: `nix.jsonl` does not exist"),
        (("run", "."), "error: `.` is a folder"),
        (("run", "prompts.jsonl", "--metadata", "x"), "error: invalid value for '--metadata': `x` is not KEY=VALUE"),
        (("run", "prompts.jsonl", "--metadata", "=x"), "error: invalid value for '--metadata': `=x` is not KEY=VALUE"),
        (("run",), "error: missing argument 'FILE|-'"),
        (("run", "prompts.jsonl", "--nix"), "error: no such option '--nix'"),
        (("batches", "list", "--url", "nix"), "error: `nix` is not an http or https URL"),
        (("batches", "list", "--json=nix"), "error: no field `nix` for `--json=`"),
        (("batches", "wait"), "error: missing argument 'ID|@last|-...'"),
    ],
)
def test_what_is_not_understood_is_exit_code_2(cli: Cli, write: Write, arguments: tuple[str, ...], said: str) -> None:
    """Nothing is sent, and the hint shows the way."""
    write(request("a"))
    cli("batches", "create", "prompts.jsonl")
    found = cli(*arguments)

    assert found.stderr.splitlines()[0] == said
    assert found.stderr.splitlines()[1] == ""
    assert found.stderr.splitlines()[2].startswith("hint: ")
    assert (found.stdout, found.code) == ("", 2)


# --- batches -----------------------------------------------------------------------------------------------------


def test_ids_travel_through_pipes(cli: Cli, write: Write) -> None:
    """`create -q | wait -`, and a whole table does as well."""
    write(request("a"))
    batch = cli("batches", "create", "prompts.jsonl", "-q").stdout
    waited = cli("batches", "wait", "-", stdin=batch)

    assert re.fullmatch(rf"{batch.strip()}\tcompleted\t1/1\t0\t{MODEL}\t{ENDPOINT}\t{TIME}\n", waited.stdout)
    assert cli("batches", "wait", "-", "-q", stdin=waited.stdout).stdout == batch


def test_a_batch_can_be_made_of_an_uploaded_file(cli: Cli, write: Write) -> None:
    """The endpoint is read off what was uploaded."""
    write(request("a"))
    file = cli("files", "upload", "prompts.jsonl", "-q").stdout.strip()
    found = cli("batches", "create", file[:20], "--json")

    assert [(each["input_file_id"], each["endpoint"]) for each in found.json] == [(file, ENDPOINT)]


def test_the_list_has_one_shape_per_flag(cli: Cli, write: Write) -> None:
    """Tab-separated in a pipe, the objects with `--json`, ids with `-q`; never one for the other."""
    write(request("a"))
    cli("run", "prompts.jsonl")
    piped, objects, few = (cli("batches", "list", *flags) for flags in ((), ("--json",), ("--json=id,status",)))
    names = cli("batches", "list", "-q").stdout.split()

    assert all(line.count("\t") == 6 for line in piped.stdout.splitlines())
    assert [line.split("\t")[0] for line in piped.stdout.splitlines()] == names
    assert [each["id"] for each in objects.json] == names
    assert {each["object"] for each in objects.json} == {"batch"}
    assert [list(each) for each in few.json] == [["id", "status"]] * len(names)


def test_the_list_can_be_cut_and_gone_on_with(cli: Cli, write: Write) -> None:
    """Newest first, by id."""
    write(request("a"))
    made = [cli("batches", "create", "prompts.jsonl", "-q").stdout.strip() for _ in range(3)]

    assert cli("batches", "list", "--limit", "2", "-q").stdout.split() == [made[2], made[1]]
    assert cli("batches", "list", "--limit", "1", "--after", made[1], "-q").stdout.split() == [made[0]]
    assert made[0] in cli("batches", "list", "--all", "-q").stdout.split()


def test_the_list_can_be_narrowed_to_a_status(cli: Cli, write: Write) -> None:
    """The filter is ours, since the API has none."""
    write(request("a"), request("a"))
    cli("run", "prompts.jsonl")
    found = cli("batches", "list", "--status", "failed", "--json=status")

    assert {each["status"] for each in found.json} == {"failed"}


def test_one_batch_is_shown_field_by_field(cli: Cli, write: Write) -> None:
    """The newest by name, any by the beginning of its id."""
    write(request("a"))
    cli("run", "prompts.jsonl", "--metadata", "k=v")
    last = cli("batches", "get", "@last")
    fields = dict(line.split("\t") for line in last.stdout.splitlines())

    assert (fields["status"], fields["requests"], fields["metadata"]) == ("completed", "1/1", "k=v")
    assert cli("batches", "get", fields["id"][:30]).stdout == last.stdout


def test_the_exit_code_can_say_how_a_batch_stands(cli: Cli, write: Write, upstream: ScriptedUpstream) -> None:
    """Only when asked: `get` succeeded, whatever it found."""
    gate = Gate()
    upstream.script = held(gate)
    write(request("a"))
    cli("batches", "create", "prompts.jsonl")

    assert cli("batches", "get", "@last").code == 0
    assert cli("batches", "get", "@last", "--exit-status").code == 8
    gate.open()
    cli("batches", "wait", "@last")
    assert cli("batches", "get", "@last", "--exit-status").code == 0


def test_waiting_can_have_an_end(cli: Cli, write: Write, upstream: ScriptedUpstream) -> None:
    """Exit code 8, and the batch goes on."""
    gate = Gate()
    upstream.script = held(gate)
    write(request("a"))
    batch = cli("batches", "create", "prompts.jsonl", "-q").stdout.strip()
    found = cli("batches", "wait", batch, "--timeout", "0.5")

    assert found.stdout.split("\t")[:3] == [batch, "in_progress", "0/1"]
    assert found.stderr.endswith("still running after 0.5 s\n")
    assert found.code == 8
    gate.open()
    assert cli("batches", "wait", batch).code == 0


def test_several_batches_are_waited_for_together(cli: Cli, write: Write, upstream: ScriptedUpstream) -> None:
    """The worst of them is the exit code."""
    upstream.script = by_text({"wrong": error(400)})
    write(request("a"))
    write(request("a", "wrong"), name="wrong.jsonl")
    ids = [cli("batches", "create", name, "-q").stdout.strip() for name in ("prompts.jsonl", "wrong.jsonl")]
    found = cli("batches", "wait", *ids, ids[0])

    assert [line.split("\t")[:4] for line in found.stdout.splitlines()] == [
        [ids[0], "completed", "1/1", "0"],
        [ids[1], "completed", "1/1", "1"],
    ]
    assert found.code == 3


def test_watch_shows_each_phase(cli: Cli, write: Write) -> None:
    """Also those that are over already."""
    write(request("a"))
    cli("run", "prompts.jsonl")
    found = cli("batches", "watch", "@last")

    assert [line.split()[0] for line in found.stderr.splitlines()[1:]] == [
        "validating",
        "in",
        "finalizing",
        "completed",
    ]
    assert found.code == 0


def test_failed_requests_are_run_again_as_a_new_batch(cli: Cli, write: Write, upstream: ScriptedUpstream) -> None:
    """Only those; a batch without any says so."""
    upstream.script = by_text({"odd": error(400)})
    write(request("a"), request("b", "odd"), request("c", "odd"))
    old = cli("batches", "create", "prompts.jsonl", "-q").stdout.strip()
    cli("batches", "wait", old)
    upstream.script = answer()

    again = cli("batches", "retry", old, "-q").stdout.strip()
    waited = cli("batches", "wait", again)

    assert waited.code == 0
    ids = [json.loads(line)["custom_id"] for line in cli("batches", "results", again).stdout.splitlines()]
    assert ids == ["b", "c"]
    refused = cli("batches", "retry", again, "--all-unfinished")
    assert refused.code == 1
    assert "nothing to run again" in refused.stderr


def test_a_cancelled_batch_keeps_what_is_finished(cli: Cli, write: Write, upstream: ScriptedUpstream) -> None:
    """And says of the rest that it did not run."""
    gate = Gate()
    upstream.script = by_text({"slow": held(gate)})
    write(request("a"), *(request(f"s-{number}", "slow") for number in range(100)))
    batch = cli("batches", "create", "prompts.jsonl", "-q").stdout.strip()
    wait_until(lambda: cli("batches", "get", batch, "--json").json[0]["request_counts"]["completed"] == 1)
    cancelled = cli("batches", "cancel", batch, "--json=id,status")
    gate.open()
    waited = cli("batches", "wait", batch)

    assert cancelled.json == [{"id": batch, "status": "cancelling"}]
    assert waited.stdout.split("\t")[1] == "cancelled"
    assert waited.code == 1
    assert cli("batches", "cancel", batch).code == 0
    groups = dict(line.split("\t")[:2] for line in cli("batches", "errors", batch, "--group").stdout.splitlines())
    assert set(groups) == {"batch_cancelled"}
    assert len(cli("batches", "results", batch).stdout.splitlines()) + int(groups["batch_cancelled"]) == 101


def test_results_and_errors_are_read_as_they_are(cli: Cli, write: Write, upstream: ScriptedUpstream) -> None:
    """Lines of JSON on stdout, or a file."""
    upstream.script = by_text({"wrong": error(422, "bad", code="odd")})
    write(request("a"), request("b", "wrong"))
    cli("run", "prompts.jsonl")

    assert [each["custom_id"] for each in cli("batches", "results", "@last").json] == ["a"]
    assert [each["custom_id"] for each in cli("batches", "errors", "@last").json] == ["b"]
    assert cli("batches", "errors", "@last", "--group").stdout == "odd\t1\tb\tbad\n"
    assert cli("batches", "errors", "@last", "--group", "--json").json == [
        {"code": "odd", "count": 1, "first_custom_id": "b", "message": "bad"}
    ]
    saved = cli("batches", "results", "@last", "-o", "new.jsonl")
    assert (saved.stdout, saved.stderr, saved.code) == ("", "new.jsonl written\n", 0)
    assert (cli.folder / "new.jsonl").read_text() == cli("batches", "results", "@last").stdout
    assert cli("batches", "results", "@last", "-o", "new.jsonl").code == 2


def test_a_batch_without_errors_has_none_to_show(cli: Cli, write: Write) -> None:
    """Empty stdout, and a word on stderr."""
    write(request("a"))
    cli("run", "prompts.jsonl")
    found = cli("batches", "errors", "@last")

    assert (found.stdout, found.code) == ("", 0)
    assert found.stderr.endswith(" has no error file: no request failed\n")


def test_a_refused_batch_lists_its_problems(cli: Cli, write: Write) -> None:
    """By line, with code and param."""
    write(request("a"), request("a"), "nope")
    cli("run", "prompts.jsonl")
    found = cli("batches", "errors", "@last")

    assert [line.split("\t")[:3] for line in found.stdout.splitlines()] == [
        ["2", "duplicate_custom_id", "custom_id"],
        ["3", "invalid_json_line", ""],
    ]


def test_results_of_a_running_batch_are_not_there_yet(cli: Cli, write: Write, upstream: ScriptedUpstream) -> None:
    """Exit code 8, and what to do."""
    gate = Gate()
    upstream.script = held(gate)
    write(request("a"))
    batch = cli("batches", "create", "prompts.jsonl", "-q").stdout.strip()
    upstream.wait_for(1)
    found = cli("batches", "results", batch)
    gate.open()

    assert found.stderr.endswith(f"\n\nhint: `overnight batches wait {batch}` waits for it\n")
    assert (found.stdout, found.code) == ("", 8)
    cli("batches", "wait", batch)


def test_ctrl_c_stops_the_waiting_and_not_the_batch(cli: Cli, write: Write, upstream: ScriptedUpstream) -> None:
    """Exit code 130, with the id and both ways on."""
    gate = Gate()
    upstream.script = held(gate)
    write(request("a"))
    process = cli.start("run", "prompts.jsonl")
    upstream.forget()
    upstream.wait_for(1)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=20)
    batch = re.findall(BATCH, stderr)[0]

    assert stderr.endswith(
        f"stopped waiting; the batch goes on: {batch}\n\n"
        f"hint: `overnight batches wait {batch}` resumes, `overnight batches cancel {batch}` stops it\n"
    )
    assert (stdout, process.returncode) == ("", 130)
    gate.open()
    assert cli("batches", "wait", batch).code == 0


# --- files -------------------------------------------------------------------------------------------------------


def test_files_go_up_and_come_down(cli: Cli, write: Write) -> None:
    """Upload, list, get, content, delete."""
    path = write(request("a"))
    uploaded = cli("files", "upload", "prompts.jsonl")
    file = uploaded.stdout.split("\t")[0]

    size = path.stat().st_size
    assert re.fullmatch(rf"{FILE}\tprompts\.jsonl\tbatch\tprocessed\t{size}\t{TIME}\t\S*\n", uploaded.stdout)
    assert cli("files", "list", "--limit", "1").stdout == uploaded.stdout
    assert cli("files", "get", file, "--json=id,bytes").json == [{"id": file, "bytes": size}]
    assert cli("files", "content", "@last").stdout == path.read_text()
    assert cli("files", "content", file, "-o", "copy").stderr == f"copy written ({size} B)\n"
    refused = cli("files", "delete", file)
    assert (refused.stdout, refused.code) == ("", 2)
    assert f"delete prompts.jsonl ({file}, {size} B)?" in refused.stderr
    assert cli("files", "delete", file, "--yes").stdout == f"{file}\tdeleted\n"
    gone = cli("files", "get", file)
    assert gone.stderr.startswith(f"error: no file is called `{file}`\n\nhint: ")
    assert gone.code == 1


def test_a_reader_that_goes_away_is_no_error(cli: Cli, write: Write) -> None:
    """`overnight files content … | head -1` is how people look into files."""
    write(*(request(f"r-{number}", "x" * 500) for number in range(5000)))
    file = cli("files", "upload", "prompts.jsonl", "-q").stdout.strip()
    command = [*COMMAND, "files", "content", file]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=cli.environment, cwd=cli.folder
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()

    assert (process.stderr.read(), process.wait(20)) == (b"", 0)
    process.stderr.close()


def test_a_file_is_validated_on_this_machine(bare: Cli, write: Write) -> None:
    """No server needed; places as an editor understands them; exit code 1."""
    write(request("a"), request("b"), request("a"), "nope")
    found = bare("files", "validate", "prompts.jsonl")
    first, second = found.stdout.splitlines()

    assert first.startswith(
        "prompts.jsonl:3: The custom_id 'a' for this request is a duplicate of another request (line 1)"
    )
    assert second == "prompts.jsonl:4: This line is not parseable as valid JSON"
    assert re.fullmatch(r"2 problems in 4 lines \(\d+ B\)\n", found.stderr)
    assert found.code == 1


def test_a_good_file_is_called_good(bare: Cli, write: Write) -> None:
    """Exit code 0, nothing on stdout."""
    write(request("a"), request("b"))
    found = bare("files", "validate", "prompts.jsonl", "--json")

    assert (found.stdout, found.code) == ("", 0)
    assert re.fullmatch(r"no problems in 2 lines \(\d+ B\)\n", found.stderr)


def test_problems_can_be_read_by_programs(bare: Cli, write: Write) -> None:
    """As the API would list them."""
    write(request("a") | {"url": 5})
    found = bare("files", "validate", "prompts.jsonl", "--json=line,param")

    assert found.json == [{"line": 1, "param": "url"}]


def test_the_prompt_tokens_of_a_file_are_counted_on_this_machine(bare: Cli, write: Write) -> None:
    """By model, and it says by which tokenizer and how far it can be trusted."""
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello world"}]}
    write(request("a", "x" * 40), request("b", body=body), "nope")
    found = bare("files", "stats", "prompts.jsonl")

    assert found.stdout == f"{MODEL}\t1\t17\testimate\tbytes/4\t0\t16\ngpt-4o\t1\t9\texact\to200k_base\t0\t0\n"
    assert re.fullmatch(
        r"2 requests, the largest in line 1 \(\d+ B\); \d+ B in all\n"
        r"1 line not counted: no request; `overnight files validate prompts.jsonl` says why\n",
        found.stderr,
    )
    assert found.code == 0


def test_what_counts_tokens_can_be_chosen(bare: Cli, write: Write) -> None:
    """By the settings for a deployment, or for all models at once."""
    write(request("a", "Hello world"))
    (bare.folder / "overnight.toml").write_text(f'[[deployments]]\nname = "{MODEL}"\ntokenizer = "cl100k"\n')
    by_settings = bare("files", "stats", "prompts.jsonl", "--json").json
    by_option = bare("files", "stats", "prompts.jsonl", "--tokenizer", "estimate", "--json=requests,models").json

    assert [each["tokenizer"] for each in by_settings[0]["models"]] == ["cl100k_base"]
    assert list(by_option[0]) == ["requests", "models"]
    assert [each["tokenizer"] for each in by_option[0]["models"]] == ["bytes/4"]


@pytest.mark.parametrize(
    ("tokenizer", "said"),
    [
        ("words", "error: invalid value for '--tokenizer': `words` is no tokenizer: auto, estimate, o200k, cl100k or "),
        ("nix.json", "error: the tokenizer file `nix.json` cannot be used: "),
    ],
)
def test_a_tokenizer_that_there_is_not_is_exit_code_2(bare: Cli, write: Write, tokenizer: str, said: str) -> None:
    """With the ones that there are."""
    write(request("a"))
    found = bare("files", "stats", "prompts.jsonl", "--tokenizer", tokenizer)

    assert found.stderr.startswith(said)
    assert found.code == 2


# --- the server --------------------------------------------------------------------------------------------------


def test_a_server_that_is_away_is_exit_code_5(bare: Cli) -> None:
    """With how to start one, and how to name another."""
    assert bare("batches", "list", OVERNIGHT_URL="http://127.0.0.1:9/v1") == Outcome(
        stdout="",
        stderr="error: the server `http://127.0.0.1:9/v1` does not answer (connection refused)\n\n"
        "hint: `overnight serve` starts a server on this machine; `--url` or OVERNIGHT_URL names another\n",
        code=5,
    )


def test_a_missing_key_is_exit_code_4_and_no_key_is_ever_shown(
    bare: Cli, tmp_path: Path, shared_upstream: ScriptedUpstream
) -> None:
    """Not even to those who ask for everything."""
    keys = tmp_path / "keys"
    keys.write_text("sk-right team\n")
    (tmp_path / "locked").mkdir()
    arguments = ("--keys-file", str(keys))
    with Service(tmp_path / "locked", upstreams=[shared_upstream.url], arguments=arguments) as service:
        url = f"{service.url}/v1"
        denied = bare("batches", "list", "--url", url, "--api-key", "sk-wrong", "-v")
        let_in = bare("batches", "list", "-v", OVERNIGHT_URL=url, OVERNIGHT_API_KEY="sk-right", OPENAI_API_KEY="sk-no")
        shown = bare("config", "show", "--sources", OVERNIGHT_URL=url, OPENAI_API_KEY="sk-right")

    assert denied.code == 4
    assert "hint: set OVERNIGHT_API_KEY, or pass `--api-key`\n" in denied.stderr
    assert let_in.code == 0
    assert re.search(r"^GET http://\S+/v1/batches\?limit=20 200 \d+ ms$", let_in.stderr, re.MULTILINE)
    assert f"\nurl\t{url}\tOVERNIGHT_URL\napi_key\tset\tOPENAI_API_KEY\n" in shown.stdout
    everything = [part for each in (denied, let_in, shown) for part in (each.stdout, each.stderr)]
    assert not any("sk-" in part for part in everything)


def test_any_call_can_be_made(cli: Cli) -> None:
    """The answer as it came, also that of a refusal, whose exit code tells."""
    found = cli("api", "GET", "/models")
    refused = cli("api", "post", "batches", "-d", "@-", stdin="{}")

    assert json.loads(found.stdout)["data"][0]["id"] == MODEL
    assert json.loads(refused.stdout)["error"]["code"] == "missing_required_parameter"
    assert refused.stderr.startswith("error: Missing required parameter: ")
    assert refused.code == 1
    assert cli("api", "POST", "/batches", "-d", "@nix").code == 2


def test_the_doctor_finds_everything_well(cli: Cli, shared_upstream: ScriptedUpstream) -> None:
    """Each part, and the server that is named."""
    found = cli("doctor", "--upstream", shared_upstream.url)

    assert {line.split("\t")[1] for line in found.stdout.splitlines()} == {"ok"}
    assert found.stdout.splitlines()[-1].startswith("server\tok\t")
    assert (found.stderr, found.code) == ("", 0)


def test_the_doctor_tells_an_upstream_that_is_away(bare: Cli) -> None:
    """Exit code 5, and a remedy."""
    del bare.environment["OVERNIGHT_URL"]
    found = bare("doctor", "--upstream", "http://127.0.0.1:9/v1", "--json=name,ok")

    assert [each["name"] for each in found.json if not each["ok"]] == ["upstream 127.0.0.1:9"]
    assert "hint: upstream 127.0.0.1:9: " in found.stderr
    assert found.code == 5


def test_the_doctor_looks_at_the_store_of_the_results(bare: Cli, shared_upstream: ScriptedUpstream) -> None:
    """By putting, reading and removing an object; only if there is one."""
    (bare.folder / "file").write_text("")
    good, bad = (f"file://{bare.folder}/{name}" for name in ("store", "file"))
    found = {}
    for url in (good, bad):
        told = bare("doctor", "--upstream", shared_upstream.url, "--json=name,ok,detail", OVERNIGHT_RESULTS_URL=url)
        (found[url],) = (each for each in told.json if each["name"] == "results")

    assert found[good] == {"name": "results", "ok": True, "detail": f"{good} can be written"}
    assert found[bad]["ok"] is False
    assert bad in found[bad]["detail"]


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("memory:///", "`memory` is not the start of the URL of an object store (s3, az, gs, file)"),
        ("s3://", "the URL names no bucket, container or folder"),
        ("s3://key:secret@bucket/x", "credentials do not belong into the URL; they are taken from the environment"),
    ],
)
def test_a_store_that_cannot_hold_results_is_refused(bare: Cli, url: str, reason: str) -> None:
    """Before anything starts, and without a secret in the words."""
    found = bare("serve", OVERNIGHT_RESULTS_URL=url)

    assert found.stderr.startswith(f"error: `results_url` (environment): {reason}\n")
    assert "secret" not in found.stderr
    assert found.code == 2


def test_settings_are_shown_with_their_sources(bare: Cli) -> None:
    """So that nobody has to guess why."""
    (bare.folder / "overnight.toml").write_text('host = "127.0.0.2"\nport = 1\n')
    found = bare("config", "show", "--sources", "--port", "2", OVERNIGHT_LOG_LEVEL="error")
    rows = {name: (value, source) for name, value, source in (line.split("\t") for line in found.stdout.splitlines())}

    assert rows["host"] == ("127.0.0.2", "file overnight.toml")
    assert rows["port"] == ("2", "flag")
    assert rows["log_level"] == ("error", "environment")
    assert rows["keys_file"] == ("null", "default")
    assert bare("config", "path").stdout == "overnight.toml\n"


def test_wrong_settings_are_exit_code_2(bare: Cli) -> None:
    """With their place and their source."""
    found = bare("serve", OVERNIGHT_PORT="many")

    assert found.stderr.startswith("error: `port` (environment): ")
    assert found.stderr.endswith("\n\nhint: overnight config show --sources\n")
    assert found.code == 2


def test_a_service_says_where_it_listens_and_what_answers(
    bare: Cli, tmp_path: Path, shared_upstream: ScriptedUpstream
) -> None:
    """On stderr for people, with `--json` on stdout for programs; it stops at Ctrl-C with exit code 0."""
    process = bare.start("serve", "--port", "0", "--json", "--upstream", shared_upstream.url, "--log-level", "error")
    assert process.stdout is not None
    ready = json.loads(process.stdout.readline())
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=20)

    assert ready["models"] == [MODEL]
    assert re.fullmatch(
        r"overnight \d+\.\d+\.\d+\n"
        rf"  API       {ready['url']}/v1\n"
        rf"  Studio    {ready['url']}/studio\n"
        rf"  Data      {tmp_path}/overnight-data\n"
        rf"  Model     {MODEL}\n"
        rf"  Upstream  {shared_upstream.url}\n",
        stderr,
    )
    assert process.returncode == 0


def test_a_service_without_its_upstream_starts_and_warns(bare: Cli) -> None:
    """The model server may come later."""
    process = bare.start(
        "serve", "--port", "0", "--json", "--upstream", "http://127.0.0.1:9/v1", "--log-level", "error"
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=20)

    assert "\n  Model" in stderr
    assert "none yet" in stderr
    assert "\nwarning: the upstream `http://127.0.0.1:9/v1` does not answer (connection refused)" in stderr
    assert "\nhint: " in stderr


def test_a_taken_port_is_said_at_once(bare: Cli, shared_service: Service, shared_upstream: ScriptedUpstream) -> None:
    """With the flag that helps."""
    port = shared_service.url.rpartition(":")[2]
    found = bare("serve", "--port", port, "--upstream", shared_upstream.url)

    assert found.stderr.startswith(f"error: cannot listen on 127.0.0.1:{port} (Address already in use)\n\nhint: ")
    assert found.code == 1
