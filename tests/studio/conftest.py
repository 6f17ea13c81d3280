"""A real service whose Studio is looked at through HTTP, and a small reader of its pages."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from urllib.parse import urlencode

import pytest
from tests.support.api import OPENAI, Api
from tests.support.http import Http, Reply
from tests.support.service import Service

from overnight.adapters.sql.database import sqlite_file
from overnight.testing.upstream import ScriptedUpstream

BLUE, GREEN, NEW = "key-of-the-blue-team", "key-of-the-green-team", "key-of-somebody-new"


class Visitor:
    """A browser, as far as the Studio needs one: cookies, and forms with their token."""

    def __init__(self, url: str) -> None:
        self.http = Http(url)
        self.cookie = ""

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Reply:
        return self.http.call("GET", path, headers={**self._cookies(), **(headers or {})})

    def page(self, path: str) -> str:
        reply = self.get(path)
        assert reply.status == 200, reply
        return reply.body.decode()

    def post(self, path: str, headers: Mapping[str, str] | None = None, **fields: str) -> Reply:
        kind = {"content-type": "application/x-www-form-urlencoded"}
        return self.http.call("POST", path, urlencode(fields).encode(), {**kind, **self._cookies(), **(headers or {})})

    def submit(self, path: str, **fields: str) -> Reply:
        """Post a form with the token that this visitor's pages carry."""
        return self.post(path, None, csrf=self.token(), **fields)

    def token(self) -> str:
        return token_in(self.get("/studio/upstreams").body.decode())

    def sign_in(self, key: str) -> Reply:
        reply = self.post("/studio/sign-in", csrf=token_in(self.page("/studio/sign-in")), key=key)
        self.cookie = reply.headers.get("set-cookie", "").partition(";")[0]
        return reply

    def _cookies(self) -> dict[str, str]:
        return {"cookie": self.cookie} if self.cookie else {}


@contextmanager
def validating(service: Service, batch_id: str) -> Iterator[None]:
    """Have a batch look as if it were being validated: real validation is over before anybody sees it."""
    with closing(sqlite3.connect(sqlite_file(service.data_dir))) as database:
        query = "SELECT status, in_progress_at, completed_at, total, worker, lease_until FROM batches WHERE id = ?"
        before = database.execute(query, (batch_id,)).fetchone()

        def put(*values: object) -> None:
            changed = "status = ?, in_progress_at = ?, completed_at = ?, total = ?, worker = ?, lease_until = ?"
            with database:
                database.execute(f"UPDATE batches SET {changed} WHERE id = ?", (*values, batch_id))  # noqa: S608 - ours

        # As another worker has it, ours neither takes it up nor gives it back.
        put("validating", None, None, 0, "another", time.time() + 3600)
        yield
        put(*before)


def counted(service: Service, batch_id: str, tokens: int | None) -> None:
    """Have the tokens of a batch counted, as is done last before it waits for room in its quota."""
    with closing(sqlite3.connect(sqlite_file(service.data_dir))) as database, database:
        database.execute("UPDATE batches SET prompt_tokens = ? WHERE id = ?", (tokens, batch_id))


def token_in(html: str) -> str:
    found = re.search(r'name="csrf" (?:content|value)="([0-9a-f]+)"', html)
    assert found is not None, html[:500]
    return found[1]


@pytest.fixture(scope="session")
def upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream(models=("test-model",)) as upstream:
        yield upstream


@pytest.fixture(scope="session")
def open_service(upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Without keys, on loopback."""
    with Service(tmp_path_factory.mktemp("open"), upstreams=[upstream.url]) as service:
        yield service


@pytest.fixture(scope="session")
def keyed_service(upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """With a key for each of two resources."""
    folder = tmp_path_factory.mktemp("keyed")
    (folder / "keys.txt").write_text(f"{BLUE} blue\n{GREEN} green\n{NEW} new\n")
    arguments = ["--keys-file", str(folder / "keys.txt")]
    with Service(folder, upstreams=[upstream.url], arguments=arguments) as service:
        yield service


@pytest.fixture
def visitor(open_service: Service) -> Visitor:
    return Visitor(open_service.url)


@pytest.fixture
def api(open_service: Service) -> Api:
    return Api(Http(open_service.url), OPENAI)


@pytest.fixture
def stranger(keyed_service: Service) -> Visitor:
    """Nobody has signed in."""
    return Visitor(keyed_service.url)


@pytest.fixture
def blue(keyed_service: Service) -> Visitor:
    visitor = Visitor(keyed_service.url)
    visitor.sign_in(BLUE)
    return visitor


@pytest.fixture
def green(keyed_service: Service) -> Visitor:
    visitor = Visitor(keyed_service.url)
    visitor.sign_in(GREEN)
    return visitor


@pytest.fixture
def newcomer(keyed_service: Service) -> Visitor:
    """Of a resource that has nothing yet."""
    visitor = Visitor(keyed_service.url)
    visitor.sign_in(NEW)
    return visitor


@pytest.fixture
def blue_api(keyed_service: Service) -> Api:
    return Api(Http(keyed_service.url, {"authorization": f"Bearer {BLUE}"}), OPENAI)
