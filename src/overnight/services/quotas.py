"""Enqueued-token quotas: which limit a resource has, what is used of it, and what an input file takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from overnight.domain.errors import InvalidRequest, NotFound
from overnight.domain.ids import ADMIN_RESOURCE, DEFAULT_RESOURCE, ResourceId
from overnight.domain.key import Resource
from overnight.domain.limits import MIB
from overnight.domain.quota import Limit, Offer, OverQuota, Own, Terms, limit_of
from overnight.services.pages import page_of
from overnight.services.tokens import EXACT_BYTES, count_file
from overnight.services.validate import first_model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from overnight.domain.deployment import Deployment
    from overnight.domain.file import File
    from overnight.ports.batches import Batches, Page
    from overnight.ports.blobs import Blobs
    from overnight.ports.clock import Clock, Entropy
    from overnight.ports.keys import Keys
    from overnight.ports.offload import Offload
    from overnight.ports.quotas import Quotas
    from overnight.ports.tokens import TokenCounters
    from overnight.ports.upstream import Deployments


# Creating a batch waits for this; whoever has a longer first line goes without what is said of it early.
_LONGEST_PEEK = MIB


class QuotaState(msgspec.Struct, frozen=True, kw_only=True):
    """The limit of a resource for a deployment, and the tokens that are enqueued now."""

    deployment: str
    model: str
    limit: Limit
    enqueued: int
    over_quota: OverQuota

    @property
    def available(self) -> int | None:
        """How many more tokens may be enqueued now; ``None``: as many as one likes."""
        return None if self.limit.tokens is None else max(self.limit.tokens - self.enqueued, 0)


class QuotaService:
    """Looks up limits and what is used of them."""

    def __init__(self, quotas: Quotas, batches: Batches, deployments: Deployments) -> None:
        self._quotas = quotas
        self._batches = batches
        self._deployments = deployments

    async def limit(self, resource: ResourceId, deployment: Deployment) -> Limit:
        """Say which limit applies now."""
        return _limit(await self._quotas.terms(resource), deployment)

    async def states(self, resource: ResourceId) -> list[QuotaState]:
        """Give the quota of each deployment that there is."""
        return await self._states(resource, self._deployments.known().deployments)

    async def state(self, resource: ResourceId, name: str) -> QuotaState:
        """Give the quota of a deployment. Raises ``NotFound``."""
        deployment = self._deployments.known().find(name)
        if deployment is None:
            message = f"The model '{name}' does not exist or you do not have access to it."
            raise NotFound(message, param="deployment", code="model_not_found")
        (state,) = await self._states(resource, [deployment])
        return state

    async def limited(self, resource: ResourceId) -> bool:
        """Say whether there can be a limit for this resource: most need not look any further."""
        if any(each.enqueued_tokens is not None for each in self._deployments.known().deployments):
            return True
        return await self._quotas.terms(resource) != Terms()

    async def _states(self, resource: ResourceId, deployments: Sequence[Deployment]) -> list[QuotaState]:
        terms = await self._quotas.terms(resource)
        enqueued = await self._batches.enqueued(resource, [each.name for each in deployments])
        return [
            QuotaState(
                deployment=each.name,
                model=each.model,
                limit=_limit(terms, each),
                enqueued=enqueued[each.name],
                over_quota=each.over_quota,
            )
            for each in deployments
        ]


class Inputs:
    """Looks into input files for what quotas need to know."""

    def __init__(
        self, blobs: Blobs, counting: Offload, peeking: Offload, counters: TokenCounters, entropy: Entropy
    ) -> None:
        self._blobs = blobs
        self._counting = counting
        self._peeking = peeking
        self._counters = counters
        self._entropy = entropy

    async def tokens(self, file: File) -> int:
        """Count the prompt tokens; of a sampled count, the most that they may be. Raises ``OSError``.

        Which texts are drawn into a sample cannot be foreseen: nobody can write a file that seems smaller than it is.
        """
        seed = int(self._entropy.hex(), 16)
        async with self._blobs.local(file.blob) as path:
            found = await self._counting.run(count_file, path, self._counters, EXACT_BYTES, seed)
        return found.at_most

    async def model(self, file: File) -> str | None:
        """Give the model that the first request names, if that can be told at once. Raises ``OSError``."""
        async with self._blobs.local(file.blob) as path:
            return await self._peeking.run(first_model, path, _LONGEST_PEEK)


class QuotaAdmin:
    """The use cases of whoever hands out quotas."""

    def __init__(self, quotas: Quotas, keys: Keys, clock: Clock) -> None:
        self._quotas = quotas
        self._keys = keys
        self._clock = clock

    async def own(self, resource: str | None = None) -> list[Own]:
        """List the numbers that were set, of one resource or of all."""
        return [each for each in await self._quotas.own() if resource in {None, each.resource}]

    async def own_page(self, resource: str | None, *, after: str | None, limit: int) -> Page[Own]:
        """List them by pages; ``after`` is ``resource/deployment``. Raises ``InvalidRequest`` if that is unknown."""
        found = await self.own(resource)
        return page_of(found, lambda own: f"{own.resource}/{own.deployment}", kind="quota", after=after, limit=limit)

    async def put(self, resource: str, deployment: str, tokens: int | None) -> Own:
        """Set a number of a resource's own; ``None`` for no limit. Raises ``NotFound`` and ``InvalidRequest``."""
        if tokens is not None and tokens < 0:
            message = f"Invalid number of tokens: {tokens}. Give 0 or more."
            raise InvalidRequest(message, param="tokens", code="invalid_value")
        await self._require(resource)
        own = Own(resource=ResourceId(resource), deployment=deployment, tokens=tokens)
        if not await self._quotas.put(own):
            raise _no_resource(resource)
        return own

    async def remove(self, resource: str, deployment: str) -> None:
        """Forget a number, so that the offer or the deployment's setting applies again. Raises ``NotFound``."""
        if not await self._quotas.remove(ResourceId(resource), deployment):
            message = f"The resource '{resource}' has no number of its own for the deployment '{deployment}'."
            raise NotFound(message, param="deployment")

    async def put_offer(self, resource: str, offer: Offer | None) -> Resource:
        """Put a resource on an offer, or on none. Raises ``NotFound``."""
        await self._require(resource)
        if not await self._quotas.put_offer(ResourceId(resource), offer):
            raise _no_resource(resource)
        return next(each for each in await self._keys.resources() if each.name == resource)

    async def _require(self, resource: str) -> None:
        if resource == ADMIN_RESOURCE:
            raise _no_resource(resource)
        if resource == DEFAULT_RESOURCE:
            await self._keys.add_resource(Resource(name=DEFAULT_RESOURCE, created_at=int(self._clock.now())))


def _limit(terms: Terms, deployment: Deployment) -> Limit:
    return limit_of(terms, deployment.name, deployment.model, deployment.enqueued_tokens)


def _no_resource(name: str) -> NotFound:
    return NotFound(f"No resource found with name '{name}'.", param="resource")
