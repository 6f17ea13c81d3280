"""Webhooks: who is told that a batch ended, how that is signed, when it is sent again (CONTRACT section 5.9)."""

from __future__ import annotations

import base64
import hashlib
import hmac
from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

from overnight.domain.batch import TERMINAL, Batch
from overnight.domain.ids import BatchId, EndpointId, EventId, ResourceId

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ENDPOINTS_PER_RESOURCE = 20
"""How many receivers a resource may have."""
NAME_CHARS = 256
"""The longest name of a receiver."""

SEND_SECONDS = 10.0
"""How long an attempt may take, from looking up the name to the head of the answer."""
RETRY_SECONDS = 72 * 3_600
"""How long after an event it is tried to deliver it."""
ROTATION_SECONDS = 24 * 3_600
"""How long a secret that was replaced may still sign."""
LOG_SECONDS = 7 * 86_400
"""How long after an event its deliveries can be looked at."""
ERROR_CHARS = 200

_USER_AGENT = "OpenAI/1.0 (+https://platform.openai.com/docs/webhooks)"
_MARK = "whsec_"
_SECRET_BYTES = 24
_HINT_CHARS = 4
_FIRST_PAUSE = 5.0
_LONGEST_PAUSE = 4 * 3_600.0
_GROWTH = 3.0
# Growing further would overflow before it meant anything.
_MOST_GROWTHS = 20
_JITTER = 0.2
_OK = range(200, 300)
_SAMPLE_BATCH = BatchId("batch_test")


class EventType(StrEnum):
    """What a receiver can be told."""

    COMPLETED = "batch.completed"
    FAILED = "batch.failed"
    EXPIRED = "batch.expired"
    CANCELLED = "batch.cancelled"


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A receiver. ``old_secret`` signs beside ``secret`` until ``old_secret_until`` (unix seconds).

    ``revision`` counts the changes: a write that names an older one than the stored one is refused.
    """

    id: EndpointId
    resource: ResourceId
    name: str
    url: str
    event_types: tuple[EventType, ...]
    secret: str
    created_at: int
    updated_at: int
    old_secret: str | None = None
    old_secret_until: float = 0.0
    revision: int = 0

    def __repr__(self) -> str:
        """Leave the secrets out, and the URL, which may hold one: a record may end up in a log."""
        return f"Endpoint(id={self.id!r}, resource={self.resource!r}, revision={self.revision!r})"

    def secrets(self, now: float) -> tuple[str, ...]:
        """Give the secrets that sign now, the newest first."""
        if self.old_secret is not None and now < self.old_secret_until:
            return (self.secret, self.old_secret)
        return (self.secret,)

    @property
    def hint(self) -> str:
        """What may be shown of the secret."""
        return f"{_MARK}…{self.secret[-_HINT_CHARS:]}"

    def rotated(self, secret: str, now: float, *, keep_old: bool) -> Endpoint:
        """Give the endpoint with a new secret; one that was replaced before this one signs no more."""
        return msgspec.structs.replace(
            self,
            secret=secret,
            old_secret=self.secret if keep_old else None,
            old_secret_until=now + ROTATION_SECONDS if keep_old else 0.0,
            updated_at=int(now),
            revision=self.revision + 1,
        )


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened to a batch; ``created_at`` is in unix seconds."""

    id: EventId
    type: EventType
    created_at: int
    batch_id: BatchId

    def body(self) -> bytes:
        """Give what is sent: the same bytes at every attempt."""
        return msgspec.json.encode(
            {
                "id": self.id,
                "object": "event",
                "type": self.type,
                "created_at": self.created_at,
                "data": {"id": self.batch_id},
            }
        )


class DeliveryStatus(StrEnum):
    """What became of a delivery."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """One event for one receiver; ``attempts`` counts those that are over.

    ``due_at`` (unix seconds) is when it is sent next; while it is being sent, it is when another may take it over.
    ``epoch`` counts the claims: a write that names an older one is refused.
    """

    endpoint_id: EndpointId
    event_id: EventId
    type: EventType
    batch_id: BatchId
    created_at: int
    status: DeliveryStatus = DeliveryStatus.PENDING
    due_at: float = 0.0
    epoch: int = 0
    attempts: int = 0

    @classmethod
    def of(cls, event: Event, endpoint_id: EndpointId) -> Delivery:
        """Make the delivery of an event, due at once."""
        return cls(
            endpoint_id=endpoint_id,
            event_id=event.id,
            type=event.type,
            batch_id=event.batch_id,
            created_at=event.created_at,
            due_at=event.created_at,
        )

    @property
    def event(self) -> Event:
        """What is told."""
        return Event(id=self.event_id, type=self.type, created_at=self.created_at, batch_id=self.batch_id)


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One try of a delivery: when it began (unix seconds), how long it took, and its status, or what went wrong."""

    at: float
    seconds: float
    status_code: int | None = None
    error: str | None = None

    @property
    def ok(self) -> bool:
        """Whether the receiver took it: redirects are not followed, so they are none of that."""
        return self.status_code in _OK


class Claimed(msgspec.Struct, frozen=True, kw_only=True):
    """A delivery to be sent now, and where to."""

    delivery: Delivery
    endpoint: Endpoint


class Logged(msgspec.Struct, frozen=True, kw_only=True):
    """A delivery with its attempts, the oldest first."""

    delivery: Delivery
    attempts: tuple[Attempt, ...]


def event_of(batch: Batch) -> Event | None:
    """Give what is told of a batch that has just ended; ``None`` for one that has not.

    The id follows from the batch and its status, so that nothing that is done twice makes a second event.
    """
    if batch.status not in TERMINAL:
        return None
    type_ = EventType(f"batch.{batch.status}")
    digest = hashlib.sha256(f"{batch.id} {type_}".encode()).hexdigest()
    at: int = getattr(batch, f"{batch.status}_at")
    return Event(id=EventId(f"evt_{digest[:32]}"), type=type_, created_at=at, batch_id=batch.id)


def sample_event(event_type: EventType, entropy: str, now: float) -> Event:
    """Make an event for a test of a receiver, of a batch that there is not."""
    return Event(id=EventId(f"evt_{entropy}"), type=event_type, created_at=int(now), batch_id=_SAMPLE_BATCH)


def new_secret(entropy: str) -> str:
    """Make a signing secret; ``entropy`` is at least 48 hexadecimal digits."""
    return _MARK + base64.b64encode(bytes.fromhex(entropy)[:_SECRET_BYTES]).decode()


def signature(secret: str, event_id: str, timestamp: int, body: bytes) -> str:
    """Sign a message as Standard Webhooks does."""
    key = base64.b64decode(secret.removeprefix(_MARK))
    digest = hmac.new(key, f"{event_id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def headers(event: Event, body: bytes, secrets: Sequence[str], now: float) -> Mapping[str, str]:
    """Give the headers of one attempt, signed anew with each secret."""
    timestamp = int(now)
    return {
        "content-type": "application/json",
        "user-agent": _USER_AGENT,
        "webhook-id": event.id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(signature(secret, event.id, timestamp, body) for secret in secrets),
    }


def next_attempt(created_at: int, failures: int, now: float, fraction: float) -> float | None:
    """Say when to try again after so many failures; ``None`` to give up. ``fraction`` is a random number of [0, 1).

    The pauses grow from seconds to hours. The last attempt is at the end of the time that an event has.
    """
    last = created_at + RETRY_SECONDS
    if now >= last:
        return None
    pause = min(_FIRST_PAUSE * _GROWTH ** min(failures - 1, _MOST_GROWTHS), _LONGEST_PAUSE)
    return min(now + pause * (1 + _JITTER * (2 * fraction - 1)), last)


def settled(claimed: Delivery, attempt: Attempt, now: float, fraction: float) -> Delivery:
    """Give a delivery after one more attempt; ``fraction`` is a random number of [0, 1)."""
    attempts = claimed.attempts + 1
    if attempt.ok:
        return msgspec.structs.replace(claimed, status=DeliveryStatus.DELIVERED, attempts=attempts)
    due = next_attempt(claimed.created_at, attempts, now, fraction)
    if due is None:
        return msgspec.structs.replace(claimed, status=DeliveryStatus.FAILED, attempts=attempts)
    return msgspec.structs.replace(claimed, due_at=due, attempts=attempts)
