"""From one request to the next and the one before, among those that a filter leaves."""

from pathlib import Path
from typing import Any

import pytest
from tests.unit.test_requests import BAD, MINE, Shop, bad, good, some

from overnight.domain.batch import Batch, BatchStatus
from overnight.services import sheets
from overnight.services.sheets import RequestQuery

Pair = tuple[int | None, int | None]


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


async def around(shop: Shop, batch: Batch, line: int, **query: Any) -> Pair:
    return await shop.requests.neighbours(MINE, batch.id, RequestQuery(**query), line)


async def test_they_are_those_that_the_filter_leaves(shop: Shop) -> None:
    """By state, code and a part of the custom_id, however far away; wherever the list began."""
    batch = await shop.begin(some(12))
    await shop.record(batch, bad(1), bad(2, "other"), bad(11), good(10))

    assert await around(shop, batch, 2, state=BAD) == (1, 11)
    assert await around(shop, batch, 2, state=BAD, offset=5, limit=50) == (1, 11)
    assert await around(shop, batch, 1, state=BAD) == (None, 2)
    assert await around(shop, batch, 11, code="server_busy") == (1, None)
    assert await around(shop, batch, 10, custom_id="r1") == (1, 11)
    assert await around(shop, batch, 0, custom_id="r0") == (None, None)
    assert await around(shop, batch, 5) == (4, 6)
    assert await around(shop, await shop.end(batch), 2, state=BAD) == (1, 11)


async def test_they_are_found_beyond_a_piece_of_the_places(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """In both directions."""
    monkeypatch.setattr(sheets, "_ENTRIES_AT_ONCE", 3)
    batch = await shop.begin(some(12))
    await shop.record(batch, bad(0), bad(11))

    assert await around(shop, batch, 7, state=BAD) == (0, 11)


async def test_a_search_for_a_custom_id_stops_at_its_bounds(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many requests, or so many bytes, in each direction."""
    batch = await shop.begin(some(10))
    near = await around(shop, batch, 5, custom_id="r1")
    monkeypatch.setattr(sheets, "SCAN_REQUESTS", 3)
    bounded = await around(shop, batch, 5, custom_id="r1")
    monkeypatch.setattr(sheets, "SCAN_BYTES", 1)

    assert (near, bounded) == ((1, None), (None, None))
    assert await around(shop, batch, 5, custom_id="r3") == (None, None)


async def test_a_batch_that_was_not_let_in_has_none(shop: Shop) -> None:
    """As it has no requests."""
    batch = await shop.begin(some(1), in_progress_at=None, status=BatchStatus.VALIDATING)

    assert await around(shop, batch, 0) == (None, None)
