"""A new batch as it is asked for, and the same as commands and code."""

from __future__ import annotations

import hashlib
import json
import shlex
from typing import TYPE_CHECKING

import msgspec

from overnight.domain.flavour import Flavour

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from overnight.domain.batch import Batch

_WINDOW = "24h"
_PAIRS = 16
_API_VERSION = "2024-10-21"


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """What the form of a new batch holds."""

    file_id: str = ""
    endpoint: str = "/v1/chat/completions"
    window: str = _WINDOW
    flavour: Flavour = Flavour.OPENAI
    metadata: tuple[tuple[str, str], ...] = ()

    @property
    def shown_metadata(self) -> tuple[tuple[str, str], ...]:
        """The pairs, and empty ones to fill in."""
        return (*self.metadata, *((("", ""),) * max(1, 3 - len(self.metadata))))


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """A way to make the batch without the Studio."""

    name: str
    text: str


def key_of(wishes: Wishes, once: str) -> str | None:
    """Name the request of a form that is to be done ``once``: sent again with other wishes, it is another request."""
    said = hashlib.sha256(msgspec.json.encode(wishes)).hexdigest()
    return f"{once}:{said}" if once else None


def wishes_of(batch: Batch) -> Wishes:
    """Give what a batch was asked for with."""
    return Wishes(
        file_id=batch.input_file_id,
        endpoint=batch.endpoint if batch.endpoint.startswith("/v1/") else f"/v1{batch.endpoint}",
        flavour=batch.flavour,
        metadata=tuple((batch.metadata or {}).items()),
    )


def wishes_in(form: Mapping[str, list[str]]) -> Wishes:
    """Read the form; empty rows of metadata do not count."""
    first = {name: values[0] for name, values in form.items() if values}
    pairs = zip(form.get("meta_key", []), form.get("meta_value", []), strict=False)
    flavour = Flavour.AZURE if first.get("flavour") == Flavour.AZURE else Flavour.OPENAI
    return Wishes(
        file_id=first.get("file_id", "").strip(),
        endpoint=first.get("endpoint", ""),
        window=first.get("window", _WINDOW),
        flavour=flavour,
        metadata=tuple((key.strip(), value) for key, value in pairs if key.strip())[: _PAIRS + 1],
    )


def all_of(wishes: Wishes, server: str) -> tuple[Recipe, ...]:
    """Say the same as commands and as code, each with the rules that are wished; keys are left to the environment."""
    file_id = wishes.file_id or "FILE_ID"
    found = [
        Recipe(name="Command line", text=_command(wishes, server, file_id)),
        Recipe(name="curl", text=_curl(wishes, server, file_id)),
        Recipe(name="Python, OpenAI", text=_python(wishes, server, file_id)),
    ]
    if wishes.flavour is Flavour.AZURE:
        found.append(Recipe(name="Python, Azure", text=_azure(wishes, server, file_id)))
    return tuple(found)


def first_batch(server: str, models: Sequence[str]) -> str:
    """Say how to run a first batch from a terminal, with a model that the service has."""
    body = {"model": (*models, "MODEL")[0], "messages": [{"role": "user", "content": "Say hello"}]}
    line = json.dumps({"custom_id": "one", "method": "POST", "url": Wishes().endpoint, "body": body})
    command = f"overnight --url {shlex.quote(base_of(server))} run requests.jsonl"
    return f"printf '%s\\n' {shlex.quote(line)} > requests.jsonl\n{command}"


def base_of(server: str, flavour: Flavour = Flavour.OPENAI) -> str:
    """Give the address below which the calls of a flavour are; its batches follow the rules of the flavour."""
    return f"{server}/openai/v1" if flavour is Flavour.AZURE else f"{server}/v1"


def _command(wishes: Wishes, server: str, file_id: str) -> str:
    base = base_of(server, wishes.flavour)
    lines = [f"overnight --url {shlex.quote(base)} batches create {shlex.quote(file_id)}"]
    lines.append(f"  --endpoint {shlex.quote(wishes.endpoint)}")
    lines.extend(f"  --metadata {shlex.quote(f'{key}={value}')}" for key, value in wishes.metadata)
    return " \\\n".join(lines)


def _curl(wishes: Wishes, server: str, file_id: str) -> str:
    azure = wishes.flavour is Flavour.AZURE
    endpoint = _azure_endpoint(wishes) if azure else wishes.endpoint
    body = {"input_file_id": file_id, "endpoint": endpoint, "completion_window": wishes.window}
    if wishes.metadata:
        body |= {"metadata": dict(wishes.metadata)}  # type: ignore[dict-item]
    url = f"{server}/openai/batches?api-version={_API_VERSION}" if azure else f"{base_of(server)}/batches"
    return " \\\n  ".join(
        (
            f"curl {shlex.quote(url)}",
            '-H "api-key: $OVERNIGHT_API_KEY"' if azure else '-H "Authorization: Bearer $OVERNIGHT_API_KEY"',
            '-H "Content-Type: application/json"',
            f"-d {shlex.quote(json.dumps(body, indent=2))}",
        )
    )


def _python(wishes: Wishes, server: str, file_id: str) -> str:
    base = base_of(server, wishes.flavour)
    return "\n".join(
        (
            "import os",
            "from openai import OpenAI",
            "",
            f'client = OpenAI(base_url={base!r}, api_key=os.environ["OVERNIGHT_API_KEY"])',
            *_create(wishes, file_id, wishes.endpoint),
        )
    )


def _azure(wishes: Wishes, server: str, file_id: str) -> str:
    return "\n".join(
        (
            "import os",
            "from openai import AzureOpenAI",
            "",
            "client = AzureOpenAI(",
            f"    azure_endpoint={server!r},",
            f"    api_version={_API_VERSION!r},",
            '    api_key=os.environ["OVERNIGHT_API_KEY"],',
            ")",
            *_create(wishes, file_id, _azure_endpoint(wishes)),
        )
    )


def _azure_endpoint(wishes: Wishes) -> str:
    return wishes.endpoint.removeprefix("/v1")


def _create(wishes: Wishes, file_id: str, endpoint: str) -> list[str]:
    lines = [
        "batch = client.batches.create(",
        f"    input_file_id={file_id!r},",
        f"    endpoint={endpoint!r},",
        f"    completion_window={wishes.window!r},",
    ]
    if wishes.metadata:
        lines.append(f"    metadata={dict(wishes.metadata)!r},")
    return [*lines, ")", "print(batch.id)"]
