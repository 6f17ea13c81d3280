"""A service for the tests that leave nothing behind which could disturb others, and its scripted upstream."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from overnight.testing.upstream import ScriptedUpstream
from tests.support.api import OPENAI, PREFIXES, Api, Prefix
from tests.support.http import Http
from tests.support.service import Service, log_shown


@pytest.fixture(scope="session")
def shared_upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream(models=("test-model", "other-model")) as upstream:
        yield upstream


@pytest.fixture(scope="session")
def shared_service(
    shared_upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    with Service(tmp_path_factory.mktemp("shared"), upstreams=[shared_upstream.url]) as service:
        yield service


@pytest.fixture
def service(shared_service: Service) -> Iterator[Service]:
    """The shared service; its log of this test is shown where the test fails."""
    with log_shown(shared_service):
        yield shared_service


@pytest.fixture
def http(service: Service) -> Http:
    return Http(service.url)


@pytest.fixture
def api(http: Http) -> Api:
    """The API under ``/v1``."""
    return Api(http, OPENAI)


@pytest.fixture(params=PREFIXES, ids=lambda prefix: prefix.name)
def each(request: pytest.FixtureRequest, http: Http) -> Api:
    """The API under each prefix in turn."""
    prefix: Prefix = request.param
    return Api(http, prefix)
