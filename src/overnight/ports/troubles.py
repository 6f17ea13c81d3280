"""Which batches cannot go on because of a disk or a store: a note for people, by which nothing is decided."""

from typing import Protocol

import msgspec

from overnight.domain.ids import BatchId


class Trouble(msgspec.Struct, frozen=True, kw_only=True):
    """Why a batch waits, since when (unix seconds), and how many bytes of its results wait in memory."""

    batch_id: BatchId
    problem: str
    since: float
    bytes_waiting: int = 0


class Troubles(Protocol):
    """Hears of every trouble from whoever meets it."""

    def note(self, batch_id: BatchId, error: Exception, *, bytes_waiting: int = 0) -> None:
        """A batch cannot go on now; noted again, it has waited since the first time."""

    def over(self, batch_id: BatchId) -> None:
        """The batch goes on, or is not ours any more; fine if it was in no trouble."""
