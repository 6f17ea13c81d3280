"""Bearer tokens: what their claims mean, and how long a token is believed."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from msgspec.structs import replace

from overnight.domain.bearer import BadBearer, Bearer, BearerRules, Claims, read_bearer
from overnight.domain.errors import Forbidden, Unauthorized, Unavailable
from overnight.domain.ids import ResourceId
from overnight.domain.key import Resource, Scope
from overnight.services.bearers import Bearers
from overnight.testing.clock import START, ManualClock
from overnight.testing.stores import MemoryKeys, Tables

NOW = int(START)
TEAM = ResourceId("team")
RULES = BearerRules(resource_claim="azp")
GOOD: Claims = {"azp": "team", "roles": ["overnight.submit"], "exp": NOW + 3_600}


# --- claims ------------------------------------------------------------------------------------------------------


def test_claims_name_a_resource_and_scopes() -> None:
    """For as long as the token lives, and a little longer for a clock that is behind."""
    found = read_bearer(GOOD, RULES, NOW)

    assert Bearer(resource=TEAM, scopes=(Scope.SUBMIT,), until=NOW + 3_660) == found
    assert [found.may(wanted) for wanted in Scope] == [True, True, False]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"exp": None}, "expired"),
        ({"exp": NOW - 60}, "expired"),
        ({"exp": "soon"}, "malformed time"),
        ({"exp": True}, "malformed time"),
        ({"exp": float("inf")}, "malformed time"),
        ({"nbf": NOW + 61}, "not yet valid"),
        ({"iat": NOW + 61}, "not yet valid"),
        ({"nbf": [NOW]}, "malformed time"),
    ],
)
def test_a_token_has_its_time(changed: Mapping[str, object], reason: str) -> None:
    """Its clock and ours may differ by the leeway."""
    with pytest.raises(BadBearer, match=reason):
        read_bearer({**GOOD, **changed}, RULES, NOW)


def test_clocks_may_differ() -> None:
    """To the second."""
    found = read_bearer({**GOOD, "exp": NOW - 59, "nbf": NOW + 60, "iat": NOW + 60.0}, RULES, NOW)

    assert found.until == NOW + 1


@pytest.mark.parametrize("value", [None, "", 7, ["team"], {"a": 1}, "_admin"])
def test_a_claim_that_names_nothing_opens_nothing(value: object) -> None:
    """Least of all what keys of admins belong to."""
    assert read_bearer({**GOOD, "azp": value}, RULES, NOW).resource is None


def test_a_table_of_resources_is_complete() -> None:
    """A value that is not in it does not reach the resource that has its name."""
    rules = replace(RULES, resources={"1-2-3": TEAM})

    assert [read_bearer({**GOOD, "azp": value}, rules, NOW).resource for value in ("1-2-3", "team")] == [TEAM, None]


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({"roles": ["overnight.read", "another", 7]}, (Scope.READ,)),
        ({"scp": "openid overnight.submit"}, (Scope.SUBMIT,)),
        ({"scope": "overnight.admin overnight.read"}, (Scope.READ, Scope.ADMIN)),
        ({"roles": "overnight.read", "scp": ["overnight.submit"]}, (Scope.READ, Scope.SUBMIT)),
        ({"roles": {"overnight.read": 1}, "scp": 7}, ()),
        ({}, ()),
    ],
)
def test_scopes_come_from_roles_and_scopes(claims: Mapping[str, object], expected: tuple[Scope, ...]) -> None:
    """As a list or as a text; others are for somebody else."""
    assert expected == read_bearer({"exp": NOW + 1, **claims}, RULES, NOW).scopes


def test_a_token_without_a_role_gets_what_the_operator_says() -> None:
    """And a role of ours counts instead of it."""
    rules = replace(RULES, default_scope=Scope.SUBMIT)
    given = [read_bearer({"exp": NOW + 1, "roles": roles}, rules, NOW).scopes for roles in ([], ["overnight.read"])]

    assert given == [(Scope.SUBMIT,), (Scope.READ,)]


# --- callers -----------------------------------------------------------------------------------------------------


class CountedVerifier:
    """Gives the claims that a test wrote down for a token, and counts how often it is asked."""

    def __init__(self) -> None:
        self.claims: dict[str, Claims] = {"good": GOOD}
        self.asked = 0
        self.silent = False

    async def verify(self, token: str) -> Claims:
        self.asked += 1
        if self.silent:
            raise Unavailable("The issuer does not answer.")
        if token not in self.claims:
            raise BadBearer("signature")
        return self.claims[token]


class CountedKeys(MemoryKeys):
    """Counts how often it is asked for a resource."""

    asked = 0

    async def resource(self, name: ResourceId) -> Resource | None:
        self.asked += 1
        return await super().resource(name)


class Door:
    """The callers with tokens on a store in which there is one resource."""

    def __init__(self, rules: BearerRules = RULES, *, create_resources: bool = False) -> None:
        self.clock, self.verifier, self.store = ManualClock(), CountedVerifier(), CountedKeys(Tables())
        self.bearers = Bearers(self.verifier, rules, self.store, self.clock, create_resources=create_resources)

    async def with_team(self) -> Door:
        await self.store.add_resource(Resource(name=TEAM, created_at=NOW))
        return self

    async def opens(self, token: str = "good") -> ResourceId:
        return await self.bearers.resource_of(token, Scope.SUBMIT)


async def test_a_token_is_checked_once() -> None:
    """However often it comes, and its resource is looked for once."""
    door = await Door().with_team()
    opened = {await door.opens() for _ in range(1_000)}

    assert {TEAM} == opened
    assert (door.verifier.asked, door.store.asked) == (1, 1)


async def test_a_token_is_looked_at_again_after_some_minutes() -> None:
    """Its issuer may have taken back the key that signed it."""
    door = await Door().with_team()
    await door.opens()
    await door.clock.advance(299)
    await door.opens()
    before = door.verifier.asked
    await door.clock.advance(1)
    door.verifier.claims.clear()
    with pytest.raises(Unauthorized):
        await door.opens()

    assert (before, door.verifier.asked) == (1, 2)


async def test_a_token_ends_to_the_second_though_it_is_remembered() -> None:
    """After the leeway."""
    door = await Door().with_team()
    door.verifier.claims["good"] = {**GOOD, "exp": NOW + 10}
    await door.opens()
    await door.clock.advance(69)
    opened = await door.opens()
    await door.clock.advance(1)
    with pytest.raises(Unauthorized):
        await door.opens()

    assert opened == TEAM


async def test_bad_tokens_are_told_one_thing_and_are_not_remembered() -> None:
    """Whatever is wrong with them; one that is too long is not even read."""
    door = await Door().with_team()
    door.verifier.claims["late"] = {**GOOD, "exp": NOW - 60}
    told = []
    for token in ("late", "forged", "forged", "x" * 16_385):
        with pytest.raises(Unauthorized) as caught:
            await door.opens(token)
        told.append((caught.value.message, caught.value.code))

    assert len(set(told)) == 1
    assert told[0][1] == "invalid_api_key"
    assert door.verifier.asked == 3


async def test_the_memory_for_tokens_has_an_end() -> None:
    """What was used last stays."""
    door = await Door().with_team()
    door.verifier.claims |= {f"t{number}": GOOD for number in range(4_096)}
    await door.opens()
    for number in range(4_095):
        await door.opens(f"t{number}")
    await door.opens()
    await door.opens("t4095")
    before = door.verifier.asked
    await door.opens()
    await door.opens("t0")

    assert (before, door.verifier.asked) == (4_097, 4_098)


async def test_a_token_that_may_not_do_it_is_told_which_scope_it_lacks() -> None:
    """Its holder is known."""
    door = await Door().with_team()
    door.verifier.claims["reader"] = {**GOOD, "roles": ["overnight.read"]}
    with pytest.raises(Forbidden, match="scope 'submit'"):
        await door.opens("reader")
    with pytest.raises(Forbidden, match="scope 'admin'"):
        await door.bearers.require("good", Scope.ADMIN)

    assert await door.bearers.resource_of("reader", Scope.READ) == TEAM


async def test_a_token_needs_a_resource_that_there_is() -> None:
    """Made by the operator, and seen at once when it is."""
    door = Door()
    with pytest.raises(Forbidden, match="no resource 'team'"):
        await door.opens()
    await door.with_team()
    opened = await door.opens()
    door.verifier.claims["nameless"] = {**GOOD, "azp": None}
    with pytest.raises(Forbidden, match="claim 'azp'"):
        await door.opens("nameless")

    assert opened == TEAM


async def test_resources_are_made_where_the_settings_say_so() -> None:
    """With the names that a resource may have."""
    door = Door(create_resources=True)
    opened = await door.opens()
    door.verifier.claims["odd"] = {**GOOD, "azp": "a b"}
    with pytest.raises(Forbidden, match="no resource 'a b'"):
        await door.opens("odd")

    assert opened == TEAM
    assert [Resource(name=TEAM, created_at=NOW)] == await door.store.resources()


async def test_a_silent_issuer_is_not_the_fault_of_the_caller() -> None:
    """And keeps nobody out who is remembered."""
    door = await Door().with_team()
    await door.opens()
    door.verifier.silent = True
    opened = await door.opens()
    with pytest.raises(Unavailable):
        await door.opens("another")

    assert opened == TEAM
