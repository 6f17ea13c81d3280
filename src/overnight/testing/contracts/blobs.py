"""What ``ports/blobs.py`` promises."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from overnight.testing.contracts.expect import Broken, expect

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from overnight.ports.blobs import Blobs

_KEY = "files/one"
# Pieces of odd sizes, some larger than what a store is likely to hold back.
_PIECES = (b"a", b"", b"bc" * 5_000_000, b"\x00\xff", b"d" * 3_000_001)


async def what_was_committed_can_be_read(blobs: Blobs) -> None:
    """Whole, in pieces and as a file."""
    await _put(blobs, _KEY, *_PIECES)
    whole = b"".join(_PIECES)
    expect(True, whole == b"".join([piece async for piece in blobs.stream(_KEY)]))
    async with blobs.local(_KEY) as path:
        expect(True, whole == await asyncio.to_thread(path.read_bytes))
    expect(len(whole), await blobs.size(_KEY))


async def what_was_not_committed_leaves_no_trace(blobs: Blobs) -> None:
    """Whether the writer just left or an error drove it out."""
    async with blobs.writer(_KEY) as writer:
        await writer.write(b"half")
    await _expect_none(blobs, _KEY)
    try:
        async with blobs.writer(_KEY) as writer:
            await writer.write(b"half")
            raise ConnectionError
    except ConnectionError:
        await _expect_none(blobs, _KEY)


async def a_key_is_overwritten_whole(blobs: Blobs) -> None:
    """A shorter blob keeps nothing of a longer one, and a failed overwrite leaves the old one."""
    await _put(blobs, _KEY, b"long and old")
    await _put(blobs, _KEY, b"new")
    async with blobs.writer(_KEY) as writer:
        await writer.write(b"not committed")
    expect(b"new", b"".join([piece async for piece in blobs.stream(_KEY)]))


async def a_placed_file_becomes_a_blob_when_its_context_ends_well(blobs: Blobs) -> None:
    """And only then."""
    async with blobs.placing(_KEY) as path:
        await asyncio.to_thread(path.write_bytes, b"placed")
        await _expect_none(blobs, _KEY)
    expect(6, await blobs.size(_KEY))
    try:
        async with blobs.placing("files/other") as path:
            await asyncio.to_thread(path.write_bytes, b"placed")
            raise ConnectionError
    except ConnectionError:
        await _expect_none(blobs, "files/other")


async def a_deleted_blob_is_gone_and_deleting_is_fine_twice(blobs: Blobs) -> None:
    """Others stay."""
    await _put(blobs, _KEY, b"x")
    await _put(blobs, "files/other", b"y")
    await blobs.delete(_KEY)
    await blobs.delete(_KEY)
    await _expect_none(blobs, _KEY)
    expect(1, await blobs.size("files/other"))


async def a_blob_that_is_not_there_is_not_found(blobs: Blobs) -> None:
    """By every way of reading."""
    await _expect_none(blobs, "files/never")
    try:
        async with blobs.local("files/never"):
            raise Broken("a blob that is not there was lent")
    except FileNotFoundError:
        return


BLOBS: tuple[Callable[[Blobs], Awaitable[None]], ...] = (
    what_was_committed_can_be_read,
    what_was_not_committed_leaves_no_trace,
    a_key_is_overwritten_whole,
    a_placed_file_becomes_a_blob_when_its_context_ends_well,
    a_deleted_blob_is_gone_and_deleting_is_fine_twice,
    a_blob_that_is_not_there_is_not_found,
)
"""What ``ports/blobs.py`` promises."""


async def _put(blobs: Blobs, key: str, *pieces: bytes) -> None:
    async with blobs.writer(key) as writer:
        for piece in pieces:
            await writer.write(piece)
        await writer.commit()


async def _expect_none(blobs: Blobs, key: str) -> None:
    expect(None, await blobs.size(key))
    try:
        found = [piece async for piece in blobs.stream(key)]
    except FileNotFoundError:
        return
    raise Broken(f"a blob that is not there has {len(found)} pieces")
