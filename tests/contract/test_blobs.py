"""The promises of ``ports/blobs.py``."""

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from overnight.adapters.blobs.local import LocalBlobs
from overnight.adapters.workplace import Workplace
from overnight.domain.ids import WorkerId
from overnight.ports.blobs import Blobs, StorageFull

BIG = bytes(range(256)) * 4 * 1024 * 9


async def _put(blobs: Blobs, key: str, data: bytes) -> None:
    async with blobs.writer(key) as writer:
        for start in range(0, len(data), 100_000):
            await writer.write(data[start : start + 100_000])
        await writer.commit()


async def _read(blobs: Blobs, key: str) -> bytes:
    return b"".join([piece async for piece in blobs.stream(key)])


@pytest.mark.parametrize("data", [b"", b"x", BIG], ids=["empty", "small", "big"])
async def test_a_blob_comes_back_whole(blobs: Blobs, data: bytes) -> None:
    """By stream, by path, and by size."""
    await _put(blobs, "files/a", data)

    assert await _read(blobs, "files/a") == data
    assert await blobs.size("files/a") == len(data)
    async with blobs.local("files/a") as path:
        assert await asyncio.to_thread(path.read_bytes) == data


async def test_a_large_blob_comes_in_pieces(blobs: Blobs) -> None:
    """Never whole in memory."""
    await _put(blobs, "files/a", BIG)

    assert max([len(piece) async for piece in blobs.stream("files/a")]) <= 1024 * 1024


async def test_without_a_commit_nothing_is_stored(blobs: Blobs) -> None:
    """However the context ends."""
    async with blobs.writer("files/a") as writer:
        await writer.write(BIG)
    with pytest.raises(KeyError):  # noqa: PT012 - leaving the context is what is looked at
        async with blobs.writer("files/a") as writer:
            await writer.write(b"x")
            raise KeyError

    assert await blobs.size("files/a") is None
    with pytest.raises(FileNotFoundError):
        await _read(blobs, "files/a")


async def test_nothing_is_readable_before_the_commit(blobs: Blobs) -> None:
    """And what was there before still is."""
    await _put(blobs, "files/a", b"old")
    async with blobs.writer("files/a") as writer:
        await writer.write(b"new")

        assert await _read(blobs, "files/a") == b"old"

        await writer.commit()
        assert await _read(blobs, "files/a") == b"new"


async def test_a_missing_blob_is_missed_in_every_way(blobs: Blobs) -> None:
    """FileNotFoundError, not emptiness."""
    with pytest.raises(FileNotFoundError):
        await _read(blobs, "files/a")
    with pytest.raises(FileNotFoundError):
        async with blobs.local("files/a"):
            pass

    assert await blobs.size("files/a") is None


async def test_deleting_is_fine_twice(blobs: Blobs) -> None:
    """And takes only its own key."""
    await _put(blobs, "files/a", b"x")
    await _put(blobs, "files/b", b"y")

    await blobs.delete("files/a")
    await blobs.delete("files/a")

    assert await blobs.size("files/a") is None
    assert await _read(blobs, "files/b") == b"y"


async def test_a_placed_file_becomes_the_blob_when_the_context_ends_well(blobs: Blobs) -> None:
    """And replaces what was there."""
    await _put(blobs, "batches/b/1.output.jsonl", b"old")
    async with blobs.placing("batches/b/1.output.jsonl") as path:
        await asyncio.to_thread(path.write_bytes, b"new")

        assert await _read(blobs, "batches/b/1.output.jsonl") == b"old"

    assert await _read(blobs, "batches/b/1.output.jsonl") == b"new"
    assert not await asyncio.to_thread(path.exists)


async def test_a_placed_file_is_dropped_when_the_context_ends_badly(blobs: Blobs) -> None:
    """It may be half written."""
    with pytest.raises(KeyError):  # noqa: PT012 - leaving the context is what is looked at
        async with blobs.placing("files/a") as path:
            await asyncio.to_thread(path.write_bytes, b"half")
            raise KeyError

    assert await blobs.size("files/a") is None
    assert not await asyncio.to_thread(path.exists)


async def test_a_placed_file_that_was_never_written_is_an_error(blobs: Blobs) -> None:
    """Better than an empty blob."""
    with pytest.raises(FileNotFoundError):
        async with blobs.placing("files/a"):
            pass

    assert await blobs.size("files/a") is None


async def test_old_keys_are_told_from_young_ones(blobs: Blobs) -> None:
    """By when they were written."""
    await _put(blobs, "files/a", b"x")
    await _put(blobs, "batches/b/index", b"x")

    assert sorted(await blobs.keys_before(time.time() + 60)) == ["batches/b/index", "files/a"]
    assert list(await blobs.keys_before(time.time() - 60)) == []


class TestDisk:
    """What only a disk can do."""

    @pytest.fixture
    def disk(self, tmp_path: Path, workplace: Workplace) -> LocalBlobs:
        return LocalBlobs(tmp_path, workplace.temporary)

    async def test_an_unfinished_blob_leaves_no_file(self, disk: LocalBlobs, workplace: Workplace) -> None:
        """Nothing to clean up."""
        async with disk.writer("files/a") as writer:
            await writer.write(BIG)

        assert await asyncio.to_thread(lambda: list(workplace.temporary.iterdir())) == []

    async def test_a_full_disk_is_told_apart_and_leaves_nothing(self, disk: LocalBlobs, workplace: Workplace) -> None:
        """``/dev/full`` is a disk without room."""
        with pytest.raises(StorageFull):  # noqa: PT012 - either call may be the one
            async with disk.writer("files/a") as writer:
                with Path("/dev/full").open("wb") as full:  # noqa: ASYNC230 - it opens at once
                    os.dup2(full.fileno(), writer._file.fileno())  # noqa: SLF001 - no other way to fill the disk
                await writer.write(BIG)
                await writer.commit()

        assert await disk.size("files/a") is None
        assert await asyncio.to_thread(lambda: list(workplace.temporary.iterdir())) == []

    async def test_a_failed_sync_publishes_nothing(self, disk: LocalBlobs, monkeypatch: pytest.MonkeyPatch) -> None:
        """A name without its bytes on disk is a lie."""

        def fail(_: int) -> None:
            raise OSError(5, "input/output error")

        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="input/output"):
            await _put(disk, "files/a", b"x")
        with pytest.raises(OSError, match="input/output"):
            async with disk.placing("files/b") as path:
                await asyncio.to_thread(path.write_bytes, b"x")

        assert await disk.size("files/a") is None
        assert await disk.size("files/b") is None

    async def test_bytes_and_name_are_synced_before_a_commit_returns(
        self, disk: LocalBlobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A published id survives a power cut: file, new folder and its parent."""
        synced: list[str] = []
        fsync = os.fsync

        def note(descriptor: int) -> None:
            synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
            fsync(descriptor)

        monkeypatch.setattr(os, "fsync", note)
        await _put(disk, "files/a", b"x")

        assert len(synced) == 3
        assert "/workers/" in synced[0]
        assert synced[1:] == [str(tmp_path / "blobs"), str(tmp_path / "blobs" / "files")]

    async def test_what_a_dead_process_left_is_removed_and_it_is_named(self, tmp_path: Path) -> None:
        """Its lock went with it."""
        code = (
            "import sys; from pathlib import Path; from overnight.adapters.workplace import Workplace\n"
            "place = Workplace(Path(sys.argv[1]), 'dead'); (place.temporary / 'half').write_bytes(b'x')\n"
            "import os; os.kill(os.getpid(), 9)"
        )
        done = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", code, str(tmp_path)], check=False)
        assert done.returncode == -9
        assert (tmp_path / "workers" / "dead" / "half").exists()

        place = Workplace(tmp_path, WorkerId("next"))

        assert place.dead == ["dead"]
        assert not (tmp_path / "workers" / "dead").exists()
        place.close()

    async def test_what_a_live_process_writes_is_left_alone(self, tmp_path: Path, workplace: Workplace) -> None:
        """Two services on one folder are odd, but must not eat each other's files."""
        disk = LocalBlobs(tmp_path, workplace.temporary)
        async with disk.writer("files/a") as writer:
            await writer.write(BIG)
            other = Workplace(tmp_path, WorkerId("other"))
            assert other.dead == []
            await writer.commit()
        other.close()

        assert await disk.size("files/a") == len(BIG)
