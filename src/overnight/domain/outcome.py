"""From what an attempt brought to the result of the request."""

from __future__ import annotations

import msgspec

from overnight.domain.request import Request
from overnight.domain.result import (
    REQUEST_TIMEOUT,
    Answer,
    Result,
    ResultKind,
    UnreadableBody,
    error_body,
    error_line,
    read_body,
    response_line,
)
from overnight.domain.retry import Failure, Fault, Outcome
from overnight.domain.usage import NO_USAGE, Usage

BAD_GATEWAY = 502


class Examined(msgspec.Struct, frozen=True, kw_only=True):
    """An outcome after a look into its body: a success that cannot be read has become a failure."""

    outcome: Outcome
    usage: Usage = NO_USAGE


def examine(outcome: Outcome) -> Examined:
    """Read the body of an answer, put it on one line, and take the usage from a success."""
    if isinstance(outcome, Failure):
        return Examined(outcome=outcome)
    try:
        body, usage = read_body(outcome.body)
    except UnreadableBody:
        return Examined(outcome=_unreadable(outcome))
    answer = msgspec.structs.replace(outcome, body=body)
    return Examined(outcome=answer, usage=usage if outcome.succeeded else NO_USAGE)


def to_result(request: Request, own_id: str, examined: Examined) -> Result:
    """Give the result of a request whose outcome stands. ``own_id`` also stands in for a missing request id."""
    outcome = examined.outcome
    if isinstance(outcome, Failure):
        return Result(line=request.line, kind=ResultKind.FAILED, record=_failure_record(request, own_id, outcome))
    record = response_line(request.custom_id, own_id, outcome.status, outcome.request_id or own_id, outcome.body)
    kind = ResultKind.SUCCEEDED if outcome.succeeded else ResultKind.FAILED
    return Result(line=request.line, kind=kind, record=record, usage=examined.usage)


def _unreadable(answer: Answer) -> Outcome:
    detail = (
        f"The upstream answered with status {answer.status} and {len(answer.body):,} bytes that are not a JSON object."
    )
    if answer.succeeded:
        return Failure(fault=Fault.UNREADABLE, status=BAD_GATEWAY, detail=detail)
    kind = "server_error" if answer.status >= 500 else "invalid_request_error"  # noqa: PLR2004 - the status class
    return msgspec.structs.replace(answer, body=error_body(detail, kind=kind, code=None))


def _failure_record(request: Request, own_id: str, failure: Failure) -> bytes:
    if failure.fault is Fault.TIMEOUT:
        code, message = REQUEST_TIMEOUT
        return error_line(request.custom_id, own_id, code, message)
    body = error_body(failure.detail, kind="server_error", code=f"upstream_{failure.fault}")
    return response_line(request.custom_id, own_id, failure.status or BAD_GATEWAY, own_id, body)
