"""Writes the pages of `docs/reference/` from the program itself: `.venv/bin/python docs/generate.py`."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import textwrap
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin
from urllib.request import ProxyHandler, build_opener

import click
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from overnight.api import errors as api_errors
from overnight.api import limits as api_limits
from overnight.cli import main as cli
from overnight.cli.commands import Command, Group, write_help
from overnight.cli.exit_codes import MEANING
from overnight.cli.help import ENVIRONMENT
from overnight.cli.serve import serve
from overnight.config import (
    ConnectionSettings,
    LimitSettings,
    RateSettings,
    Settings,
    UpstreamSettings,
    WebhookSettings,
)
from overnight.config_deployments import ContentFilterSettings, DeploymentSettings, PriceSettings
from overnight.config_oidc import OidcSettings
from overnight.domain import addresses, limits, quota, webhook
from overnight.domain.flavour import Flavour

REFERENCE = Path(__file__).resolve().parent / "reference"
WIDTH = 100

Rows = Iterable[Sequence[str]]
Json = dict[str, Any]

# --- command line -------------------------------------------------------------------------------------------------


def cli_page() -> str:
    """Give the help of every command."""
    root = click.Context(cli.cli, info_name="overnight", terminal_width=WIDTH)
    pages = [_help(command, ctx) for command, ctx in _commands(cli.cli, root)]
    return _page(
        "Command line",
        "The help of every command, as `overnight help COMMAND` prints it. Data goes to stdout, talk to stderr.",
        *pages,
        "## Exit codes",
        _table(("code", "meaning"), [(str(int(code)), meaning) for code, meaning in MEANING.items()]),
    )


def _commands(command: click.Command, ctx: click.Context) -> Iterator[tuple[Command | Group, click.Context]]:
    assert isinstance(command, Command | Group)
    yield command, ctx
    if isinstance(command, Group):
        for name in command.list_commands(ctx):
            below = command.get_command(ctx, name)
            assert below is not None
            yield from _commands(below, click.Context(below, info_name=name, parent=ctx, terminal_width=WIDTH))


def _help(command: Command | Group, ctx: click.Context) -> str:
    formatter = click.HelpFormatter(width=WIDTH)
    write_help(command, ctx, formatter, long=True)
    text = "\n".join(line.rstrip() for line in formatter.getvalue().strip("\n").splitlines())
    if ctx.parent:
        # These are the same everywhere; the page of `overnight` itself has them.
        text = text.partition("\n\nGlobal options, before or after the command:")[0]
    return f"## `{ctx.command_path}`\n\n```text\n{text}\n```"


# --- settings -----------------------------------------------------------------------------------------------------


def configuration_page() -> str:
    """Give every setting with its default, its variable and its flag."""
    flags = {each.name: each.opts[0] for each in serve.params if isinstance(each, click.Option)}
    settings = [
        (
            f"`{name}`",
            _type(field.annotation),
            _default(field),
            f"`OVERNIGHT_{name.upper()}`",
            f"`{flags[name]}`" if name in flags else "",
            str(field.description),
        )
        for name, field in Settings.model_fields.items()
    ]
    client = [(f"`{name}`", text) for name, text in ENVIRONMENT.items() if "…" not in name]
    return _page(
        "Configuration",
        _prose("""
            A setting is taken from the first of these that has it: a flag of `overnight serve`, a variable of the
            environment, the settings file, the default. The settings file is TOML. It is the one that `--config` or
            `OVERNIGHT_CONFIG` names, else `overnight.toml` in the folder where the service is started, else
            `~/.config/overnight/config.toml`. A setting that does not exist is refused.
            `overnight config show --sources` prints what is in force and where it comes from."""),
        "## Settings",
        _table(("setting", "type", "default", "variable", "flag", "meaning"), settings),
        _prose("""
            In a variable, lists and tables are JSON, and `__` goes one level down:
            `OVERNIGHT_LIMITS__OPENAI__REQUESTS_PER_FILE=1000`."""),
        "## `[[upstreams]]`",
        _fields(UpstreamSettings),
        "Where only the URL is needed, `upstreams` may also be a list of URLs.",
        "## `[[deployments]]`",
        _fields(DeploymentSettings),
        "## `[[content_filters]]`",
        "[Content filter](../guides/content-filter.md) tells how they work.",
        _fields(ContentFilterSettings),
        "## `[deployments.price]`",
        "Prices are for a million tokens, and have at most 6 decimal places.",
        _fields(PriceSettings),
        "## `[limits.openai]` and `[limits.azure]`",
        "What is left out stays at its default; [limits](limits.md) lists these.",
        _fields(LimitSettings),
        "## `[oidc]`",
        "[Keys and resources](../guides/keys-and-resources.md#tokens-of-an-identity-provider) says how to use it.",
        _fields(OidcSettings),
        "## `[rate]`",
        _fields(RateSettings),
        "## `[connections]`",
        _fields(ConnectionSettings),
        "## `[webhooks]`",
        _fields(WebhookSettings),
        "## Variables of the command line",
        "Commands that talk to a service read these.",
        _table(("variable", "meaning"), client),
    )


def _fields(model: type[BaseModel]) -> str:
    rows = [
        (f"`{name}`", _type(field.annotation), _default(field), str(field.description))
        for name, field in model.model_fields.items()
    ]
    if any(default for _, _, default, _ in rows):
        return _table(("key", "type", "default", "meaning"), rows)
    return _table(("key", "type", "meaning"), [(key, kind, meaning) for key, kind, _, meaning in rows])


def _type(annotation: object) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in {Union, types.UnionType}:
        return " or ".join(_type(each) for each in inner if each is not type(None))
    if origin is Literal:
        return " or ".join(f"`{each}`" for each in inner)
    if origin is tuple:
        # `or` would read as a choice of lists.
        return "list of tables" if _is_table(inner[0]) else f"list of {_type(inner[0]).replace(' or ', ', ')}"
    if origin in {dict, Mapping} or _is_table(annotation):
        return "table"
    if isinstance(annotation, type) and hasattr(annotation, "__members__"):
        return " or ".join(f"`{each}`" for each in annotation)  # type: ignore[attr-defined]
    numbers: Mapping[object, str] = {int: "integer", float: "number", Decimal: "number"}
    names: Mapping[object, str] = {**numbers, str: "text", bool: "boolean", Path: "path"}
    return names[annotation]


def _is_table(annotation: object) -> bool:
    return isinstance(annotation, type) and get_origin(annotation) is None and issubclass(annotation, BaseModel)


def _default(field: Any) -> str:  # noqa: ANN401 - pydantic's FieldInfo
    if field.default is PydanticUndefined:
        return "needed"
    if field.default in (None, "", (), {}) or isinstance(field.default, BaseModel):
        return ""
    if isinstance(field.default, tuple):
        return f"`{json.dumps(field.default)}`"
    value = str(field.default).lower() if isinstance(field.default, bool) else field.default
    return f"`{value}`"


# --- limits -------------------------------------------------------------------------------------------------------

# What no setting changes, and so has no description there.
FIXED = {
    "batches_page": "Most batches in a page of a list.",
    "files_page": "Most files in a page of a list.",
    "shortest_expiry": "Seconds that a caller can ask for at least, where a file is to expire.",
    "longest_expiry": "Seconds that a caller can ask for at most, where a file is to expire.",
    "parts_per_upload": "Most parts of an upload.",
}
SAME = {
    "COMPLETION_WINDOW": "The only completion window.",
    "METADATA_PAIRS": "Most pairs in the metadata of a batch.",
    "METADATA_KEY_CHARS": "Longest key in the metadata, in characters.",
    "METADATA_VALUE_CHARS": "Longest value in the metadata, in characters.",
    "FILENAME_CHARS": "Longest name of a file, in characters.",
    "MIME_TYPE_CHARS": "Longest type that an upload is announced with, in characters.",
    "IDEMPOTENCY_KEY_CHARS": "Longest `Idempotency-Key`, in characters.",
    "KEY_SECONDS": "Seconds that an `Idempotency-Key` is remembered.",
    "RETRY_SECONDS": "Seconds within which what an SDK sends again by itself, without a key, makes no second batch.",
    "CREATION_SECONDS": "Seconds over which created batches are counted, for `batches_per_hour`.",
    "USAGE_DAYS": "Most days that one report of usage covers.",
    "USAGE_ROWS": "Most entries, one for each day and deployment, that one report of usage holds.",
    "PROBLEMS_KEPT": "Problems of an input file that are listed; the true total stands in a message.",
}


SHAPES = {
    "MOST_URL_BYTES": "Longest path and query, in bytes; 414 `url_too_long`.",
    "MOST_PARAMETERS": "Most parameters in a query; 400 `too_many_parameters`.",
    "MOST_HEADERS": "Most headers; 431 `headers_too_large`.",
    "MOST_HEADER_BYTES": "Longest head of a request, in bytes; 431 `headers_too_large`.",
    "FORM_BYTES": "What a form may have around its file, in bytes; 413 `file_too_large`.",
}
WEBHOOKS = {
    "ENDPOINTS_PER_RESOURCE": "Most webhook endpoints of a resource.",
    "NAME_CHARS": "Longest name of a webhook endpoint, in characters.",
    "SEND_SECONDS": "Seconds that a receiver has to answer.",
    "RETRY_SECONDS": "Seconds after an event for which it is tried to deliver it.",
    "ROTATION_SECONDS": "Seconds that an old secret which is kept signs for.",
    "LOG_SECONDS": "Seconds after an event for which its deliveries are listed.",
}


def limits_page() -> str:
    """Give every limit by flavour."""
    openai, azure = (limits.DEFAULTS[flavour] for flavour in (Flavour.OPENAI, Flavour.AZURE))
    settable = LimitSettings.model_fields
    rows = [
        (
            f"`{name}`",
            _amount(name, getattr(openai, name)),
            _amount(name, getattr(azure, name)),
            f"`limits.FLAVOUR.{name}`, `OVERNIGHT_LIMITS__FLAVOUR__{name.upper()}`" if name in settable else "no",
            str(settable[name].description) if name in settable else FIXED[name],
        )
        for name in limits.Limits.__struct_fields__
    ]
    same = [(f"`{getattr(limits, name)}`", text) for name, text in SAME.items()]
    same += [(f"`{addresses.URL_CHARS}`", "Longest URL of a webhook endpoint, in characters.")]
    same += [(f"`{getattr(webhook, name):g}`", text) for name, text in WEBHOOKS.items()]
    return _page(
        "Limits",
        _prose("""
            The flavour is that of the prefix under which a file or a batch was made: OpenAI under `/v1`, Azure under
            `/openai` and `/openai/v1`."""),
        "## By flavour",
        _table(("limit", "OpenAI", "Azure", "set by", "meaning"), rows),
        _prose("""
            `FLAVOUR` is `openai` or `azure`, in variables `OPENAI` or `AZURE`. In the settings file these stand under
            `[limits.openai]` and `[limits.azure]`; see [configuration](configuration.md). Files, uploads and batches
            are counted for each resource, in the transaction that adds one: of several at the edge at the same time,
            none is too many. Batches are counted from their records, so a restart forgets none, and a request that
            repeats another makes none. One batch too many in an hour gets 429 `rate_limit_exceeded`, one file or
            upload too many 400 `quotaExceeded`."""),
        "## How often and how many at once",
        _prose("""
            Counted in the memory of each process: several processes that serve the same data allow as many times as
            much, and a restart begins anew. An allowance can be used all at once, and fills up again at a steady
            pace. What is over it gets 429 `rate_limit_exceeded` with `Retry-After` and `retry-after-ms`. Every reply
            to a call with a key carries `x-ratelimit-limit-requests`, `x-ratelimit-remaining-requests` and
            `x-ratelimit-reset-requests`."""),
        _bounds("rate", RateSettings),
        "## Connections",
        _prose("""
            Who is too slow gets 408 `slow_request` where it waits for an answer, and a connection too many 503
            `too_many_connections`; both are then closed."""),
        _bounds("connections", ConnectionSettings),
        "## The shape of a request",
        "These are looked at before the key is, and before any of the body is read. No setting changes them.",
        _table(
            ("limit", "meaning"),
            [
                *((f"`{getattr(api_limits, name):,}`", text) for name, text in SHAPES.items()),
                (
                    f"`{api_errors.MOST_JSON_BYTES:,}`",
                    "Longest body that is no file, in bytes; 413 `request_too_large`.",
                ),
            ],
        ),
        "## The same for both",
        _table(("limit", "meaning"), same),
        "## Enqueued tokens by offer",
        _prose("""
            Most prompt tokens of one deployment that a resource may have enqueued, by the offer it was put on and the
            model of the deployment: itself or a dated snapshot of it. A model that is not in the table has no preset;
            `gpt-4o-mini` is not `gpt-4o`. [Quotas](../guides/quotas.md) has what else can be set."""),
        _table(("model", *(f"`{offer}`" for offer in quota.Offer)), _preset_rows()),
    )


def _preset_rows() -> Rows:
    for family, row in quota.PRESETS.items():
        yield f"`{family}`", *("not offered" if most is None else quota.amount(most) for most in row.values())


def _bounds(table: str, model: type[BaseModel]) -> str:
    rows = [
        (
            f"`{name}`",
            _default(field),
            f"`{table}.{name}`, `OVERNIGHT_{table.upper()}__{name.upper()}`",
            str(field.description),
        )
        for name, field in model.model_fields.items()
    ]
    return _table(("limit", "default", "set by", "meaning"), rows)


def _amount(name: str, value: int | None) -> str:
    if value is None:
        return "none"
    units: Sequence[tuple[int, str]] = ()
    if name.endswith("_bytes"):
        units = ((limits.GIB, "GiB"), (limits.MIB, "MiB"))
    elif name.endswith(("_expiry", "_life")) and "files" not in name:
        units = ((limits.DAY, "days"), (3_600, "h"))
    for size, unit in units:
        if value % size == 0:
            return f"{value:,} ({value // size} {unit})"
    return f"{value:,}"


# --- API ----------------------------------------------------------------------------------------------------------

TAGS = {"OpenAI": "/v1", "Azure v1": "/openai/v1", "Azure": "/openai"}
SAME_EVERYWHERE = "–"
DIFFERENCES = {
    "upload_file": "OpenAI looks whether the first line is JSON, Azure leaves that to validation. Azure (dated) adds"
    " `Location`. Shortest expiry: 1 hour, on Azure 14 days.",
    "create_upload": "Azure (dated) adds `Location`. Largest size and life by [limits](limits.md).",
    "add_upload_part": "Largest part by [limits](limits.md).",
    "complete_upload": "The file is checked as an uploaded one is.",
    "create_batch": "OpenAI compares `endpoint` exactly, Azure with and without `/v1`. After 24 hours OpenAI's batches"
    " expire, Azure's go on. Ids: `batch_` and 32 digits, on Azure a UUID.",
    "get_batch": "At the end Azure shows both file ids, even of an empty file; OpenAI shows null for an empty one.",
    "list_requests": "An addition of ours. `next_offset` goes on; a search by `custom_id` looks at 10,000 requests or"
    " 16 MiB of them at most, and says in `searched` how many they were.",
    "get_request": "An addition of ours. `requests/?line=17` finds a request whose id does not fit into a path.",
    "list_failures": "An addition of ours.",
    "list_newest_results": "An addition of ours.",
    "get_results": "An addition of ours. A batch that has not ended, or lost a file: 409.",
    "retry_batch": "An addition of ours. A batch that has not ended, or has no such requests: 409.",
    "check_file": "An addition of ours.",
    "cancel_batch": "A batch that has ended: 409, on Azure with the code `conflict`, on OpenAI with null.",
    **dict.fromkeys(
        (
            "create_webhook_endpoint",
            "list_webhook_endpoints",
            "get_webhook_endpoint",
            "update_webhook_endpoint",
            "delete_webhook_endpoint",
            "rotate_webhook_secret",
            "test_webhook_endpoint",
            "list_webhook_deliveries",
            "list_webhook_event_types",
        ),
        "Azure v1 has it below `/dashboard`, with objects named `webhook.endpoint`.",
    ),
    "list_deployments": "Azure (dated) only.",
    "get_deployment": "Azure (dated) only.",
}


def api_page() -> str:
    """Give the routes and the objects of the served OpenAPI document."""
    document = served_document()
    operations = list(_operations(document))
    schemas = document["components"]["schemas"]
    shown = sorted(name for name in schemas if name not in {"HTTPValidationError", "ValidationError"})
    return _page(
        "API",
        _prose("""
            Made from the OpenAPI document, which a running service gives under `/openapi.json`. One set of operations
            is served under three prefixes:"""),
        _table(("prefix", "flavour", "client"), PREFIX_ROWS),
        _prose("""
            Every prefix takes the key as `api-key` or as `Authorization: Bearer`. Query parameters that are not known
            are ignored, `api-version` among them. Files, uploads and batches also answer under
            `/openai/deployments/{deployment}/`, where older SDKs look for them."""),
        "## Operations",
        "A number is the status of success under that prefix.",
        _table(("operation", "`/v1`", "`/openai/v1`", "`/openai`", "differs"), _operation_rows(operations)),
        "## Query parameters and headers",
        _table(("operation", "parameter", "type", "default"), _parameter_rows(document)),
        "## The admin API",
        _prose("""
            These need an [admin key](../guides/keys-and-resources.md#the-admin-api), which opens none of the others.
            Those of upstreams are also open to calls from the machine itself where no call needs a key."""),
        _table(("operation", "meaning"), _rows_of("Admin", document)),
        "## Without a key",
        _table(("operation", "meaning"), _rows_of("Health", document)),
        "## Objects",
        _prose("""
            Every member of an answer is always there; one that has no value is null. The error codes stand in
            [troubleshooting](../guides/troubleshooting.md)."""),
        *(_object(name, schemas[name]) for name in shown),
    )


PREFIX_ROWS = (
    ("`/v1`", "OpenAI", '`OpenAI(base_url="http://HOST/v1")`'),
    ("`/openai/v1`", "Azure", '`OpenAI(base_url="http://HOST/openai/v1/")`'),
    ("`/openai?api-version=…`", "Azure", '`AzureOpenAI(azure_endpoint="http://HOST", api_version="…")`'),
)


def served_document() -> Json:
    """Ask a service for its OpenAPI document."""
    with _service() as url:
        document: Json = json.load(build_opener(ProxyHandler({})).open(f"{url}/openapi.json", timeout=30))
    return document


@contextmanager
def _service() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        settings = Path(folder) / "overnight.toml"
        # No model is needed to describe the API; nothing listens on this port.
        settings.write_text('upstreams = ["http://127.0.0.1:1/v1"]\n')
        command = [sys.executable, "-m", "overnight.cli.main", "serve", "--json", "--port", "0", "--data-dir", folder]
        with subprocess.Popen(
            [*command, "--config", str(settings), "--log-level", "error"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as service:
            assert service.stdout is not None
            try:
                yield json.loads(service.stdout.readline())["url"]
            finally:
                service.terminate()


def _operations(document: Json) -> Iterator[tuple[str, str, str, str, str]]:
    """Give name, tag, method, path without prefix and status of success of each operation."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            tag = operation["tags"][0]
            if tag in TAGS:
                name = operation["operationId"].removeprefix(f"{tag.lower().replace(' ', '_')}_")
                status = min(code for code in operation["responses"] if code.startswith("2"))
                yield name, tag, method.upper(), path.removeprefix(TAGS[tag]).removeprefix("/dashboard"), status


def _operation_rows(operations: list[tuple[str, str, str, str, str]]) -> Rows:
    found: dict[str, dict[str, str]] = {}
    routes: dict[str, str] = {}
    for name, tag, method, path, status in operations:
        found.setdefault(name, {})[tag] = status
        routes[name] = f"`{method} {path}`"
    unknown = DIFFERENCES.keys() - found.keys()
    assert not unknown, f"there is no operation {unknown}"
    for name, statuses in found.items():
        differs = DIFFERENCES.get(name, SAME_EVERYWHERE)
        yield routes[name], *(statuses.get(tag, "–") for tag in TAGS), differs


def _parameter_rows(document: Json) -> Rows:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if operation["tags"][0] not in {"OpenAI", "Admin"}:
                continue
            for parameter in operation.get("parameters", ()):
                if parameter["in"] in {"query", "header"}:
                    schema = parameter["schema"]
                    default = schema.get("default")
                    route = f"`{method.upper()} {path.removeprefix('/v1')}`"
                    shown = "" if default is None else f"`{default}`"
                    yield route, f"`{parameter['name']}`", _kind(schema), shown


def _rows_of(tag: str, document: Json) -> Rows:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if operation["tags"][0] == tag:
                yield f"`{method.upper()} {path}`", operation["description"]


def _object(name: str, schema: Json) -> str:
    about = schema.get("description", "").replace("``", "`")
    if "enum" in schema:
        return f"### {name}\n\n{about}\n\n{_kind(schema)}"
    needed = schema.get("required", ())
    rows = [
        (f"`{member}`", _kind(each), "yes" if member in needed else "", each.get("description", ""))
        for member, each in schema["properties"].items()
    ]
    return f"### {name}\n\n{about}\n\n{_table(('member', 'type', 'needed', 'meaning'), rows)}"


def _kind(schema: Json) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(_kind(each) for each in schema["anyOf"])
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    if "enum" in schema:
        return " or ".join(f"`{each}`" for each in schema["enum"])
    if schema.get("type") == "array":
        return f"array of {_kind(schema['items'])}"
    bounds = [f"from {schema['minimum']:,.0f}"] if "minimum" in schema else []
    bounds += [f"to {schema['maximum']:,.0f}"] if "maximum" in schema else []
    return " ".join([str(schema.get("type", "anything")), *bounds])


# --- pages --------------------------------------------------------------------------------------------------------

MADE_BY = "<!-- Made by docs/generate.py; change the program, then run it again. -->"


def _page(title: str, *parts: str) -> str:
    return "\n\n".join((MADE_BY, f"# {title}", *parts)) + "\n"


def _prose(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), 120, break_long_words=False, break_on_hyphens=False)


def _table(header: Sequence[str], rows: Rows) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


PAGES = {
    "api.md": api_page,
    "cli.md": cli_page,
    "configuration.md": configuration_page,
    "limits.md": limits_page,
}


def main() -> None:
    """Write all pages."""
    REFERENCE.mkdir(exist_ok=True)
    for name, make in PAGES.items():
        (REFERENCE / name).write_text(make())
        print(f"{REFERENCE.name}/{name}")


if __name__ == "__main__":
    main()
