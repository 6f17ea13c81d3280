"""The lines of an output and an error file as one stream, in the order of the input, in constant memory."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from overnight.domain.ids import line_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

_PIECE = 256 * 1024


async def merged_lines(files: Sequence[AsyncIterator[bytes]]) -> AsyncIterator[bytes]:
    """Give the lines of all files, each with its line break, in pieces of some size, by the line that their ids name.

    Each file is in the order of the input already, and a line is in one of them only. Lines are taken apart and put
    together in threads: there may be thousands in a piece.
    """
    left = [_Lines(file) for file in files]
    piece = bytearray()
    while left := [lines for lines in left if await lines.more()]:
        await asyncio.to_thread(_merge, left, piece)
        if len(piece) >= _PIECE:
            yield bytes(piece)
            piece.clear()
    if piece:
        yield bytes(piece)


class _Lines:
    """The lines of one file, as far as they were read; ``read`` has those that nobody took yet."""

    def __init__(self, file: AsyncIterator[bytes]) -> None:
        self.read: deque[bytes] = deque()
        self._file = file
        # A line may be far longer than what is read at once, so that it is put together only when it is all there.
        self._begun: list[bytes] = []

    async def more(self) -> bool:
        """Read on if nothing is there, and say whether something is."""
        while not self.read:
            data = await anext(self._file, None)
            if data is None:
                return False
            await asyncio.to_thread(self._take, data)
        return True

    def _take(self, data: bytes) -> None:
        first, *others = data.split(b"\n")
        self._begun.append(first)
        if others:
            self.read.append(b"".join(self._begun))
            self.read.extend(others[:-1])
            self._begun = [others[-1]]


def _merge(files: Sequence[_Lines], piece: bytearray) -> None:
    """Add lines to a piece until it is large enough, or a file has to be read on."""
    while len(piece) < _PIECE and all(lines.read for lines in files):
        first = min(files, key=lambda lines: line_of(lines.read[0]))
        piece += first.read.popleft()
        piece += b"\n"
