"""`overnight demo`: a first batch on the embedded model, with the official SDK, all temporary."""

from __future__ import annotations

import signal
import sys
import textwrap
import time
from collections.abc import Mapping
from contextlib import suppress
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

import click

import overnight
from overnight.cli import results, shapes
from overnight.cli.child import Service, service, until_gone
from overnight.cli.commands import Command
from overnight.cli.exit_codes import ExitCode
from overnight.cli.failures import CliError
from overnight.cli.progress import Snapshot
from overnight.cli.serve import in_short
from overnight.cli.session import Session, pass_session
from overnight.cli.views import PhaseView

if TYPE_CHECKING:
    from openai import OpenAI
    from openai.types import Batch

SAMPLE = "hello.jsonl"
ENDPOINT: Final = "/v1/chat/completions"
# Four of the sample's requests, chosen because the small model answers them well.
SHOWN = ("capital-of-france", "water-boils", "days-of-february", "json-person")
POLL = 0.2
AFTERWARDS = "the service and its data are removed on exit"
TEXT_WIDTH = 88


@click.command(
    cls=Command,
    examples=("overnight demo", "overnight demo --keep", "overnight demo --to results"),
    details="Starts a service of its own on a temporary folder and a free port, with the small embedded model, runs "
    "the packaged sample of 20 requests through it with the official openai SDK, and stops it again. Three of the "
    "requests are wrong on purpose, to show what becomes of them. Nothing leaves this machine.",
)
@click.option("--keep", is_flag=True, help="Keep the service running until Ctrl-C")
@click.option("--to", metavar="DIR", type=click.Path(path_type=Path), default=Path(), help="Folder of the results")
@click.option("--port", metavar="PORT", type=click.IntRange(0, 65_535), default=0, help="Port [default: a free one]")
@pass_session
def demo(session: Session, keep: bool, to: Path, port: int) -> ExitCode:
    """Run a sample batch on an embedded model, all temporary."""
    _need_the_sdk()
    to.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, _leave)
    console = session.console
    console.say(f"overnight {overnight.__version__}, demo mode: nothing leaves this machine; {AFTERWARDS}")
    session.screen.live("  starting the service and the model")
    try:
        with service(port) as running:
            session.screen.clear()
            console.say(f"  {'API':<9} {running.url}/v1")
            console.say(f"  {'Studio':<9} {running.url}/studio")
            console.say(f"  {'Model':<9} {in_short(running.models)} (embedded, runs on this CPU)")
            console.say()
            _run_sample(session, running, to)
            _say_what_next(session, running, keep=keep)
            if keep:
                with suppress(KeyboardInterrupt):
                    until_gone(running)
    finally:
        session.screen.clear()
    return ExitCode.OK


def _need_the_sdk() -> None:
    from importlib.util import find_spec

    if find_spec("openai") is None:
        raise CliError("the demo uses the official SDK, which is not installed", "pip install 'overnight[demo]'")


def _leave(*_: object) -> NoReturn:
    # As an exception, so that the child process and the folder are cleaned up on the way out.
    sys.exit(128 + signal.SIGTERM)


def _run_sample(session: Session, running: Service, folder: Path) -> None:
    from openai import DefaultHttpxClient, OpenAI

    # A proxy of this machine's environment cannot reach its loopback.
    with OpenAI(
        base_url=f"{running.url}/v1", api_key="demo", http_client=DefaultHttpxClient(trust_env=False)
    ) as client:
        batch = _finish(session, client, _create(session, client))
        if batch.status != "completed":
            raise CliError(f"the sample batch ended as {batch.status}", "please report it")
        output = _fetch(client, batch.output_file_id, folder / "hello.output.jsonl")
        errors = _fetch(client, batch.error_file_id, folder / "hello.errors.jsonl")
    _show_answers(session, output)
    found = [results.measure(output, has_errors=False), results.measure(errors, has_errors=True)]
    session.console.rows(shapes.WRITTEN, found)


def _create(session: Session, client: OpenAI) -> Batch:
    sample = resources.files("overnight.cli") / "samples" / SAMPLE
    uploaded = client.files.create(file=(SAMPLE, sample.read_bytes()), purpose="batch")
    batch = client.batches.create(input_file_id=uploaded.id, endpoint=ENDPOINT, completion_window="24h")
    session.console.say("Running the sample batch with the official openai SDK")
    return batch


def _finish(session: Session, client: OpenAI, batch: Batch) -> Batch:
    view = PhaseView(session.screen)
    started = time.monotonic()
    try:
        while True:
            seen = _snapshot(batch, time.monotonic() - started)
            view.update(seen)
            if seen.ended:
                return batch
            time.sleep(POLL)
            batch = client.batches.retrieve(batch.id)
    finally:
        view.close()


def _snapshot(batch: Batch, seconds: float) -> Snapshot:
    counts = batch.request_counts
    return Snapshot(
        status=batch.status,
        total=counts.total if counts else 0,
        completed=counts.completed if counts else 0,
        failed=counts.failed if counts else 0,
        model=batch.model,
        accepted=batch.in_progress_at is not None,
        seconds=seconds,
    )


def _fetch(client: OpenAI, file_id: str | None, path: Path) -> Path:
    if file_id is None:
        raise CliError(f"the sample batch has no file for {path.name}", "please report it")
    partial = path.with_name(f".{path.name}.part")
    client.files.content(file_id).write_to_file(partial)
    return partial.replace(path)


def _show_answers(session: Session, output: Path) -> None:
    import msgspec

    questions, answers = _questions(), {}
    for raw in output.read_bytes().splitlines():
        line = msgspec.json.decode(raw)
        answers[line["custom_id"]] = line["response"]["body"]["choices"][0]["message"]["content"]
    session.console.say("\nSome of the answers")
    for custom_id in SHOWN:
        if custom_id in answers:
            session.console.say(_quoted(questions[custom_id], "  ", "  "))
            session.console.say(_quoted(answers[custom_id], "    → ", "      "))
    session.console.say()


def _questions() -> Mapping[str, str]:
    import msgspec

    sample = resources.files("overnight.cli") / "samples" / SAMPLE
    requests = [msgspec.json.decode(raw) for raw in sample.read_bytes().splitlines()]
    return {each["custom_id"]: each["body"]["messages"][-1]["content"] for each in requests}


def _quoted(text: str, first: str, rest: str) -> str:
    return textwrap.fill(" ".join(text.split()), TEXT_WIDTH, initial_indent=first, subsequent_indent=rest)


def _say_what_next(session: Session, running: Service, *, keep: bool) -> None:
    say = session.console.say
    say("\nThe three failures are meant: the sample asks for them. Each has its reason in hello.errors.jsonl")
    say("\nTry next")
    if keep:
        say(f"  overnight --url {running.url}/v1 batches get @last")
        say(f"  OPENAI_BASE_URL={running.url}/v1 OPENAI_API_KEY=any python your_script.py")
        say("Ctrl-C stops the demo")
        return
    say("  overnight serve                                        the same service, to stay")
    say("  overnight serve --upstream http://localhost:8000/v1    in front of your own vLLM, SGLang or Ollama")
    say("  overnight run prompts.jsonl                            your own requests through it")
