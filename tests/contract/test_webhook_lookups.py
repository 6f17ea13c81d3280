"""Looking up the names of receivers, where some name servers are silent."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from overnight.adapters.webhooks.lookups import AT_ONCE, AT_ONCE_EACH, Resolver
from overnight.adapters.webhooks.sender import HttpSender
from overnight.domain.addresses import Policy
from overnight.domain.ids import ResourceId
from overnight.ports.webhooks import Sent

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MINE, OTHERS = ResourceId("mine"), ResourceId("others")
MANY = AT_ONCE + AT_ONCE_EACH
SHORTLY = 0.2
LOOPBACK = "which webhooks may not reach"


class Names:
    """A resolver that is silent about names that begin so, until it is told to speak."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.heard = threading.Event()
        self.speak = threading.Event()

    def __call__(self, host: str) -> Sequence[str]:
        self.asked.append(host)
        self.heard.set()
        if host.startswith("silent"):
            self.speak.wait(30)
            raise socket.gaierror("no answer")
        return ["127.0.0.1", "127.0.0.1"]


@pytest.fixture
def names() -> Iterator[Names]:
    made = Names()
    yield made
    made.speak.set()


@pytest.fixture
def resolver(names: Names) -> Iterator[Resolver]:
    made = Resolver(names)
    yield made
    made.close()


async def attempt(resolver: Resolver, host: str, resource: ResourceId, seconds: float = SHORTLY) -> Sent:
    """Make an attempt that gets no further than the policy, which refuses loopback."""
    sender = HttpSender(Policy(), resolver, seconds=seconds)
    return await sender.send(f"http://{host}/", {}, b"", resource=resource)


async def attempts(resolver: Resolver, hosts: Sequence[str], resource: ResourceId) -> list[Sent]:
    return await asyncio.gather(*(attempt(resolver, host, resource) for host in hosts))


async def test_silent_name_servers_of_one_resource_hold_up_no_other(resolver: Resolver, names: Names) -> None:
    """The look-ups go on when the attempts have been given up, and are counted until they are over."""
    given_up = await attempts(resolver, [f"silent{number}.example" for number in range(MANY)], MINE)
    other = await attempt(resolver, "good.example", OTHERS, seconds=5)

    assert {one.error for one in given_up} == {"no answer within 0.2 seconds"}
    assert len(names.asked) <= AT_ONCE_EACH + 1
    assert LOOPBACK in str(other.error)


async def test_a_silent_name_holds_up_no_other_of_its_resource(resolver: Resolver, names: Names) -> None:
    """However often it is asked for."""
    await attempts(resolver, ["silent.example"] * MANY, MINE)
    other = await attempt(resolver, "good.example", MINE, seconds=5)

    assert names.asked == ["silent.example", "good.example"]
    assert LOOPBACK in str(other.error)


async def test_a_resource_goes_on_when_its_name_servers_have_spoken(resolver: Resolver, names: Names) -> None:
    await attempts(resolver, [f"silent{number}.example" for number in range(AT_ONCE_EACH)], MINE)
    waiting = asyncio.gather(*(attempt(resolver, "good.example", MINE, seconds=5) for _ in range(2)))
    held = await attempt(resolver, "good.example", MINE)
    names.speak.set()
    afterwards = await waiting

    assert held.error == "no answer within 0.2 seconds"
    assert all(LOOPBACK in str(one.error) for one in afterwards)


async def test_who_waits_for_the_same_name_gets_the_same_answer(resolver: Resolver, names: Names) -> None:
    """And the next one asks again: a name is not remembered."""
    asking = [asyncio.create_task(attempt(resolver, "silent.example", MINE, seconds=5)) for _ in range(3)]
    await asyncio.to_thread(names.heard.wait)
    names.speak.set()
    first = await asyncio.gather(*asking)
    second = await attempt(resolver, "silent.example", MINE, seconds=5)

    assert {one.error for one in (*first, second)} == {"the host name is not known"}
    assert names.asked == ["silent.example"] * 2


async def test_an_address_is_given_once(resolver: Resolver) -> None:
    assert await resolver("good.example", MINE) == ["127.0.0.1"]
