"""Where bytes are kept under keys."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol


class StorageFull(OSError):
    """There is no room left for the bytes."""


class BlobWriter(Protocol):
    """Bytes on their way into the store."""

    async def write(self, data: bytes) -> None:
        """Add bytes. Raises ``StorageFull``, which may be about bytes that were given before."""

    async def commit(self) -> None:
        """Make the blob readable under its key, whole and durable. Without it nothing is stored.

        Raises:
            StorageFull: there is no room for all of it.
        """


class Blobs(Protocol):
    """Immutable blobs: a key is written once or overwritten whole, never changed in place."""

    def writer(self, key: str) -> AbstractAsyncContextManager[BlobWriter]:
        """Open a blob for writing; leaving the context without ``commit`` leaves no trace."""

    def stream(self, key: str) -> AsyncIterator[bytes]:
        """Give the bytes of a blob in pieces. Raises ``FileNotFoundError``."""

    def local(self, key: str) -> AbstractAsyncContextManager[Path]:
        """Lend a path on this machine with the bytes of the blob. Raises ``FileNotFoundError``."""

    def placing(self, key: str) -> AbstractAsyncContextManager[Path]:
        """Lend a new path on this machine whose content becomes the blob, durably, when the context ends well."""

    async def size(self, key: str) -> int | None:
        """Give the length of a blob in bytes; ``None`` if there is none."""

    async def keys_before(self, moment: float) -> Sequence[str]:
        """Give the keys of all blobs that were written before a unix time."""

    async def delete(self, key: str) -> None:
        """Remove a blob; fine if there is none."""
