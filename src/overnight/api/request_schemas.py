"""The wire types of requests, failures, retries and checks: additions of ours to the API of the vendors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

from pydantic import BaseModel, Field

from overnight.api.schemas import ProblemObject, Taken
from overnight.domain.places import State
from overnight.services.retry import Which
from overnight.services.sheets import RequestQuery

if TYPE_CHECKING:
    from overnight.domain.throughput import Throughput
    from overnight.domain.trail import Attempted
    from overnight.services.check import FileCheck, First
    from overnight.services.requests import FailureGroup, Preview, RequestDetail
    from overnight.services.sheets import RequestPage, RequestRow

RequestState = Literal["waiting", "succeeded", "failed", "not_run"]


MOST_REQUESTS = 2**31
_DEFAULT_PAGE = 50
_LONGEST_PAGE = 1_000


class RequestFilter(BaseModel):
    """Which requests to list."""

    offset: int = Field(default=0, ge=0, le=MOST_REQUESTS)
    limit: int = Field(default=_DEFAULT_PAGE, ge=1, le=_LONGEST_PAGE)
    status: RequestState | None = None
    code: str | None = None
    custom_id: str | None = Field(default=None, description="A part of it.")
    upstream: str | None = Field(default=None, description="Which made the last attempt.")

    def to_query(self) -> RequestQuery:
        return RequestQuery(
            offset=self.offset,
            limit=self.limit,
            state=None if self.status is None else State[self.status.upper()],
            code=self.code,
            custom_id=self.custom_id or None,
            upstream=self.upstream,
        )


class RequestObject(BaseModel):
    """One request of a batch."""

    object: Literal["batch.request"] = "batch.request"
    line: int = Field(description="Which request of the input it is, counted from 0.")
    custom_id: str | None = Field(description="Null once neither the input nor the result is stored.")
    status: RequestState
    status_code: int | None = Field(description="The status of the response; null if there was none.")
    code: str | None = Field(description="Why it has no success; null otherwise.")
    input_tokens: int
    output_tokens: int
    upstream: str | None = Field(description="Which made the last attempt; null if none is known.")
    attempt_count: int = Field(
        description="How many attempts led to its end, 255 for more; 0 before that, and if none did."
    )
    seconds: float | None = Field(description="How long the last attempt took.")
    ended_at: int | None = Field(description="When the last attempt ended, in unix seconds.")

    @classmethod
    def of(cls, row: RequestRow) -> Self:
        return cls(
            line=row.line,
            custom_id=row.custom_id,
            status=_state(row),
            status_code=row.status_code,
            code=row.code,
            input_tokens=row.input_tokens,
            output_tokens=row.output_tokens,
            upstream=row.upstream,
            attempt_count=row.attempts,
            seconds=row.seconds,
            ended_at=row.ended_at,
        )


class RequestPageObject(BaseModel):
    """A part of the requests, in the order of the input."""

    object: Literal["list"] = "list"
    data: list[RequestObject]
    total: int = Field(description="How many requests the batch has, whether they match or not.")
    next_offset: int | None = Field(description="The `offset` that goes on; null at the end of the input.")
    searched: int = Field(description="How many requests were looked at for this answer.")
    has_more: bool

    @classmethod
    def of(cls, page: RequestPage) -> Self:
        return cls(
            data=[RequestObject.of(row) for row in page.rows],
            total=page.total,
            next_offset=page.next_offset,
            searched=page.searched,
            has_more=page.next_offset is not None,
        )


class NewestResults(BaseModel):
    """The newest results of a batch that runs, newest first."""

    object: Literal["list"] = "list"
    data: list[RequestObject]


class PreviewObject(BaseModel):
    """A line as it is stored, or its beginning."""

    text: str
    bytes: int = Field(description="How long it is in all.")
    truncated: bool = Field(description="Whether `text` is only the beginning; `full=true` gives all of it.")

    @classmethod
    def of(cls, preview: Preview) -> Self:
        # The beginning may end within a character.
        return cls(text=preview.data.decode(errors="ignore"), bytes=preview.bytes, truncated=preview.truncated)


class AttemptObject(BaseModel):
    """One attempt of a request."""

    upstream: str
    at: float = Field(description="When it began, in unix seconds.")
    seconds: float = Field(description="How long it took.")
    status_code: int | None = Field(description="The status of the answer; null if none came that can be used.")
    fault: str | None = Field(description="Why none came; null otherwise.")
    wait: float = Field(description="For how many seconds the next attempt was put off; 0 after the last.")

    @classmethod
    def of(cls, made: Attempted) -> Self:
        return cls(
            upstream=made.upstream,
            at=made.at,
            seconds=made.seconds,
            status_code=made.status or None,
            fault=made.fault or None,
            wait=made.wait,
        )


class RequestDetailObject(RequestObject):
    """One request with its line of the input and its line of the output or error file."""

    input: PreviewObject | None = Field(description="Null once the input file is gone.")
    result: PreviewObject | None = Field(description="Null while there is none, or once its file is gone.")
    attempts: list[AttemptObject] = Field(description="The newest 16, oldest first; none before it has ended.")

    @classmethod
    def of_detail(cls, detail: RequestDetail) -> Self:
        return cls(
            **RequestObject.of(detail.row).model_dump(),
            input=PreviewObject.of(detail.asked) if detail.asked else None,
            result=PreviewObject.of(detail.got) if detail.got else None,
            attempts=[AttemptObject.of(made) for made in detail.trail.attempts],
        )


class FailureGroupObject(BaseModel):
    """Requests without success for the same reason at one upstream."""

    code: str
    upstream: str | None = Field(description="Which made the last attempt; null if none is known, or too many are.")
    status: RequestState
    count: int
    first_line: int
    first_custom_id: str = Field(description="Empty once its result is gone.")
    message: str = Field(description="What the first of them says, cut after 200 characters; empty once it is gone.")

    @classmethod
    def of(cls, group: FailureGroup) -> Self:
        return cls(
            code=group.code,
            upstream=group.upstream or None,
            status=_state(group),
            count=group.count,
            first_line=group.first_line,
            first_custom_id=group.first_custom_id,
            message=group.message,
        )


class FailureGroups(BaseModel):
    """Why requests have no success, the most frequent reason first."""

    object: Literal["list"] = "list"
    data: list[FailureGroupObject]


class ThroughputPoint(BaseModel):
    """What ended within one stretch of time."""

    at: int = Field(description="When it began, in unix seconds.")
    succeeded: int
    failed: int
    input_tokens: int
    output_tokens: int
    p50_seconds: float | None = Field(description="Half of the successes took no longer, within a tenth.")
    p95_seconds: float | None = Field(description="95 % of the successes took no longer, within a tenth.")


class ThroughputObject(BaseModel):
    """How a batch got on over time; requests that ended without an attempt are not in it."""

    object: Literal["batch.throughput"] = "batch.throughput"
    width: int = Field(description="How many seconds a point stands for.")
    p50_seconds: float | None = Field(description="Half of all successes took no longer, within a tenth.")
    p95_seconds: float | None = Field(description="95 % of all successes took no longer, within a tenth.")
    data: list[ThroughputPoint] = Field(description="One after the other from the first result on, at most 240.")

    @classmethod
    def of(cls, found: Throughput) -> Self:
        points = [
            ThroughputPoint(
                at=found.start + place * found.width,
                succeeded=each.succeeded,
                failed=each.failed,
                input_tokens=each.input_tokens,
                output_tokens=each.output_tokens,
                p50_seconds=each.p50,
                p95_seconds=each.p95,
            )
            for place, each in enumerate(found.stretches)
        ]
        return cls(width=found.width, p50_seconds=found.p50, p95_seconds=found.p95, data=points)


class RetryBody(Taken):
    """``POST batches/{batch_id}/retry``."""

    which: Literal["failed", "not_run", "all_unfinished"] = Field(
        default="failed", description="Those that failed, those that the batch ended without, or both."
    )

    def to_which(self) -> Which:
        return Which(self.which)


class FirstRequest(BaseModel):
    """One of the first lines of a file."""

    line: int = Field(description="Its place in the file, counted from 1.")
    text: str
    bytes: int
    truncated: bool

    @classmethod
    def of(cls, first: First) -> Self:
        truncated = len(first.data) < first.bytes
        return cls(line=first.line, text=first.data.decode(errors="replace"), bytes=first.bytes, truncated=truncated)


class CheckedModel(BaseModel):
    """A model that lines name."""

    name: str
    requests: int
    offered: bool | None = Field(description="Whether an upstream has it; null while one has not told its models.")


class CheckedEndpoint(BaseModel):
    """An endpoint that lines name."""

    endpoint: str
    requests: int


class FileCheckObject(BaseModel):
    """What a batch would say of a file."""

    object: Literal["file.check"] = "file.check"
    file_id: str
    ok: bool
    requests: int
    bytes: int
    problem_count: int = Field(description="All of them; `problems` has the first ones.")
    problems: list[ProblemObject]
    models: list[CheckedModel]
    endpoints: list[CheckedEndpoint]
    first_requests: list[FirstRequest]

    @classmethod
    def of(cls, file_id: str, check: FileCheck) -> Self:
        report = check.report
        return cls(
            file_id=file_id,
            ok=not report.problems,
            requests=report.requests,
            bytes=report.bytes,
            problem_count=report.problem_count,
            problems=[ProblemObject.model_validate(each, from_attributes=True) for each in report.problems],
            models=[CheckedModel.model_validate(each, from_attributes=True) for each in check.models],
            endpoints=[CheckedEndpoint(endpoint=each.name, requests=each.requests) for each in check.endpoints],
            first_requests=[FirstRequest.of(each) for each in check.first],
        )


def _state(record: RequestRow | FailureGroup) -> RequestState:
    names: tuple[RequestState, ...] = ("waiting", "succeeded", "failed", "not_run")
    return names[record.state]
