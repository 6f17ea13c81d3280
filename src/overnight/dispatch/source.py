"""Reading the lines of an input file while they are sent: mostly one after the other, so a block at a time."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from overnight.domain.index import Index

_BLOCK = 128 * 1024
_AHEAD = 8 * _BLOCK


class Source:
    """The input of a batch, opened as a file descriptor that its owner closes."""

    def __init__(self, descriptor: int, index: Index) -> None:
        self._descriptor = descriptor
        self._index = index
        self._block = b""
        self._start = 0

    def read(self, line: int) -> bytes:
        """Give a line. Raises ``OSError``."""
        offset, length = self._index[line]
        start = offset - self._start
        if start < 0:
            # A retry: the lines that follow it are done.
            return os.pread(self._descriptor, length, offset)
        if start + length > len(self._block):
            self._block = os.pread(self._descriptor, max(length, _BLOCK), offset)
            self._start = offset
            start = 0
            _will_read(self._descriptor, offset + len(self._block))
        return self._block[start : start + length]


def _will_read(descriptor: int, offset: int) -> None:
    """Let the kernel fetch what is wanted soon: the event loop must not wait for a disk."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, offset, _AHEAD, os.POSIX_FADV_WILLNEED)
