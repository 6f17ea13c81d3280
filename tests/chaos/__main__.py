"""The long form: `make chaos`, or `python -m tests.chaos --kills 300 --seed 7`."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from random import Random, SystemRandom

from tests.chaos.world import Figures, Plan, World, plans

from overnight.crash_points import POINTS
from overnight.testing.upstream import ScriptedUpstream

ROUNDS_OF_A_WORLD = 15


def main() -> int:
    """Kill until it is enough; give 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=300, help="how often the service dies at least [300]")
    parser.add_argument("--seed", type=int, help="repeat the choices of an earlier run")
    parser.add_argument("--folder", type=Path, help="where the data folders are made [the system's temporary folder]")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else SystemRandom().randrange(1_000_000)
    print(f"seed {seed}", flush=True)
    figures, began = Figures(), time.monotonic()
    problems = run(options.kills, seed, figures, options.folder)
    report(figures, time.monotonic() - began)
    for problem in problems:
        print(f"BROKEN: {problem}")
    return 1 if problems else 0


def run(kills: int, seed: int, figures: Figures, folder: Path | None = None) -> list[str]:
    """Go from world to world, each with a data folder of its own."""
    random = Random(seed)
    waiting = plans(random)
    problems: list[str] = []
    number = 0
    with ScriptedUpstream() as upstream:
        while figures.kills < kills:
            number += 1
            with tempfile.TemporaryDirectory(prefix="overnight-chaos-", dir=folder) as place:
                world = World(Path(place), upstream, random, figures, name=f"w{number}")
                for _ in range(min(ROUNDS_OF_A_WORLD, kills - figures.kills)):
                    waiting = waiting or plans(random)
                    plan = waiting.pop()
                    if not world.round(plan):
                        # It did not come by: once more, later, at the first time.
                        waiting.insert(0, Plan(point=plan.point))
                found = world.settle()
                if found:
                    print(world.service.log()[-20_000:])
            problems += found
            print(f"world {number}: {figures.kills} kills, {len(problems)} broken promises", flush=True)
    return problems


def report(figures: Figures, seconds: float) -> None:
    """Say what the run came to."""
    unhit = sorted(set(POINTS) - set(figures.at_points))
    statuses = ", ".join(f"{count} {status}" for status, count in sorted(figures.batches.items()))
    print(f"{figures.kills} kills in {seconds:.0f} s, {figures.at_points.total()} of them at {len(figures.at_points)}")
    print(f"of {len(POINTS)} points; not died at: {', '.join(unhit) or 'none'}")
    print(f"{figures.batches.total()} batches ended: {statuses}")
    print(f"{figures.requests} requests, asked {figures.runs} times, {figures.repeats} of them again after a crash")
    print(f"{figures.calls} calls of the client, {figures.calls_cut} cut off")


if __name__ == "__main__":
    sys.exit(main())
