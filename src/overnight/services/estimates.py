"""What a file will need before it is run: its requests, its tokens, what they may cost and how long they may take."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from overnight.domain.errors import InvalidRequest
from overnight.domain.file import File, Purpose
from overnight.domain.forecast import Forecast, forecast
from overnight.domain.ids import FileId
from overnight.domain.listing import BatchQuery
from overnight.domain.price import CostRange, Prices, expected_cost
from overnight.services.tokens import FileTokens, ModelTokens, count_file

if TYPE_CHECKING:
    from overnight.domain.ids import ResourceId
    from overnight.ports.batches import Batches
    from overnight.ports.blobs import Blobs
    from overnight.ports.offload import Offload
    from overnight.ports.tokens import TokenCounters
    from overnight.services.files import FileService
    from overnight.services.turns import Turns

_MOST_KEPT = 256
_LOOKED_AT = 100


class PricedModel(msgspec.Struct, frozen=True, kw_only=True):
    """The requests for one model, and what they may cost; ``None`` where it has no price."""

    tokens: ModelTokens
    cost: CostRange | None


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """What a file will need, as far as can be known before it is run.

    ``duration`` is ``None`` unless a batch of its only model has shown how fast that is.
    """

    tokens: FileTokens
    models: tuple[PricedModel, ...]
    cost: CostRange | None
    currency: str
    duration: Forecast | None = None


def put_prices(tokens: FileTokens, prices: Prices) -> Estimate:
    """Say what the requests of a file may cost; what has no price is left out of the sum."""
    models = tuple(PricedModel(tokens=each, cost=_cost(each, prices)) for each in tokens.models)
    known = [each.cost for each in models if each.cost is not None]
    return Estimate(tokens=tokens, models=models, cost=_sum(known) if known else None, currency=prices.currency)


class EstimateService:
    """Estimates what files will need.

    Counting takes a worker process for up to seconds, and those check the input of batches too: so one file is counted
    at a time, in turn with what else does so, and what was found is kept for the files that were asked about last. A
    file never changes.
    """

    def __init__(
        self,
        files: FileService,
        batches: Batches,
        blobs: Blobs,
        turns: Turns,
        counters: TokenCounters,
        prices: Prices,
    ) -> None:
        self._files = files
        self._batches = batches
        self._blobs = blobs
        self._counters = counters
        self._prices = prices
        self._turns = turns
        self._kept: dict[FileId, FileTokens] = {}

    async def estimate(self, resource: ResourceId, file_id: FileId) -> Estimate:
        """Estimate what a file of requests will need.

        Raises:
            NotFound: there is no such file for this resource.
            InvalidRequest: the file is not for batches.
        """
        file = await self._files.get(resource, file_id)
        if file.purpose is not Purpose.BATCH:
            message = (
                f"The file {file_id} has the purpose '{file.purpose}'. Only the requests of files with the purpose"
                " 'batch' can be estimated."
            )
            raise InvalidRequest(message, param="file_id", code="invalid_value")
        tokens = self._kept.get(file.id) or await self._in_turn(file)
        self._keep(file.id, tokens)
        duration = await self._duration(resource, tokens)
        return msgspec.structs.replace(put_prices(tokens, self._prices), duration=duration)

    async def _duration(self, resource: ResourceId, tokens: FileTokens) -> Forecast | None:
        if len(tokens.models) != 1:
            return None
        newest = await self._batches.page(resource, BatchQuery(limit=_LOOKED_AT))
        return forecast(tokens.models[0].model, tokens.requests, newest.items if newest else ())

    def _keep(self, file_id: FileId, tokens: FileTokens) -> None:
        self._kept.pop(file_id, None)
        self._kept[file_id] = tokens
        if len(self._kept) > _MOST_KEPT:
            del self._kept[next(iter(self._kept))]

    async def _in_turn(self, file: File) -> FileTokens:
        async with self._turns.turn(file.resource) as offload:
            # Whoever had the turn before may have asked about the same file.
            tokens = self._kept.get(file.id) or await self._count(file, offload)
            self._keep(file.id, tokens)
        return tokens

    async def _count(self, file: File, offload: Offload) -> FileTokens:
        async with self._blobs.local(file.blob) as path:
            return await offload.run(count_file, path, self._counters)


def _cost(tokens: ModelTokens, prices: Prices) -> CostRange | None:
    price = prices.by_deployment.get(tokens.model)
    if price is None:
        return None
    bounded = tokens.bounded == tokens.requests
    return expected_cost(
        price,
        prompt_tokens=tokens.prompt_tokens,
        error=tokens.error,
        output_bound=tokens.max_output_tokens if bounded else None,
    )


def _sum(costs: list[CostRange]) -> CostRange:
    most = [each.most for each in costs if each.most is not None]
    return CostRange(
        least=sum(each.least for each in costs),
        most=sum(most) if len(most) == len(costs) else None,
    )
