"""What operators see of the upstreams, and do with them: pause one, resume it, ask it now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

from overnight.domain.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from overnight.domain.deployment import UpstreamName
    from overnight.ports.upstream import Asked, Listing, UpstreamHealth
    from overnight.services.meters import Activity

_NAMED_AT_ONCE = 5


class Switches(Protocol):
    """What sends requests to the upstreams (``dispatch/router.py``). A pause lasts as long as it does."""

    def health(self, answered: Iterable[UpstreamHealth]) -> list[UpstreamHealth]:
        """Add what requests tell to how upstreams answered when they were asked for their models."""

    def activity(self) -> Mapping[UpstreamName, Activity]:
        """Tell how each upstream answers, and for how long it is left alone."""

    def pause(self, name: str) -> None:
        """Send nothing more to an upstream; what is in flight there ends. Raises ``NotFound``."""

    def resume(self, name: str) -> None:
        """Send requests to an upstream again. Raises ``NotFound``."""


class UpstreamReport(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of an upstream; ``models`` are the names under which requests reach it."""

    health: UpstreamHealth
    models: tuple[str, ...]
    activity: Activity


class UpstreamService:
    """The upstreams of this process. Nothing that is switched here outlives it, or reaches another one."""

    def __init__(self, listing: Listing, switches: Switches) -> None:
        self._listing = listing
        self._switches = switches

    def health(self) -> Sequence[UpstreamHealth]:
        """Say how each upstream does, in the order of the settings."""
        return self._switches.health(self._listing.health())

    def reports(self) -> Sequence[UpstreamReport]:
        """Tell all that is known, in the order of the settings."""
        models: dict[UpstreamName, list[str]] = {}
        for deployment in self._listing.known().deployments:
            for name in deployment.upstreams:
                models.setdefault(name, []).append(deployment.name)
        activity = self._switches.activity()
        return [
            UpstreamReport(health=health, models=tuple(models.get(health.name, ())), activity=activity[health.name])
            for health in self.health()
        ]

    def report(self, name: str) -> UpstreamReport:
        """Tell all that is known of one upstream.

        Raises:
            NotFound: there is no such upstream; the message names those that there are.
        """
        self._require(name)
        return next(each for each in self.reports() if each.health.name == name)

    def pause(self, name: str) -> UpstreamReport:
        """Send nothing more to an upstream until ``resume`` or a restart; what is in flight ends. Raises ``NotFound``.

        Pausing again changes nothing.
        """
        self._require(name)
        self._switches.pause(name)
        return self.report(name)

    def resume(self, name: str) -> UpstreamReport:
        """Send requests to an upstream again, also to one that was not paused. Raises ``NotFound``."""
        self._require(name)
        self._switches.resume(name)
        return self.report(name)

    async def test(self, name: str) -> Asked:
        """Ask an upstream for its models, as the service does by itself every few seconds. Raises ``NotFound``.

        A pause does not keep it from being asked: that is how one sees that it is back.
        """
        self._require(name)
        return await self._listing.ask(name)

    def _require(self, name: str) -> None:
        known = [each.name for each in self._listing.health()]
        if name not in known:
            raise NotFound(_not_found(name, known), param="upstream")


def _not_found(name: str, known: Sequence[str]) -> str:
    shown = ", ".join(f"'{each}'" for each in known[:_NAMED_AT_ONCE])
    more = ", …" if len(known) > _NAMED_AT_ONCE else ""
    return f"No upstream found with name '{name}'. There are: {shown}{more}."
