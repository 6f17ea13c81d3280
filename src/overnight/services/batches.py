"""Batches: create, look at, list, cancel."""

from __future__ import annotations

import hashlib
from math import ceil
from typing import TYPE_CHECKING

import msgspec

from overnight.domain import ids
from overnight.domain.batch import DEFAULT_EXPIRY, TERMINAL, Batch, BatchStatus
from overnight.domain.endpoints import ENDPOINTS, is_supported
from overnight.domain.errors import Conflict, InvalidRequest, NotFound, TooManyRequests
from overnight.domain.file import ExpiresAfter
from overnight.domain.ids import FileId
from overnight.domain.limits import (
    COMPLETION_WINDOW,
    CREATION_SECONDS,
    IDEMPOTENCY_KEY_CHARS,
    KEY_SECONDS,
    METADATA_KEY_CHARS,
    METADATA_PAIRS,
    METADATA_VALUE_CHARS,
    RETRY_SECONDS,
    WINDOW_SECONDS,
)
from overnight.ports.bounds import Bound, BoundReached
from overnight.services.files import check_expiry, unknown_cursor
from overnight.services.lengths import too_long

if TYPE_CHECKING:
    from collections.abc import Mapping

    from overnight.domain.flavour import Flavour
    from overnight.domain.ids import BatchId, ResourceId
    from overnight.domain.limits import Limits
    from overnight.domain.listing import BatchQuery
    from overnight.ports.batches import Batches, Page
    from overnight.ports.clock import Clock, Entropy
    from overnight.ports.signals import Signals
    from overnight.services.gate import Gate


class NewBatch(msgspec.Struct, frozen=True, kw_only=True):
    """What the caller asks for.

    ``idempotency_key`` names the request; ``sent_again`` says that the client has sent it before and saw no answer.
    ``derived_from`` tells what the input was made from, where that, not the file, makes two requests equal.
    """

    input_file_id: str
    endpoint: str
    completion_window: str
    metadata: dict[str, str] | None = None
    output_expires_after: ExpiresAfter | None = None
    idempotency_key: str | None = None
    sent_again: bool = False
    derived_from: str | None = None


class BatchService:
    """The use cases of batches."""

    def __init__(
        self,
        batches: Batches,
        clock: Clock,
        entropy: Entropy,
        limits: Mapping[Flavour, Limits],
        signals: Signals,
        gate: Gate | None = None,
    ) -> None:
        self._batches = batches
        self._clock = clock
        self._entropy = entropy
        self._limits = limits
        self._signals = signals
        self._gate = gate
        # Batches are never removed, so a full hour stays full until its oldest batch leaves it.
        self._full_until: dict[tuple[ResourceId, Flavour], int] = {}

    async def create(self, resource: ResourceId, flavour: Flavour, new: NewBatch) -> Batch:
        """Create a batch in ``validating``; what is in its file is looked at later.

        A request that repeats another gets the batch of that one: by its key, or, sent again without a key, by what
        it asks for.

        Raises:
            InvalidRequest: the shape of the request is wrong (CONTRACT section 3.5).
            TokenLimitExceeded: it does not fit into the quota of its deployment, which wants that told at once.
            Conflict: the key was used for a request that asked for something else.
            TooManyRequests: the resource created as many batches within an hour as it may.
        """
        now = int(self._clock.now())
        batch = self._draft(resource, flavour, new, now)
        try:
            stored = await self._add(batch, new, now)
        except BoundReached as reached:
            self._full_until[resource, flavour] = reached.oldest + CREATION_SECONDS
            raise self._too_many(flavour, reached.oldest + CREATION_SECONDS) from reached
        if stored.id == batch.id:
            self._signals.batch_created()
        elif stored.fingerprint != batch.fingerprint:
            raise _key_reused(stored)
        return stored

    async def repeated(self, resource: ResourceId, flavour: Flavour, new: NewBatch) -> Batch | None:
        """Give the batch that ``create`` would give to a request that repeats another; ``None`` if it repeats none.

        Raises ``InvalidRequest`` and ``Conflict`` as ``create`` does.
        """
        now = int(self._clock.now())
        batch = self._draft(resource, flavour, new, now)
        if not _may_repeat(new):
            return None
        stored = await self._batches.repeated(batch, since=_since(new, now))
        if stored is not None and stored.fingerprint != batch.fingerprint:
            raise _key_reused(stored)
        return stored

    async def require_room(self, resource: ResourceId, flavour: Flavour, new: NewBatch) -> None:
        """Refuse what ``create`` is known to refuse before the input is there; ``new`` names the file it comes from.

        Raises ``TooManyRequests`` and ``TokenLimitExceeded`` as ``create`` does.
        """
        now = int(self._clock.now())
        self._full_until = {whose: until for whose, until in self._full_until.items() if until > now}
        until = self._full_until.get((resource, flavour))
        if until is not None:
            raise self._too_many(flavour, until)
        if self._gate is not None:
            await self._gate.require_any(self._draft(resource, flavour, new, now))

    def _draft(self, resource: ResourceId, flavour: Flavour, new: NewBatch, now: int) -> Batch:
        _check_key(new.idempotency_key)
        _check_endpoint(new.endpoint, flavour)
        _check_window(new.completion_window)
        _check_metadata(new.metadata)
        return Batch(
            id=ids.batch_id(flavour, self._entropy.hex()),
            resource=resource,
            flavour=flavour,
            endpoint=new.endpoint,
            input_file_id=FileId(new.input_file_id),
            completion_window=new.completion_window,
            created_at=now,
            expires_at=now + WINDOW_SECONDS,
            expiry=DEFAULT_EXPIRY[flavour],
            metadata=new.metadata,
            output_expires_after=check_expiry(new.output_expires_after, self._limits[flavour], "output_expires_after"),
            idempotency_key=new.idempotency_key,
            fingerprint=_fingerprint(flavour, new),
        )

    async def _add(self, batch: Batch, new: NewBatch, now: int) -> Batch:
        since, may_repeat = _since(new, now), _may_repeat(new)
        if self._gate is not None:
            # What was let in stays so: a repeated request is told of its batch, though that one took the room.
            stored = await self._batches.repeated(batch, since=since) if may_repeat else None
            if stored is not None:
                return stored
            await self._gate.check(batch)
        most = self._limits[batch.flavour].batches_per_hour
        bound = None if most is None else Bound(most=most, since=now - CREATION_SECONDS)
        if may_repeat:
            return await self._batches.add_once(batch, since=since, bound=bound)
        await self._batches.add(batch, bound=bound)
        return batch

    def _too_many(self, flavour: Flavour, until: int) -> TooManyRequests:
        most = self._limits[flavour].batches_per_hour
        wait = max(1.0, until - self._clock.now())
        message = (
            f"The limit of {most:,} batches created within an hour is reached. The next one can be created in"
            f" {ceil(wait):,} seconds. Put more requests into one batch."
        )
        return TooManyRequests(message, wait=wait)

    async def get(self, resource: ResourceId, batch_id: BatchId) -> Batch:
        """Give a batch. Raises ``NotFound``."""
        batch = await self._batches.get(resource, batch_id)
        if batch is None:
            message = f"No batch found with id '{batch_id}'."
            raise NotFound(message)
        return batch

    async def page(self, resource: ResourceId, query: BatchQuery) -> Page[Batch]:
        """List batches. Raises ``InvalidRequest`` for an unknown cursor."""
        page = await self._batches.page(resource, query)
        if page is None:
            raise unknown_cursor("batch", str(query.after))
        return page

    async def cancel(self, resource: ResourceId, batch_id: BatchId) -> Batch:
        """Stop a batch; asking again is fine. Raises ``NotFound``, and ``Conflict`` where it ended another way."""
        while True:
            batch = await self.get(resource, batch_id)
            if batch.status in {BatchStatus.CANCELLING, BatchStatus.CANCELLED}:
                return batch
            if batch.status in TERMINAL:
                message = f"Cannot cancel a batch with status '{batch.status}'."
                raise Conflict(message)
            cancelling = batch.to(BatchStatus.CANCELLING, self._clock.now())
            if await self._batches.save(cancelling, expected=batch):
                self._signals.batch_changed(batch_id)
                return cancelling


def _may_repeat(new: NewBatch) -> bool:
    return new.sent_again or new.idempotency_key is not None


def _since(new: NewBatch, now: int) -> int:
    """Say how old the batch of a repeated request may be."""
    return now - (RETRY_SECONDS if new.idempotency_key is None else KEY_SECONDS)


def _fingerprint(flavour: Flavour, new: NewBatch) -> str:
    """Put what a request asks for into one text, equal only for equal requests."""
    asked = (
        flavour,
        new.derived_from or new.input_file_id,
        new.endpoint,
        new.completion_window,
        new.metadata,
        new.output_expires_after,
    )
    return hashlib.sha256(msgspec.json.encode(asked, order="sorted")).hexdigest()


def _check_key(key: str | None) -> None:
    if key is None:
        return
    if not key:
        message = "Invalid 'Idempotency-Key': it is empty. Send a value of your own for each new batch, or no header."
        raise InvalidRequest(message, param="Idempotency-Key", code="invalid_value")
    if len(key) > IDEMPOTENCY_KEY_CHARS:
        raise too_long("Idempotency-Key", "string", IDEMPOTENCY_KEY_CHARS, len(key))


def _key_reused(stored: Batch) -> Conflict:
    message = (
        f"This 'Idempotency-Key' was used within the last 24 hours to create the batch '{stored.id}' from another"
        " request. Send the same request again, or another key for a new batch."
    )
    return Conflict(message, param="Idempotency-Key", code="idempotency_key_reused")


def _check_endpoint(endpoint: str, flavour: Flavour) -> None:
    if not is_supported(endpoint, flavour):
        choices = ", ".join(f"'{name}'" for name in ENDPOINTS)
        message = f"Invalid value: '{endpoint}'. Supported values are: {choices}."
        raise InvalidRequest(message, param="endpoint", code="invalid_value")


def _check_window(window: str) -> None:
    if window != COMPLETION_WINDOW:
        message = f"Invalid value: '{window}'. Value must be '{COMPLETION_WINDOW}'."
        raise InvalidRequest(message, param="completion_window", code="invalid_value")


def _check_metadata(metadata: dict[str, str] | None) -> None:
    if metadata is None:
        return
    if len(metadata) > METADATA_PAIRS:
        message = (
            f"Invalid 'metadata': too many properties. Expected an object with at most {METADATA_PAIRS} properties,"
            f" but got an object with {len(metadata)} properties instead."
        )
        raise InvalidRequest(message, param="metadata", code="object_above_max_properties")
    for key, value in metadata.items():
        if len(key) > METADATA_KEY_CHARS:
            raise too_long(f"metadata.{key[:METADATA_KEY_CHARS]}", "key", METADATA_KEY_CHARS, len(key))
        if len(value) > METADATA_VALUE_CHARS:
            raise too_long(f"metadata.{key}", "string", METADATA_VALUE_CHARS, len(value))
