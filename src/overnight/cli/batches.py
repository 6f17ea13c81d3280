"""`overnight batches …`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import click

from overnight.cli import ids, results, shapes, submit, waiting
from overnight.cli.commands import Group
from overnight.cli.exit_codes import ExitCode, for_batch, worst
from overnight.cli.failures import CliError
from overnight.cli.session import Session, pass_session
from overnight.cli.submit import Order, order_options
from overnight.cli.views import LineView, PhaseView, spoken

if TYPE_CHECKING:
    from overnight.client import Batch

ID = "ID|@last|-"
PAGE = 20
STATUSES = (
    "validating",
    "failed",
    "in_progress",
    "finalizing",
    "completed",
    "expired",
    "cancelling",
    "cancelled",
)


@click.group(
    cls=Group,
    examples=(
        "overnight batches create prompts.jsonl",
        "overnight batches wait @last",
        "overnight batches errors @last --group",
    ),
    details="Wherever an ID is asked for, a unique beginning of it will do, `@last` is the newest batch, and `-` "
    "reads ids from stdin (of each line, the first column).",
)
def batches() -> None:
    """Create, follow and cancel batches, and read their results."""


@batches.command(
    examples=(
        "overnight batches create prompts.jsonl",
        "overnight batches create file-1a2b --metadata team=search",
        "overnight batches create prompts.jsonl -q | overnight batches wait -",
    ),
    details="A path is uploaded first. The endpoint is read off the first line of the file. The command returns at "
    "once; `overnight run` does all of it and waits.",
)
@click.argument("source", metavar="FILE-ID|PATH")
@order_options
@pass_session
def create(session: Session, source: str, order: Order) -> None:
    """Create a batch from an uploaded file or a path."""
    if ids.is_path(source):
        path = submit.existing(Path(source))
        endpoint = order.endpoint or submit.endpoint_of(path)
        file_id = submit.upload(session, path).id
    else:
        file_id = ids.file(session.client, source).id
        endpoint = order.endpoint or _endpoint_of_uploaded(session, file_id)
    batch = submit.create(session, file_id, endpoint, order)
    session.console.rows(shapes.BATCHES, [batch])
    session.console.suggest(f"`overnight batches wait {batch.id}` waits for it")


@batches.command(
    "list",
    examples=(
        "overnight batches list",
        "overnight batches list --status in_progress",
        "overnight batches list --all --json=id,status,request_counts",
    ),
)
@click.option("--limit", metavar="N", type=click.IntRange(min=1), default=PAGE, help=f"How many [default: {PAGE}]")
@click.option("--all", "everything", is_flag=True, help="All of them")
@click.option("--after", metavar="ID", help="Those that are older than this one")
@click.option("--status", metavar="STATUS", type=click.Choice(STATUSES), help="Only those in this status")
@pass_session
def list_(session: Session, limit: int, everything: bool, after: str | None, status: str | None) -> None:
    """List batches, newest first."""
    wanted = None if everything else limit
    found = session.client.batches.list(after=after, limit=None if status else wanted)
    if status:
        found = islice((each for each in found if each.status == status), wanted)
    count, last = 0, None

    def counted() -> Iterator[Batch]:
        nonlocal count, last
        for each in found:
            count, last = count + 1, each.id
            yield each

    session.console.rows(shapes.BATCHES, counted())
    if count == 0:
        nothing = "no batch matches" if status or after else "no batch yet; `overnight run FILE` makes one"
        session.console.say(nothing)
    elif count == wanted:
        session.console.suggest(f"`overnight batches list --after {last}` shows the next ones, if there are more")


@batches.command(
    examples=(
        "overnight batches get @last",
        "overnight batches get batch_01 --json",
        "overnight batches get @last --exit-status -q",
    ),
    details="With `--exit-status` the exit code says how the batch stands: 0 all succeeded, 1 failed, expired or "
    "cancelled, 3 some requests failed, 8 still running.",
)
@click.argument("batch_id", metavar=ID)
@click.option("--exit-status", is_flag=True, help="Let the exit code say how the batch stands")
@pass_session
def get(session: Session, batch_id: str, exit_status: bool) -> ExitCode:
    """Show one batch."""
    batch = ids.batch(session.client, batch_id)
    session.console.record(shapes.BATCH, batch)
    _suggest_next(session, batch)
    return _code_of(batch) if exit_status else ExitCode.OK


@batches.command(
    examples=(
        "overnight batches watch @last",
        "overnight batches watch batch_01 --no-color",
        "overnight batches watch @last && echo all succeeded",
    ),
    details="Shows each phase on a line of its own until the batch has ended. Ctrl-C stops the watching, not the "
    "batch. The exit code says how the batch ended.",
)
@click.argument("batch_id", metavar=ID)
@pass_session
def watch(session: Session, batch_id: str) -> ExitCode:
    """Follow one batch, phase by phase, until it has ended."""
    batch = ids.batch(session.client, batch_id)
    session.console.say(batch.id)
    view = PhaseView(session.screen)
    (ended,) = waiting.until_ended(session.client, [batch], view)
    session.console.rows(shapes.BATCHES, [ended])
    _suggest_next(session, ended)
    return _code_of(ended)


@batches.command(
    examples=(
        "overnight batches wait @last",
        "overnight batches wait batch_01 batch_02 --timeout 600",
        "overnight batches list --status in_progress -q | overnight batches wait -",
    ),
    details="Ctrl-C stops the waiting, not the batches. The exit code says how they ended: 0 all requests "
    "succeeded, 3 some failed, 1 a batch failed, expired or was cancelled, 8 the time was up first.",
)
@click.argument("batch_ids", metavar=f"{ID}...", nargs=-1, required=True)
@click.option("--timeout", metavar="SECONDS", type=click.FloatRange(min=0), help="Stop waiting after this (exit 8)")
@pass_session
def wait(session: Session, batch_ids: tuple[str, ...], timeout: float | None) -> ExitCode:
    """Wait until batches have ended."""
    found = ids.batches(session.client, batch_ids)
    label = found[0].id if len(found) == 1 else f"{len(found)} batches"
    view = LineView(session.screen, label)
    ended = waiting.until_ended(session.client, found, view, timeout=timeout)
    session.console.rows(shapes.BATCHES, ended)
    code = worst(_code_of(each) for each in ended)
    if code is ExitCode.STILL_RUNNING:
        session.console.say(f"still running after {timeout:g} s")
    elif len(ended) == 1:
        _suggest_next(session, ended[0])
    return code


@batches.command(
    examples=(
        "overnight batches cancel @last",
        "overnight batches cancel batch_01 --json",
        "overnight batches cancel batch_01 && overnight batches wait batch_01",
    ),
    details="Running requests may finish; finished ones stay in the output file, and those that never started are "
    "listed in the error file as batch_cancelled. Asking twice is fine.",
)
@click.argument("batch_id", metavar=ID)
@pass_session
def cancel(session: Session, batch_id: str) -> None:
    """Stop a batch and keep what is finished."""
    batch = session.client.batches.cancel(ids.batch(session.client, batch_id).id)
    session.console.rows(shapes.BATCHES, [batch])
    if not batch.ended:
        session.console.suggest(f"`overnight batches wait {batch.id}` waits for its running requests")


@batches.command(
    examples=(
        "overnight batches retry @last",
        "overnight batches retry batch_01 --all-unfinished",
        "overnight batches retry batch_01 -q | overnight batches wait -",
    ),
    details="The requests are copied byte for byte from the input file, which must still be there, into a file of "
    "their own. The new batch has the endpoint and the metadata of the old one, and `retry_of` names that.",
)
@click.argument("batch_id", metavar=ID)
@click.option("--failed", "which", flag_value="failed", default=True, help="Those that failed [default]")
@click.option("--not-run", "which", flag_value="not_run", help="Those that did not run before the batch ended")
@click.option("--all-unfinished", "which", flag_value="all_unfinished", help="Both")
@pass_session
def retry(session: Session, batch_id: str, which: str) -> None:
    """Run requests of an ended batch again, as a new batch."""
    old = _ended(ids.batch(session.client, batch_id))
    batch = session.client.batches.retry(old.id, which)
    session.console.say(f"{batch.id} created")
    session.console.rows(shapes.BATCHES, [batch])
    session.console.suggest(f"`overnight batches wait {batch.id}` waits for it")


@batches.command(
    "results",
    examples=(
        "overnight batches results @last",
        "overnight batches results @last -o answers.jsonl",
        "overnight batches results batch_01 | wc -l",
    ),
)
@click.argument("batch_id", metavar=ID)
@click.option("-o", "--output", metavar="FILE", type=click.Path(path_type=Path), help="Write to a file")
@pass_session
def results_(session: Session, batch_id: str, output: Path | None) -> None:
    """Print the output file: one line for each request that succeeded."""
    batch = _ended(ids.batch(session.client, batch_id))
    if batch.output_file_id:
        _deliver(session, batch.output_file_id, output)
        return
    session.console.say(f"{batch.id} has no output file: no request succeeded")
    session.console.suggest(f"`overnight batches errors {batch.id} --group` says why")


@batches.command(
    examples=(
        "overnight batches errors @last --group",
        "overnight batches errors @last -o errors.jsonl",
        "overnight batches errors batch_01 | head -1",
    ),
    details="A batch that failed validation has no error file; its problems are listed instead, by line.",
)
@click.argument("batch_id", metavar=ID)
@click.option("--group", is_flag=True, help="Count them by code")
@click.option("-o", "--output", metavar="FILE", type=click.Path(path_type=Path), help="Write to a file")
@pass_session
def errors(session: Session, batch_id: str, group: bool, output: Path | None) -> None:
    """Print the error file: one line for each request that failed or did not run."""
    batch = _ended(ids.batch(session.client, batch_id))
    if batch.problems and not batch.error_file_id:
        session.console.rows(shapes.PROBLEMS, batch.problems)
        return
    for each in batch.problems:
        session.console.say(shapes.problem_text(each))
    if not batch.error_file_id:
        session.console.say(f"{batch.id} has no error file: no request failed")
    elif group:
        lines = results.lines(session.client.files.content(batch.error_file_id))
        session.console.rows(shapes.GROUPS, results.group(lines))
    else:
        _deliver(session, batch.error_file_id, output)


def _deliver(session: Session, file_id: str, output: Path | None) -> None:
    if output is None:
        for chunk in session.client.files.content(file_id):
            session.console.write(chunk)
        return
    if output.exists():
        session.console.confirm(f"overwrite {output}?")
    session.client.files.download(file_id, output)
    session.console.say(f"{output} written")


def _ended(batch: Batch) -> Batch:
    if not batch.ended:
        message = f"{batch.id} is still {spoken(batch.status)}: its files come with its end"
        raise CliError(message, f"`overnight batches wait {batch.id}` waits for it", ExitCode.STILL_RUNNING)
    return batch


def _endpoint_of_uploaded(session: Session, file_id: str) -> str:
    lines: Iterable[bytes] = results.lines(session.client.files.content(file_id))
    return submit.endpoint_in(lines, file_id)


def _code_of(batch: Batch) -> ExitCode:
    return for_batch(batch.status, batch.counts.failed or 0)


def _suggest_next(session: Session, batch: Batch) -> None:
    if not batch.ended:
        session.console.suggest(f"`overnight batches wait {batch.id}` waits for it")
    elif batch.error_file_id and batch.counts.failed:
        session.console.suggest(f"`overnight batches errors {batch.id} --group` says what failed")
    elif batch.output_file_id:
        session.console.suggest(f"`overnight batches results {batch.id}` prints the results")
