"""What operators see of upstreams and do with them, on a router and a list of upstreams made by hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import pytest

from overnight.domain.deployment import Deployment, UpstreamName
from overnight.domain.errors import NotFound
from overnight.ports.upstream import Asked, HealthState, Known, UpstreamHealth
from overnight.services.meters import Activity, Meter
from overnight.services.upstreams import UpstreamService

ONE, TWO = UpstreamName("one"), UpstreamName("two")


class Listed:
    """Keeps the promise of ``ports/upstream.py``."""

    def __init__(self, *names: UpstreamName) -> None:
        self.names = names

    def known(self) -> Known:
        deployments = [
            Deployment(name="both", model="m", upstreams=(ONE, TWO)),
            Deployment(name="only", model="m", upstreams=(TWO,)),
        ]
        return Known(deployments=deployments, complete=True)

    def health(self) -> Sequence[UpstreamHealth]:
        return [UpstreamHealth(name=name, url=f"http://{name}/v1") for name in self.names]

    async def ask(self, name: str) -> Asked:
        return Asked(url=f"http://{name}/v1/models", problem="connection refused", seconds=0.5, models=())


class Switched:
    """Keeps the promise of ``services/upstreams.py``."""

    def __init__(self, *names: UpstreamName) -> None:
        self.names = names
        self.paused: set[str] = set()

    def health(self, answered: Iterable[UpstreamHealth]) -> list[UpstreamHealth]:
        return [
            UpstreamHealth(name=each.name, url=each.url, in_flight=3, limit=4, paused=each.name in self.paused)
            for each in answered
        ]

    def activity(self) -> Mapping[UpstreamName, Activity]:
        return {name: Activity(figures=Meter(0.0).figures(1.0), left_alone=0.0) for name in self.names}

    def pause(self, name: str) -> None:
        self.paused.add(name)

    def resume(self, name: str) -> None:
        self.paused.discard(name)


def service(*names: UpstreamName) -> UpstreamService:
    """Make the service of some upstreams."""
    return UpstreamService(Listed(*names), Switched(*names))


def test_each_upstream_is_told_with_what_it_serves() -> None:
    """In the order of the settings."""
    reports = service(TWO, ONE).reports()

    assert [(each.health.name, each.models) for each in reports] == [("two", ("both", "only")), ("one", ("both",))]
    assert [(each.health.in_flight, each.health.limit) for each in reports] == [(3, 4), (3, 4)]
    assert reports[0].activity.figures.recent.total == 0


def test_one_that_serves_nothing_yet_is_told_too() -> None:
    """It has not said which models it has."""
    name = UpstreamName("new")

    assert service(name).report(name).models == ()


def test_a_pause_is_seen_and_ends() -> None:
    """Doing either again changes nothing."""
    upstreams = service(ONE, TWO)
    states = [each("one").health.state for each in (upstreams.pause, upstreams.pause)]
    others = [each.state for each in upstreams.health()]
    ended = [each("one").health.state for each in (upstreams.resume, upstreams.resume)]

    assert states == [HealthState.PAUSED] * 2
    assert others == [HealthState.PAUSED, HealthState.ANSWERS]
    assert ended == [HealthState.ANSWERS] * 2


def test_a_pause_is_told_before_a_problem() -> None:
    """Whoever paused it knows why it is idle."""
    well = UpstreamHealth(name=ONE, url="u")
    silent = UpstreamHealth(name=ONE, url="u", problem="connection refused")
    paused = UpstreamHealth(name=ONE, url="u", problem="connection refused", paused=True)

    assert [each.state for each in (well, silent, paused)] == ["answers", "left_alone", "paused"]


async def test_a_test_brings_what_came_of_asking() -> None:
    """That it does not answer is no error here."""
    asked = await service(ONE).test("one")

    assert (asked.url, asked.problem) == ("http://one/v1/models", "connection refused")


async def test_a_name_that_there_is_not_is_refused_with_those_that_there_are() -> None:
    """Whoever mistypes it sees the right one."""
    upstreams = service(ONE, TWO)
    for ask in (upstreams.report, upstreams.pause, upstreams.resume):
        with pytest.raises(NotFound, match=r"name 'on'. There are: 'one', 'two'\.$"):
            ask("on")
    with pytest.raises(NotFound, match="name 'on'") as caught:
        await upstreams.test("on")

    assert caught.value.param == "upstream"


def test_of_many_names_the_first_few_are_given() -> None:
    """A message is no list."""
    many = service(*(UpstreamName(f"u{number}") for number in range(9)))

    with pytest.raises(NotFound, match=r"'u0', 'u1', 'u2', 'u3', 'u4', …\.$"):
        many.report("x")
