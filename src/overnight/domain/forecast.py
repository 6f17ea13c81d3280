"""How long requests may take, by how long others of the same model took."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from overnight.domain.batch import Batch, BatchStatus
from overnight.domain.ids import BatchId

if TYPE_CHECKING:
    from collections.abc import Iterable

_TELLING = 20
"""Fewer requests than this say little: most of their time goes into the first and the last of them."""


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """The ``seconds`` that requests take if they get on as those of the batch ``basis`` did: at ``rate`` a second."""

    seconds: float
    rate: float
    basis: BatchId


def forecast(model: str, requests: int, batches: Iterable[Batch]) -> Forecast | None:
    """Go by the batch of this model that ran longest, since its times are known to the second, no better.

    ``None`` if none of the batches tells enough.
    """
    like = [batch for batch in batches if batch.deployment == model and _tells(batch)]
    basis = max(like, key=_seconds, default=None)
    if basis is None:
        return None
    rate = (basis.completed + basis.failed) / _seconds(basis)
    return Forecast(seconds=requests / rate, rate=rate, basis=basis.id)


def _tells(batch: Batch) -> bool:
    return batch.status is BatchStatus.COMPLETED and batch.completed >= _TELLING


def _seconds(batch: Batch) -> int:
    begun, ended = batch.in_progress_at, batch.finalizing_at
    return 1 if begun is None or ended is None else max(1, ended - begun)
