"""What the limiter makes of simulated servers: prints the tables of ``docs/concepts/concurrency.md``."""

from __future__ import annotations

from math import inf
from statistics import fmean

from tests.support.simulated_upstream import Server, Simulation, Steady, steady

from overnight.dispatch.limiter import Limiter

_SEEDS = range(5)
_CAP = 512


def main() -> None:
    """Simulate and print."""
    print("| server | slots | throughput | at worst | refused | limit |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name, queue in (("refuses at once", lambda _: 0.0), ("queue of a quarter", lambda slots: slots // 4)):
        for slots in (8, 32, 256):
            _row(name, slots, Server(slots=slots, queue=queue(slots), spread=1.0))
    for slots in (1, 3, 8, 32, 100, 256):
        _row("endless queue", slots, Server(slots=slots, queue=inf, spread=1.0))
    for slots in (3, 32, 100):
        _row("all get slower", slots, Server(slots=slots, sharing=True, spread=1.0))
    _row("never slower", _CAP, Server(spread=1.0))
    _row("never slower, 2 % stray refusals", _CAP, Server(spread=1.3, flaky=0.02, broken=0.01))
    print()
    print("| change | after 50 | after 100 | after 300 |")
    print("| --- | ---: | ---: | ---: |")
    for before, after in ((32, 16), (32, 64), (100, 50), (100, 200)):
        for name, queue in (("refuses at once", 0.0), ("endless queue", inf)):
            _change(f"{before} to {after} slots, {name}", Server(slots=before, queue=queue, spread=1.0), after)


def _row(name: str, slots: int, server: Server) -> None:
    found = [steady(server, cap=_CAP, seed=seed) for seed in _SEEDS]
    print(f"| {name} | {slots} | {_mean(found)} |")


def _mean(found: list[Steady]) -> str:
    shares = [each.share for each in found]
    refused, limit = fmean(each.refused for each in found), fmean(each.limit for each in found)
    return f"{fmean(shares):.0%} | {min(shares):.0%} | {refused:.2%} | {limit:.0f}"


def _change(name: str, server: Server, after: int) -> None:
    begin = 200.0
    shares: list[list[float]] = [[], [], []]
    for seed in _SEEDS:
        simulation = Simulation(server, Limiter(start=8, cap=_CAP), seed=seed)
        simulation.run(begin)
        simulation.resize(after)
        trace = simulation.run(begin + 400.0)
        for share, since in zip(shares, (50.0, 100.0, 300.0), strict=True):
            share.append(trace.throughput(begin + since, begin + since + 50.0) / after)
    print(f"| {name} | {' | '.join(f'{fmean(share):.0%}' for share in shares)} |")


if __name__ == "__main__":
    main()
