"""Named moments between two durable steps, at which a test can let the process die (``overnight.testing.crashing``).

Nothing watches them in production, and no setting, flag or environment variable can change that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

POINTS = (
    "batch.added",
    "batch.cancelled",
    "batch.cancelling",
    "batch.claimed",
    "batch.completed",
    "batch.expired",
    "batch.failed",
    "batch.finalizing",
    "batch.in_progress",
    "batch.progress_recorded",
    "batch.released",
    "batch.renewed",
    "blob.deleted",
    "blob.placed",
    "blob.renamed",
    "blob.synced",
    "blob.written",
    "error_file.placed",
    "file.added",
    "file.bytes_forgotten",
    "file.deleted",
    "index.deleted",
    "index.placed",
    "log.deleted",
    "log.pin_written",
    "log.pinned",
    "log.segment_created",
    "log.synced",
    "log.written",
    "output_file.placed",
    "places.placed",
    "upload.added",
    "upload.cancelled",
    "upload.completed",
    "upload.part_added",
    "upload.parts_forgotten",
    "webhook.claimed",
    "webhook.recorded",
    "webhook.sent",
    "worker.claims_released",
    "worker.folder_removed",
)
"""All names, in order: what is written, then what became of it."""

_watchers: list[Callable[[str], None]] = []


def reached(name: str) -> None:
    """Tell whoever watches that the process has come to a point; called after commits, never for each request."""
    for watcher in _watchers:
        watcher(name)


def watch(watcher: Callable[[str], None]) -> None:
    """Call ``watcher`` at every point, in the thread that reached it; for ``overnight.testing`` only."""
    _watchers.append(watcher)


def forget_watchers() -> None:
    """Call nobody any more."""
    _watchers.clear()
