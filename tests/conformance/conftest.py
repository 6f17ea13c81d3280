"""One service for all tests that need nothing special of it; each test works as a resource of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.support.api import OPENAI, PREFIXES, Api, Prefix
from tests.support.http import Http
from tests.support.service import Service, log_shown

from overnight.testing.upstream import ScriptedUpstream

# The first ones are for the SDKs, the others for one test each.
SDK_KEYS, KEYS = 400, 2_500


@pytest.fixture(scope="session")
def upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream(models=("test-model", "other-model")) as upstream:
        yield upstream


@pytest.fixture(scope="session")
def shared_service(upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("shared")
    keys = folder / "keys.txt"
    keys.write_text("".join(f"{key_of(number)} resource-{number}\n" for number in range(KEYS)))
    with Service(folder, upstreams=[upstream.url], arguments=["--keys-file", str(keys)]) as service:
        yield service


@pytest.fixture
def service(shared_service: Service) -> Iterator[Service]:
    """The shared service; its log of this test is shown where the test fails."""
    with log_shown(shared_service):
        yield shared_service


@pytest.fixture(scope="session")
def new_key() -> Iterator[str]:
    """Keys, each of which opens a resource that nobody used yet; ``next(new_key)`` gives one."""
    return map(key_of, range(SDK_KEYS, KEYS))


@pytest.fixture
def http(service: Service, new_key: Iterator[str]) -> Http:
    """The shared service, called as a resource that nobody used yet."""
    return Http(service.url, {"authorization": f"Bearer {next(new_key)}"})


@pytest.fixture
def api(http: Http) -> Api:
    """The API under ``/v1``."""
    return Api(http, OPENAI)


@pytest.fixture(params=PREFIXES, ids=lambda prefix: prefix.name)
def each(request: pytest.FixtureRequest, http: Http) -> Api:
    """The API under each prefix in turn."""
    prefix: Prefix = request.param
    return Api(http, prefix)


def key_of(number: int) -> str:
    """Give the key that opens the resource of this number."""
    return f"key-of-the-resource-{number}"
