"""Where resources and their keys are kept. A key itself is not: only its hash."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from overnight.domain.ids import KeyId, ResourceId
from overnight.domain.key import Key, Resource
from overnight.ports.batches import Page


class Keys(Protocol):
    """The resources and keys. Neither is ever removed: a revoked key stays, marked."""

    async def add_resource(self, resource: Resource) -> bool:
        """Store a new resource; ``False``, and nothing changed, if there is one of this name. Durable on return."""

    async def add_resources(self, resources: Sequence[Resource]) -> None:
        """Store those of these resources that are new, in one transaction. Raises ``Unavailable``."""

    async def resource(self, name: ResourceId) -> Resource | None:
        """Give a resource. Quick enough for the event loop, but not for every request. Raises ``Unavailable``."""

    async def resources(self) -> Sequence[Resource]:
        """Give all resources, oldest first, but for the one of admin keys."""

    async def resource_page(self, *, after: ResourceId | None, limit: int) -> Page[Resource] | None:
        """List resources as ``resources`` does; ``None`` if there is none of the name ``after``."""

    async def add(self, key: Key) -> bool:
        """Store a new key; ``False``, and nothing stored, if there is no such resource. Durable on return."""

    async def get(self, key_id: KeyId) -> Key | None:
        """Give the key of this id."""

    async def page(self, resource: ResourceId | None, *, after: KeyId | None, limit: int) -> Page[Key] | None:
        """List keys of one resource, or of all, oldest first; ``None`` if there is no key ``after``."""

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
