"""The numbers of the overview say what they count, and that there may be more where not everything was looked at."""

from __future__ import annotations

import re
from itertools import count
from pathlib import Path

import pytest
from tests.studio.in_process import TEAM, House

from overnight.domain.batch import Batch, BatchStatus, Expiry
from overnight.domain.flavour import Flavour
from overnight.domain.ids import BatchId, FileId
from overnight.studio.events import Topic

DAY = 86_400
NUMBERS = count()


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


async def ended(house: House, many: int, *, failed: int = 0, ago: int = 60, began: int = 120) -> None:
    """Store batches that ended so many seconds ago, and were created so many ago."""
    now = int(house.clock.now())
    for _ in range(many):
        batch = Batch(
            id=BatchId(f"batch_{next(NUMBERS)}"),
            resource=TEAM,
            flavour=Flavour.OPENAI,
            endpoint="/v1/embeddings",
            input_file_id=FileId("file-1"),
            completion_window="24h",
            created_at=now - began,
            expires_at=now - began + DAY,
            expiry=Expiry.EXPIRE,
            status=BatchStatus.COMPLETED,
            in_progress_at=now - began,
            completed_at=now - ago,
            total=2,
            completed=2 - failed,
            failed=failed,
        )
        await house.store.add(batch)


async def cards(house: House) -> dict[str, tuple[str, str]]:
    with house.studio.hub.subscribed([Topic(TEAM, "overview")]) as looking:
        await house.studio.hub.refresh()
        html = looking.waiting["cards"].decode()
    found = re.findall(r'cardname">([^<]*)</span><b class="num">([^<]*)</b><span class="sub">([^<]*)<', html)
    return {name: (value, note) for name, value, note in found}


async def test_they_count_the_last_24_hours(house: House):
    await ended(house, 3, ago=DAY + 1, began=2 * DAY)
    await ended(house, 4)
    await ended(house, 2, failed=1)

    shown = await cards(house)

    assert shown["Completed"] == ("6", "in the last 24 hours")
    assert shown["Needs attention"] == ("2", "in the last 24 hours")


async def test_they_say_that_there_may_be_more(house: House):
    await ended(house, 99)
    await ended(house, 2, failed=2)

    shown = await cards(house)

    assert shown["Completed"] == ("100+", "in the last 24 hours, among the newest 100")
    assert shown["Needs attention"] == ("2+", "in the last 24 hours, among the newest 100")


async def test_what_is_too_old_to_have_ended_lately_makes_no_number_uncertain(house: House):
    await ended(house, 101, ago=2 * DAY, began=3 * DAY)
    await ended(house, 5)

    assert (await cards(house))["Completed"] == ("5", "in the last 24 hours")
