"""The entry point: finds the command, and turns whatever goes wrong into words and an exit code."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

import overnight
from overnight.cli.commands import Group, ReaderGone
from overnight.cli.exit_codes import ExitCode
from overnight.cli.failures import CliError, explain
from overnight.cli.options import wants_no_color

# The summaries stand here so that `overnight --help` imports no command; a test compares them.
COMMANDS = {
    "demo": ("overnight.cli.demo:demo", "Run a sample batch on an embedded model, all temporary"),
    "serve": ("overnight.cli.serve:serve", "Start the service: API, Studio and dispatcher in one process"),
    "doctor": ("overnight.cli.doctor:doctor", "Check every part of the service, with a remedy for each fault"),
    "run": ("overnight.cli.run:run", "Run a file of requests as a batch and fetch the results"),
    "batches": ("overnight.cli.batches:batches", "Create, follow and cancel batches, and read their results"),
    "files": ("overnight.cli.files:files", "Upload, list, read, delete and validate files"),
    "usage": ("overnight.cli.usage:usage", "Show what was used and what it cost, by day"),
    "keys": ("overnight.cli.keys:keys", "Create, list and revoke the API keys of a data folder"),
    "resources": ("overnight.cli.keys:resources", "Create, list and cap the resources that keys open"),
    "quota": ("overnight.cli.quota:quota", "Show how many tokens may still be enqueued, and set quotas"),
    "webhooks": ("overnight.cli.webhooks:webhooks", "Manage receivers that are told when a batch ends"),
    "upstreams": ("overnight.cli.upstreams:upstreams", "See, pause, resume and test the upstreams of a service"),
    "config": ("overnight.cli.config:config", "Show the settings and where each comes from"),
    "api": ("overnight.cli.api:api", "Make any call of the API, with base URL and key filled in"),
    "completion": ("overnight.cli.completion:completion", "Print the completion script of a shell"),
    "help": ("overnight.cli.help:help_", "Explain a command, the environment, the exit codes or the errors"),
}
PANELS = {
    "Start": ("demo", "serve", "doctor"),
    "Work": ("run", "batches", "files", "usage", "webhooks"),
    "Keys and quotas": ("keys", "resources", "quota"),
    "More": ("upstreams", "config", "api", "completion", "help"),
}
EXAMPLES = (
    "overnight demo",
    "overnight serve --upstream http://localhost:8000/v1",
    "overnight run prompts.jsonl",
)


def _print_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        click.echo(f"overnight {overnight.__version__}")
        ctx.exit()


@click.group(
    cls=Group,
    lazy=COMMANDS,
    panels=PANELS,
    examples=EXAMPLES,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="Batch inference on your own machines, with the OpenAI and Azure OpenAI Batch API",
)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Print it")
def cli() -> None:
    """Only leads to the commands."""


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and end the process with its exit code."""
    _leave(int(_run(list(sys.argv[1:] if args is None else args))))


def _run(arguments: list[str]) -> int:
    try:
        code = cli.main(arguments, prog_name="overnight", standalone_mode=False)
        sys.stdout.flush()
        return code or ExitCode.OK
    except click.ClickException as error:
        return _report(_explain_usage(error), arguments)
    except (click.Abort, KeyboardInterrupt):
        return _report(CliError("interrupted", None, ExitCode.INTERRUPTED), arguments)
    except (ReaderGone, BrokenPipeError):
        return _let_go_of_the_pipe()
    except Exception as error:  # noqa: BLE001 - the boundary: no user is left alone with a traceback
        return _report(explain(error) or _unforeseen(error, arguments), arguments)


def _report(failure: CliError, arguments: Sequence[str]) -> ExitCode:
    color = False if "--no-color" in arguments or wants_no_color(os.environ) else None
    label = click.style(f"{failure.label}:", fg="red", bold=True) + " " if failure.label else ""
    click.echo(label + failure.message, err=True, color=color)
    if failure.hint:
        click.echo("\n" + click.style("hint:", fg="cyan", bold=True) + " " + failure.hint, err=True, color=color)
    return failure.code


def _explain_usage(error: click.ClickException) -> CliError:
    message = error.format_message().strip().removesuffix(".")
    ctx = error.ctx if isinstance(error, click.UsageError) else None
    hint = f"`{ctx.command_path} --help` shows how it is used" if ctx else None
    return CliError(message[:1].lower() + message[1:], hint, ExitCode.USAGE)


def _unforeseen(error: Exception, arguments: Sequence[str]) -> CliError:
    if "-v" in arguments or "--verbose" in arguments:
        import traceback

        traceback.print_exception(error)
    message = f"something unforeseen happened ({type(error).__name__}: {error})"
    return CliError(message, "the same command with `-v` shows where; please report it")


def _let_go_of_the_pipe() -> ExitCode:
    """Say nothing when the reader has gone (`overnight batches list | head`), not even at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return ExitCode.OK


def _leave(code: int) -> NoReturn:
    if "pyreqwest" in sys.modules:
        # Its threads may call into an interpreter that is being torn down, which aborts the process (seen in 1 of 80
        # exits with 0.15). So everything is finished here, and the tearing down left out.
        atexit._run_exitfuncs()  # noqa: SLF001 - what `multiprocessing` does for the same reason
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    main()
