"""Checks and estimates leave the worker processes to the batches: one at a time, whoever asks how often."""

import asyncio
from pathlib import Path

import pytest
from tests.unit.test_requests import MINE, OTHERS, Shop, a_line
from tests.unit.test_tokens import Words
from tests.unit.test_usage import PRICES, Slow

from overnight.domain.flavour import Flavour
from overnight.domain.ids import ResourceId
from overnight.domain.limits import DEFAULTS
from overnight.services.check import CheckService
from overnight.services.estimates import EstimateService
from overnight.services.turns import Turns
from overnight.testing.offload import InPlace


async def test_one_resource_holds_up_another_by_one_turn_only() -> None:
    """However many it has asked for."""
    turns, had, running = Turns(InPlace()), list[ResourceId](), 0

    async def work(resource: ResourceId) -> None:
        nonlocal running
        async with turns.turn(resource):
            running += 1
            assert running == 1
            had.append(resource)
            await asyncio.sleep(0)
            running -= 1

    async with asyncio.TaskGroup() as group:
        for resource in (MINE, MINE, MINE, OTHERS):
            group.create_task(work(resource))

    assert had == [MINE, OTHERS, MINE, MINE]


async def test_a_turn_that_fails_or_is_given_up_is_over() -> None:
    """The next one comes."""
    turns = Turns(InPlace())
    with pytest.raises(ZeroDivisionError):
        async with turns.turn(MINE):
            raise ZeroDivisionError
    async with turns.turn(MINE):
        waiting = asyncio.create_task(have_a_turn(turns))
        await asyncio.sleep(0)
        waiting.cancel()

    async with asyncio.timeout(10):
        await have_a_turn(turns)


async def have_a_turn(turns: Turns) -> None:
    """Do nothing with it."""
    async with turns.turn(MINE):
        pass


async def test_checks_and_estimates_take_one_process_together(tmp_path: Path) -> None:
    """The other one is for batches."""
    shop, slow = Shop(tmp_path), Slow()
    turns = Turns(slow)
    checks = CheckService(shop.files, shop.blobs, shop.deployments, turns, DEFAULTS)
    estimates = EstimateService(shop.files, shop.batches, shop.blobs, turns, Words(), PRICES)
    file = await shop.upload(a_line("a"))
    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(checks.check(MINE, Flavour.OPENAI, file.id))
            group.create_task(estimates.estimate(MINE, file.id))

    assert (slow.runs, slow.most) == (4 * 2 + 1, 1)
