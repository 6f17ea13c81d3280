"""The objects of the API as frozen records; each keeps the JSON it was read from in `raw`.

Servers differ in what they send as null or leave out, so every field but `id` has a default.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

TERMINAL_STATUSES = frozenset({"completed", "failed", "expired", "cancelled"})


class Resource(msgspec.Struct, frozen=True, kw_only=True):
    """What all objects of the API share."""

    id: str
    # The wire name can be nobody's field: `raw` is filled in after decoding, never by a server.
    raw: bytes = msgspec.field(default=b"", name="(raw)")


class File(Resource, frozen=True, kw_only=True):
    """An uploaded or produced file."""

    filename: str = ""
    purpose: str = ""
    status: str | None = None
    status_details: str | None = None
    bytes: int | None = None
    created_at: int = 0
    expires_at: int | None = None


class Deleted(Resource, frozen=True, kw_only=True):
    """The receipt of a deletion."""

    deleted: bool = False


class RequestCounts(msgspec.Struct, frozen=True, kw_only=True):
    """How far a batch is; Azure sends nulls for a batch that failed validation."""

    total: int | None = 0
    completed: int | None = 0
    failed: int | None = 0


class BatchProblem(msgspec.Struct, frozen=True, kw_only=True):
    """One reason why a batch failed validation."""

    code: str | None = None
    message: str | None = None
    param: str | None = None
    line: int | None = None


class BatchErrors(msgspec.Struct, frozen=True, kw_only=True):
    """The reasons why a batch failed validation."""

    data: list[BatchProblem] | None = None


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens over the whole batch."""

    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """Requests that ended."""

    completed: int = 0
    failed: int = 0


class CachedTokens(msgspec.Struct, frozen=True, kw_only=True):
    """Part of the input tokens."""

    cached_tokens: int = 0


class ReasoningTokens(msgspec.Struct, frozen=True, kw_only=True):
    """Part of the output tokens."""

    reasoning_tokens: int = 0


class DetailedUsage(Usage, frozen=True, kw_only=True):
    """Tokens with the parts that are told apart."""

    input_tokens_details: CachedTokens = CachedTokens()
    output_tokens_details: ReasoningTokens = ReasoningTokens()


class UsageDay(msgspec.Struct, frozen=True, kw_only=True):
    """What was used of one deployment on one day (UTC); `cost` is a decimal number."""

    day: str
    deployment: str = ""
    request_counts: Counts = Counts()
    usage: DetailedUsage = DetailedUsage()
    cost: str | None = None


class CapState(msgspec.Struct, frozen=True, kw_only=True):
    """A cap, and how much of it is used."""

    period: str
    measure: str
    limit: str
    used: str
    reached: bool


class UsageReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was used in a range of days, both ends included."""

    first_day: str
    last_day: str
    currency: str = ""
    request_counts: Counts = Counts()
    usage: DetailedUsage = DetailedUsage()
    cost: str | None = None
    data: list[UsageDay] = []
    caps: list[CapState] = []
    raw: bytes = msgspec.field(default=b"", name="(raw)")


class Batch(Resource, frozen=True, kw_only=True):
    """One batch."""

    status: str
    endpoint: str | None = None
    model: str | None = None
    completion_window: str | None = None
    input_file_id: str | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    errors: BatchErrors | None = None
    created_at: int = 0
    in_progress_at: int | None = None
    expires_at: int | None = None
    finalizing_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    expired_at: int | None = None
    cancelling_at: int | None = None
    cancelled_at: int | None = None
    request_counts: RequestCounts | None = None
    usage: Usage | None = None
    metadata: dict[str, str] | None = None

    @property
    def counts(self) -> RequestCounts:
        return self.request_counts or RequestCounts()

    @property
    def problems(self) -> list[BatchProblem]:
        return (self.errors and self.errors.data) or []

    @property
    def ended(self) -> bool:
        return self.status in TERMINAL_STATUSES

    @property
    def ended_at(self) -> int | None:
        return self.completed_at or self.failed_at or self.expired_at or self.cancelled_at


class WebhookEndpoint(Resource, frozen=True, kw_only=True):
    """A receiver of webhooks; `signing_secret` is there only in the answers that show it."""

    name: str = ""
    url: str = ""
    event_types: list[str] = msgspec.field(default_factory=list)
    created_at: int = 0
    updated_at: int | None = None
    signing_secret_hint: str | None = None
    signing_secret: str | None = None

    def __repr__(self) -> str:
        return f"WebhookEndpoint(id={self.id!r}, name={self.name!r})"


class WebhookTest(Resource, frozen=True, kw_only=True):
    """What a receiver answered to a sample event."""

    id: str = msgspec.field(name="webhook_endpoint_id")
    event_type: str = ""
    status_code: int = 0


class WebhookAttempt(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt of a delivery; `error` says why there is no status."""

    created_at: int = 0
    seconds: float = 0.0
    status_code: int | None = None
    error: str | None = None


class WebhookDelivery(Resource, frozen=True, kw_only=True):
    """One event for one receiver; its id is the `webhook-id`."""

    event_type: str = ""
    batch_id: str = ""
    status: str = ""
    created_at: int = 0
    next_attempt_at: int | None = None
    attempts: list[WebhookAttempt] = msgspec.field(default_factory=list)


class Model(Resource, frozen=True, kw_only=True):
    """A model that requests may name."""

    owned_by: str | None = None
    created: int | None = None


class Quota(Resource, frozen=True, kw_only=True):
    """How many prompt tokens may be enqueued for a deployment, and how many are; ``None``: no limit."""

    deployment: str = ""
    model: str = ""
    enqueued_tokens: int = 0
    maximum_enqueued_tokens: int | None = None
    available_tokens: int | None = None
    basis: str = ""
    offer: str | None = None
    over_quota: str = ""


class AttemptCounts(msgspec.Struct, frozen=True, kw_only=True):
    """How attempts at an upstream ended; a request may take several."""

    total: int = 0
    succeeded: int = 0
    status_429: int = 0
    status_5xx: int = 0
    other_status: int = 0
    unanswered: int = 0


class RecentFigures(msgspec.Struct, frozen=True, kw_only=True):
    """How an upstream answered in the last ``seconds``; ``None``: there was no successful answer."""

    seconds: float = 0.0
    attempts: AttemptCounts = AttemptCounts()
    p50_seconds: float | None = None
    p95_seconds: float | None = None
    input_tokens_per_second: float = 0.0
    output_tokens_per_second: float = 0.0


class Upstream(Resource, frozen=True, kw_only=True):
    """An upstream of the server, by its name; ``state`` is ``answers``, ``left_alone`` or ``paused``."""

    url: str = ""
    state: str = ""
    problem: str | None = None
    paused: bool = False
    left_alone_seconds: float = 0.0
    in_flight: int = 0
    limit: int = 0
    models: list[str] = msgspec.field(default_factory=list)
    recent: RecentFigures = RecentFigures()
    since_start: AttemptCounts = AttemptCounts()


class UpstreamTest(Resource, frozen=True, kw_only=True):
    """What came of asking an upstream for its models; ``problem`` says why it did not answer."""

    url: str = ""
    answered: bool = False
    problem: str | None = None
    seconds: float = 0.0
    models: list[str] = msgspec.field(default_factory=list)


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """Batches that the server's disk keeps from going on, since when (unix seconds), and what waits in memory."""

    batches: int
    since: int
    bytes: int


class ReadyUpstream(msgspec.Struct, frozen=True, kw_only=True):
    """What a server tells everybody of an upstream."""

    name: str
    answers: bool = True
    problem: str | None = None
    paused: bool = False


class Readiness(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the server can take and record batches; ``problem`` says why not."""

    status: str
    problem: str | None = None
    waiting: Waiting | None = None
    upstreams: list[ReadyUpstream] = []


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """One page of a list, its objects still undecoded."""

    data: list[msgspec.Raw]
    has_more: bool = False


R = TypeVar("R", bound=Resource)


def decode(kind: type[R], raw: bytes) -> R:
    """Read one object; raises `msgspec.MsgspecError` if it is not one."""
    value = msgspec.json.decode(raw, type=kind)
    return msgspec.structs.replace(value, raw=bytes(raw))
