"""What is known of batches that cannot go on."""

import errno

from overnight.domain.ids import BatchId
from overnight.ports.troubles import Trouble
from overnight.services.troubles import TroublesInMind
from overnight.testing.clock import START, ManualClock

BATCH = BatchId("batch_1")


async def test_a_trouble_is_known_until_it_is_over() -> None:
    """With its latest reason, and since it began."""
    clock = ManualClock()
    troubles = TroublesInMind(clock)
    troubles.note(BATCH, OSError(errno.EIO, "input/output error", "/secret/path"), bytes_waiting=3)
    await clock.advance(5)
    troubles.note(BATCH, RuntimeError("odd"), bytes_waiting=7)
    troubles.note(BatchId("batch_2"), OSError())
    known = troubles.known()
    troubles.over(BATCH)
    troubles.over(BATCH)

    assert known == [
        Trouble(batch_id=BATCH, problem="odd", since=START, bytes_waiting=7),
        Trouble(batch_id=BatchId("batch_2"), problem="OSError", since=START + 5),
    ]
    assert troubles.known() == known[1:]


def test_a_path_is_not_told() -> None:
    """Anybody may ask."""
    troubles = TroublesInMind(ManualClock())
    troubles.note(BATCH, OSError(errno.EIO, "input/output error", "/secret/path"))

    assert [each.problem for each in troubles.known()] == ["input/output error"]
