"""Where batches are kept, and who may write them."""

from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

import msgspec

from overnight.domain.batch import Batch
from overnight.domain.file import File
from overnight.domain.ids import BatchId, ResourceId, WorkerId
from overnight.domain.listing import BatchQuery
from overnight.domain.result import Tally

T = TypeVar("T")


class Page(msgspec.Struct, Generic[T], frozen=True):
    """Part of a list, newest first unless asked otherwise."""

    items: Sequence[T]
    has_more: bool


class Batches(Protocol):
    """The batches. Every write names the state that it expects, and losing a race is an ordinary result."""

    async def add(self, batch: Batch) -> None:
        """Store a new batch; durable on return."""

    async def add_once(self, batch: Batch, *, since: int) -> Batch:
        """Store a new batch unless it repeats one, and give the batch that is stored; durable on return.

        It repeats the newest batch of its resource that was created at ``since`` (unix seconds) or later and has the
        same idempotency key; without a key, the newest that has the same fingerprint and no key either.
        Of equal ones at once, one is stored. An older batch with the key loses it.
        """

    async def get(self, resource: ResourceId, batch_id: BatchId) -> Batch | None:
        """Give a batch of this resource; ``None`` for unknown and foreign ids alike."""

    async def page(self, resource: ResourceId, query: BatchQuery) -> Page[Batch] | None:
        """List a resource's batches; ``None`` if there is no batch of the id in ``query.after``."""

    async def save(self, new: Batch, *, expected: Batch, files: Sequence[File] = ()) -> bool:
        """Write the fields in which ``new`` differs, and the ``files`` with them, in one transaction.

        Nothing is written, and ``False`` returned, unless the stored batch has the status and epoch of ``expected``.
        """

    async def record_progress(self, batch: Batch, tally: Tally) -> bool:
        """Set the counts and the usage of a batch; ``False`` if its epoch is not the one of ``batch`` any more."""

    async def claim(self, worker: WorkerId, *, now: float, until: float, limit: int) -> Sequence[Batch]:
        """Take up to ``limit`` active batches that nobody holds at ``now``, oldest first, each with its epoch raised.

        A worker is not given again what it still holds, though its lease has run out: it may be at work on it.
        The claims hold until ``until`` (unix seconds). No two workers are given the same epoch of a batch.
        """

    async def renew(self, batch: Batch, worker: WorkerId, *, until: float) -> Batch | None:
        """Hold a claim longer and give the batch as stored; ``None`` if the claim was lost."""

    async def release(self, batch: Batch, worker: WorkerId, *, until: float = 0.0) -> None:
        """Give a claim back, so that it can be taken from ``until`` (unix seconds) on, or once the batch is cancelled.

        Does nothing if the claim was lost.
        """

    async def known(self, batch_ids: Sequence[BatchId]) -> Sequence[Batch]:
        """Give those of the batches that there are, of whatever resource, in no particular order."""

    async def active(self, batch_ids: Sequence[BatchId]) -> set[BatchId]:
        """Give those of the batches that have not ended."""

    async def release_all(self, worker: WorkerId) -> None:
        """Give back the claims of a worker that is known to be dead."""
