"""Which deployments there are: those that the configuration names, and those that upstreams tell of."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import structlog

from overnight.adapters.upstreams.http import UpstreamProblem
from overnight.domain.deployment import Deployment, UpstreamName
from overnight.domain.errors import NotFound
from overnight.ports.upstream import Asked, Known, UpstreamHealth

if TYPE_CHECKING:
    from collections.abc import Mapping

    from overnight.ports.clock import Clock

log = structlog.get_logger()

# In seconds.
_ASK_EVERY = 3.0


class ModelSource(Protocol):
    """An upstream that can tell its models."""

    name: UpstreamName

    @property
    def url(self) -> str:
        """Where the server is."""

    async def models(self) -> list[str]:
        """Ask which models there are. Raises ``UpstreamProblem``."""


class Catalogue:
    """Keeps what the upstreams said last: an upstream that is down does not make its models unknown."""

    def __init__(
        self, configured: Sequence[Deployment], discovered: Mapping[UpstreamName, ModelSource], clock: Clock
    ) -> None:
        self._configured = tuple(configured)
        self._sources = discovered
        self._clock = clock
        self._models: dict[UpstreamName, list[str]] = {}
        self._problems: dict[UpstreamName, str | None] = dict.fromkeys(discovered, "it was not asked yet")
        self._started_at = int(clock.now())

    def known(self) -> Known:
        deployments = {deployment.name: deployment for deployment in self._discovered()}
        deployments |= {deployment.name: deployment for deployment in self._configured}
        return Known(deployments=tuple(deployments.values()), complete=self._models.keys() == self._sources.keys())

    async def refresh(self) -> None:
        """Ask all upstreams for their models, side by side."""
        async with asyncio.TaskGroup() as group:
            for source in self._sources.values():
                group.create_task(self._ask(source))

    async def keep_fresh(self) -> None:
        """Ask each upstream again and again until cancelled; a slow one holds up nobody."""
        async with asyncio.TaskGroup() as group:
            for source in self._sources.values():
                group.create_task(self._keep_asking(source), name=f"models of {source.name}")

    async def _keep_asking(self, source: ModelSource) -> None:
        while True:
            await self._clock.sleep(_ASK_EVERY)
            await self._ask(source)

    def health(self) -> list[UpstreamHealth]:
        """Say how each upstream answered when it was last asked."""
        return [
            UpstreamHealth(name=name, url=source.url, problem=self._problems[name])
            for name, source in self._sources.items()
        ]

    async def _ask(self, source: ModelSource) -> None:
        try:
            self._models[source.name] = await source.models()
        except UpstreamProblem as problem:
            if self._problems[source.name] != str(problem):
                log.warning("upstream.silent", upstream=source.name, url=source.url, problem=str(problem))
            self._problems[source.name] = str(problem)
        else:
            self._problems[source.name] = None

    async def ask(self, name: str) -> Asked:
        """Ask an upstream for its models now. Raises ``NotFound``."""
        source = self._sources.get(UpstreamName(name))
        if source is None:
            raise NotFound(f"No upstream found with name '{name}'.", param="upstream")
        began = self._clock.ticks()
        await self._ask(source)
        return Asked(
            url=f"{source.url}/models",
            problem=self._problems[source.name],
            seconds=self._clock.ticks() - began,
            models=self._models.get(source.name, ()),
        )

    def _discovered(self) -> list[Deployment]:
        found: dict[str, Deployment] = {}
        for name, models in self._models.items():
            for model in models:
                if self._is_filtered(name, model):
                    continue
                before = found.get(model)
                upstreams = (*before.upstreams, name) if before else (name,)
                found[model] = Deployment(name=model, model=model, upstreams=upstreams, created_at=self._started_at)
        return list(found.values())

    def _is_filtered(self, upstream: UpstreamName, model: str) -> bool:
        """Say whether a deployment filters what this model says there: its own name must not be a way around that."""
        return any(
            each.content_filter is not None and each.model == model and upstream in each.upstreams
            for each in self._configured
        )
