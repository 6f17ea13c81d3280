"""The stop of a running batch whose resource has used all that it may."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from overnight.dispatch.owned import LeaseLost
from overnight.domain.batch import BatchStatus, StopCause
from overnight.domain.errors import Unavailable

if TYPE_CHECKING:
    from overnight.dispatch.owned import Owned
    from overnight.dispatch.run import Run

log = structlog.get_logger()


async def stop_at_cap(owned: Owned, run: Run) -> None:
    """Start nothing more of a batch once a cap of its resource is reached; what is in flight is given its grace.

    The reason is stored with the status before anything is stopped, so that whoever has the batch next, after a crash
    too, goes on stopping it for this reason. A batch that has nothing left to start just goes on to its end.
    """
    if run.cause is not None or not run.has_more or owned.batch.status is not BatchStatus.IN_PROGRESS:
        return
    try:
        problem = await owned.parts.usage.why_stopped(owned.batch.resource)
        if problem is None:
            return
        now = owned.parts.clock.now()
        stopped = await owned.save(owned.batch.to(BatchStatus.CANCELLING, now, errors=(problem,)))
    except Unavailable as error:
        log.warning("cap.not_checked", batch_id=owned.batch.id, problem=error.message)
        return
    except LeaseLost:
        owned.stop(StopCause.LEASE_LOST)
        return
    # Somebody else may have changed the batch first, and only a cancel could.
    owned.stop(StopCause.CAP if stopped else StopCause.CANCEL)
