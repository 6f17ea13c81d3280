"""Where batches are kept, and who may write them."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Generic, Protocol, TypeVar

import msgspec

from overnight.domain.batch import Batch
from overnight.domain.file import File
from overnight.domain.ids import BatchId, ResourceId, WorkerId
from overnight.domain.lanes import Lane
from overnight.domain.listing import BatchQuery
from overnight.domain.result import Tally
from overnight.ports.bounds import Bound

T = TypeVar("T")


class Page(msgspec.Struct, Generic[T], frozen=True):
    """Part of a list, newest first unless asked otherwise."""

    items: Sequence[T]
    has_more: bool


class Verdict(StrEnum):
    """What became of a batch that was to be let in."""

    ADMITTED = "admitted"
    FULL = "full"
    LOST = "lost"


class Admission(msgspec.Struct, frozen=True, kw_only=True):
    """What became of it, the tokens of other batches that are enqueued, and how many batches wait before this one."""

    verdict: Verdict
    enqueued: int = 0
    ahead: int = 0


class Batches(Protocol):
    """The batches. Every write names the state that it expects, and losing a race is an ordinary result."""

    async def add(self, batch: Batch, *, bound: Bound | None = None) -> None:
        """Store a new batch; durable on return.

        Raises:
            BoundReached: as many batches of its resource and flavour as ``bound`` allows were created after its
                ``since``. Of several at once, no more than that are stored.
        """

    async def add_once(self, batch: Batch, *, since: int, bound: Bound | None = None) -> Batch:
        """Store a new batch unless it repeats one, and give the batch that is stored; durable on return.

        It repeats the newest batch of its resource that was created at ``since`` (unix seconds) or later and has the
        same idempotency key; without a key, the newest that has the same fingerprint and no key either.
        Of equal ones at once, one is stored. An older batch with the key loses it.

        Raises:
            BoundReached: as for ``add``; never for one that repeats another.
        """

    async def get(self, resource: ResourceId, batch_id: BatchId) -> Batch | None:
        """Give a batch of this resource; ``None`` for unknown and foreign ids alike."""

    async def page(self, resource: ResourceId, query: BatchQuery) -> Page[Batch] | None:
        """List a resource's batches; ``None`` if there is no batch of the id in ``query.after``."""

    async def save(self, new: Batch, *, expected: Batch, files: Sequence[File] = ()) -> bool:
        """Write the fields in which ``new`` differs, and the ``files`` with them, in one transaction.

        With a status in which it ends, the deliveries of that event are stored in the same transaction, one for each
        receiver of the resource that wants to know (``ports/webhooks.py``).

        Nothing is written, and ``False`` returned, unless the stored batch has the status and epoch of ``expected``.
        The books (``ports/usage.py``) are raised by what the counts and the usage have grown, on the day on which the
        batch got the status of ``new``.
        """

    async def admit(self, new: Batch, *, expected: Batch, limit: int, in_turn: bool) -> Admission:
        """Write the fields in which ``new`` differs if its reservation fits into the limit, all in one transaction.

        It fits if it and what is enqueued for the same resource and deployment (``enqueued``) are at most ``limit``.
        With ``in_turn`` nothing is ``ADMITTED`` before an older batch of the two that waits for room: one in
        ``validating`` whose tokens are counted. Of several at once, each sees those that were let in before it.
        ``FULL`` and ``LOST`` write nothing; ``LOST`` means that the stored batch has not the status and epoch of
        ``expected``.
        """

    async def enqueued(self, resource: ResourceId, deployments: Sequence[str]) -> Mapping[str, int]:
        """Give the enqueued tokens of each of the deployments: what its batches that have not ended still hold.

        What each holds is computed from its recorded counts (``domain/quota.py``), so it needs no books of its own.
        """

    async def repeated(self, batch: Batch, *, since: int) -> Batch | None:
        """Give the stored batch that ``add_once`` would give instead of this new one, if there is one."""

    async def record_progress(self, batch: Batch, tally: Tally, *, now: float) -> bool:
        """Set the counts and the usage of a batch; ``False`` if its epoch is not the one of ``batch`` any more.

        The books (``ports/usage.py``) are raised by what these have grown, on the day of ``now`` (unix seconds), in the
        same transaction: over all days they add up to what the batches count.
        """

    async def waiting(self, worker: WorkerId, *, now: float) -> Mapping[Lane, int]:
        """Count what ``claim`` could give this worker at ``now``, by lane; that of the oldest batch comes first."""

    async def claim(
        self, worker: WorkerId, *, now: float, until: float, limit: int, lane: Lane | None = None
    ) -> Sequence[Batch]:
        """Take up to ``limit`` active batches that nobody holds at ``now``, oldest first, each with its epoch raised.

        With a ``lane`` only those that are in it at ``now``; of one without a deployment, those come last that were
        given back to be claimed later, by when that was: what has to wait again and again is in nobody's way.
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

    async def release_all(self, worker: WorkerId) -> None:
        """Give back the claims of a worker that is known to be dead."""
