"""The promises that are offered to others hold for our own adapters, and are broken by one that breaks them."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from overnight.ports.results import ResultLogs
from overnight.testing.contracts import RESULT_LOG, Broken, what_an_older_epoch_still_writes_is_ignored
from overnight.testing.results import MemoryResultLogs


@pytest.mark.parametrize("promise", RESULT_LOG, ids=lambda promise: promise.__name__)
async def test_our_logs_keep_what_is_asked_of_others(
    promise: Callable[[ResultLogs], Awaitable[None]], logs: ResultLogs
) -> None:
    """Both adapters."""
    await promise(logs)


async def test_a_log_without_fences_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A suite that lets everything pass checks nothing."""
    logs = MemoryResultLogs(tmp_path)
    monkeypatch.setattr("overnight.testing.results.Kept.pinned", lambda kept, epoch: kept._readable(epoch))  # noqa: SLF001 - what is broken on purpose

    with pytest.raises(Broken, match="expected"):
        await what_an_older_epoch_still_writes_is_ignored(logs)
