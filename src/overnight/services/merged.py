"""The lines of an output and an error file as one stream, in the order of the input, in constant memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overnight.domain.ids import line_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

_PIECE = 256 * 1024


async def merged_lines(files: Sequence[AsyncIterator[bytes]]) -> AsyncIterator[bytes]:
    """Give the lines of all files, each with its line break, in pieces of some size, by the line that their ids name.

    Each file is in the order of the input already, and a line is in one of them only.
    """
    readers = [_lines(file) for file in files]
    heads = [await anext(reader, b"") for reader in readers]
    piece = bytearray()
    while any(heads):
        first = min((number for number, head in enumerate(heads) if head), key=lambda number: line_of(heads[number]))
        piece += heads[first]
        heads[first] = await anext(readers[first], b"")
        if len(piece) >= _PIECE:
            yield bytes(piece)
            piece.clear()
    if piece:
        yield bytes(piece)


async def _lines(file: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    # A line may be far longer than a piece, so that what is there of it is put together once.
    begun: list[bytes] = []
    async for data in file:
        first, *others = data.split(b"\n")
        begun.append(first)
        if others:
            yield b"".join(begun) + b"\n"
            for line in others[:-1]:
                yield line + b"\n"
            begun = [others[-1]]
