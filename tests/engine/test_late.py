"""An owner that wakes up after another has ended its batch."""

from math import inf

import pytest
from msgspec.structs import replace
from tests.engine.house import SHUTDOWN_GRACE, House

from overnight.dispatch.drive import drive
from overnight.dispatch.owned import LeaseLost, Owned
from overnight.domain.batch import BatchStatus

S = BatchStatus


@pytest.mark.parametrize("status", [S.VALIDATING, S.IN_PROGRESS, S.FINALIZING, S.CANCELLING])
async def test_an_owner_whose_files_were_removed_by_the_next_finds_that_it_lost_the_batch(
    house: House, status: BatchStatus
) -> None:
    """Their absence is no trouble of the disk."""
    batch = await house.submit(3)
    house.start()
    done = await house.reach(batch)
    await house.check(done)
    assert house.dispatcher is not None
    parts = house.dispatcher._parts  # noqa: SLF001 - the same engine, in the hands of an owner that is late
    late = Owned(
        replace(done, status=status, epoch=done.epoch - 1), parts, held_until=inf, shutdown_grace=SHUTDOWN_GRACE
    )

    with pytest.raises(LeaseLost):
        await drive(late)

    assert await house.look(batch) == done
