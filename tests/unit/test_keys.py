"""Resources and keys, on a store in memory."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress

import pytest
from msgspec.structs import replace

from overnight.domain.errors import Conflict, InvalidRequest, NotFound, Unavailable
from overnight.domain.ids import ADMIN_RESOURCE, DEFAULT_RESOURCE, KeyId, ResourceId
from overnight.domain.key import Key, Resource, Scope, hash_of
from overnight.domain.limits import LONGEST_LIFE
from overnight.services.keys import Authenticator, CreatedKey, KeyService, NewKey
from overnight.testing.clock import START, ManualClock
from overnight.testing.entropy import CountedEntropy
from overnight.testing.stores import MemoryKeys, Tables

NOW = int(START)


class CountedKeys(MemoryKeys):
    """A store that counts how often it is asked and written, and fails to write while it is told to."""

    def __init__(self) -> None:
        super().__init__(Tables())
        self.asked = 0
        self.written: list[Mapping[KeyId, int]] = []
        self.full = False

    async def by_hash(self, digest: str) -> Key | None:
        self.asked += 1
        return await super().by_hash(digest)

    async def any(self) -> bool:
        self.asked += 1
        return await super().any()

    async def note_use(self, uses: Mapping[KeyId, int]) -> None:
        if self.full:
            raise Unavailable("The disk is full.")
        self.written.append(uses)
        await super().note_use(uses)


class Gate:
    """The service and the authenticator on one store."""

    def __init__(self) -> None:
        self.clock, self.store = ManualClock(), CountedKeys()
        self.service = KeyService(self.store, self.clock, CountedEntropy())
        self.authenticator = Authenticator(self.store, self.clock)

    async def opens(self, created: CreatedKey) -> bool:
        return await self.authenticator.authenticate(created.secret) is not None


@pytest.fixture
def gate() -> Gate:
    return Gate()


# --- keys --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scope", "allowed"),
    [(Scope.READ, {"read"}), (Scope.SUBMIT, {"read", "submit"}), (Scope.ADMIN, {"admin"})],
)
async def test_who_submits_may_read_and_an_admin_may_neither(gate: Gate, scope: Scope, allowed: set[str]) -> None:
    """So one scope is enough, and whoever hands out keys sees nobody's work."""
    key = (await gate.service.create(NewKey(scopes=(scope,)))).key

    assert allowed == {str(wanted) for wanted in Scope if key.may(wanted)}


async def test_only_the_hash_of_a_key_is_kept(gate: Gate) -> None:
    """And no record shows either when it is printed."""
    created = await gate.service.create(NewKey())
    key = created.key

    assert (f"ovn_{1:032x}", "ovn_0000", f"key_{2:032x}") == (created.secret, key.prefix, key.id)
    assert hash_of(created.secret) == key.hash
    assert not any(hidden in repr(created) for hidden in (created.secret, key.hash))


async def test_a_key_has_a_life(gate: Gate) -> None:
    """In seconds, and for ever unless it is asked for."""
    mortal, eternal = await gate.service.create(NewKey(life=10)), await gate.service.create(NewKey())

    assert (mortal.key.expires_at, eternal.key.expires_at) == (NOW + 10, None)
    assert [mortal.key.valid(now) for now in (NOW + 9.9, NOW + 10)] == [True, False]


@pytest.mark.parametrize("life", [0, LONGEST_LIFE + 1, 2**63 - 1])
async def test_a_life_has_an_end_that_is_a_date(gate: Gate, life: int) -> None:
    """What no calendar holds could neither be stored nor shown."""
    with pytest.raises(InvalidRequest, match="Invalid 'expires_in'") as raised:
        await gate.service.create(NewKey(life=life))

    assert (raised.value.param, await gate.service.list()) == ("expires_in", [])


async def test_the_first_key_brings_the_default_resource(gate: Gate) -> None:
    """Any other is created on purpose."""
    await gate.service.create(NewKey())
    await gate.service.create(NewKey())
    with pytest.raises(NotFound, match="No resource found with name 'team'"):
        await gate.service.create(NewKey(resource="team"))

    assert [Resource(name=DEFAULT_RESOURCE, created_at=NOW)] == await gate.store.resources()


@pytest.mark.parametrize("name", ["", "-a", "a b", "a/b", "x" * 81, "ä"])
async def test_a_resource_has_a_plain_name(gate: Gate, name: str) -> None:
    """It stands in files of keys and on command lines."""
    with pytest.raises(InvalidRequest, match="Invalid name"):
        await gate.service.create_resource(name)


async def test_a_resource_is_created_once(gate: Gate) -> None:
    """Whoever asks twice may have meant another one."""
    created = await gate.service.create_resource("team")
    with pytest.raises(Conflict, match="already"):
        await gate.service.create_resource("team")

    assert [created] == await gate.store.resources()


async def test_keys_are_listed_of_one_resource_or_of_all(gate: Gate) -> None:
    """Oldest first."""
    await gate.service.create_resource("team")
    ours = (await gate.service.create(NewKey())).key
    theirs = (await gate.service.create(NewKey(resource="team"))).key

    assert [ours, theirs] == await gate.service.list()
    assert [theirs] == await gate.service.list("team")


async def test_an_unknown_key_cannot_be_revoked(gate: Gate) -> None:
    """A known one can, also twice."""
    key = (await gate.service.create(NewKey())).key
    revoked = [await gate.service.revoke(key.id) for _ in range(2)]
    with pytest.raises(NotFound, match="No key found"):
        await gate.service.revoke("key_x")

    assert [replace(key, revoked_at=NOW)] * 2 == revoked


async def test_an_admin_key_belongs_to_no_resource_that_is_listed(gate: Gate) -> None:
    """And to none that a key can be made for, or a page shows."""
    created = await gate.service.create(NewKey(scopes=(Scope.ADMIN,)))
    for name in ("_admin", "nowhere"):
        with pytest.raises(NotFound, match=f"No resource found with name '{name}'"):
            await gate.service.resource(name)
    with pytest.raises(NotFound):
        await gate.service.create(NewKey(resource="_admin"))

    assert created.key.resource == ADMIN_RESOURCE
    assert await gate.service.resources() == []
    assert (await gate.service.resource_page(after=None, limit=10)).items == []
    assert [created.key] == (await gate.service.page("_admin", after=None, limit=10)).items


@pytest.mark.parametrize(
    "new",
    [NewKey(scopes=(Scope.ADMIN,), resource="team"), NewKey(scopes=(Scope.ADMIN, Scope.READ))],
    ids=["resource", "scope"],
)
async def test_an_admin_key_does_nothing_else(gate: Gate, new: NewKey) -> None:
    """It would be a key to everything."""
    await gate.service.create_resource("team")
    with pytest.raises(InvalidRequest, match="opens no resource"):
        await gate.service.create(new)


async def test_resources_of_the_key_file_are_listed_and_marked(gate: Gate) -> None:
    """Before the service created them, which it does once, and after it."""
    file = KeyService(gate.store, gate.clock, CountedEntropy(), [ResourceId("team"), ResourceId("filed")])
    await gate.service.create_resource("team")
    before = await file.resources()
    await file.adopt_file()
    await gate.clock.advance(1)
    await file.adopt_file()

    listed = [(each.name, each.created_at, each.in_file) for each in before]
    assert listed == [("team", NOW, True), ("filed", None, True)]
    assert [(each.name, each.created_at) for each in await file.resources()] == [("team", NOW), ("filed", NOW)]
    assert ((found := await file.resource("filed")).name, found.in_file) == ("filed", True)
    assert not (await gate.service.resource("filed")).in_file


async def test_resources_and_keys_come_in_pages(gate: Gate) -> None:
    """From behind a cursor that has to be there."""
    for name in ("a", "b", "c"):
        await gate.service.create_resource(name)
    made = [(await gate.service.create(NewKey(resource=name))).key for name in ("a", "b", "a")]
    resources = [await gate.service.resource_page(after=after, limit=2) for after in (None, "b")]
    keys = await gate.service.page("a", after=made[0].id, limit=1)
    for asking in (
        gate.service.resource_page(after="x", limit=1),
        gate.service.page(None, after="x", limit=1),
        gate.service.page("b", after=made[0].id, limit=1),
    ):
        with pytest.raises(InvalidRequest, match="Invalid 'after'"):
            await asking
    with pytest.raises(NotFound):
        await gate.service.page("x", after=None, limit=1)

    assert [([one.name for one in p.items], p.has_more) for p in resources] == [(["a", "b"], True), (["c"], False)]
    assert ([made[2]], False) == (keys.items, keys.has_more)


async def test_a_key_is_found_by_its_id_or_a_beginning_that_no_other_has(gate: Gate) -> None:
    """One of its id, or of what it begins with itself."""
    made = [(await gate.service.create(NewKey())).key for _ in range(7)]
    odd = replace(made[0], id=KeyId("key_abcdef"), prefix="ovn_abcd", hash="x")
    await gate.store.add(odd)
    found = [await gate.service.find(text) for text in (made[3].id, "key_abcd", "ovn_abcd", odd.id)]
    refused = []
    for text in ("key_0000", "key_a", "key_nowhere", "key_x"):
        with pytest.raises((InvalidRequest, NotFound)) as caught:
            await gate.service.find(text)
        refused.append(caught.value.message)

    assert [made[3], odd, odd, odd] == found
    assert [made[3], odd] == [await gate.service.get(key.id) for key in (made[3], odd)]
    assert refused[0].startswith(f"'key_0000' fits 7 keys: {made[0].id}, ")
    assert refused[0].endswith(f"{made[4].id}, …. Write more of the id.")
    assert "too short" in refused[1]
    assert refused[2:] == [f"No key found with id '{name}'." for name in ("key_nowhere", "key_x")]
    with pytest.raises(NotFound):
        await gate.service.get("key_abcd")


# --- who calls ---------------------------------------------------------------------------------------------------


async def test_a_busy_key_costs_one_question_in_some_seconds(gate: Gate) -> None:
    """Whatever the number of requests, and no write at all."""
    created = await gate.service.create(NewKey())
    found = [await gate.opens(created) for _ in range(100)]
    within = gate.store.asked
    await gate.clock.advance(3)
    await gate.opens(created)

    assert found == [True] * 100
    assert (within, gate.store.asked) == (1, 2)
    assert gate.store.written == []


async def test_a_key_is_known_by_its_hash_as_by_its_text(gate: Gate) -> None:
    """Whoever remembers a sign-in keeps no key."""
    created = await gate.service.create(NewKey())

    assert await gate.authenticator.recall(created.key.hash) == created.key
    assert await gate.authenticator.recall("0" * 64) is None


async def test_a_revoked_key_opens_nothing_after_five_seconds(gate: Gate) -> None:
    """Though it was in use until then."""
    created = await gate.service.create(NewKey())
    before = await gate.opens(created)
    await gate.service.revoke(created.key.id)
    await gate.clock.advance(5)

    assert (before, await gate.opens(created)) == (True, False)


async def test_a_key_expires_to_the_second(gate: Gate) -> None:
    """Though it is remembered for longer."""
    created = await gate.service.create(NewKey(life=1))
    before = await gate.opens(created)
    await gate.clock.advance(1)

    assert (before, await gate.opens(created)) == (True, False)


async def test_an_unknown_key_opens_nothing(gate: Gate) -> None:
    """And is not remembered, so that a new key works at once."""
    unknown = [await gate.authenticator.authenticate(f"ovn_{2 * number + 1:032x}") for number in range(2)]
    await gate.service.create(NewKey())
    created = await gate.service.create(NewKey())

    assert unknown == [None, None]
    assert await gate.opens(created)


@pytest.mark.parametrize("text", ["", "sk-1234"])
async def test_what_cannot_be_a_key_is_not_looked_up(gate: Gate, text: str) -> None:
    """A client without a key, or with another server's, costs no question."""
    found = await gate.authenticator.authenticate(text)

    assert (found, gate.store.asked) == (None, 0)


async def test_a_store_that_gives_another_key_is_not_believed(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was looked up is compared again."""
    created = await gate.service.create(NewKey())

    async def wrong(digest: str) -> Key:
        return created.key

    monkeypatch.setattr(gate.store, "by_hash", wrong)

    assert await gate.authenticator.authenticate("ovn_another") is None


async def test_keys_are_needed_once_there_was_one(gate: Gate) -> None:
    """Revoking the last one does not open the service to everybody; and the question is not asked at every request."""
    before = [await gate.authenticator.needed() for _ in range(100)]
    created = await gate.service.create(NewKey())
    await gate.service.revoke(created.key.id)
    await gate.clock.advance(5)
    after = [await gate.authenticator.needed() for _ in range(100)]
    await gate.clock.advance(5)

    assert before + after == [False] * 100 + [True] * 100
    assert await gate.authenticator.needed()
    assert gate.store.asked == 2


async def test_the_use_of_a_key_is_written_once_a_minute(gate: Gate) -> None:
    """The last moment counts, and a minute without a call writes nothing."""
    created = await gate.service.create(NewKey())
    noting = asyncio.create_task(gate.authenticator.keep_noting())
    for _ in range(30):
        await gate.opens(created)
        await gate.clock.advance(1)
    await gate.clock.advance(29)
    early = list(gate.store.written)
    await gate.clock.advance(1)
    await gate.clock.advance(120)
    noting.cancel()
    with suppress(asyncio.CancelledError):
        await noting

    assert ([], [{created.key.id: NOW + 29}]) == (early, gate.store.written)


async def test_a_use_that_cannot_be_written_waits_for_the_next_time(gate: Gate) -> None:
    """A full disk keeps nobody out, and a later use wins."""
    created, other = await gate.service.create(NewKey()), await gate.service.create(NewKey())
    await gate.opens(created)
    await gate.opens(other)
    gate.store.full = True
    await gate.authenticator.note_use()
    await gate.clock.advance(7)
    await gate.opens(created)
    gate.store.full = False
    await gate.authenticator.note_use()

    assert [{created.key.id: NOW + 7, other.key.id: NOW}] == gate.store.written


async def test_what_is_limited_must_be_there_but_for_the_default_resource(gate: Gate) -> None:
    """Calls without a key are its own, before it has any."""
    await gate.service.create_resource("team")

    assert [await gate.service.limited("team"), await gate.service.limited(DEFAULT_RESOURCE)] == ["team", "default"]
    with pytest.raises(NotFound):
        await gate.service.limited("tame")
