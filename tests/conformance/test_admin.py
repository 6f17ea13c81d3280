"""The admin API with the real service: what an admin key manages, and what it does not open."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.support.api import PREFIXES, Api, Prefix
from tests.support.http import BOUNDARY, Http, Part, Reply
from tests.support.service import Service, eventually

from overnight.bootstrap.keys import with_keys
from overnight.config import Settings
from overnight.domain.key import Scope
from overnight.services.keys import NewKey
from overnight.testing.upstream import ScriptedUpstream

NO_WORSE_THAN = 5.0
_KEPT_BACK = 4
_PARTS = (Part(name="purpose", data="batch"), Part(name="file", data="{}\n", filename="a.jsonl"))


def an_admin_key(data_dir: Path) -> str:
    """Make an admin key as `overnight keys create --admin` does, beside the service."""
    new = NewKey(scopes=(Scope.ADMIN,))
    return with_keys(Settings(data_dir=data_dir), lambda keys: keys.create(new), new=True).secret


@pytest.fixture(scope="module")
def managed(upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with a key file, in whose database there is nothing yet."""
    folder = tmp_path_factory.mktemp("managed")
    keys = folder / "keys.txt"
    keys.write_text("sk-filed filed\n")
    arguments = ("--keys-file", str(keys), "--log-level", "debug")
    with Service(folder, upstreams=[upstream.url], arguments=arguments) as service:
        yield service


@pytest.fixture(scope="module")
def admin(managed: Service) -> Http:
    return Http(managed.url, {"authorization": f"Bearer {an_admin_key(managed.data_dir)}"})


def error(reply: Reply) -> tuple[int, str | None, str | None]:
    found: dict[str, Any] = reply.json()["error"]
    return reply.status, found["code"], found["param"]


def test_a_key_is_made_used_and_revoked(admin: Http, managed: Service):
    """From nothing to a batch of somebody else, and to the end of it, with no shell on the machine."""
    resource = admin.post("/admin/resources", {"name": "made"})
    created = admin.post("/admin/keys", {"resource": "made", "expires_in": 3_600})
    key = created.json()
    user = Http(managed.url, {"api-key": key["key"]})
    before = user.get("/v1/files").status
    upload = half_an_upload(managed, key["key"])
    revoked = admin.post(f"/admin/keys/{key['id']}/revoke")
    again = admin.post(f"/admin/keys/{key['id']}/revoke")

    assert (resource.status, resource.json()["id"], resource.json()["object"]) == (200, "made", "resource")
    assert re.fullmatch(r"ovn_[0-9a-f]{32}", key["key"])
    assert created.headers["cache-control"] == "no-store"
    assert key["expires_at"] == key["created_at"] + 3_600
    assert (before, revoked.status) == (200, 200)
    assert revoked.json() == again.json() == {**without_text(key), **at(revoked)}
    assert eventually(lambda: user.get("/v1/files").status == 401, NO_WORSE_THAN)
    assert the_rest(upload).startswith(b"HTTP/1.1 401 ")
    assert admin.get(f"/admin/keys/{key['id']}").json()["revoked_at"] is not None


def half_an_upload(service: Service, key: str) -> socket.socket:
    """Begin to send a file."""
    address = urlsplit(service.url)
    body = b"".join((*(part.encode() for part in _PARTS), f"--{BOUNDARY}--\r\n".encode()))
    head = f"POST /v1/files HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nConnection: close\r\n"
    kind = f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\nContent-Length: {len(body)}\r\n\r\n"
    line = socket.create_connection((address.hostname, address.port), timeout=10)
    line.sendall((head + kind).encode() + body[:-_KEPT_BACK])
    return line


def the_rest(line: socket.socket) -> bytes:
    """Send what is missing, and give the beginning of the answer."""
    with line:
        line.sendall(f"--{BOUNDARY}--\r\n".encode()[-_KEPT_BACK:])
        return line.recv(65_536)


def without_text(key: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in key.items() if name != "key"}


def at(reply: Reply) -> dict[str, Any]:
    """Give what changed by itself."""
    return {name: reply.json()[name] for name in ("revoked_at", "last_used_at")}


def test_the_text_of_a_key_is_shown_once_and_logged_never(admin: Http, managed: Service):
    """Nor is its hash shown."""
    key = admin.post("/admin/keys", {"scope": "read"}).json()
    shown = [admin.get(path).body for path in ("/admin/keys?limit=1000", f"/admin/keys/{key['id']}")]

    assert key["scopes"] == ["read"]
    assert not any(key["key"].encode() in body or b"hash" in body for body in shown)
    assert key["key"] not in managed.log()
    assert f"key_id={key['id']}" in re.sub(r"\x1b\[[0-9;]*m", "", managed.log())


def test_lists_come_in_pages(admin: Http):
    """Oldest first; those of one resource alone if asked for."""
    admin.post("/admin/resources", {"name": "paged"})
    made = [admin.post("/admin/keys", {"resource": "paged"}).json()["id"] for _ in range(3)]
    first = admin.get("/admin/keys?resource=paged&limit=2").json()
    second = admin.get(f"/admin/keys?resource=paged&limit=2&after={first['last_id']}").json()
    ends = (first["first_id"], first["last_id"], first["has_more"], second["last_id"], second["has_more"])
    resources = admin.get("/admin/resources").json()["data"]
    behind = admin.get(f"/admin/resources?limit=1&after={resources[0]['id']}").json()

    assert [key["id"] for key in first["data"] + second["data"]] == made
    assert ends == (made[0], made[1], True, made[2], False)
    assert set(made) < {key["id"] for key in admin.get("/admin/keys").json()["data"]}
    assert behind["data"] == [resources[1]]
    assert admin.get(f"/admin/resources?after={resources[-1]['id']}").json() == {
        "object": "list",
        "data": [],
        "first_id": None,
        "last_id": None,
        "has_more": False,
    }


def test_resources_of_the_key_file_are_there_from_the_start(admin: Http):
    """And marked; the one of admin keys is none."""
    filed = admin.get("/admin/resources/filed").json()
    names = [each["id"] for each in admin.get("/admin/resources").json()["data"]]

    assert (filed["in_key_file"], names[0]) == (True, "filed")
    assert "_admin" not in names
    assert error(admin.get("/admin/resources/_admin")) == (404, None, "resource")
    assert admin.post("/admin/keys", {"resource": "filed"}).json()["resource"] == "filed"
    assert len(admin.get("/admin/keys?resource=_admin").json()["data"]) >= 1


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("/admin/resources", {}, (400, "missing_required_parameter", "name")),
        ("/admin/resources", {"name": 7}, (400, "invalid_type", "name")),
        ("/admin/resources", {"name": "a b"}, (400, "invalid_value", "name")),
        ("/admin/resources", {"name": "_admin"}, (400, "invalid_value", "name")),
        ("/admin/resources", {"name": "filed"}, (409, None, "name")),
        ("/admin/keys", {"resource": "nowhere"}, (404, None, "resource")),
        ("/admin/keys", {"resource": "_admin"}, (404, None, "resource")),
        ("/admin/keys", {"scope": "write"}, (400, "invalid_value", "scope")),
        ("/admin/keys", {"scope": "admin", "resource": "filed"}, (400, "invalid_value", "resource")),
        ("/admin/keys", {"expires_in": 0}, (400, "integer_below_min_value", "expires_in")),
        ("/admin/keys", {"expires_in": 2**63 - 1}, (400, "integer_above_max_value", "expires_in")),
        ("/admin/keys/key_x/revoke", None, (404, None, None)),
    ],
)
def test_a_call_that_is_wrong_is_told_what_is_wrong(
    admin: Http, path: str, body: object, expected: tuple[int, str | None, str | None]
):
    """In the one envelope."""
    assert error(admin.post(path, body)) == expected


def test_lists_refuse_what_they_cannot_give(admin: Http):
    """A cursor that names nothing, a page that is too large."""
    paths = ("/admin/keys?after=x", "/admin/resources?after=x", "/admin/keys?limit=1001", "/admin/keys?resource=x")

    assert [error(admin.get(path))[::2] for path in paths] == [
        *((400, "after"), (400, "after"), (400, "limit"), (404, "resource"))
    ]


@pytest.mark.parametrize("prefix", PREFIXES, ids=lambda prefix: prefix.name)
def test_an_admin_key_opens_nobodys_files_and_batches(admin: Http, prefix: Prefix):
    """Not even to look at a list; whoever needs them makes a key for it, which others can see."""
    api = Api(admin, prefix)
    replies = [api.get("/files"), api.get("/batches"), api.post("/batches", {}), api.get("/files/file-1/content")]

    assert {(reply.status, reply.json()["error"]["code"]) for reply in replies} == {(403, "forbidden")}


def test_who_has_no_admin_key_learns_nothing(managed: Service, admin: Http):
    """Neither without a key, nor with one of the file or of the database."""
    stored = admin.post("/admin/keys", {}).json()["key"]
    given = [Http(managed.url, {"api-key": key} if key else {}) for key in ("", "sk-none", "sk-filed", stored)]

    assert [http.get("/admin/resources").status for http in given] == [401, 401, 403, 403]
    assert [http.get("//admin//resources").status for http in given] == [401, 401, 403, 403]


def test_a_service_without_keys_has_a_closed_admin_api(tmp_path: Path, upstream: ScriptedUpstream):
    """Whoever can reach it could otherwise make a key and lock out all others."""
    with Service(tmp_path, upstreams=[upstream.url]) as service:
        open_to_all = Http(service.url)
        before = [open_to_all.get(path).status for path in ("/v1/files", "/admin/keys")]
        made = open_to_all.post("/admin/keys", {"scope": "admin"}).status
        key = an_admin_key(service.data_dir)
        reached = Http(service.url, {"api-key": key}).get("/admin/keys").status

        assert (before, made, reached) == ([200, 401], 401, 200)
        assert eventually(lambda: open_to_all.get("/v1/files").status == 401, NO_WORSE_THAN)


@pytest.mark.parametrize("root_path", ["/a", "/gateway"])
def test_a_prefix_of_a_gateway_opens_no_way_around(tmp_path: Path, upstream: ScriptedUpstream, root_path: str):
    """Whether the gateway strips it or not, and though it is how `/admin` begins."""
    settings = tmp_path / "overnight.toml"
    settings.write_text(f'root_path = "{root_path}"\n')
    with Service(tmp_path, upstreams=[upstream.url], arguments=("--config", str(settings))) as service:
        http = Http(service.url)
        paths = ("/admin/keys", f"{root_path}/admin/keys", f"{root_path}{root_path}/admin/keys", "/dmin/keys")
        found = [http.get(path).status for path in paths]
        key = an_admin_key(service.data_dir)
        reached = [Http(service.url, {"api-key": key}).get(path).status for path in paths[:2]]

    assert found == [401, 401, 404, 404]
    assert reached == [200, 200]
