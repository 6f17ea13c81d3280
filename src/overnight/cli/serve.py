"""`overnight serve`: the whole service in one process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

import overnight
from overnight.cli.commands import Command
from overnight.cli.service_options import service_options
from overnight.cli.session import Session, pass_session

if TYPE_CHECKING:
    from overnight.bootstrap.server import ReadyInfo
    from overnight.config import Settings


@click.command(
    cls=Command,
    examples=(
        "overnight serve",
        "overnight serve --upstream http://localhost:8000/v1",
        "overnight serve --host 0.0.0.0 --keys-file keys.txt --data-dir /var/lib/overnight",
    ),
    details="Without `--upstream` the small embedded model answers. Logs go to stderr; with `--json`, one line on "
    "stdout says where the service listens, once it does.\n\n"
    "Ctrl-C stops the service: running requests get a moment to finish, and whatever is not finished goes on at the "
    "next start.",
)
@service_options
@pass_session
def serve(session: Session, flags: Mapping[str, object]) -> None:
    """Start the service: API, Studio and dispatcher in one process."""
    import gc

    # A fifth of the start would go into looking for garbage among modules, which are there to stay.
    gc.disable()

    from overnight import config
    from overnight.bootstrap.server import serve

    loaded = config.load(flags)
    settings = loaded.settings

    def ready(info: ReadyInfo) -> None:
        announce(session, settings, info)
        gc.freeze()
        gc.enable()

    serve(settings, ready=ready, sources=loaded.sources)


def announce(session: Session, settings: Settings, info: ReadyInfo) -> None:
    """Say where the service listens and what answers."""
    embedded = " (embedded, runs on this CPU)" if not settings.upstreams else ""
    say = session.console.say
    say(f"overnight {overnight.__version__}")
    say(f"  {'API':<9} {info.url}/v1")
    say(f"  {'Studio':<9} {info.url}/studio")
    say(f"  {'Data':<9} {Path(info.data_dir).absolute()}")
    say(f"  {'Model' if len(info.models) == 1 else 'Models':<9} {in_short(info.models)}{embedded}")
    if settings.upstreams:
        label = "Upstream" if len(settings.upstreams) == 1 else "Upstreams"
        say(f"  {label:<9} {in_short([each.url for each in settings.upstreams])}")
    for message, hint in info.warnings:
        say(f"{session.console.paint('warning:', 'yellow')} {message}")
        say(f"{session.console.paint('hint:', 'cyan')} {hint}")
    if session.console.err_is_terminal:
        say("Ctrl-C stops the service")
    if session.options.json is not None:
        _print_json(session, info)


def in_short(names: Sequence[str], shown: int = 4) -> str:
    """`a, b and 3 more`."""
    if not names:
        return "none yet"
    more = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {more} more" if more > 0 else "")


def _print_json(session: Session, info: ReadyInfo) -> None:
    import msgspec

    line = {"url": info.url, "models": list(info.models), "data_dir": str(info.data_dir)}
    session.console.write(msgspec.json.encode(line) + b"\n")
    session.console.flush()
