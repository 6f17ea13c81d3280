"""Keys of the database with the real service: what each scope may do, and what happens when one is revoked."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tests.support.api import OPENAI, PREFIXES, Api, Prefix, chats
from tests.support.http import Http, Reply
from tests.support.service import Service, eventually

from overnight.adapters.sql.database import sqlite_file
from overnight.bootstrap.keys import with_keys
from overnight.config import Settings
from overnight.domain.key import Scope, hash_of
from overnight.services.keys import CreatedKey, NewKey
from overnight.testing.upstream import ScriptedUpstream

EVERYWHERE = ("--host", "0.0.0.0")  # noqa: S104 - whether this is refused is the question
NO_WORSE_THAN = 5.0


def a_key(data_dir: Path, **wanted: object) -> CreatedKey:
    """Make a key as `overnight keys create` does, beside the service."""
    new = NewKey(**wanted)  # type: ignore[arg-type]
    return with_keys(Settings(data_dir=data_dir), lambda service: service.create(new), new=True)


def revoke(data_dir: Path, key: CreatedKey) -> None:
    with_keys(Settings(data_dir=data_dir), lambda service: service.revoke(key.key.id))


def expire(data_dir: Path, key: CreatedKey) -> None:
    """Have the life of a key be over, as if it had been made long ago."""
    with closing(sqlite3.connect(sqlite_file(data_dir))) as database, database:
        database.execute("UPDATE keys SET expires_at = created_at - 1 WHERE id = ?", (key.key.id,))


def masked(reply: Reply, key: str) -> tuple[int, bytes, list[str]]:
    """Give what an answer says, without the end of the key that it repeats."""
    return reply.status, reply.body.replace(key[-4:].encode(), b"KEY"), sorted(reply.headers)


@pytest.fixture(scope="module")
def keyed(upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with a key in its database and no key file."""
    folder = tmp_path_factory.mktemp("keyed")
    a_key(folder / "data")
    with Service(folder, upstreams=[upstream.url]) as service:
        yield service


def calling(service: Service, key: str, prefix: Prefix = OPENAI) -> Api:
    return Api(Http(service.url, {"authorization": f"Bearer {key}"}), prefix)


@pytest.mark.parametrize("prefix", PREFIXES, ids=lambda prefix: prefix.name)
def test_a_key_that_submits_runs_a_batch(keyed: Service, prefix: Prefix):
    """In either header, as a key of the file does."""
    key = a_key(keyed.data_dir).secret
    api = calling(keyed, key, prefix)

    batch = api.run(chats(2, prefix.endpoint))

    assert batch["status"] == "completed"
    assert api.http.with_headers({"api-key": key}).get(prefix.url(f"/batches/{batch['id']}")).status == 200


@pytest.mark.parametrize("prefix", PREFIXES, ids=lambda prefix: prefix.name)
def test_a_key_that_reads_changes_nothing(keyed: Service, prefix: Prefix):
    """It is told so, before anything is told of what there is."""
    owner = calling(keyed, a_key(keyed.data_dir).secret, prefix)
    reader = calling(keyed, a_key(keyed.data_dir, scopes=(Scope.READ,)).secret, prefix)
    file_id = owner.upload(b"{}\n")
    refused = [
        reader.post("/batches", reader.new_batch(file_id)),
        reader.post("/batches/batch_1/cancel"),
        reader.post("/uploads", {}),
        reader.post("/files"),
        reader.delete(f"/files/{file_id}"),
        reader.delete("/nowhere"),
    ]

    assert {(reply.status, reply.json()["error"]["code"]) for reply in refused} == {(403, "forbidden")}
    assert {reply.body for reply in refused} == {refused[0].body}
    assert "scope 'submit'" in refused[0].json()["error"]["message"]
    assert reader.content(file_id) == b"{}\n"
    assert [reader.get(path).status for path in ("/files", "/batches", "/models", "/nowhere")][:2] == [200, 200]


@pytest.mark.parametrize("prefix", PREFIXES, ids=lambda prefix: prefix.name)
def test_unknown_revoked_and_expired_keys_are_told_the_same(keyed: Service, prefix: Prefix):
    """Whoever found a key on the street learns nothing about it."""
    expired = a_key(keyed.data_dir, life=60)
    expire(keyed.data_dir, expired)
    revoked = a_key(keyed.data_dir)
    revoke(keyed.data_dir, revoked)
    unknown = f"ovn_{'0' * 32}"

    given = [masked(calling(keyed, key, prefix).get("/files"), key) for key in (expired.secret, revoked.secret)]
    expected = masked(calling(keyed, unknown, prefix).get("/files"), unknown)

    assert expected[0] == 401
    assert given == [expected, expected]


def test_a_revoked_key_that_is_in_use_is_refused_within_seconds(keyed: Service):
    """Though it is remembered for a moment."""
    key = a_key(keyed.data_dir)
    api = calling(keyed, key.secret)
    before = api.get("/files").status
    revoke(keyed.data_dir, key)

    assert before == 200
    assert eventually(lambda: api.get("/files").status == 401, NO_WORSE_THAN)


def test_a_key_opens_its_own_resource_only(keyed: Service):
    """Two keys of one resource see the same."""
    with_keys(Settings(data_dir=keyed.data_dir), lambda service: service.create_resource("team"))
    first, second = (calling(keyed, a_key(keyed.data_dir, resource="team").secret) for _ in range(2))
    file_id = first.upload(b"{}\n")

    assert second.content(file_id) == b"{}\n"
    assert calling(keyed, a_key(keyed.data_dir).secret).get(f"/files/{file_id}").status == 404


def test_the_first_key_closes_a_service_that_runs(tmp_path: Path, upstream: ScriptedUpstream):
    """Nobody has to think of a restart, and revoking the key does not open it again."""
    with Service(tmp_path, upstreams=[upstream.url]) as service:
        before = Http(service.url).get("/v1/files").status
        key = a_key(service.data_dir)
        closed = eventually(lambda: Http(service.url).get("/v1/files").status == 401, NO_WORSE_THAN)
        revoke(service.data_dir, key)
        service.stop()
        service.start()

        assert (before, closed) == (200, True)
        assert Http(service.url).get("/v1/files").status == 401


def test_a_key_in_the_database_is_enough_to_listen_for_others(tmp_path: Path, upstream: ScriptedUpstream):
    """And one in a file may be used beside it."""
    stored = a_key(tmp_path / "data").secret
    keys = tmp_path / "keys"
    keys.write_text("sk-in-the-file\n")

    with Service(tmp_path, upstreams=[upstream.url], arguments=EVERYWHERE) as service:
        port = service.url.rpartition(":")[2]
        alone = calling(service, stored).http.call("GET", "/v1/files", headers={"host": f"elsewhere:{port}"})
    with Service(tmp_path, upstreams=[upstream.url], arguments=("--keys-file", str(keys))) as service:
        both = [calling(service, key).get("/files").status for key in (stored, "sk-in-the-file", "sk-other")]

    assert alone.status == 200
    assert both == [200, 200, 401]


def test_the_use_of_a_key_is_known_after_the_service_ends_and_neither_key_nor_hash_is_logged(
    tmp_path: Path, upstream: ScriptedUpstream
):
    """No request waits for that note."""
    key = a_key(tmp_path / "data")
    arguments = ("--log-level", "debug")
    with Service(tmp_path, upstreams=[upstream.url], arguments=arguments) as service:
        api = calling(service, key.secret)
        api.run(chats(1, api.prefix.endpoint))
        calling(service, key.secret[:-1]).get("/files")
        with closing(sqlite3.connect(service.data_dir / "overnight.db")) as database:
            during = database.execute("SELECT last_used_at FROM keys").fetchall()
    (known,) = with_keys(Settings(data_dir=service.data_dir), lambda keys: keys.list())

    assert during == [(None,)]
    assert known.last_used_at is not None
    assert known.last_used_at >= known.created_at
    assert not any(hidden in service.log() for hidden in (key.secret, key.secret[:-1], hash_of(key.secret)))
