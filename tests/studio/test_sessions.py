"""How long a sign-in lasts, and what keeps it alive: pages and deeds, not a tab that is left open."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.studio.in_process import House

HOUR = 3600.0


@pytest.fixture
async def house(tmp_path: Path) -> House:
    house = House(tmp_path)
    await house.sign_in()
    return house


async def passes(house: House, path: str, **headers: str) -> list[int]:
    """Ask for the same three times, 5 hours apart, and then for a page."""
    statuses = []
    for _ in range(3):
        house.clock.jump(5 * HOUR)
        statuses.append((await house.get(path, **headers)).status)
    return [*statuses, (await house.get("/studio/upstreams")).status]


async def test_pages_keep_it_alive(house: House):
    assert await passes(house, "/studio/upstreams") == [200, 200, 200, 200]


async def test_deeds_keep_it_alive(house: House):
    for _ in range(3):
        house.clock.jump(11 * HOUR)
        assert (await house.upload(b"{}")).status == 201


@pytest.mark.parametrize("path", ["/studio/parts?topics=upstreams", "/studio/traffic"])
async def test_what_a_page_asks_for_by_itself_does_not(house: House, path: str):
    statuses = await passes(house, path)

    assert statuses[:2] == [200, 200]
    assert statuses[2] in {303, 401}
    assert statuses[3] == 303


async def test_parts_that_follow_a_page_do_not(house: House):
    assert await passes(house, "/studio/upstreams", hx_request="true") == [200, 200, 401, 303]


async def test_stream_that_is_followed_ends_with_it(house: House):
    """It asks again with every sign of life, and none of that is use."""
    async with asyncio.TaskGroup() as group:
        stream = group.create_task(house.get("/studio/events?topics=upstreams"))
        await house.clock.advance(11 * HOUR)
        open_before = not stream.done()
        await house.clock.advance(2 * HOUR)
        ended = stream.done()

    assert (open_before, ended) == (True, True)
    assert (await house.get("/studio/upstreams")).status == 303
