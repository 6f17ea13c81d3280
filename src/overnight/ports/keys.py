"""Where resources and their keys are kept. A key itself is not: only its hash."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from overnight.domain.ids import KeyId
from overnight.domain.key import Key, Resource


class Keys(Protocol):
    """The resources and keys. Neither is ever removed: a revoked key stays, marked."""

    async def add_resource(self, resource: Resource) -> bool:
        """Store a new resource; ``False``, and nothing changed, if there is one of this name. Durable on return."""

    async def resources(self) -> Sequence[Resource]:
        """Give all resources, oldest first."""

    async def add(self, key: Key) -> bool:
        """Store a new key; ``False``, and nothing stored, if there is no such resource. Durable on return."""

    async def by_hash(self, digest: str) -> Key | None:
        """Give the key of this hash, also if it is revoked or expired.

        Quick enough for the event loop, but not for every request. Raises ``Unavailable``.
        """

    async def all(self) -> Sequence[Key]:
        """Give all keys, oldest first."""

    async def any(self) -> bool:
        """Say whether there was ever a key; revoked and expired ones count. Raises ``Unavailable``."""

    async def revoke(self, key_id: KeyId, *, now: float) -> Key | None:
        """Mark a key as revoked and give it as stored; ``None`` if there is no such key. The first moment stays."""

    async def note_use(self, uses: Mapping[KeyId, int]) -> None:
        """Set when keys were last used (unix seconds), in one transaction. Raises ``Unavailable``."""
