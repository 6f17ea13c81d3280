"""Bearer tokens of an identity provider with the real service, a real issuer and the real SDK."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from openai import AzureOpenAI, OpenAI
from tests.support.api import AZURE, AZURE_V1, OPENAI, PREFIXES, Api, Prefix, chats
from tests.support.forgeries import BAD
from tests.support.http import Http, Reply
from tests.support.issuer import AUDIENCE, Issuer, forged
from tests.support.service import Service

from overnight.bootstrap.keys import with_keys
from overnight.config import Settings
from overnight.domain.key import Scope
from overnight.services.keys import CreatedKey, NewKey
from overnight.testing.upstream import ScriptedUpstream

TEAMS = ("team", "other-team")
MAPPED = "11111111-2222-3333-4444-555555555555"


def start(folder: Path, upstream: ScriptedUpstream, issuer: Issuer, more: str = "") -> Service:
    """Prepare a service that trusts an issuer, with some resources."""
    settings = folder / "overnight.toml"
    # More bad tokens than anybody else may send from one address.
    rate = "[rate]\nfailed_keys_per_minute = 0\n"
    settings.write_text(f'{rate}[oidc]\nissuer = "{issuer.url}"\naudience = "{AUDIENCE}"\n{more}')
    for name in TEAMS:
        make_resource(folder / "data", name)
    arguments = ("--config", str(settings), "--log-level", "debug")
    return Service(folder, upstreams=[upstream.url], arguments=arguments)


def make_resource(data_dir: Path, name: str) -> None:
    settings = Settings(data_dir=data_dir)
    with_keys(settings, lambda service: service.create_resource(name), new=True)


def a_key(service: Service, **wanted: object) -> CreatedKey:
    new = NewKey(**wanted)  # type: ignore[arg-type]
    return with_keys(Settings(data_dir=service.data_dir), lambda keys: keys.create(new))


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    with Issuer() as issuer:
        yield issuer


@pytest.fixture(scope="module")
def trusting(issuer: Issuer, upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service without keys that trusts the issuer."""
    with start(tmp_path_factory.mktemp("trusting"), upstream, issuer) as service:
        yield service


def calling(service: Service, token: str, prefix: Prefix = OPENAI) -> Api:
    return Api(Http(service.url, {"authorization": f"Bearer {token}"}), prefix)


def origin(service: Service) -> str:
    return service.url.removesuffix("/v1")


# --- good tokens -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["rsa-1", "ec-1"])
@pytest.mark.parametrize("prefix", PREFIXES, ids=lambda prefix: prefix.name)
def test_a_token_runs_a_batch(trusting: Service, issuer: Issuer, prefix: Prefix, key: str):
    """On every prefix, with either kind of signature."""
    api = calling(trusting, issuer.token(key=key), prefix)

    assert api.run(chats(2, prefix.endpoint))["status"] == "completed"


def test_the_sdk_works_with_a_token_and_with_a_provider_of_tokens(trusting: Service, issuer: Issuer):
    """As Azure's guides write it."""
    options = {"azure_endpoint": origin(trusting), "api_version": "2024-10-21", "max_retries": 0}
    with (
        AzureOpenAI(azure_ad_token=issuer.token(), **options) as one,  # type: ignore[call-overload]
        AzureOpenAI(azure_ad_token_provider=issuer.token, **options) as two,  # type: ignore[call-overload]
        OpenAI(base_url=f"{origin(trusting)}/openai/v1/", api_key=issuer.token) as three,
    ):
        file = one.files.create(file=("a.jsonl", b"{}\n"), purpose="batch")

        assert {file.id} <= {each.id for each in two.files.list()} & {each.id for each in three.files.list()}


def test_a_token_opens_the_resource_of_its_claim_and_no_other(trusting: Service, issuer: Issuer):
    """What another has is answered like what there never was."""
    file_id = calling(trusting, issuer.token()).upload(b"{}\n")
    batch_id = calling(trusting, issuer.token()).create(file_id)
    stranger = calling(trusting, issuer.token(azp="other-team"))
    key = a_key(trusting, resource="team").secret
    answers = []
    for path in (f"/files/{file_id}", f"/files/{file_id}/content", f"/batches/{batch_id}", f"/files?after={file_id}"):
        changed = path[:-4] + "0000" if not path.endswith("/content") else path[:-12] + "0000/content"
        answers.append((told(stranger.get(path), path), told(stranger.get(changed), changed)))

    assert all(given == expected for given, expected in answers)
    assert {given[0] for given, _ in answers} == {400, 404}
    assert calling(trusting, key).content(file_id) == b"{}\n"


def told(reply: Reply, path: str) -> tuple[int, bytes]:
    name = path.removesuffix("/content").rpartition("/")[2].rpartition("=")[2]
    return reply.status, reply.body.replace(name.encode(), b"ID")


def test_the_scopes_of_a_token_are_its_roles(trusting: Service, issuer: Issuer):
    """As a list or as a text; a token without a role of ours is let in nowhere."""
    reader = calling(trusting, issuer.token(roles=None, scp="openid overnight.read"))
    nobody = calling(trusting, issuer.token(roles=["Files.Read.All"]))
    admin = Http(trusting.url, {"authorization": f"Bearer {issuer.token(azp=None, roles=['overnight.admin'])}"})

    assert [reader.get("/files").status, reader.post("/batches", {}).status] == [200, 403]
    assert (nobody.get("/files").status, nobody.get("/files").json()["error"]["code"]) == (403, "forbidden")
    assert [admin.get(path).status for path in ("/admin/resources", "/v1/files")] == [200, 403]
    assert calling(trusting, issuer.token()).http.get("/admin/resources").status == 403


@pytest.mark.parametrize("claim", [None, "nobody", "", 7, ["team"], "_admin"])
def test_a_token_without_a_resource_of_ours_is_told_so(trusting: Service, issuer: Issuer, claim: object):
    """Its holder is known by then; it is for the operator to make the resource."""
    reply = calling(trusting, issuer.token(azp=claim)).get("/files")

    assert (reply.status, reply.json()["error"]["code"]) == (403, "forbidden")
    assert "Ask the operator" in reply.json()["error"]["message"]


def test_an_api_key_counts_more_than_a_token(trusting: Service, issuer: Issuer):
    """Old clients send both; a wrong key is not saved by a good token."""
    key = a_key(trusting, resource="other-team").secret
    file_id = calling(trusting, key).upload(b"{}\n")
    both = Http(trusting.url, {"api-key": key, "authorization": f"Bearer {issuer.token()}"})
    wrong = Http(trusting.url, {"api-key": key[:-1] + "x", "authorization": f"Bearer {issuer.token()}"})

    assert both.get(f"/v1/files/{file_id}").status == 200
    assert wrong.get("/v1/files").status == 401


# --- bad tokens --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BAD, ids=lambda name: name.replace(" ", "-"))
def test_a_bad_token_is_refused_and_not_told_why(trusting: Service, issuer: Issuer, name: str):
    """All of them in the same words, on both flavours; and nothing of it is logged."""
    token = BAD[name](issuer)
    expected = {prefix: calling(trusting, "a.b.c", prefix).get("/files") for prefix in (OPENAI, AZURE, AZURE_V1)}
    given = {prefix: calling(trusting, token, prefix).get("/files") for prefix in (OPENAI, AZURE, AZURE_V1)}

    assert {reply.status for reply in given.values()} == {401}
    assert [reply.body for reply in given.values()] == [reply.body for reply in expected.values()]
    assert Http(trusting.url, {"authorization": f"Bearer {token}"}).get("/admin/keys").status == 401
    assert not any(len(part) > 8 and part in trusting.log() for part in token.split("."))


def test_a_service_that_trusts_an_issuer_is_closed_to_others(trusting: Service):
    """Though it has no key of its own."""
    assert Http(trusting.url).get("/v1/files").status == 401
    assert calling(trusting, "sk-anything").get("/files").status == 401


# --- the issuer --------------------------------------------------------------------------------------------------


def test_a_new_key_of_the_issuer_is_fetched_when_it_is_met(upstream: ScriptedUpstream, tmp_path: Path):
    """Once: invented key ids cause no fetch each."""
    with Issuer() as issuer, start(tmp_path, upstream, issuer) as service:
        before = calling(service, issuer.token()).get("/files").status
        fetched = issuer.asked["keys"]
        unknown = [
            calling(service, forged({"alg": "RS256", "kid": f"k{number}"}, issuer.claims(), b"x")).get("/files").status
            for number in range(50)
        ]

        assert before == 200
        assert set(unknown) == {401}
        assert issuer.asked["keys"] <= fetched + 1


def test_a_silent_issuer_keeps_nobody_out_whose_key_is_known(upstream: ScriptedUpstream, tmp_path: Path):
    """And a service that never knew one says that it is not the caller's fault."""
    with Issuer() as issuer:
        with start(tmp_path, upstream, issuer) as service:
            first = calling(service, issuer.token()).get("/files").status
            issuer.down = True
            later = calling(service, issuer.token()).get("/files").status
        with Service(tmp_path, upstreams=[upstream.url], arguments=service._arguments[2:]) as again:  # noqa: SLF001
            unknown = calling(again, issuer.token()).get("/files")

    assert (first, later) == (200, 200)
    assert unknown.status == 503
    assert "issuer" in unknown.json()["error"]["message"]
    assert "issuer.silent" in again.log()


def test_values_of_a_claim_can_be_given_resources(upstream: ScriptedUpstream, tmp_path: Path):
    """The table is complete; resources can be made as they are met; and a role can have another name."""
    more = (
        'resource_claim = "oid"\ncreate_resources = true\ndefault_scope = "read"\n'
        f'[oidc.resources]\n{MAPPED} = "made"\n[oidc.scopes]\nwriters = "submit"\n'
    )
    with Issuer() as issuer, start(tmp_path, upstream, issuer, more) as service:
        mapped = calling(service, issuer.token(oid=MAPPED, roles=["writers"]))
        file_id = mapped.upload(b"{}\n")
        by_name = calling(service, issuer.token(oid="team"))
        reader = calling(service, issuer.token(oid=MAPPED))

        assert by_name.get("/files").status == 403
        assert (reader.content(file_id), reader.delete(f"/files/{file_id}").status) == (b"{}\n", 403)
        assert calling(service, a_key(service, resource="made", scopes=(Scope.READ,)).secret).content(file_id)
