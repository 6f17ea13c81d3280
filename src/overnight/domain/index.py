"""The index of an input file: where each request lies, 12 bytes for each."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_ENTRY = struct.Struct("<QI")
ENTRY_BYTES = _ENTRY.size

pack = _ENTRY.pack


class Index:
    """The places of all requests of a file, in file order; ``data`` is what validation wrote."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __len__(self) -> int:
        return len(self._data) // ENTRY_BYTES

    def __getitem__(self, line: int) -> tuple[int, int]:
        """Give the offset and the length in bytes of a request; ``line`` counts from 0."""
        offset, length = _ENTRY.unpack_from(self._data, line * ENTRY_BYTES)
        return offset, length

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return (self[line] for line in range(len(self)))
