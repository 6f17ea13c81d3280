"""Appending frames to segments on a local disk: written soon after they arrive, synced when they are to count.

What was written outlives the process, though not the machine: the kernel has it. So a killed process loses only the
last few frames, not all those that wait for their sync. A thread writes, for a write can take milliseconds while the
disk is busy with a sync, and the event loop must not wait for that.
"""

from __future__ import annotations

import asyncio
import os
import threading
from contextlib import contextmanager
from queue import SimpleQueue
from typing import TYPE_CHECKING

from overnight.adapters.disk import sync_folder
from overnight.crash_points import reached
from overnight.domain.frame import MAGIC

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WRITE_AHEAD = 32
"""So many frames are written without waiting for their sync; what a killed process loses is less than that."""


class WriterThread:
    """One thread that writes for all open logs."""

    def __init__(self) -> None:
        self._asked: SimpleQueue[SegmentWriter | None] = SimpleQueue()
        self._users = 0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Keep the thread while a log is open; called from one thread."""
        if not self._users:
            # A daemon: a disk that never answers must not keep the process from ending.
            threading.Thread(target=_write_ahead, args=(self._asked,), name="write results", daemon=True).start()
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1
            if not self._users:
                self._asked.put(None)
                self._asked = SimpleQueue()

    def ask(self, segment: SegmentWriter) -> None:
        """Let a segment be written soon."""
        self._asked.put(segment)


def _write_ahead(asked: SimpleQueue[SegmentWriter | None]) -> None:
    while True:
        segment = asked.get()
        if segment is None:
            return
        segment.write_ahead()


class SegmentWriter:
    """Appends to the newest segment of an epoch, or to a new one after a failed sync.

    ``take`` and ``commit`` are for the event loop, ``write_ahead`` is for the writer thread.
    """

    def __init__(self, folder: Path, epoch: int, writer: WriterThread) -> None:
        self._folder = folder
        self._epoch = epoch
        self._writer = writer
        self._writing = threading.Lock()
        # All frames since the last good sync, for a failed one may cost every page since then.
        self._frames: list[bytes] = []
        self._written = 0
        self._end = 0
        self._number = 0
        self._file: _File | None = None
        # Whether to write before a commit asks: not while the disk is in trouble, for a commit tries again and tells.
        self._ahead = True
        self._asked = False

    def take(self, frame: bytes) -> None:
        """Take a frame, to be written soon. Never waits."""
        self._frames.append(frame)
        if not self._asked and self._ahead and len(self._frames) - self._written >= WRITE_AHEAD:
            self._asked = True
            self._writer.ask(self)

    def write_ahead(self) -> None:
        """Write what was taken, without making it durable."""
        # Before the frames are looked at, so that a frame that comes just now asks again.
        self._asked = False
        with self._writing:
            if self._ahead and len(self._frames) > self._written:
                try:
                    self._write()
                except OSError:
                    self._ahead = False

    async def commit(self, count: int) -> None:
        """Return once the ``count`` oldest frames since the last commit are on disk.

        Raises ``OSError``; then the frames are kept, and it can be called again.
        """
        await asyncio.to_thread(self._commit, count)

    def close(self) -> None:
        """Write nothing more ahead. Never waits: a call that is under way keeps its file until it returns."""
        self._ahead = False
        self._file = None

    def _commit(self, count: int) -> None:
        with self._writing:
            try:
                file = self._write()
            except OSError:
                self._ahead = False
                raise
        reached("log.written")
        try:
            os.fdatasync(file.number)
        except OSError:
            # The kernel may have dropped the pages: only a new file can be trusted with these frames.
            with self._writing:
                self._file, self._written, self._ahead = None, 0, False
            raise
        with self._writing:
            del self._frames[:count]
            self._written -= count
            self._ahead = True
        reached("log.synced")

    def _write(self) -> _File:
        file = self._file or self._create()
        frames = self._frames[self._written :]
        data = b"".join(frames)
        view = memoryview(data)
        offset = self._end
        while view:
            written = os.pwrite(file.number, view, offset)
            view = view[written:]
            offset += written
        # Only now: what was written in part is written again in the same place.
        self._end = offset
        self._written += len(frames)
        return file

    def _create(self) -> _File:
        path = self._folder / f"{self._epoch:08d}-{self._number:04d}.log"
        self._number += 1
        file = _File(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        os.pwrite(file.number, MAGIC, 0)
        os.fsync(file.number)
        sync_folder(self._folder)
        reached("log.segment_created")
        self._file = file
        self._end = len(MAGIC)
        return file


class _File:
    """A descriptor that is closed with its last user, whichever thread that is."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        os.close(self.number)
