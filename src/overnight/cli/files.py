"""`overnight files …`."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import copyfileobj
from typing import TYPE_CHECKING

import click

from overnight import human
from overnight.cli import ids, shapes, submit
from overnight.cli.commands import Group
from overnight.cli.console import choose_fields
from overnight.cli.exit_codes import ExitCode
from overnight.cli.failures import one_line
from overnight.cli.session import Session, pass_session

if TYPE_CHECKING:
    from overnight.client import File
    from overnight.domain.price import CostRange
    from overnight.services.estimates import Estimate
    from overnight.services.validate import Report

ID = "ID|@last|-"
PAGE = 20
STDIN_NAME = "stdin.jsonl"


@click.group(
    cls=Group,
    examples=(
        "overnight files upload prompts.jsonl",
        "overnight files list",
        "overnight files validate prompts.jsonl",
    ),
    details="Wherever an ID is asked for, a unique beginning of it will do, `@last` is the newest file, and `-` "
    "reads the id from stdin.",
)
def files() -> None:
    """Upload, list, read, delete and validate files."""


@files.command(
    examples=(
        "overnight files upload prompts.jsonl",
        "overnight files upload prompts.jsonl -q",
        "make-prompts | overnight files upload -",
    ),
    details="The file is streamed from disk. `-` reads stdin, by way of a temporary file.",
)
@click.argument("path", metavar="PATH|-")
@click.option("--purpose", metavar="PURPOSE", default="batch", help="[default: batch]")
@pass_session
def upload(session: Session, path: str, purpose: str) -> None:
    """Upload a file of requests."""
    with local_file(path) as (source, name):
        uploaded = submit.upload(session, source, name=name, purpose=purpose)
    session.console.rows(shapes.FILES, [uploaded])
    if purpose == "batch":
        session.console.suggest(f"`overnight batches create {uploaded.id}` runs it")


@files.command(
    "list",
    examples=(
        "overnight files list",
        "overnight files list --purpose batch_output --limit 5",
        "overnight files list --all --json=id,bytes",
    ),
)
@click.option("--limit", metavar="N", type=click.IntRange(min=1), default=PAGE, help=f"How many [default: {PAGE}]")
@click.option("--all", "everything", is_flag=True, help="All of them")
@click.option("--after", metavar="ID", help="Those that are older than this one")
@click.option("--purpose", metavar="PURPOSE", help="Only those with this purpose")
@pass_session
def list_(session: Session, limit: int, everything: bool, after: str | None, purpose: str | None) -> None:
    """List files, newest first."""
    wanted = None if everything else limit
    count, last = 0, None

    def counted() -> Iterator[File]:
        nonlocal count, last
        for each in session.client.files.list(purpose=purpose, after=after, limit=wanted):
            count, last = count + 1, each.id
            yield each

    session.console.rows(shapes.FILES, counted())
    if count == 0:
        nothing = "no file matches" if purpose or after else "no file yet; `overnight files upload FILE` makes one"
        session.console.say(nothing)
    elif count == wanted:
        session.console.suggest(f"`overnight files list --after {last}` shows the next ones, if there are more")


@files.command(
    examples=(
        "overnight files get @last",
        "overnight files get file-1a2b --json",
        "overnight files get @last -q",
    )
)
@click.argument("file_id", metavar=ID)
@pass_session
def get(session: Session, file_id: str) -> None:
    """Show one file."""
    session.console.record(shapes.FILES, ids.file(session.client, file_id))


@files.command(
    examples=(
        "overnight files content @last",
        "overnight files content file-1a2b -o prompts.jsonl",
        "overnight files content file-1a2b | head -1",
    ),
    details="With `-o` the file appears under its name only once it is complete.",
)
@click.argument("file_id", metavar=ID)
@click.option("-o", "--output", metavar="FILE", type=click.Path(path_type=Path), help="Write to a file")
@pass_session
def content(session: Session, file_id: str, output: Path | None) -> None:
    """Print the bytes of a file."""
    found = ids.file(session.client, file_id)
    if output is None:
        for chunk in session.client.files.content(found.id):
            session.console.write(chunk)
        return
    if output.exists():
        session.console.confirm(f"overwrite {output}?")
    size = session.client.files.download(found.id, output)
    session.console.say(f"{output} written ({human.size(size)})")


@files.command(
    examples=(
        "overnight files delete file-1a2b",
        "overnight files delete file-1a2b --yes",
        "overnight files list --purpose batch_output -q | head -1 | overnight files delete - --yes",
    ),
    details="This cannot be undone, so it asks first. Batches that were made from the file keep their results.",
)
@click.argument("file_id", metavar=ID)
@pass_session
def delete(session: Session, file_id: str) -> None:
    """Delete a file."""
    found = ids.file(session.client, file_id)
    session.console.confirm(f"delete {found.filename or 'the file'} ({found.id}, {human.size(found.bytes)})?")
    session.console.rows(shapes.DELETED, [session.client.files.delete(found.id)])


@files.command(
    examples=(
        "overnight files validate prompts.jsonl",
        "overnight files validate prompts.jsonl --flavour azure",
        "overnight files validate prompts.jsonl && overnight run prompts.jsonl",
    ),
    details="Applies the rules that the service applies before a batch starts, on this machine and without a "
    "server. Which models the service knows is not checked.",
)
@click.argument("path", metavar="PATH")
@click.option("--flavour", type=click.Choice(("openai", "azure")), default="openai", help="[default: openai]")
@pass_session
def validate(session: Session, path: str, flavour: str) -> ExitCode:
    """Check a file of requests on this machine, before it is uploaded."""
    report = _check(submit.existing(Path(path)), flavour)
    if session.options.json is not None:
        _print_json(session, report)
    else:
        for each in report.problems:
            where = f"{path}:{each.line}: " if each.line else f"{path}: "
            session.console.line(where + one_line(each.message))
    problems = human.plural(report.problem_count, "problem") if report.problem_count else "no problems"
    lines = human.plural(report.requests, "line")
    session.console.say(f"{problems} in {lines} ({human.size(report.bytes)})")
    return ExitCode.FAILED if report.problem_count else ExitCode.OK


@files.command(
    examples=(
        "overnight files stats prompts.jsonl",
        "overnight files stats prompts.jsonl --tokenizer o200k",
        "overnight files stats prompts.jsonl --json",
    ),
    details="Works on this machine and without a server. The tokenizer of a model is the one that the settings name "
    "for its deployment, else the one that its name tells (those of OpenAI), else an estimate of a token for every "
    "4 bytes; the table says which. Texts of files over 16 MB are counted in part, and the total is within the "
    "error that is shown in 95 of 100 cases. Where the settings name a price for the deployment, the cost is shown, "
    "from the prompts alone to the longest answers that the requests allow.",
)
@click.argument("path", metavar="PATH")
@click.option("--tokenizer", metavar="NAME|PATH", help="For all models: auto, estimate, o200k, cl100k or a file")
@pass_session
def stats(session: Session, path: str, tokenizer: str | None) -> None:
    """Count the requests and prompt tokens of a file on this machine."""
    estimate = _count(submit.existing(Path(path)), tokenizer)
    found = estimate.tokens
    if session.options.json is not None:
        _print_stats(session, estimate)
    else:
        session.console.rows(shapes.TOKENS, found.models)
    largest = f", the largest in line {found.largest_line} ({human.size(found.largest_bytes)})"
    requests = human.plural(found.requests, "request") + (largest if found.requests else "")
    session.console.say(f"{requests}; {human.size(found.bytes)} in all")
    for each in estimate.models:
        if each.cost is not None:
            session.console.say(f"cost of {each.tokens.model}: {_cost_text(each.cost, estimate.currency)}")
    if found.unreadable:
        unread = human.plural(found.unreadable, "line")
        session.console.say(f"{unread} not counted: no request; `overnight files validate {path}` says why")


@contextmanager
def local_file(path: str) -> Iterator[tuple[Path, str]]:
    """Give a file on disk and its name; stdin goes through a temporary file, since its size must be known."""
    if path != "-":
        source = submit.existing(Path(path))
        yield source, source.name
        return
    with tempfile.NamedTemporaryFile(suffix=".jsonl") as spool:
        copyfileobj(sys.stdin.buffer, spool)
        spool.flush()
        yield Path(spool.name), STDIN_NAME


def _check(path: Path, flavour: str) -> Report:
    from overnight.domain.flavour import Flavour
    from overnight.domain.limits import DEFAULTS
    from overnight.domain.validation import Rules
    from overnight.services.validate import check_file

    chosen = Flavour(flavour)
    limits = DEFAULTS[chosen]
    rules = Rules(
        flavour=chosen,
        requests_per_file=limits.requests_per_file,
        line_bytes=limits.line_bytes,
        embedding_inputs=limits.embedding_inputs,
    )
    return check_file(path, rules)


def _cost_text(cost: CostRange, currency: str) -> str:
    from overnight.domain.price import money

    if cost.most is None:
        return f"from {money(cost.least)} {currency}; a request does not bound its answer, so there is no upper end"
    return f"{money(cost.least)} to {money(cost.most)} {currency}, by the length of the answers"


def _count(path: Path, tokenizer: str | None) -> Estimate:
    from overnight import config
    from overnight.bootstrap.tokens import token_counters
    from overnight.bootstrap.usage import prices
    from overnight.config_deployments import known_tokenizer
    from overnight.services.estimates import put_prices
    from overnight.services.tokens import count_file

    if tokenizer is not None:
        try:
            known_tokenizer(tokenizer)
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="'--tokenizer'") from error
    settings = config.load({}).settings
    found = count_file(path, token_counters(settings, tokenizer))
    return put_prices(found, prices(settings))


def _print_stats(session: Session, estimate: Estimate) -> None:
    import msgspec

    from overnight.domain.price import money

    costs = {
        each.tokens.model: {"least": money(each.cost.least), "most": each.cost.most and money(each.cost.most)}
        for each in estimate.models
        if each.cost is not None
    }
    shown = msgspec.structs.asdict(estimate.tokens) | {"currency": estimate.currency, "costs": costs}
    session.console.write(choose_fields(msgspec.json.encode(shown), session.options.json or ()) + b"\n")


def _print_json(session: Session, report: Report) -> None:
    import msgspec

    for each in report.problems:
        session.console.write(choose_fields(msgspec.json.encode(each), session.options.json or ()) + b"\n")
