"""The keys of an issuer, and the tokens that they sign: a real issuer, and a clock set by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from tests.support.forgeries import BAD
from tests.support.issuer import AUDIENCE, Issuer, new_rsa, public_jwk

from overnight.adapters.oidc.issuer import Issuer as IssuerClient
from overnight.adapters.oidc.issuer import IssuerKey, IssuerKeys, IssuerProblem
from overnight.adapters.oidc.verifier import OidcVerifier
from overnight.domain.bearer import BadBearer
from overnight.domain.errors import Unavailable
from overnight.testing.clock import ManualClock

KEEP = 7_200.0


@pytest.fixture(scope="module")
def shared_issuer() -> Iterator[Issuer]:
    with Issuer() as issuer:
        yield issuer


@pytest.fixture
def issuer(shared_issuer: Issuer) -> Iterator[Issuer]:
    """The issuer, as it was before."""
    keys = dict(shared_issuer.keys)
    shared_issuer.asked.update(discovery=0, keys=0)
    yield shared_issuer
    shared_issuer.keys, shared_issuer.extra, shared_issuer.down = keys, [], False


@pytest.fixture
async def client(issuer: Issuer) -> AsyncIterator[IssuerClient]:
    client = IssuerClient(issuer.url, None)
    yield client
    await client.close()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def keys(client: IssuerClient, clock: ManualClock) -> IssuerKeys:
    return IssuerKeys(client.fetch, clock, keep=KEEP)


@pytest.fixture
def verifier(issuer: Issuer, keys: IssuerKeys) -> OidcVerifier:
    return OidcVerifier(keys, issuer.url, [AUDIENCE, "another"], ["RS256", "ES256"])


# --- tokens ------------------------------------------------------------------------------------------------------

# What is not looked at here is a matter of time or size, which the core looks at.
ELSEWHERE = {"expired", "expires never", "not yet valid", "issued later", "too long"}
REASONS = {
    "without expiry": "claim missing",
    "wrong audience": "audience",
    "no audience": "claim missing",
    "wrong issuer": "issuer",
    "no issuer": "claim missing",
    "alg none": "algorithm",
    "alg None": "algorithm",
    "HS256 with the public key": "algorithm",
    "RS256 for a key of EC": "malformed",
    "PS256, which is not allowed": "algorithm",
    "signed by another": "signature",
    "signature cut off": "signature",
    "signature changed": "signature",
    "claims changed": "signature",
    "critical extension": "malformed",
    "no key id": "no key id",
    "key id of another type": "malformed",
    "unknown key id": "unknown key",
    "no JSON": "malformed",
    "empty": "malformed",
    "deep": "malformed",
}


@pytest.mark.parametrize("name", sorted(BAD.keys() - ELSEWHERE), ids=lambda name: name.replace(" ", "-"))
async def test_a_bad_token_is_refused_for_what_is_wrong_with_it(verifier: OidcVerifier, issuer: Issuer, name: str):
    """Each forgery falls to the check that is meant for it."""
    with pytest.raises(BadBearer) as caught:
        await verifier.verify(BAD[name](issuer))

    assert caught.value.reason == REASONS[name]


@pytest.mark.parametrize("key", ["rsa-1", "ec-1"])
async def test_a_good_token_gives_its_claims(verifier: OidcVerifier, issuer: Issuer, key: str):
    """Also where it is meant for others as well."""
    claims = issuer.claims(aud=["somebody", "another"])

    assert await verifier.verify(issuer.signed(claims, key)) == claims


async def test_a_key_is_used_for_its_own_algorithm_only(issuer: Issuer, keys: IssuerKeys):
    """Whatever else its type could do."""
    allowed = OidcVerifier(keys, issuer.url, [AUDIENCE], ["RS256", "RS512"])
    issuer.extra = [{**public_jwk("bound", issuer.keys["rsa-1"]), "alg": "RS512"}]
    token = issuer.signed(issuer.claims(), "rsa-1", kid="bound")
    fitting = jwt.encode(issuer.claims(), issuer.keys["rsa-1"], algorithm="RS512", headers={"kid": "bound"})
    with pytest.raises(BadBearer, match="algorithm of another key"):
        await allowed.verify(token)

    assert (await allowed.verify(fitting))["azp"] == "team"


# --- keys --------------------------------------------------------------------------------------------------------


async def test_keys_are_fetched_once_and_then_once_an_hour(issuer: Issuer, keys: IssuerKeys, clock: ManualClock):
    """Whether or not anybody comes."""
    keeping = asyncio.create_task(keys.keep_fresh())
    await until(lambda: issuer.asked["keys"] == 1)
    found = [await keys.find("rsa-1") for _ in range(100)]
    await clock.advance(3_599)
    before = issuer.asked["keys"]
    await clock.advance(1)
    await until(lambda: issuer.asked["keys"] == 2)
    await stop(keeping)

    assert None not in found
    assert before == 1


async def test_a_flood_of_unknown_key_ids_is_one_fetch_in_half_a_minute(
    issuer: Issuer, keys: IssuerKeys, clock: ManualClock
):
    """Side by side or one after another."""
    await keys.find("rsa-1")
    await clock.advance(30)
    flood = [await asyncio.gather(*(keys.find(f"x{number}") for number in range(200))) for _ in range(3)]
    within = issuer.asked["keys"]
    await clock.advance(29.9)
    await keys.find("x")
    still = issuer.asked["keys"]
    await clock.advance(0.2)
    await keys.find("x")

    assert {key for each in flood for key in each} == {None}
    assert (within, still, issuer.asked["keys"]) == (2, 2, 3)


async def test_a_rotated_key_is_found_when_it_is_met(
    issuer: Issuer, verifier: OidcVerifier, keys: IssuerKeys, clock: ManualClock
):
    """All that wait for it wait for one fetch, and the old key is gone with it."""
    old = issuer.token()
    await verifier.verify(old)
    await clock.advance(30)
    issuer.keys = {"rsa-2": new_rsa()}
    tokens = [issuer.token(key="rsa-2", azp=f"team-{number}") for number in range(20)]
    claims = await asyncio.gather(*(verifier.verify(token) for token in tokens))
    with pytest.raises(BadBearer, match="unknown key"):
        await verifier.verify(old)

    assert [each["azp"] for each in claims] == [f"team-{number}" for number in range(20)]
    assert issuer.asked["keys"] == 2


async def test_the_keys_of_a_silent_issuer_count_for_a_while(issuer: Issuer, keys: IssuerKeys, clock: ManualClock):
    """Then nothing does, until it answers again."""
    first = await keys.find("rsa-1")
    issuer.down = True
    await clock.advance(KEEP)
    kept = await keys.find("rsa-1")
    await clock.advance(1)
    with pytest.raises(Unavailable, match="issuer does not answer"):
        await keys.find("rsa-1")
    issuer.down = False
    await clock.advance(30)

    assert first == kept
    assert await keys.find("rsa-1") is not None


async def test_a_silent_issuer_is_asked_again_soon(
    issuer: Issuer, keys: IssuerKeys, clock: ManualClock, client: IssuerClient
):
    """Every half minute, until it answers."""
    asked = 0

    async def fetch() -> Mapping[str, IssuerKey]:
        nonlocal asked
        asked += 1
        return await client.fetch()

    watched = IssuerKeys(fetch, clock, keep=KEEP)
    issuer.down = True
    keeping = asyncio.create_task(watched.keep_fresh())
    await until(lambda: asked == 1 and clock._timers)  # noqa: SLF001 - it sleeps by then
    issuer.down = False
    await clock.advance(30)
    await until(lambda: issuer.asked["keys"] == 1)
    await stop(keeping)

    assert asked == 2


async def test_only_public_keys_for_signatures_count(issuer: Issuer, client: IssuerClient):
    """Whatever else stands in the set does no harm."""
    weak = public_jwk("weak", new_rsa(1_024))
    other: Any = jwt.algorithms.OKPAlgorithm.to_jwk(ed25519.Ed25519PrivateKey.generate().public_key(), as_dict=True)
    private = jwt.algorithms.ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256R1()), as_dict=True)
    issuer.extra = [
        weak,
        {**other, "kid": "ed"},
        {**private, "kid": "private"},
        {**public_jwk("enc", new_rsa()), "use": "enc"},
        {"kty": "oct", "k": "c2VjcmV0", "kid": "shared"},
        {"kty": "RSA", "n": "x", "kid": "broken"},
        {"kty": "RSA"},
        {"kid": "empty"},
    ]

    assert (await client.fetch()).keys() == {"rsa-1", "ec-1", "ed"}


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ({"issuer": "https://another", "jwks_uri": "https://another/keys"}, "names the issuer"),
        ({"issuer": "{url}", "jwks_uri": "http://192.0.2.1/keys"}, "which is not https"),
        ({"issuer": "{url}", "jwks_uri": "file:///etc/passwd"}, "which is not https"),
        ({"issuer": "{url}", "jwks_uri": "{url}/nowhere"}, "answers with status 404"),
        ({"issuer": "{url}"}, "answers with something else"),
        ([], "answers with something else"),
        ({"issuer": "{url}", "jwks_uri": "http://127.0.0.1:1/keys"}, "does not answer"),
        ({"issuer": "x" * 2_000_000}, "more than 1,048,576 bytes"),
    ],
)
async def test_a_discovery_document_is_not_believed_blindly(
    issuer: Issuer, client: IssuerClient, monkeypatch: pytest.MonkeyPatch, answer: object, problem: str
):
    """Else one issuer could speak for another."""
    known = issuer._answer  # noqa: SLF001 - what it answers is the question

    def answering(path: str) -> object | None:
        filled = {k: v.replace("{url}", issuer.url) for k, v in answer.items()} if isinstance(answer, dict) else answer
        return filled if "well-known" in path else known(path)

    monkeypatch.setattr(issuer, "_answer", answering)
    with pytest.raises(IssuerProblem, match=problem):
        await client.fetch()


async def test_an_issuer_without_keys_is_a_problem(issuer: Issuer):
    """And where they are can be said instead of discovered."""
    client = IssuerClient("https://not-asked.example", f"{issuer.url}/keys")
    found = await client.fetch()
    issuer.keys = {}
    with pytest.raises(IssuerProblem, match="no key"):
        await client.fetch()
    await client.close()

    assert found.keys() == {"rsa-1", "ec-1"}
    assert issuer.asked["discovery"] == 0


async def until(condition: Callable[[], object]) -> None:
    """Wait for what another thread does."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - it happens in another thread
            await asyncio.sleep(0.01)


async def stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
