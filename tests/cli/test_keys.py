"""Transcripts of `overnight keys` and `overnight resources`: on a data folder, with no service and beside one."""

from __future__ import annotations

import re
from pathlib import Path

from tests.cli.conftest import Cli, Outcome
from tests.support.issuer import AUDIENCE, Issuer
from tests.support.service import Service, eventually

from overnight.cli.exit_codes import ExitCode
from overnight.cli.keys import MOST_DAYS
from overnight.domain.limits import LONGEST_LIFE
from overnight.testing.upstream import ScriptedUpstream

KEY = r"ovn_[0-9a-f]{32}"
ID = r"key_[0-9a-f]{32}"
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"


def test_a_key_is_shown_once(bare: Cli) -> None:
    """On stdout alone, so that a script can keep it."""
    found = bare("keys", "create", "--data-dir", "data", "--days", "3", "--scope", "read")
    listed = bare("keys", "list", "--data-dir", "data")
    as_json = bare("keys", "list", "--data-dir", "data", "--json")

    assert found.code == 0
    assert re.fullmatch(rf"{KEY}\n", found.stdout)
    assert re.fullmatch(rf"{ID} opens default in data; the key is not shown again\n", found.stderr)
    begins = found.stdout[:8]
    assert re.fullmatch(rf"{ID}\tdefault\t{begins}\tread\tvalid\t{TIME}\t{TIME}\t\n", listed.stdout)
    (shown,) = as_json.json
    assert set(shown) == {
        *("id", "resource", "prefix", "scopes", "created_at", "expires_at", "last_used_at", "revoked_at")
    }
    assert found.stdout.strip() not in listed.stdout + as_json.stdout


def test_a_key_lives_a_hundred_years_at_most(bare: Cli) -> None:
    """Beyond, there is no date to show."""
    found = bare("keys", "create", "--data-dir", "data", "--days", str(MOST_DAYS + 1))

    assert MOST_DAYS * 86_400 == LONGEST_LIFE
    assert (found.code, found.stdout) == (ExitCode.USAGE, "")
    assert "36500" in found.stderr


def test_resources_are_created_and_then_opened_by_keys(bare: Cli) -> None:
    """A slip of the finger makes no new one."""
    created = bare("resources", "create", "search", "--data-dir", "data")
    again = bare("resources", "create", "search", "--data-dir", "data")
    key = bare("keys", "create", "--resource", "search", "--data-dir", "data", "-q")
    slip = bare("keys", "create", "--resource", "sarch", "--data-dir", "data")

    assert re.fullmatch(rf"search\t{TIME}\t\t\n", created.stdout)
    assert again == Outcome(stdout="", stderr="error: There is a resource 'search' already\n", code=1)
    assert re.fullmatch(rf"{KEY}\n", key.stdout)
    assert slip == Outcome(stdout="", stderr="error: No resource found with name 'sarch'\n", code=1)
    assert bare("resources", "list", "--data-dir", "data", "-q").stdout == "search\n"
    assert bare("keys", "list", "--resource", "default", "--data-dir", "data") == Outcome(
        stdout="", stderr="no key yet; `overnight keys create` makes one\n", code=0
    )
    assert bare("resources", "create", "a b", "--data-dir", "data").code == 2


def test_revoking_asks_first(bare: Cli) -> None:
    """It cannot be undone."""
    (created,) = bare("keys", "create", "--data-dir", "data", "--json").json
    asked = bare("keys", "revoke", created["id"], "--data-dir", "data")
    revoked = bare("keys", "revoke", created["id"], "--data-dir", "data", "--yes")
    unknown = bare("keys", "revoke", "key_x", "--data-dir", "data", "--yes")

    assert re.fullmatch(KEY, created["key"])
    assert (asked.stdout, asked.code) == ("", 2)
    assert "\trevoked\t" in revoked.stdout
    assert unknown == Outcome(stdout="", stderr="error: No key found with id 'key_x'\n", code=1)


def test_a_key_can_be_named_by_its_beginning(bare: Cli) -> None:
    """If no other begins like this; otherwise those that do are named, and nothing is revoked."""
    made = [bare("keys", "create", "--data-dir", "data", "--json").json[0] for _ in range(2)]
    first, second = (key["id"] for key in made)
    short = bare("keys", "revoke", "key_", "--data-dir", "data", "--yes")
    asked = bare("keys", "revoke", first[:14], "--data-dir", "data")
    by_id = bare("keys", "revoke", first[:14], "--data-dir", "data", "--yes")
    by_itself = bare("keys", "revoke", made[1]["key"][:8], "--data-dir", "data", "--yes")

    assert short == Outcome(
        stdout="", stderr=f"error: 'key_' fits 2 keys: {first}, {second}. Write more of the id.\n", code=2
    )
    assert f"revoke {first}, which opens default?" in asked.stderr
    assert asked.code == 2
    assert by_id.stdout.startswith(f"{first}\tdefault\t")
    assert by_itself.stdout.startswith(f"{second}\tdefault\t")
    assert "\trevoked\t" in by_id.stdout


def test_an_admin_key_opens_no_resource(bare: Cli) -> None:
    """It is for the admin API alone."""
    made = bare("keys", "create", "--admin", "--data-dir", "data")
    listed = bare("keys", "list", "--data-dir", "data")
    both = bare("keys", "create", "--admin", "--scope", "read", "--data-dir", "data")

    assert re.fullmatch(rf"{KEY}\n", made.stdout)
    assert re.fullmatch(rf"{ID} manages resources and keys in data; the key is not shown again\n", made.stderr)
    assert re.fullmatch(rf"{ID}\t_admin\t{made.stdout[:8]}\tadmin\tvalid\t{TIME}\t\t\n", listed.stdout)
    assert bare("resources", "list", "--data-dir", "data").stdout == ""
    assert (both.stdout, both.code) == ("", 2)
    assert "goes with neither --resource nor --scope" in both.stderr


def test_resources_of_the_key_file_are_listed(bare: Cli) -> None:
    """Marked, behind those that were created before."""
    (bare.folder / "keys.txt").write_text("sk-1 filed\nsk-2 search\n")
    bare("resources", "create", "search", "--data-dir", "data")
    listed = bare("resources", "list", "--data-dir", "data", "--keys-file", "keys.txt")
    named = bare("resources", "list", "--data-dir", "data", "--json", OVERNIGHT_KEYS_FILE="keys.txt")
    (bare.folder / "keys.txt").write_text("sk-1 _admin\n")
    reserved = bare("resources", "list", "--data-dir", "data", "--keys-file", "keys.txt")

    assert re.fullmatch(rf"search\t{TIME}\t\tkey file\nfiled\t\t\tkey file\n", listed.stdout)
    assert [(each["name"], each["in_file"]) for each in named.json] == [("search", True), ("filed", True)]
    assert reserved.code == 2
    assert "line 1 names `_admin`, which no key of a file opens" in reserved.stderr


def test_the_doctor_asks_the_issuer_of_tokens(bare: Cli) -> None:
    """Where the settings name one."""
    with Issuer() as issuer:
        settings = bare.folder / "overnight.toml"
        settings.write_text(f'[oidc]\nissuer = "{issuer.url}"\naudience = "{AUDIENCE}"\n')
        well = bare("doctor", "--config", "overnight.toml", "--data-dir", "data")
        issuer.down = True
        silent = bare("doctor", "--config", "overnight.toml", "--data-dir", "data")
        settings.write_text('[oidc]\nissuer = "http://example.com"\naudience = "a"\n')
        unsafe = bare("doctor", "--config", "overnight.toml", "--data-dir", "data")

    assert f"issuer\tok\t{issuer.url}: 2 keys\n" in well.stdout
    assert "keys\tok\tnone: only bearer tokens are accepted\n" in well.stdout
    assert f"issuer\tFAULT\t{issuer.url}/.well-known/openid-configuration answers with status 503" in silent.stdout
    assert "`oidc.issuer`" in unsafe.stderr
    assert "not an https URL" in unsafe.stderr


def test_a_folder_without_a_database_is_not_made_by_looking(bare: Cli) -> None:
    """It is the wrong folder."""
    found = bare("keys", "list", "--data-dir", "nowhere")

    assert found.stderr.startswith("error: there is no database in the data folder `nowhere`\n\nhint: ")
    assert found.code == 1
    assert not (bare.folder / "nowhere").exists()


def test_a_key_made_beside_the_service_opens_it(bare: Cli, tmp_path: Path, shared_upstream: ScriptedUpstream) -> None:
    """At once, and revoked it does not within seconds."""
    with Service(tmp_path, upstreams=[shared_upstream.url]) as service:
        bare.environment["OVERNIGHT_URL"] = f"{service.url}/v1"
        (key,) = bare("keys", "create", "--data-dir", "data", "--json").json
        let_in = bare("files", "list", OVERNIGHT_API_KEY=key["key"])
        without = eventually(lambda: bare("files", "list").code)
        bare("keys", "revoke", key["id"], "--data-dir", "data", "--yes")
        refused = eventually(lambda: bare("files", "list", OVERNIGHT_API_KEY=key["key"]).code)

    assert (let_in.code, without, refused) == (0, 4, 4)
    doctor = bare("doctor", "--data-dir", "data", "--upstream", shared_upstream.url)
    assert "keys\tok\t1 keys\n" in doctor.stdout
