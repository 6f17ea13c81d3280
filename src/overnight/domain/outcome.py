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
from overnight.domain.trail import NO_TRAIL, Trail, encode_trail
from overnight.domain.usage import NO_USAGE

BAD_GATEWAY = 502


def examine(outcome: Outcome) -> Outcome:
    """Look into the body of an answer: put it on one line and take its usage; a success must be readable."""
    if isinstance(outcome, Failure):
        return outcome
    try:
        body, usage = read_body(outcome.body)
    except UnreadableBody:
        return _unreadable(outcome)
    return Answer(
        status=outcome.status,
        body=body,
        request_id=outcome.request_id,
        retry_after=outcome.retry_after,
        usage=usage if outcome.succeeded else NO_USAGE,
    )


def to_result(request: Request, own_id: str, outcome: Outcome, trail: Trail = NO_TRAIL, attempts: int = 1) -> Result:
    """Give the result of a request whose outcome stands. ``own_id`` also stands in for a missing request id.

    ``trail`` ends with the attempt that brought it; ``attempts`` is how often it was tried, by the policy's count.
    """
    made = encode_trail(trail)
    if isinstance(outcome, Failure):
        record = _failure_record(request, own_id, outcome, tries(attempts, trail.earlier_status))
        return Result(line=request.line, kind=ResultKind.FAILED, record=record, trail=made)
    record = response_line(request.custom_id, own_id, outcome.status, outcome.request_id or own_id, outcome.body)
    kind = ResultKind.SUCCEEDED if outcome.succeeded else ResultKind.FAILED
    return Result(line=request.line, kind=kind, record=record, usage=outcome.usage, trail=made)


def _unreadable(answer: Answer) -> Outcome:
    detail = (
        f"The upstream answered with status {answer.status} and {len(answer.body):,} bytes that are not a JSON object."
    )
    if answer.succeeded:
        return Failure(fault=Fault.UNREADABLE, status=BAD_GATEWAY, detail=detail)
    kind = "server_error" if answer.status >= 500 else "invalid_request_error"  # noqa: PLR2004 - the status class
    return msgspec.structs.replace(answer, body=error_body(detail, kind=kind, code=None))


def _failure_record(request: Request, own_id: str, failure: Failure, tried: str) -> bytes:
    if failure.fault is Fault.TIMEOUT:
        code, message = REQUEST_TIMEOUT
        return error_line(request.custom_id, own_id, code, message + tried)
    body = error_body(failure.detail + tried, kind="server_error", code=f"upstream_{failure.fault}")
    return response_line(request.custom_id, own_id, failure.status or BAD_GATEWAY, own_id, body)


def tries(attempts: int, earlier_status: int | None) -> str:
    """Word how often a request was tried, and which status the tries before the last brought; empty after one."""
    if attempts == 1:
        return ""
    before = "" if earlier_status is None else f", with status {earlier_status} before"
    return f" It was tried {attempts} times{before}."
