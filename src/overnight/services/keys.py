"""Resources and keys: create, list, revoke, and find out who calls."""

from __future__ import annotations

import re
from hmac import compare_digest
from typing import TYPE_CHECKING

import msgspec

from overnight.domain import ids
from overnight.domain.errors import Conflict, InvalidRequest, NotFound, Unavailable
from overnight.domain.ids import DEFAULT_RESOURCE, KeyId, ResourceId
from overnight.domain.key import Key, Resource, Scope, hash_of, is_secret, new_secret, prefix_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from overnight.ports.clock import Clock, Entropy
    from overnight.ports.keys import Keys

# All in seconds. A revoked key may open something for as long as it is remembered.
_REMEMBERED = 3.0
_NOTE_EVERY = 60.0

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")


class NewKey(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for; ``life`` is in seconds, and ``None`` means for ever."""

    resource: str = DEFAULT_RESOURCE
    scopes: tuple[Scope, ...] = (Scope.SUBMIT,)
    life: int | None = None


class CreatedKey(msgspec.Struct, frozen=True, kw_only=True):
    """A new key, and its text, which is shown this once."""

    key: Key
    secret: str

    def __repr__(self) -> str:
        """Leave the text out: a record may end up in a log."""
        return f"CreatedKey(key={self.key!r})"


class KeyService:
    """The use cases of whoever hands out keys."""

    def __init__(self, keys: Keys, clock: Clock, entropy: Entropy) -> None:
        self._keys = keys
        self._clock = clock
        self._entropy = entropy

    async def create_resource(self, name: str) -> Resource:
        """Create a resource. Raises ``InvalidRequest`` for its name, and ``Conflict`` if there is one."""
        if _NAME.fullmatch(name) is None:
            message = (
                f"Invalid name of a resource: '{name}'. Use up to 80 letters, digits, '.', '_' and '-',"
                " and begin with a letter or digit."
            )
            raise InvalidRequest(message, param="name", code="invalid_value")
        resource = Resource(name=ResourceId(name), created_at=int(self._clock.now()))
        if not await self._keys.add_resource(resource):
            message = f"There is a resource '{name}' already."
            raise Conflict(message, param="name")
        return resource

    async def resources(self) -> Sequence[Resource]:
        """List resources, oldest first."""
        return await self._keys.resources()

    async def create(self, new: NewKey) -> CreatedKey:
        """Create a key; the default resource is created with its first one. Raises ``NotFound`` for any other."""
        now = int(self._clock.now())
        if new.resource == DEFAULT_RESOURCE:
            await self._keys.add_resource(Resource(name=DEFAULT_RESOURCE, created_at=now))
        secret = new_secret(self._entropy.hex())
        key = Key(
            id=ids.key_id(self._entropy.hex()),
            resource=ResourceId(new.resource),
            prefix=prefix_of(secret),
            hash=hash_of(secret),
            scopes=new.scopes,
            created_at=now,
            expires_at=None if new.life is None else now + new.life,
        )
        if not await self._keys.add(key):
            message = f"No resource found with name '{new.resource}'."
            raise NotFound(message, param="resource")
        return CreatedKey(key=key, secret=secret)

    async def list(self, resource: str | None = None) -> Sequence[Key]:
        """List keys, oldest first, of one resource or of all."""
        return [key for key in await self._keys.all() if resource in {None, key.resource}]

    async def revoke(self, key_id: str) -> Key:
        """Let a key open nothing any more; asking again is fine. Raises ``NotFound``."""
        key = await self._keys.revoke(KeyId(key_id), now=self._clock.now())
        if key is None:
            message = f"No key found with id '{key_id}'."
            raise NotFound(message)
        return key


class Authenticator:
    """Finds out who calls, and remembers it for some seconds: most requests ask no store."""

    def __init__(self, keys: Keys, clock: Clock) -> None:
        self._keys = keys
        self._clock = clock
        # Only keys that exist are remembered, so nobody can fill the memory with keys that do not.
        self._known: dict[str, tuple[Key, float]] = {}
        self._uses: dict[KeyId, int] = {}
        self._needed = False
        self._needed_until = 0.0

    async def needed(self) -> bool:
        """Say whether there was ever a key: revoking the last one does not open the service. Raises ``Unavailable``."""
        ticks = self._clock.ticks()
        if not self._needed and ticks >= self._needed_until:
            self._needed = await self._keys.any()
            self._needed_until = ticks + _REMEMBERED
        return self._needed

    async def authenticate(self, secret: str) -> Key | None:
        """Give the key, or ``None`` if it is unknown, revoked or expired. Raises ``Unavailable``."""
        return await self.recall(hash_of(secret)) if is_secret(secret) else None

    async def recall(self, digest: str) -> Key | None:
        """Give the key whose text has this hash, as ``authenticate`` does for its text. Raises ``Unavailable``."""
        now = self._clock.now()
        key = await self._find(digest)
        if key is None or not key.valid(now):
            return None
        self._uses[key.id] = int(now)
        return key

    async def _find(self, digest: str) -> Key | None:
        ticks = self._clock.ticks()
        known = self._known.get(digest)
        if known is not None and ticks < known[1]:
            return known[0]
        # Looking up by hash tells an eavesdropper on the time taken about the hash only, from which no key follows.
        key = await self._keys.by_hash(digest)
        if key is None or not compare_digest(key.hash, digest):
            return None
        self._known[digest] = (key, ticks + _REMEMBERED)
        return key

    async def keep_noting(self) -> None:
        """Note once a minute which keys were used, until cancelled."""
        while True:
            await self._clock.sleep(_NOTE_EVERY)
            await self.note_use()

    async def note_use(self) -> None:
        """Note which keys were used; what cannot be written now stays for the next time."""
        if not self._uses:
            return
        uses, self._uses = self._uses, {}
        try:
            await self._keys.note_use(uses)
        except Unavailable:
            self._uses = uses | self._uses
