"""What each exit code says; `overnight help exit-codes` prints this table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import IntEnum


class ExitCode(IntEnum):
    """The exit codes that scripts may rely on."""

    OK = 0
    FAILED = 1
    USAGE = 2
    SOME_FAILED = 3
    NOT_AUTHORISED = 4
    UNREACHABLE = 5
    STILL_RUNNING = 8
    INTERRUPTED = 130


MEANING: Mapping[ExitCode, str] = {
    ExitCode.OK: "all succeeded",
    ExitCode.FAILED: "failed: the request was refused, or the batch failed, expired or was cancelled",
    ExitCode.USAGE: "the command was not understood, or an option that it needs is missing",
    ExitCode.SOME_FAILED: "the batch finished, but some of its requests failed",
    ExitCode.NOT_AUTHORISED: "not authorised: the API key is missing or wrong",
    ExitCode.UNREACHABLE: "the server or an upstream cannot be reached",
    ExitCode.STILL_RUNNING: "still running (`wait --timeout`, `get --exit-status`)",
    ExitCode.INTERRUPTED: "interrupted with Ctrl-C",
}

# What a script should hear first when several batches end differently.
_WORST_FIRST = (ExitCode.FAILED, ExitCode.STILL_RUNNING, ExitCode.SOME_FAILED, ExitCode.OK)


def for_batch(status: str, failed: int) -> ExitCode:
    """Give the exit code that a batch in this status stands for."""
    if status == "completed":
        return ExitCode.SOME_FAILED if failed else ExitCode.OK
    if status in {"failed", "expired", "cancelled"}:
        return ExitCode.FAILED
    return ExitCode.STILL_RUNNING


def worst(codes: Iterable[ExitCode]) -> ExitCode:
    """Give the one exit code for several batches."""
    return min(codes, key=_WORST_FIRST.index, default=ExitCode.OK)
