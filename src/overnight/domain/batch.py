"""A batch, the states it passes through and what each stop ends in (CONTRACT section 5.1)."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

from overnight.domain.flavour import Flavour
from overnight.domain.ids import BatchId, FileId, ResourceId
from overnight.domain.result import BILLING_HARD_LIMIT
from overnight.domain.usage import NO_USAGE, Usage

if TYPE_CHECKING:
    from collections.abc import Mapping


class BatchStatus(StrEnum):
    """The eight statuses of both vendors."""

    VALIDATING = "validating"
    FAILED = "failed"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"


S = BatchStatus

# A cancel that is accepted while the files are being written keeps every result and ends as cancelled.
TRANSITIONS: Mapping[BatchStatus, frozenset[BatchStatus]] = {
    S.VALIDATING: frozenset({S.IN_PROGRESS, S.FAILED, S.CANCELLING, S.EXPIRED}),
    S.IN_PROGRESS: frozenset({S.FINALIZING, S.CANCELLING}),
    S.FINALIZING: frozenset({S.COMPLETED, S.EXPIRED, S.CANCELLING}),
    S.CANCELLING: frozenset({S.CANCELLED}),
}
TERMINAL = frozenset(BatchStatus) - TRANSITIONS.keys()
ACTIVE = frozenset(TRANSITIONS)

_TIMESTAMP = {
    S.FAILED: "failed_at",
    S.IN_PROGRESS: "in_progress_at",
    S.FINALIZING: "finalizing_at",
    S.COMPLETED: "completed_at",
    S.EXPIRED: "expired_at",
    S.CANCELLING: "cancelling_at",
    S.CANCELLED: "cancelled_at",
}


class Expiry(StrEnum):
    """What happens at the end of the completion window (CONTRACT section 5.3)."""

    EXPIRE = "expire"
    CONTINUE = "continue"


DEFAULT_EXPIRY: Mapping[Flavour, Expiry] = {Flavour.OPENAI: Expiry.EXPIRE, Flavour.AZURE: Expiry.CONTINUE}


class InvalidTransition(Exception):
    """A batch cannot go from one status to the other: a defect of ours, never a caller's mistake."""

    def __init__(self, old: BatchStatus, new: BatchStatus) -> None:
        super().__init__(f"a batch cannot go from {old} to {new}")
        self.old = old
        self.new = new


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One thing wrong with an input file; ``line`` counts from 1."""

    code: str
    message: str
    param: str | None = None
    line: int | None = None


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """A batch. Times are unix seconds; ``endpoint`` is as the caller wrote it.

    ``input_blob`` is the key of the input's bytes, known once the input was accepted.
    ``epoch`` counts the claims on the batch: a write that names an older epoch than the stored one is refused.
    ``fingerprint`` is the same for equal requests; ``idempotency_key`` is the caller's name for one request.
    ``prompt_tokens`` are those of the input, known once they were counted; a batch in ``validating`` that has them
    waits for room. ``reserved_tokens`` count against the quota of the deployment, and less as requests end
    (``domain/quota.py``).
    """

    id: BatchId
    resource: ResourceId
    flavour: Flavour
    endpoint: str
    input_file_id: FileId
    completion_window: str
    created_at: int
    expires_at: int
    expiry: Expiry
    status: BatchStatus = BatchStatus.VALIDATING
    epoch: int = 0
    metadata: dict[str, str] | None = None
    output_expires_after: int | None = None
    in_progress_at: int | None = None
    finalizing_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    expired_at: int | None = None
    cancelling_at: int | None = None
    cancelled_at: int | None = None
    errors: tuple[Problem, ...] = ()
    output_file_id: FileId | None = None
    error_file_id: FileId | None = None
    total: int = 0
    completed: int = 0
    failed: int = 0
    input_blob: str | None = None
    model: str | None = None
    deployment: str | None = None
    usage: Usage = NO_USAGE
    idempotency_key: str | None = None
    fingerprint: str | None = None
    prompt_tokens: int | None = None
    reserved_tokens: int = 0

    def to(self, status: BatchStatus, now: float, **changes: object) -> Batch:
        """Give the batch in its next status, with that status's timestamp set.

        Raises:
            InvalidTransition: the state machine has no such step.
        """
        if status not in TRANSITIONS.get(self.status, frozenset()):
            raise InvalidTransition(self.status, status)
        stamped = {_TIMESTAMP[status]: int(now), **changes}
        return msgspec.structs.replace(self, status=status, **stamped)

    @property
    def moved_at(self) -> int:
        """When the batch got its status."""
        moment: int | None = getattr(self, _TIMESTAMP.get(self.status, "created_at"))
        return self.created_at if moment is None else moment

    @property
    def capped(self) -> bool:
        """Whether a cap of the resource stopped the batch, and not its owner."""
        return any(problem.code == BILLING_HARD_LIMIT[0] for problem in self.errors)

    @property
    def ended(self) -> bool:
        """Whether nothing can happen to the batch any more."""
        return self.status in TERMINAL

    @property
    def accepted(self) -> bool:
        """Whether validation let the requests in: only then can there be results."""
        return self.in_progress_at is not None

    def deadline(self) -> float | None:
        """The moment (unix seconds) from which no request may start, or ``None`` if the batch may go on."""
        return self.expires_at if self.expiry is Expiry.EXPIRE else None

    def overdue(self, now: float) -> bool:
        """Whether the completion window has closed on the batch."""
        deadline = self.deadline()
        return deadline is not None and now >= deadline


class StopCause(StrEnum):
    """Why the requests of a batch are no longer started."""

    DONE = "done"
    CANCEL = "cancel"
    EXPIRY = "expiry"
    SHUTDOWN = "shutdown"
    LEASE_LOST = "lease_lost"
    TROUBLE = "trouble"
    CAP = "cap"
    TURN = "turn"


# Another worker, or this one after a restart or when it is its turn again, goes on with the batch.
LEAVING = frozenset({StopCause.SHUTDOWN, StopCause.LEASE_LOST, StopCause.TURN})


def terminal_status(cause: StopCause) -> BatchStatus:
    """Give the status that a batch ends in once its files are written. Raises ``KeyError`` where it does not end."""
    return {
        StopCause.DONE: BatchStatus.COMPLETED,
        StopCause.CANCEL: BatchStatus.CANCELLED,
        StopCause.EXPIRY: BatchStatus.EXPIRED,
        StopCause.CAP: BatchStatus.CANCELLED,
    }[cause]
