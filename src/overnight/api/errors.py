"""From our errors to HTTP: one table, one envelope on every prefix (CONTRACT sections 3.5 and 3.6)."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Any

import structlog
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from overnight.domain import errors
from overnight.domain.flavour import Flavour

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastapi import FastAPI, Request
    from fastapi.responses import Response

log = structlog.get_logger()

# The first match counts; (HTTP status, Azure's code where it differs from ours).
_TABLE: tuple[tuple[type[errors.ServiceError], int, str | None], ...] = (
    (errors.InvalidFileName, 400, "invalidPayload"),
    (errors.InvalidPurpose, 400, "invalidPayload"),
    (errors.InvalidFileFormat, 400, "invalidPayload"),
    (errors.QuotaExceeded, 400, "quotaExceeded"),
    (errors.InvalidRequest, 400, None),
    (errors.TooLarge, 413, None),
    (errors.Unauthorized, 401, "401"),
    (errors.Forbidden, 403, "forbidden"),
    (errors.NotFound, 404, "notFound"),
    (errors.Conflict, 409, "conflict"),
    (errors.TooManyRequests, 429, None),
    (errors.Unavailable, 503, "serviceUnavailable"),
    (errors.ServiceError, 500, "internalFailure"),
)

MOST_JSON_BYTES = 1024 * 1024
"""How large a body may be that is read whole."""

_SERVER_ERROR = 500
_KINDS = {429: "requests"}
# SDKs do not try again at all where they are to wait longer (CONTRACT section 6.4).
_LONGEST_WAIT = 120.0
# What a message quotes of a request is cut off here.
_MESSAGE_CHARS = 2_000
_PARAM_CHARS = 256
_AZURE_PREFIX = "/openai"

_JSON_TYPES = {
    "string_type": "a string",
    "int_type": "an integer",
    "bool_type": "a boolean",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
    "list_type": "an array",
    "int_parsing": "an integer",
    "int_from_float": "an integer",
}
_PYTHON_TYPES = {
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    float: "a number",
    dict: "an object",
    list: "an array",
}
_BOUNDS = {
    "greater_than_equal": ("ge", ">=", "below minimum", "integer_below_min_value"),
    "less_than_equal": ("le", "<=", "above maximum", "integer_above_max_value"),
}


def install(app: FastAPI) -> None:
    """Answer every error in the one envelope."""
    app.add_exception_handler(errors.ServiceError, _service_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(ClientDisconnect, _disconnected)
    app.add_exception_handler(Exception, _unexpected)


def flavour_of(path: str, root_path: str = "") -> Flavour:
    """Say which vendor's codes a path expects; a gateway in front may have kept its ``root_path``."""
    return Flavour.AZURE if below(root_path, path).startswith(_AZURE_PREFIX) else Flavour.OPENAI


def below(root_path: str, path: str) -> str:
    """Give a path as the routes see it: without the ``root_path`` that a gateway in front may have kept."""
    # Whole steps only, as the router does it: below `/a` there is no `/admin`.
    return path.removeprefix(root_path) if path.startswith(f"{root_path}/") else path


def _flavour(request: Request) -> Flavour:
    return flavour_of(request.url.path, request.scope.get("root_path", ""))


def envelope(
    status: int,
    message: str,
    *,
    param: str | None = None,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
    extra: Mapping[str, object] | None = None,
) -> JSONResponse:
    """Write an error."""
    kind = _KINDS.get(status, "server_error" if status >= _SERVER_ERROR else "invalid_request_error")
    error = {"message": _cut(message, _MESSAGE_CHARS), "type": kind, "param": _cut(param, _PARAM_CHARS), "code": code}
    return JSONResponse({"error": error, **(extra or {})}, status_code=status, headers=dict(headers or {}))


def _cut(text: str | None, most: int) -> str | None:
    return text if text is None or len(text) <= most else f"{text[:most]}…"


def answer(error: errors.ServiceError, flavour: Flavour) -> JSONResponse:
    """Write one of our errors in the codes of a flavour."""
    status, azure_code = next((status, code) for kind, status, code in _TABLE if isinstance(error, kind))
    code = azure_code or error.code if flavour is Flavour.AZURE else error.code
    if isinstance(error, errors.QuotaExceeded):
        code = error.code
    # SDKs repeat a 409 by themselves (CONTRACT section 6.4), and this one cannot get better.
    headers = {"x-should-retry": "false"} if isinstance(error, errors.Conflict) else _waits(error)
    extra = {"detail": error.message} if isinstance(error, errors.InvalidFileFormat) else {}
    return envelope(status, error.message, param=error.param, code=code, headers=headers, extra=extra)


def _waits(error: errors.ServiceError) -> dict[str, str]:
    if not isinstance(error, errors.TooManyRequests):
        return {}
    wait = min(error.wait, _LONGEST_WAIT)
    return {"retry-after": str(max(1, ceil(wait))), "retry-after-ms": str(max(1, ceil(wait * 1000)))}


async def _service_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, errors.ServiceError):
        raise error
    return answer(error, _flavour(request))


async def _invalid(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    return answer(explain(error.errors()[0]), _flavour(request))


def explain(problem: Mapping[str, Any]) -> errors.InvalidRequest:
    """Put a finding of the schema check into the vendor's words."""
    kind, given = problem["type"], problem.get("input")
    param = ".".join(str(step) for step in problem["loc"][1:]) or None
    if kind == "json_invalid":
        return errors.InvalidRequest("We could not parse the body of your request as JSON. Send a JSON object.")
    if kind == "missing":
        name = param or "body"
        return errors.InvalidRequest(
            f"Missing required parameter: '{name}'.", param=param, code="missing_required_parameter"
        )
    if kind in _BOUNDS:
        key, sign, side, code = _BOUNDS[kind]
        expected = f"Expected a value {sign} {problem['ctx'][key]}, but got {given} instead."
        message = f"Invalid '{param}': integer {side} value. {expected}"
        return errors.InvalidRequest(message, param=param, code=code)
    if kind in _JSON_TYPES:
        got = "null" if given is None else _PYTHON_TYPES.get(type(given), "another type")
        message = f"Invalid type for '{param or 'body'}': expected {_JSON_TYPES[kind]}, but got {got} instead."
        return errors.InvalidRequest(message, param=param, code="invalid_type")
    return errors.InvalidRequest(
        f"Invalid value for '{param or 'body'}': {problem['msg']}.", param=param, code="invalid_value"
    )


async def _http_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    if isinstance(error.__cause__, BodyTooLarge):
        return too_large()
    path = request.url.path
    azure = _flavour(request) is Flavour.AZURE
    if error.status_code == 404:  # noqa: PLR2004 - no route
        message = "Resource not found" if azure else f"Invalid URL ({request.method} {path})"
        return envelope(404, message, code="404" if azure else None)
    if error.status_code == 405:  # noqa: PLR2004 - no such method on this route
        message = f"Not allowed to {request.method} on {path}."
        return envelope(405, message, code="method_not_allowed", headers=error.headers)
    return envelope(error.status_code, str(error.detail), headers=error.headers)


async def _disconnected(request: Request, _error: Exception) -> Response:
    log.info("request.broken_off", method=request.method, path=request.url.path)
    return envelope(400, "The connection was closed before the request was complete.")


class BodyTooLarge(Exception):
    """A body that is read whole went over its bound."""


def too_large() -> JSONResponse:
    """Refuse a body that would have been read whole."""
    message = f"The body of this request may have {MOST_JSON_BYTES:,} bytes at most; only files may be larger."
    return envelope(413, message, code="request_too_large")


async def _unexpected(request: Request, error: Exception) -> Response:
    log.error("request.broke", method=request.method, path=request.url.path, exc_info=error)
    return envelope(_SERVER_ERROR, "The server had an error while processing your request. See its log.")
