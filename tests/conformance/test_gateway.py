"""Section 6.6 of the contract: behind a gateway that forwards a part of its paths, as Azure clients may address it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.api import AZURE, Api
from tests.support.http import Http, Part
from tests.support.service import Service, log_shown

from overnight.testing.upstream import ScriptedUpstream


@pytest.fixture(scope="module")
def service(upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder: Path = tmp_path_factory.mktemp("gateway")
    config = folder / "gateway.toml"
    config.write_text('root_path = "/tenant1"\n')
    with Service(folder, upstreams=[upstream.url], arguments=["--config", str(config)]) as service:
        yield service


def test_places_are_told_as_the_client_sees_them(service: Service):
    parts = [Part(name="purpose", data="batch"), Part(name="file", data="{}\n", filename="a.jsonl")]

    with log_shown(service):
        reply = Api(Http(service.url), AZURE).post_form("/files", parts)

    assert reply.status == 201
    assert f"/tenant1/openai/files/{reply.json()['id']}" in reply.headers["location"]


@pytest.mark.parametrize("path", ["/v1/files", "/tenant1/v1/files"], ids=["stripped", "kept"])
def test_gateway_may_strip_the_prefix_or_keep_it(service: Service, path: str):
    with log_shown(service):
        assert Http(service.url).get(path).status == 200


def test_address_that_is_announced_has_the_prefix(service: Service):
    assert service.url.endswith("/tenant1")


@pytest.mark.parametrize("root", ["", "/tenant1"], ids=["stripped", "kept"])
@pytest.mark.parametrize(("path", "code"), [("/openai/nothing", "404"), ("/openai/files/file-1", "notFound")])
def test_errors_are_told_in_the_flavour_of_the_prefix_all_the_same(service: Service, root: str, path: str, code: str):
    reply = Http(service.url).get(f"{root}{path}?api-version=2024-10-21")

    assert (reply.status, reply.json()["error"]["code"]) == (404, code)
