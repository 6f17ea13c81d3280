"""The promises that are offered to others hold for our own adapters, and are broken by one that breaks them."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from overnight.ports.batches import Batches
from overnight.ports.blobs import Blobs
from overnight.ports.files import Files
from overnight.ports.results import ResultLogs
from overnight.testing.contracts import BATCHES, BLOBS, FILES, RESULT_LOG, Broken
from overnight.testing.contracts.batches import a_claim_raises_the_epoch_and_shuts_out_the_last_owner
from overnight.testing.contracts.results import what_an_older_epoch_still_writes_is_ignored
from overnight.testing.results import MemoryResultLogs
from overnight.testing.stores import MemoryBatches, Tables


@pytest.mark.parametrize("promise", RESULT_LOG, ids=lambda promise: promise.__name__)
async def test_our_logs_keep_what_is_asked_of_others(
    promise: Callable[[ResultLogs], Awaitable[None]], logs: ResultLogs
) -> None:
    """Every adapter."""
    await promise(logs)


@pytest.mark.parametrize("promise", BLOBS, ids=lambda promise: promise.__name__)
async def test_our_blobs_keep_what_is_asked_of_others(
    promise: Callable[[Blobs], Awaitable[None]], blobs: Blobs
) -> None:
    """Every adapter."""
    await promise(blobs)


@pytest.mark.parametrize("promise", BATCHES, ids=lambda promise: promise.__name__)
async def test_our_batches_keep_what_is_asked_of_others(
    promise: Callable[[Batches], Awaitable[None]], batches: Batches
) -> None:
    """Every adapter."""
    await promise(batches)


@pytest.mark.parametrize("promise", FILES, ids=lambda promise: promise.__name__)
async def test_our_files_keep_what_is_asked_of_others(
    promise: Callable[[Files], Awaitable[None]], files: Files
) -> None:
    """Every adapter."""
    await promise(files)


async def test_a_log_without_fences_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A suite that lets everything pass checks nothing."""
    logs = MemoryResultLogs(tmp_path)
    monkeypatch.setattr("overnight.testing.results.Kept.pinned", lambda kept, epoch: kept._readable(epoch))  # noqa: SLF001 - what is broken on purpose

    with pytest.raises(Broken, match="expected"):
        await what_an_older_epoch_still_writes_is_ignored(logs)


async def test_a_store_that_lets_an_old_owner_write_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for leases."""
    batches = MemoryBatches(Tables())

    async def careless(*_: object, **_more: object) -> bool:
        return True

    monkeypatch.setattr(batches, "record_progress", careless)

    with pytest.raises(Broken, match="expected False"):
        await a_claim_raises_the_epoch_and_shuts_out_the_last_owner(batches)
