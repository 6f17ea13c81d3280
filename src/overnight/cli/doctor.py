"""`overnight doctor`: every part is ok, or there is a remedy."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

import click

from overnight.cli.commands import Command
from overnight.cli.console import Column, Shape
from overnight.cli.exit_codes import ExitCode
from overnight.cli.failures import explain
from overnight.cli.service_options import service_options
from overnight.cli.session import Session, pass_session
from overnight.human import moment, plural, size

if TYPE_CHECKING:
    from overnight.client import Readiness

UPSTREAM = "upstream"
FILTER = "content filter"
SERVER = "server"
_GOES_ON = "free some space on the disk of the server, or mend it: what waits goes on by itself, and nothing is lost"


class Finding(NamedTuple):
    """What was found about one part. One that is ok and has a remedy stops nothing, but is worth a look."""

    name: str
    ok: bool
    detail: str
    remedy: str | None = None

    @property
    def state(self) -> str:
        """The finding in one word."""
        if not self.ok:
            return "FAULT"
        return "note" if self.remedy else "ok"


def _encoded(finding: Finding) -> bytes:
    import msgspec

    return msgspec.json.encode(finding._asdict())


FINDINGS: Shape[Finding] = Shape(
    (
        Column("part", lambda each: each.name),
        Column("state", lambda each: each.state),
        Column("detail", lambda each: each.detail, wraps=True),
    ),
    _encoded,
)


@click.command(
    cls=Command,
    examples=(
        "overnight doctor",
        "overnight doctor --upstream http://localhost:8000/v1",
        "overnight doctor --url http://127.0.0.1:8080/v1",
    ),
    details="Takes the settings of `serve` and looks at each part as `serve` would find it, without starting it. If "
    "`--url` or its environment variable names a server, that is asked as well.\n\n"
    "A `note` is no fault: something that is named and not there, or a webhook that does not arrive.\n\n"
    "The exit code is 0 if nothing is at fault, 5 if only upstreams, content filters or the server are, else 1.",
)
@service_options
@pass_session
def doctor(session: Session, flags: Mapping[str, object]) -> ExitCode:
    """Check every part of the service, with a remedy for each fault."""
    from overnight import config
    from overnight.bootstrap.doctor import diagnose

    settings = config.load(flags).settings
    checks = diagnose(settings)
    findings = [Finding(each.name, each.ok, each.detail, each.remedy) for each in checks]
    if session.options.url_source != "default":
        findings += _server(session)
    session.console.rows(FINDINGS, findings)
    for each in findings:
        if each.remedy:
            session.console.say(f"{session.console.paint('hint:', 'cyan')} {each.name}: {each.remedy}")
    return verdict(findings)


def verdict(findings: Iterable[Finding]) -> ExitCode:
    """Give the exit code of the findings."""
    faults = [each.name for each in findings if not each.ok]
    if not faults:
        return ExitCode.OK
    away = all(name.startswith((UPSTREAM, FILTER, SERVER)) for name in faults)
    return ExitCode.UNREACHABLE if away else ExitCode.FAILED


def _server(session: Session) -> list[Finding]:
    from overnight.client import ClientError

    try:
        models = session.client.models()
        readiness = session.client.ready()
    except ClientError as error:
        failure = explain(error)
        assert failure is not None  # noqa: S101 - every error of the client is explained
        return [Finding(SERVER, ok=False, detail=failure.message, remedy=failure.hint)]
    detail = f"{session.client.url} answers and offers {plural(len(models), 'model')}"
    return [Finding(SERVER, ok=True, detail=detail), *not_ready(readiness), *paused(readiness)]


def paused(readiness: Readiness | None) -> Iterator[Finding]:
    """Name the upstreams that somebody paused: it is easily forgotten."""
    for each in readiness.upstreams if readiness else ():
        if each.paused:
            remedy = f"`overnight upstreams resume {shlex.quote(each.name)}` ends the pause"
            yield Finding(f"{UPSTREAM} {each.name}", ok=True, detail="paused: it is sent nothing", remedy=remedy)


def not_ready(readiness: Readiness | None) -> Iterator[Finding]:
    """Say what keeps the server from taking batches or from recording their results."""
    if readiness is None or readiness.problem is None:
        return
    yield Finding("service", ok=False, detail=readiness.problem, remedy=_GOES_ON)
    if readiness.waiting is not None:
        detail = f"waiting since {moment(readiness.waiting.since)}, {size(readiness.waiting.bytes)} in memory"
        yield Finding("results", ok=False, detail=detail)
