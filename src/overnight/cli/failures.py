"""What the command line says when something goes wrong: what, where, and what now."""

from __future__ import annotations

from collections.abc import Mapping

from overnight.cli.exit_codes import ExitCode

CLIENT_ERRORS = "overnight.client.errors"
# Known by name: importing them here would load the whole service.
SERVICE_ERRORS: Mapping[str, ExitCode] = {
    "overnight.config.ConfigError": ExitCode.USAGE,
    "overnight.bootstrap.errors.StartupError": ExitCode.FAILED,
    "overnight.domain.errors.Conflict": ExitCode.FAILED,
    "overnight.domain.errors.InvalidRequest": ExitCode.USAGE,
    "overnight.domain.errors.NotFound": ExitCode.FAILED,
    "overnight.domain.errors.Unavailable": ExitCode.FAILED,
}


class CliError(Exception):
    """A failure that has been understood: shown as `error: …` and `hint: …`, without a traceback."""

    label = "error"

    def __init__(self, message: str, hint: str | None = None, code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code


class StoppedWaiting(CliError):
    """Ctrl-C while waiting: the waiting stopped, not the batch."""

    label = ""

    def __init__(self, batch_ids: list[str]) -> None:
        ids = " ".join(batch_ids)
        goes_on = "the batch goes on" if len(batch_ids) == 1 else "the batches go on"
        hint = f"`overnight batches wait {ids}` resumes, `overnight batches cancel {batch_ids[0]}` stops it"
        super().__init__(f"stopped waiting; {goes_on}: {ids}", hint, ExitCode.INTERRUPTED)


def explain(error: Exception) -> CliError | None:
    """Turn an error of the client or of the service into words; None for one that nobody foresaw."""
    if isinstance(error, CliError):
        return error
    kind = type(error)
    if kind.__module__ == CLIENT_ERRORS:
        return _explain_client(error)
    code = SERVICE_ERRORS.get(f"{kind.__module__}.{kind.__qualname__}")
    if code is None:
        return None
    said = getattr(error, "message", str(error))
    return CliError(one_line(said), getattr(error, "hint", None), ExitCode(getattr(error, "exit_code", code)))


def _explain_client(error: Exception) -> CliError | None:
    from overnight.client import errors

    match error:
        case errors.ApiError():
            return _explain_refusal(error)
        case errors.Unreachable():
            hint = "`overnight serve` starts a server on this machine; `--url` or OVERNIGHT_URL names another"
            return CliError(f"the server {error}", hint, ExitCode.UNREACHABLE)
        case errors.UnexpectedAnswer():
            hint = "the URL usually ends in /v1: `overnight doctor --url http://127.0.0.1:8080/v1` checks one"
            return CliError(str(error), hint)
        case errors.InvalidUrl():
            hint = "for example `--url http://127.0.0.1:8080/v1`"
            return CliError(str(error), hint, ExitCode.USAGE)
    return None


def _explain_refusal(error: Exception) -> CliError:
    from overnight.client.errors import ApiError, NotAuthorised, NotFound

    assert isinstance(error, ApiError)  # noqa: S101 - narrows the type; the caller has looked
    said = ", ".join(str(part) for part in (error.status, error.code, error.param) if part)
    message = f"{one_line(error.message)} ({said})"
    match error:
        case NotAuthorised():
            hint = "set OVERNIGHT_API_KEY, or pass `--api-key`"
            return CliError(message, hint, ExitCode.NOT_AUTHORISED)
        case NotFound():
            hint = "`overnight batches list` and `overnight files list` show what there is"
            return CliError(message, hint)
        case ApiError(status=502 | 503 | 504):
            return CliError(message, "try again later; `overnight doctor` checks every part", ExitCode.UNREACHABLE)
    return CliError(message, "`overnight help errors` explains the codes" if error.code else None)


def one_line(message: str) -> str:
    """Give a message of the server as ours are written: a single sentence has no full stop."""
    text = message.strip()
    return text if "\n" in text or ". " in text else text.removesuffix(".")
