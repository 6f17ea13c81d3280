"""Transcripts of `overnight quota` and of the offers of `overnight resources`."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.conftest import Cli, Outcome
from tests.support.service import Service

from overnight.cli.keys import OFFERS
from overnight.domain.quota import Offer
from overnight.testing.upstream import ScriptedUpstream

SETTINGS = """
[[deployments]]
name = "chat"
model = "gpt-4o"
enqueued_tokens = 2000
"""


@pytest.fixture
def folder(bare: Cli) -> Cli:
    """A data folder with a resource."""
    assert bare("resources", "create", "search", "--data-dir", "data", "--offer", "msdn").code == 0
    return bare


def test_quotas_are_set_listed_and_cleared(folder: Cli) -> None:
    """On the data folder, without a service."""
    put = folder("quota", "set", "search", "chat", "5000", "--data-dir", "data")
    unlimited = folder("quota", "set", "default", "chat", "--none", "--data-dir", "data")
    listed = folder("quota", "own", "--data-dir", "data")
    as_json = folder("quota", "own", "--resource", "search", "--data-dir", "data", "--json")
    cleared = folder("quota", "clear", "search", "chat", "--data-dir", "data")
    again = folder("quota", "clear", "search", "chat", "--data-dir", "data")
    folder("quota", "clear", "default", "chat", "--data-dir", "data")

    assert put == Outcome(stdout="search\tchat\t5000\n", stderr="", code=0)
    assert unlimited == Outcome(stdout="default\tchat\tnone\n", stderr="", code=0)
    assert listed.stdout == put.stdout + unlimited.stdout
    assert as_json.json == [{"resource": "search", "deployment": "chat", "tokens": 5000}]
    assert cleared == Outcome(stdout="", stderr="search has no number of its own for chat any more\n", code=0)
    assert again.code == 1
    assert "has no number of its own" in again.stderr
    assert folder("quota", "own", "--data-dir", "data") == Outcome(
        stdout="", stderr="no resource has a number of its own; `overnight quota set` gives one\n", code=0
    )


@pytest.mark.parametrize("given", [(), ("5000", "--none")], ids=["neither", "both"])
def test_a_quota_is_a_number_or_none(folder: Cli, given: tuple[str, ...]) -> None:
    """A slip of the finger must not lift a limit."""
    found = folder("quota", "set", "search", "chat", *given, "--data-dir", "data")

    assert found == Outcome(
        stdout="",
        stderr="error: give either a number of tokens or `--none`\n\n"
        "hint: `overnight quota set search chat 1000000`, or `--none` for no limit\n",
        code=2,
    )


def test_what_there_is_not_gets_no_quota(folder: Cli) -> None:
    """Neither a resource nor a folder is made by it."""
    resource = folder("quota", "set", "sarch", "chat", "5", "--data-dir", "data")
    offer = folder("resources", "set", "sarch", "--offer", "free", "--data-dir", "data")
    elsewhere = folder("quota", "own", "--data-dir", "nowhere")

    assert resource == offer == Outcome(stdout="", stderr="error: No resource found with name 'sarch'\n", code=1)
    assert elsewhere.stderr.startswith("error: there is no database in the data folder `nowhere`")


def test_a_resource_is_put_on_an_offer(folder: Cli) -> None:
    """And off it."""
    listed = folder("resources", "list", "--data-dir", "data")
    moved = folder("resources", "set", "search", "--offer", "enterprise", "--data-dir", "data")
    freed = folder("resources", "set", "search", "--offer", "none", "--data-dir", "data", "--json")

    assert listed.stdout.endswith("\tmsdn\t\n")
    assert moved.stdout.endswith("\tenterprise\t\n")
    assert freed.json[0]["offer"] is None
    assert folder("resources", "set", "search", "--offer", "gold", "--data-dir", "data").code == 2


def test_the_offers_are_those_of_the_domain() -> None:
    """The command line names them itself, so that its help imports nothing."""
    assert tuple(Offer) == OFFERS


def test_what_is_left_is_shown_beside_the_service(
    folder: Cli, tmp_path: Path, shared_upstream: ScriptedUpstream
) -> None:
    """Plain in a pipe, a table on a terminal; a number set meanwhile counts at once."""
    settings = tmp_path / "overnight.toml"
    settings.write_text(SETTINGS)
    with Service(tmp_path, upstreams=[shared_upstream.url], arguments=["--config", str(settings)]) as service:
        folder.environment["OVERNIGHT_URL"] = f"{service.url}/v1"
        plain = folder("quota", "list")
        alone = folder("quota")
        shown, _ = folder.on_terminal("quota", "list")
        folder("quota", "set", "default", "chat", "7000", "--data-dir", "data")
        own = folder("quota", "list", "--json=deployment,maximum_enqueued_tokens,basis")
        folder("quota", "clear", "default", "chat", "--data-dir", "data")
        folder("resources", "set", "default", "--offer", "msdn", "--data-dir", "data")
        by_offer = folder("quota", "list")

    assert "chat\tgpt-4o\t0\t2000\t2000\tdeployment" in plain.stdout.splitlines()
    assert alone == plain
    assert "2,000" in shown
    assert {"deployment": "chat", "maximum_enqueued_tokens": 7000, "basis": "resource"} in own.json
    assert "chat\tgpt-4o\t0\t90000\t90000\toffer msdn" in by_offer.stdout.splitlines()
