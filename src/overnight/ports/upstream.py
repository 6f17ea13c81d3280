"""Servers that answer requests, and the names under which they are reached."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol

import msgspec

from overnight.domain.deployment import Capacity, Deployment, UpstreamName
from overnight.domain.retry import Outcome


class Upstream(Protocol):
    """An OpenAI-compatible model server."""

    name: UpstreamName
    capacity: Capacity

    async def send(self, endpoint: str, body: bytes) -> Outcome:
        """Post a body, byte for byte, to an endpoint such as ``/v1/chat/completions``; never raises for its faults."""


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """The deployments that can be used now; ``complete`` is false while an upstream has not told its models."""

    deployments: Sequence[Deployment]
    complete: bool

    def find(self, name: str) -> Deployment | None:
        """Give the deployment of this name."""
        return next((deployment for deployment in self.deployments if deployment.name == name), None)


class Deployments(Protocol):
    """Which deployments there are."""

    def known(self) -> Known:
        """Give what is known now, without asking anybody."""


class HealthState(StrEnum):
    """How an upstream does, in a word; a pause is told before anything else."""

    ANSWERS = "answers"
    LEFT_ALONE = "left_alone"
    PAUSED = "paused"


class UpstreamHealth(msgspec.Struct, frozen=True, kw_only=True):
    """How an upstream does. ``problem`` says why it does not answer or is left alone; ``None`` if all is well.

    ``limit`` is how many requests it may have in flight now, as far as has been found out. A ``paused`` one gets none.
    """

    name: UpstreamName
    url: str
    problem: str | None = None
    in_flight: int = 0
    limit: int = 0
    paused: bool = False

    @property
    def state(self) -> HealthState:
        """Say it in a word."""
        if self.paused:
            return HealthState.PAUSED
        return HealthState.ANSWERS if self.problem is None else HealthState.LEFT_ALONE


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What came of asking an upstream for its models at ``url``: ``problem`` is ``None`` if it told them."""

    url: str
    problem: str | None
    seconds: float
    models: Sequence[str]


class Listing(Deployments, Protocol):
    """All upstreams, by what they say when they are asked for their models."""

    def health(self) -> Sequence[UpstreamHealth]:
        """Say how each upstream answered when it was last asked."""

    async def ask(self, name: str) -> Asked:
        """Ask an upstream for its models now.

        Raises:
            NotFound: there is no such upstream.
        """
