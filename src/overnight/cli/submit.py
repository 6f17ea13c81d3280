"""From a file on disk to a batch on the server: shared by `run` and `batches create`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from overnight import human
from overnight.cli.exit_codes import ExitCode
from overnight.cli.failures import CliError

if TYPE_CHECKING:
    from overnight.cli.session import Session
    from overnight.client import Batch, File

R = TypeVar("R")

UNREADY = frozenset({"pending", "running"})
BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """How the batch is wanted."""

    endpoint: str | None = None
    """None: as the url of the first line says."""
    window: str = "24h"
    metadata: dict[str, str] = field(default_factory=dict)


def order_options(function: Callable[..., R]) -> Callable[..., R]:
    """Give a command the options that say how a batch is wanted; it gets them as one `order`."""

    @wraps(function)
    def command(
        *args: Any,  # noqa: ANN401 - handed on
        endpoint: str | None,
        window: str,
        metadata: dict[str, str],
        **kwargs: Any,  # noqa: ANN401 - handed on
    ) -> R:
        return function(*args, order=Order(endpoint=endpoint, window=window, metadata=metadata), **kwargs)

    wrapped: Callable[..., R] = command
    for option in (
        click.option("--metadata", metavar="KEY=VALUE", multiple=True, callback=_pairs, help="Noted on the batch"),
        click.option("--window", metavar="24h", default="24h", help="Completion window [default: 24h]"),
        click.option("--endpoint", metavar="PATH", help="For example /v1/embeddings [default: the first line's url]"),
    ):
        wrapped = option(wrapped)
    return wrapped


def upload(session: Session, path: Path, *, name: str | None = None, purpose: str = "batch") -> File:
    """Send a file and wait until the server has taken it in."""

    def show(sent: int, total: int) -> None:
        session.screen.live(f"  {'uploading':<13} {human.size(sent)} of {human.size(total)}")

    try:
        uploaded = session.client.files.upload(path, filename=name, purpose=purpose, on_bytes=show)
    finally:
        session.screen.clear()
    return _once_ready(session, uploaded)


def create(session: Session, file_id: str, endpoint: str, order: Order) -> Batch:
    """Create the batch and say so."""
    from overnight.client import NewBatch

    batch = session.client.batches.create(
        NewBatch(
            input_file_id=file_id,
            endpoint=endpoint,
            completion_window=order.window,
            metadata=order.metadata or None,
        )
    )
    session.console.say(f"{batch.id} created")
    return batch


def endpoint_of(path: Path) -> str:
    """Read the endpoint off the first line of a file of requests."""
    with path.open("rb") as source:
        return endpoint_in(source, path.name)


def endpoint_in(lines: Iterable[bytes], name: str) -> str:
    """Read the endpoint off the first line that is not blank."""
    import msgspec

    hint = f"`overnight files validate {name}` shows every problem; `--endpoint` names one without looking"
    for number, raw in enumerate(lines, start=1):
        line = raw.removeprefix(BOM).strip()
        if not line:
            continue
        try:
            return str(msgspec.json.decode(line, type=dict[str, Any])["url"])
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise CliError(f"{name}:{number}: this line is not a JSON object", hint) from None
        except KeyError:
            raise CliError(f"{name}:{number}: the request has no `url`", hint) from None
    raise CliError(f"{name} holds no request", hint)


def existing(path: Path) -> Path:
    """Check that there is a file to read."""
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise CliError(f"`{path}` {what}", "name a file of requests, one JSON object a line", ExitCode.USAGE)
    return path


def _once_ready(session: Session, uploaded: File) -> File:
    from overnight.cli.waiting import Clock, pauses

    clock = Clock()
    for pause in pauses():
        if uploaded.status not in UNREADY:
            break
        clock.sleep(pause)
        uploaded = session.client.files.get(uploaded.id)
    if uploaded.status == "error":
        raise CliError(f"the server refused {uploaded.filename}: {uploaded.status_details or 'no reason given'}")
    return uploaded


def _pairs(_ctx: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for value in values:
        key, separator, text = value.partition("=")
        if not (key and separator):
            raise click.BadParameter(f"`{value}` is not KEY=VALUE")
        pairs[key] = text
    return pairs
