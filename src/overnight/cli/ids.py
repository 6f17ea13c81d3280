"""What `<id>` may be: a whole id, a unique beginning of one, `@last`, or `-` for stdin."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from overnight.cli.exit_codes import ExitCode
from overnight.cli.failures import CliError

if TYPE_CHECKING:
    from overnight.client import Batch, Client, File, WebhookEndpoint
    from overnight.client.models import Resource

R = TypeVar("R", bound="Resource")

LAST = "@last"
# A prefix is looked for among this many of the newest objects.
SEARCHED = 1000
SHOWN = 5
MAKERS = {
    "batch": "overnight run prompts.jsonl",
    "file": "overnight files upload prompts.jsonl",
    "webhook": "overnight webhooks create https://…",
}


def batch(client: Client, text: str) -> Batch:
    """Find the one batch that is meant."""
    return _find("batch", text, client.batches.get, client.batches.list)


def batches(client: Client, texts: Sequence[str]) -> list[Batch]:
    """Find several batches, each once."""
    found = [_find("batch", text, client.batches.get, client.batches.list) for text in _expand(texts)]
    return list({each.id: each for each in found}.values())


def file(client: Client, text: str) -> File:
    """Find the one file that is meant."""
    return _find("file", text, client.files.get, client.files.list)


def webhook(client: Client, text: str) -> WebhookEndpoint:
    """Find the one receiver of webhooks that is meant."""
    return _find("webhook", text, client.webhooks.get, client.webhooks.list)


def pick(kind: str, prefix: str, ids: Iterable[str]) -> str:
    """Choose the one id that begins like this."""
    matching = [each for each in ids if each.startswith(prefix)]
    plural = "batches" if kind == "batch" else f"{kind}s"
    if not matching:
        raise CliError(f"no {kind} is called `{prefix}`", f"`overnight {plural} list` shows the newest")
    if len(matching) > 1:
        names = ", ".join(matching[:SHOWN]) + (", …" if len(matching) > SHOWN else "")
        hint = f"write more of it: {names}"
        raise CliError(f"`{prefix}` fits {len(matching)} {plural}", hint, ExitCode.USAGE)
    return matching[0]


def is_path(text: str) -> bool:
    """Tell a file on disk from the id of an uploaded one."""
    return Path(text).exists() or "/" in text or text.endswith(".jsonl")


def _find(kind: str, text: str, get: Callable[[str], R], newest: Callable[..., Iterator[R]]) -> R:
    from overnight.client import NotFound

    (wanted,) = _expand([text])[:1]
    if wanted == LAST:
        return _last(kind, newest)
    try:
        return get(wanted)
    except NotFound:
        known = {each.id: each for each in islice(newest(), SEARCHED)}
        return known[pick(kind, wanted, known)]


def _last(kind: str, newest: Callable[..., Iterator[R]]) -> R:
    for found in newest(limit=1):
        return found
    raise CliError(f"there is no {kind} yet, so {LAST} is nothing", f"`{MAKERS[kind]}` makes one")


def _expand(texts: Sequence[str]) -> list[str]:
    """Replace `-` by the ids on stdin, of which the first column counts."""
    expanded: list[str] = []
    for text in texts:
        expanded += _from_stdin() if text == "-" else [text]
    return expanded


def _from_stdin() -> list[str]:
    ids = [line.split()[0] for line in sys.stdin if line.strip()]
    if not ids:
        raise CliError("there is no id on stdin", "`overnight batches list -q` prints ids", ExitCode.USAGE)
    return ids
