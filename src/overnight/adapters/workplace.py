"""The folder of a worker on this machine: its unfinished files, and the lock that shows whether it lives.

The kernel drops the lock with the process, whatever way it dies. So a worker that finds another's folder unlocked knows
that its owner is gone, and need not wait for its leases to run out.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from typing import TYPE_CHECKING

from overnight.crash_points import reached
from overnight.domain.ids import WorkerId

if TYPE_CHECKING:
    from pathlib import Path


class Workplace:
    """A locked folder; ``dead`` names the workers whose folders were found abandoned, and are removed now."""

    def __init__(self, root: Path, worker: WorkerId) -> None:
        workers = root / "workers"
        workers.mkdir(parents=True, exist_ok=True)
        self.dead = [WorkerId(folder.name) for folder in sorted(workers.iterdir()) if _remove_abandoned(folder)]
        self.temporary = workers / worker
        self._lock: int | None = None
        while self._lock is None:
            # A worker that starts beside us may take the folder for abandoned before it is locked.
            self.temporary.mkdir(exist_ok=True)
            self._lock = _lock(self.temporary)
            if self._lock is not None and not self.temporary.is_dir():
                os.close(self._lock)
                self._lock = None

    def close(self) -> None:
        """Give the folder up."""
        shutil.rmtree(self.temporary, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _remove_abandoned(folder: Path) -> bool:
    lock = _lock(folder)
    if lock is None:
        return False
    # What was in it was never published.
    shutil.rmtree(folder, ignore_errors=True)
    reached("worker.folder_removed")
    os.close(lock)
    return True


def _lock(folder: Path) -> int | None:
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
