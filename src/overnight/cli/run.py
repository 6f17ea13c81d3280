"""`overnight run`: a file of requests in, a file of results out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from overnight import human
from overnight.cli import results, shapes, submit, waiting
from overnight.cli.commands import Command
from overnight.cli.exit_codes import ExitCode, for_batch
from overnight.cli.failures import CliError
from overnight.cli.files import STDIN_NAME, local_file
from overnight.cli.session import Session, pass_session
from overnight.cli.submit import Order, order_options
from overnight.cli.views import PhaseView

if TYPE_CHECKING:
    from overnight.client import Batch

PROBLEMS_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Targets:
    """Where the results go."""

    output: Path
    errors: Path

    @classmethod
    def of(cls, source: str, folder: Path | None) -> Targets:
        """Name them after the input: `prompts.jsonl` gives `prompts.output.jsonl` and `prompts.errors.jsonl`."""
        path = Path(STDIN_NAME if source == "-" else source)
        stem = path.name.removesuffix(".jsonl")
        where = folder or path.parent
        return cls(where / f"{stem}.output.jsonl", where / f"{stem}.errors.jsonl")

    def confirm(self, session: Session) -> None:
        """Ask before the results of an earlier run are lost."""
        there = [str(path) for path in (self.output, self.errors) if path.exists()]
        if there:
            session.console.confirm(f"overwrite {human.listing(there)}?")


@click.command(
    cls=Command,
    examples=(
        "overnight run prompts.jsonl",
        "overnight run prompts.jsonl --to results --metadata team=search",
        "make-prompts | overnight run -",
    ),
    details="Uploads the file, creates a batch, waits for it, and writes INPUT.output.jsonl and INPUT.errors.jsonl "
    "beside the input or in the folder of `--to`.\n\n"
    "Ctrl-C stops the waiting, not the batch. The exit code says how it ended: 0 all requests succeeded, 3 some "
    "failed, 1 the batch failed, expired or was cancelled.",
)
@click.argument("source", metavar="FILE|-")
@order_options
@click.option("--to", metavar="DIR", type=click.Path(path_type=Path), help="Folder of the results [default: FILE's]")
@click.option("--no-wait", is_flag=True, help="Create the batch, print it, and leave")
@pass_session
def run(session: Session, source: str, to: Path | None, no_wait: bool, order: Order) -> ExitCode:
    """Run a file of requests as a batch and fetch the results."""
    targets = Targets.of(source, to)
    with local_file(source) as (path, name):
        endpoint = order.endpoint or submit.endpoint_of(path)
        if not no_wait:
            targets.confirm(session)
        uploaded = submit.upload(session, path, name=name)
    batch = submit.create(session, uploaded.id, endpoint, order)
    if no_wait:
        session.console.rows(shapes.BATCHES, [batch])
        session.console.suggest(f"`overnight batches wait {batch.id}` waits, `overnight batches results` reads")
        return ExitCode.OK
    (ended,) = waiting.until_ended(session.client, [batch], PhaseView(session.screen))
    return _deliver(session, ended, targets, name)


def _deliver(session: Session, batch: Batch, targets: Targets, name: str) -> ExitCode:
    if batch.status == "failed":
        raise _refused(session, batch, name)
    targets.output.parent.mkdir(parents=True, exist_ok=True)
    written = results.fetch(session, batch, targets.output, targets.errors)
    if session.options.json is not None:
        session.console.record(shapes.BATCH, batch)
    else:
        session.console.rows(shapes.WRITTEN, written)
    if batch.counts.failed:
        session.console.suggest(f"`overnight batches errors {batch.id} --group` says what failed")
    return for_batch(batch.status, batch.counts.failed or 0)


def _refused(session: Session, batch: Batch, name: str) -> CliError:
    for each in batch.problems[:PROBLEMS_SHOWN]:
        where = f"{name}:{each.line}: " if each.line else f"{name}: "
        session.console.say(where + (each.message or each.code or "refused"))
    if session.options.json is not None:
        session.console.record(shapes.BATCH, batch)
    more = len(batch.problems) - PROBLEMS_SHOWN
    hint = f"`overnight batches errors {batch.id}` lists them" + (f", with {more} more" if more > 0 else "")
    return CliError(f"{batch.id} failed validation: {human.plural(len(batch.problems), 'problem')}", hint)
