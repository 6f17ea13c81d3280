"""The promises of ``ports/keys.py``."""

from msgspec.structs import replace

from overnight.domain.ids import ADMIN_RESOURCE, KeyId, ResourceId
from overnight.domain.key import Key, Resource, Scope, hash_of
from overnight.ports.batches import Page
from overnight.ports.keys import Keys

MINE, OTHERS = ResourceId("mine"), ResourceId("others")
NOW = 1_700_000_000


def a_key(name: str = "key_1", resource: ResourceId = MINE) -> Key:
    return Key(
        id=KeyId(name),
        resource=resource,
        prefix="ovn_1234",
        hash=hash_of(name),
        scopes=(Scope.READ, Scope.SUBMIT),
        created_at=NOW,
    )


async def _with_resource(keys: Keys, *added: Key) -> None:
    assert await keys.add_resource(Resource(name=MINE, created_at=NOW))
    for key in added:
        assert await keys.add(key)


async def test_a_key_comes_back_as_it_was_stored(keys: Keys) -> None:
    """Every field, by its hash and in the list."""
    full = replace(a_key(), expires_at=NOW + 1, last_used_at=NOW + 2, revoked_at=NOW + 3)
    await _with_resource(keys, full)

    assert full == await keys.by_hash(full.hash)
    assert [full] == await keys.all()
    assert await keys.by_hash(hash_of("another")) is None


async def test_resources_have_a_name_of_their_own(keys: Keys) -> None:
    """The first one stays as it was."""
    first, other = Resource(name=MINE, created_at=NOW), Resource(name=OTHERS, created_at=NOW)
    stored = [await keys.add_resource(each) for each in (first, replace(first, created_at=NOW + 1), other)]

    assert stored == [True, False, True]
    assert [first, other] == await keys.resources()


async def test_several_resources_are_added_where_they_are_new(keys: Keys) -> None:
    """Those that are there stay as they were."""
    first, other = Resource(name=MINE, created_at=NOW), Resource(name=OTHERS, created_at=NOW)
    await keys.add_resource(first)
    await keys.add_resources([other, replace(first, created_at=NOW + 1)])
    await keys.add_resources([])

    assert [first, other] == await keys.resources()
    assert [other, None] == [await keys.resource(name) for name in (OTHERS, ResourceId("x"))]


async def test_the_resource_of_admin_keys_is_not_listed(keys: Keys) -> None:
    """It owns nothing."""
    admins, mine = (Resource(name=name, created_at=NOW) for name in (ADMIN_RESOURCE, MINE))
    await keys.add_resources([admins, mine])
    page = await keys.resource_page(after=None, limit=5)

    assert [mine] == await keys.resources()
    assert Page([mine], has_more=False) == page
    assert await keys.resource_page(after=ADMIN_RESOURCE, limit=5) is None
    assert admins == await keys.resource(ADMIN_RESOURCE)


async def test_resources_come_in_pages(keys: Keys) -> None:
    """Oldest first, and a cursor that names nothing gives no page."""
    made = [Resource(name=ResourceId(name), created_at=NOW) for name in ("c", "a", "b")]
    await keys.add_resources(made)
    pages = [await keys.resource_page(after=after, limit=2) for after in (None, made[1].name, made[2].name)]

    assert [Page(made[:2], has_more=True), Page(made[2:], has_more=False), Page([], has_more=False)] == pages
    assert await keys.resource_page(after=ResourceId("x"), limit=2) is None


async def test_keys_come_in_pages(keys: Keys) -> None:
    """Of one resource or of all; the cursor has to be one of them."""
    await keys.add_resource(Resource(name=OTHERS, created_at=NOW))
    theirs = a_key("key_2", OTHERS)
    await _with_resource(keys, a_key(), a_key("key_3"))
    await keys.add(theirs)

    assert Page([a_key(), a_key("key_3")], has_more=True) == await keys.page(None, after=None, limit=2)
    assert Page([a_key("key_3")], has_more=False) == await keys.page(MINE, after=KeyId("key_1"), limit=2)
    assert Page([theirs], has_more=False) == await keys.page(OTHERS, after=None, limit=2)
    assert await keys.page(MINE, after=theirs.id, limit=2) is None
    assert [theirs, None] == [await keys.get(KeyId(name)) for name in ("key_2", "key_4")]


async def test_a_key_needs_its_resource(keys: Keys) -> None:
    """A slip of the pen makes no tenant."""
    await _with_resource(keys)
    stored = await keys.add(a_key(resource=OTHERS))

    assert not stored
    assert await keys.all() == []


async def test_a_revoked_key_stays_and_keeps_its_moment(keys: Keys) -> None:
    """The others are left alone."""
    await _with_resource(keys, a_key(), a_key("key_2"))
    first = await keys.revoke(KeyId("key_1"), now=NOW + 1.5)
    again = await keys.revoke(KeyId("key_1"), now=NOW + 9)

    assert replace(a_key(), revoked_at=NOW + 1) == first == again
    assert [first, a_key("key_2")] == await keys.all()
    assert await keys.revoke(KeyId("key_3"), now=NOW) is None


async def test_there_is_a_key_once_there_was_one(keys: Keys) -> None:
    """Also when it is revoked."""
    await _with_resource(keys)
    before = await keys.any()
    await keys.add(a_key())
    await keys.revoke(KeyId("key_1"), now=NOW)

    assert not before
    assert await keys.any()


async def test_the_use_of_several_keys_is_noted(keys: Keys) -> None:
    """Whatever else changed meanwhile stays, and a key that there never was does no harm."""
    await _with_resource(keys, a_key(), a_key("key_2"), a_key("key_3"))
    revoked = await keys.revoke(KeyId("key_2"), now=NOW)
    await keys.note_use({KeyId("key_1"): NOW + 5, KeyId("key_2"): NOW + 6, KeyId("key_9"): NOW})

    assert revoked is not None
    assert [
        replace(a_key(), last_used_at=NOW + 5),
        replace(revoked, last_used_at=NOW + 6),
        a_key("key_3"),
    ] == await keys.all()
