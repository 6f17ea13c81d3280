"""A file that arrives for a long time, while its key is revoked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest

from overnight.api.auth import Keys
from overnight.api.middleware import Entrance
from overnight.domain.errors import Unauthorized, Unavailable
from overnight.domain.ids import ResourceId
from overnight.domain.key import Scope

if TYPE_CHECKING:
    from collections.abc import Sequence

    from overnight.services.bearers import Bearers
    from overnight.services.keys import Authenticator

MIB = 1024 * 1024
KEY = b"ovn_" + b"0" * 32
TOKEN = b"a.b.c"


class Door:
    """A key that opens, and a token that does; ``trouble`` is raised instead, from the second time on."""

    def __init__(self, trouble: Exception | None) -> None:
        self.trouble = trouble
        self.asked = 0

    async def needed(self) -> bool:
        return True

    async def authenticate(self, _secret: str) -> Any:
        await self.resource_of("", Scope.SUBMIT)
        return self

    async def resource_of(self, _token: str, _wanted: Scope) -> ResourceId:
        self.asked += 1
        if self.trouble is not None and self.asked > 1:
            raise self.trouble
        return self.resource

    def may(self, _wanted: Scope) -> bool:
        return True

    resource = ResourceId("mine")


async def upload(door: Door, sizes: Sequence[int], key: bytes = KEY) -> int:
    """Send a file in pieces of these sizes, and give how much of it reached the application."""
    arrived = 0
    pieces = list(sizes)

    async def receive() -> dict[str, Any]:
        body = bytes(pieces.pop(0))
        return {"type": "http.request", "body": body, "more_body": bool(pieces)}

    async def app(_scope: Any, receive: Any, _send: Any) -> None:
        nonlocal arrived
        more = True
        while more:
            message = await receive()
            arrived += len(message["body"])
            more = message["more_body"]

    async def send(_message: Any) -> None:
        """Nobody answers here."""

    keys = Keys({}, cast("Authenticator", door), cast("Bearers", door))
    scope = {"type": "http", "method": "POST", "path": "/v1/files", "headers": [(b"authorization", b"Bearer " + key)]}
    await Entrance(cast("Any", app), keys)(scope, receive, send)
    return arrived


@pytest.mark.parametrize(
    ("sizes", "asked"),
    [([5], 1), ([5, 0], 2), ([5, 5, 5], 2), ([MIB] * 40, 4), ([17 * MIB], 2), ([17 * MIB, 5, 0], 3)],
)
async def test_a_key_is_asked_for_again_now_and_then_and_at_the_end(sizes: list[int], asked: int) -> None:
    """Not for what comes in one piece: it was looked at a moment ago."""
    door = Door(None)

    assert await upload(door, sizes) == sum(sizes)
    assert door.asked == asked


@pytest.mark.parametrize("sizes", [[5, 5], [10 * MIB] * 3])
async def test_a_key_that_was_revoked_meanwhile_lets_no_file_through(sizes: list[int]) -> None:
    with pytest.raises(Unauthorized):
        await upload(Door(Unauthorized("revoked")), sizes)


async def test_a_file_goes_on_while_keys_cannot_be_read() -> None:
    assert await upload(Door(Unavailable("locked")), [5, 5]) == 10


async def test_a_token_that_was_good_at_the_beginning_is_good_to_the_end() -> None:
    """It lives for an hour, and a file may take longer."""
    door = Door(Unauthorized("expired"))

    assert await upload(door, [5, 5], TOKEN) == 10
    assert door.asked == 1
