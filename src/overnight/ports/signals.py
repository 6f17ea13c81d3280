"""Nudges inside one process; each is only a hint, for the store holds the truth."""

from typing import Protocol

from overnight.domain.ids import BatchId


class Signals(Protocol):
    """Tells the dispatcher at once what it would find out by itself a little later."""

    def batch_created(self) -> None:
        """There is a new batch to claim."""

    def batch_changed(self, batch_id: BatchId) -> None:
        """A batch was cancelled."""
