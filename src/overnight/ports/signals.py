"""Nudges inside one process; each is only a hint, for the store holds the truth."""

from typing import Protocol

from overnight.domain.ids import BatchId


class Signals(Protocol):
    """Tells the dispatcher at once what it would find out by itself a little later."""

    def batch_created(self) -> None:
        """There is a new batch to claim."""

    def batch_changed(self, batch_id: BatchId) -> None:
        """A batch was cancelled."""


class NoSignals:
    """For processes without a dispatcher."""

    def batch_created(self) -> None:
        """Do nothing: a dispatcher elsewhere polls."""

    def batch_changed(self, batch_id: BatchId) -> None:
        """Do nothing: the lease keeper of the owner reads the batch."""
