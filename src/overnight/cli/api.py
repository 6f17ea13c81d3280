"""`overnight api`: any call, with the base URL and the key filled in."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from overnight.cli.commands import Command
from overnight.cli.session import Session, pass_session


@click.command(
    cls=Command,
    examples=(
        "overnight api GET /models",
        "overnight api POST /batches -d @batch.json",
        "overnight api GET '/files?purpose=batch&limit=5'",
    ),
    details="PATH is taken relative to the base URL; one that begins with the base's own path is fine too. The "
    "answer is printed as it came, also when the server refuses the call; the exit code then says so.",
)
@click.argument("method", metavar="METHOD")
@click.argument("path", metavar="PATH")
@click.option("-d", "--data", metavar="BODY", help="JSON to send; @FILE reads a file, @- reads stdin")
@pass_session
def api(session: Session, method: str, path: str, data: str | None) -> None:
    """Make any call of the API, with base URL and key filled in."""
    from overnight.client import ApiError

    last = b""
    try:
        for last in session.client.raw(method, path, _body(data)):
            session.console.write(last)
    except ApiError as error:
        last = error.body
        session.console.write(last)
        raise
    finally:
        if last and not last.endswith(b"\n") and session.console.out_is_terminal:
            session.console.write(b"\n")


def _body(data: str | None) -> bytes | None:
    match data:
        case None:
            return None
        case "@-":
            return sys.stdin.buffer.read()
        case _ if data.startswith("@"):
            try:
                return Path(data[1:]).read_bytes()
            except OSError as error:
                raise click.BadParameter(f"`{data[1:]}` cannot be read ({error.strerror})") from error
    return data.encode()
