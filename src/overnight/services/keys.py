"""Resources and keys: create, list, revoke, and find out who calls."""

from __future__ import annotations

from hmac import compare_digest
from typing import TYPE_CHECKING

import msgspec

from overnight.domain import ids
from overnight.domain.errors import Conflict, InvalidRequest, NotFound, Unavailable
from overnight.domain.ids import ADMIN_RESOURCE, DEFAULT_RESOURCE, KeyId, ResourceId
from overnight.domain.key import Key, Resource, Scope, hash_of, is_resource_name, is_secret, new_secret, prefix_of
from overnight.domain.limits import LONGEST_LIFE
from overnight.ports.batches import Page
from overnight.services.files import unknown_cursor

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from overnight.domain.quota import Offer
    from overnight.ports.clock import Clock, Entropy
    from overnight.ports.keys import Keys

# All in seconds. A revoked key may open something for as long as it is remembered.
_REMEMBERED = 3.0
_NOTE_EVERY = 60.0

# Beginnings of `key_` and `ovn_` alone are those of every key.
_SHORTEST_BEGINNING = 8
_SHOWN = 5


class NewKey(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for; ``life`` is in seconds, and ``None`` means for ever.

    A key opens the default resource unless another is named, and an admin key opens none.
    """

    resource: str | None = None
    scopes: tuple[Scope, ...] = (Scope.SUBMIT,)
    life: int | None = None


class CreatedKey(msgspec.Struct, frozen=True, kw_only=True):
    """A new key, and its text, which is shown this once."""

    key: Key
    secret: str

    def __repr__(self) -> str:
        """Leave the text out: a record may end up in a log."""
        return f"CreatedKey(key={self.key!r})"


class ListedResource(msgspec.Struct, frozen=True, kw_only=True):
    """A resource in a list; one that so far only the key file names was not created yet."""

    name: ResourceId
    created_at: int | None
    in_file: bool
    offer: Offer | None = None


class KeyService:
    """The use cases of whoever hands out keys; ``in_file`` are the resources that the key file names."""

    def __init__(self, keys: Keys, clock: Clock, entropy: Entropy, in_file: Iterable[ResourceId] = ()) -> None:
        self._keys = keys
        self._clock = clock
        self._entropy = entropy
        self._in_file = dict.fromkeys(in_file)

    async def create_resource(self, name: str, offer: Offer | None = None) -> Resource:
        """Create a resource. Raises ``InvalidRequest`` for its name, and ``Conflict`` if there is one."""
        if not is_resource_name(name):
            message = (
                f"Invalid name of a resource: '{name}'. Use up to 80 letters, digits, '.', '_' and '-',"
                " and begin with a letter or digit."
            )
            raise InvalidRequest(message, param="name", code="invalid_value")
        resource = Resource(name=ResourceId(name), created_at=int(self._clock.now()), offer=offer)
        if not await self._keys.add_resource(resource):
            message = f"There is a resource '{name}' already."
            raise Conflict(message, param="name")
        return resource

    async def resources(self) -> Sequence[ListedResource]:
        """List resources, oldest first, and behind them those that so far only the key file names."""
        stored = await self._keys.resources()
        known = {each.name for each in stored}
        missing = [name for name in self._in_file if name not in known]
        named = [ListedResource(name=name, created_at=None, in_file=True) for name in missing]
        return [*map(self._listed, stored), *named]

    async def adopt_file(self) -> None:
        """Create the resources that the key file names. Raises ``Unavailable``."""
        now = int(self._clock.now())
        known = {each.name for each in await self._keys.resources()}
        await self._keys.add_resources(
            [Resource(name=name, created_at=now) for name in self._in_file if name not in known]
        )

    async def resource(self, name: str) -> ListedResource:
        """Give a resource. Raises ``NotFound``."""
        found = None if name == ADMIN_RESOURCE else await self._keys.resource(ResourceId(name))
        if found is None:
            raise _no_resource(name)
        return self._listed(found)

    async def limited(self, name: str) -> ResourceId:
        """Give the id of a resource whose quotas, caps or usage are managed. Raises ``NotFound``.

        The default resource has these before it has a key: calls without a key are its own.
        """
        if name == DEFAULT_RESOURCE:
            await self._keys.add_resource(Resource(name=DEFAULT_RESOURCE, created_at=int(self._clock.now())))
        return (await self.resource(name)).name

    async def resource_page(self, *, after: str | None, limit: int) -> Page[ListedResource]:
        """List resources, oldest first. Raises ``InvalidRequest`` for an unknown cursor."""
        page = await self._keys.resource_page(after=ResourceId(after) if after else None, limit=limit)
        if page is None:
            raise unknown_cursor("resource", str(after))
        return Page([self._listed(each) for each in page.items], page.has_more)

    def _listed(self, resource: Resource) -> ListedResource:
        return ListedResource(
            name=resource.name,
            created_at=resource.created_at,
            in_file=resource.name in self._in_file,
            offer=resource.offer,
        )

    async def create(self, new: NewKey) -> CreatedKey:
        """Create a key; the default resource is created with its first one.

        Raises:
            NotFound: there is no such resource.
            InvalidRequest: an admin key is to open a resource, or to do something else as well; or the life is outside
                of 1 second to about 100 years.
        """
        _check_life(new.life)
        now = int(self._clock.now())
        resource = _resource_of(new)
        if resource in {DEFAULT_RESOURCE, ADMIN_RESOURCE}:
            await self._keys.add_resource(Resource(name=resource, created_at=now))
        secret = new_secret(self._entropy.hex())
        key = Key(
            id=ids.key_id(self._entropy.hex()),
            resource=resource,
            prefix=prefix_of(secret),
            hash=hash_of(secret),
            scopes=new.scopes,
            created_at=now,
            expires_at=None if new.life is None else now + new.life,
        )
        if not await self._keys.add(key):
            raise _no_resource(resource)
        return CreatedKey(key=key, secret=secret)

    async def list(self, resource: str | None = None) -> Sequence[Key]:
        """List keys, oldest first, of one resource or of all."""
        return [key for key in await self._keys.all() if resource in {None, key.resource}]

    async def revoke(self, key_id: str) -> Key:
        """Let a key open nothing any more; asking again is fine. Raises ``NotFound``."""
        key = await self._keys.revoke(KeyId(key_id), now=self._clock.now())
        if key is None:
            raise _no_key(key_id)
        return key

    async def get(self, key_id: str) -> Key:
        """Give a key. Raises ``NotFound``."""
        key = await self._keys.get(KeyId(key_id))
        if key is None:
            raise _no_key(key_id)
        return key

    async def page(self, resource: str | None, *, after: str | None, limit: int) -> Page[Key]:
        """List keys, oldest first, of one resource or of all.

        Raises:
            NotFound: there is no such resource.
            InvalidRequest: there is no key of the id ``after`` among them.
        """
        owner = None if resource is None else ResourceId(resource)
        if owner not in {None, ADMIN_RESOURCE}:
            await self.resource(str(owner))
        page = await self._keys.page(owner, after=KeyId(after) if after else None, limit=limit)
        if page is None:
            raise unknown_cursor("key", str(after))
        return page

    async def find(self, text: str) -> Key:
        """Give the one key whose id, or whose own text, begins like this.

        Raises:
            NotFound: there is none.
            InvalidRequest: there are several, or the text is too short to mean one.
        """
        if (key := await self._keys.get(KeyId(text))) is not None:
            return key
        found = [key for key in await self._keys.all() if key.id.startswith(text) or key.prefix.startswith(text)]
        if not found:
            raise _no_key(text)
        if len(found) > 1:
            names = ", ".join(key.id for key in found[:_SHOWN]) + (", …" if len(found) > _SHOWN else "")
            message = f"'{text}' fits {len(found)} keys: {names}. Write more of the id."
            raise InvalidRequest(message)
        if len(text) < _SHORTEST_BEGINNING:
            message = f"'{text}' is too short to name a key. Write at least {_SHORTEST_BEGINNING} characters of its id."
            raise InvalidRequest(message)
        return found[0]


def _check_life(life: int | None) -> None:
    if life is not None and not 1 <= life <= LONGEST_LIFE:
        message = f"Invalid 'expires_in': {life} is not between 1 and {LONGEST_LIFE} seconds. Leave it out for no end."
        raise InvalidRequest(message, param="expires_in", code="invalid_value")


def _resource_of(new: NewKey) -> ResourceId:
    if Scope.ADMIN in new.scopes:
        if len(new.scopes) > 1 or new.resource not in {None, ADMIN_RESOURCE}:
            message = "An admin key opens no resource: leave 'resource' out, and make another key for the rest."
            raise InvalidRequest(message, param="resource", code="invalid_value")
        return ADMIN_RESOURCE
    if new.resource == ADMIN_RESOURCE:
        raise _no_resource(new.resource)
    return ResourceId(new.resource or DEFAULT_RESOURCE)


def _no_resource(name: str) -> NotFound:
    message = f"No resource found with name '{name}'."
    return NotFound(message, param="resource")


def _no_key(key_id: str) -> NotFound:
    message = f"No key found with id '{key_id}'."
    return NotFound(message)


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
