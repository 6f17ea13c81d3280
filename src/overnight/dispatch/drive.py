"""From status to status, until a batch ends or has to be left to others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overnight.dispatch.executing import execute
from overnight.dispatch.finishing import finish
from overnight.dispatch.owned import LeaseLost
from overnight.dispatch.validating import validate
from overnight.domain.batch import BatchStatus, StopCause

if TYPE_CHECKING:
    from overnight.dispatch.owned import Owned


async def drive(owned: Owned) -> None:
    """Drive a batch until it ends, or has to wait for its turn. Raises ``LeaseLost``.

    Any other error leaves it to be claimed again.
    """
    while not owned.batch.ended and not owned.leaving:
        if owned.batch.status is BatchStatus.IN_PROGRESS and not owned.may_run():
            return
        try:
            await _step(owned)
        except OSError:
            # What is not there any more may have been removed by whoever has the batch now.
            await owned.reload()
            raise
    if owned.cause is StopCause.LEASE_LOST:
        raise LeaseLost


async def _step(owned: Owned) -> None:
    match owned.batch.status:
        case BatchStatus.VALIDATING:
            await validate(owned)
        case BatchStatus.IN_PROGRESS:
            await execute(owned)
        case _:
            await finish(owned)
