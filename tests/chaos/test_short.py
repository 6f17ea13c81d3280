"""The short form of `make chaos`: a few kills, at points and at moments that chance chooses."""

from __future__ import annotations

import sys
from random import SystemRandom

import pytest
from tests.chaos.__main__ import run
from tests.chaos.world import Figures

KILLS = 8


@pytest.mark.timeout(400)
def test_nothing_is_lost_doubled_or_taken_back():
    """The same as `python -m tests.chaos --kills 8 --seed SEED`."""
    seed = SystemRandom().randrange(1_000_000)
    sys.stdout.write(f"seed {seed}\n")
    figures = Figures()

    problems = run(KILLS, seed, figures)

    assert problems == []
    assert figures.kills == KILLS
