"""How the sweeps ask the database: they come again and again, over all that is stored."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from msgspec.structs import replace
from obstore.store import MemoryStore
from sqlalchemy import Engine, event
from tests.contract.logs import a_result
from tests.contract.test_batches import MINE, a_batch
from tests.contract.test_files import a_file, a_part, an_upload

from overnight.adapters.results.objects import ObjectResultLogs
from overnight.adapters.sql.batches import SqlBatches
from overnight.adapters.sql.database import Database, sqlite_file
from overnight.adapters.sql.files import SqlFiles, SqlUploads
from overnight.domain.batch import BatchStatus
from overnight.domain.blob_keys import output_key, places_key
from overnight.services.retention import Sweeper
from overnight.services.troubles import TroublesInMind
from overnight.testing.blobs import MemoryBlobs
from overnight.testing.clock import ManualClock
from overnight.testing.results import MemoryResultLogs


class _Asked:
    """The queries that were asked, how SQLite answers each, and in which threads."""

    def __init__(self) -> None:
        self.queries: list[str] = []
        self.plans: list[str] = []
        self.threads: set[int] = set()

    def note(self, _connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith("SELECT"):
            self.queries.append(statement)
            self.threads.add(threading.get_ident())
            cursor.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
            self.plans += [row[3] for row in cursor.fetchall()]


@contextmanager
def _listening() -> Iterator[_Asked]:
    asked = _Asked()
    event.listen(Engine, "before_cursor_execute", asked.note)
    try:
        yield asked
    finally:
        event.remove(Engine, "before_cursor_execute", asked.note)


async def test_the_sweeps_read_no_table_whole_and_nothing_on_the_event_loop(tmp_path: Path) -> None:
    """With the blobs of 5,000 batches the service stood still for seconds at each start and in each hour."""
    clock, database = ManualClock(), Database(sqlite_file(tmp_path))
    await database.migrate()
    batches, files, uploads = SqlBatches(database), SqlFiles(database), SqlUploads(database)
    blobs, logs = MemoryBlobs(tmp_path, clock.now), MemoryResultLogs(tmp_path)
    ended = replace(a_batch(), status=BatchStatus.COMPLETED, input_blob="files/input")
    output = replace(a_file("file-output"), blob=output_key(ended))
    await batches.add(ended)
    await files.add(output)
    await uploads.add(an_upload())
    await uploads.add_part(a_part("part"))
    for key in (output.blob, places_key(ended), "p/part", "files/orphan"):
        blobs.put(key, b"x")
    async with logs.open(ended.id, epoch=1, total=1, on_durable=lambda _: None):
        pass
    clock.jump(4_000)
    sweeper = Sweeper(files, uploads, batches, blobs, logs, clock)

    with _listening() as asked:
        removed = await sweeper.sweep_orphans()
        await files.delete(MINE, output.id, now=clock.now())
        swept = await sweeper.sweep()
    await database.close()

    assert (removed, swept) == (2, 2)
    assert blobs.held.keys() == {places_key(ended)}
    assert len(asked.queries) >= 8
    assert [plan for plan in asked.plans if plan.startswith("SCAN") and "parts" not in plan] == []
    assert threading.get_ident() not in asked.threads


async def test_a_service_leaves_the_results_of_another_in_the_same_store_alone(tmp_path: Path) -> None:
    """They were paid for; its own go once their batch has ended, those of a running batch do not."""
    store, clock = MemoryStore(), ManualClock()
    logs = ObjectResultLogs(store, tmp_path, TroublesInMind(clock))
    running, ended = a_batch("batch_1"), replace(a_batch("batch_2"), status=BatchStatus.COMPLETED)
    left = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        database = Database(sqlite_file(tmp_path / name))
        await database.migrate()
        batches = SqlBatches(database)
        if name == "one":
            for batch in (running, ended):
                await batches.add(batch)
                async with logs.open(batch.id, epoch=1, total=1, on_durable=lambda _: None) as opened:
                    opened.append(a_result(0))
        blobs = MemoryBlobs(tmp_path, clock.now)
        await Sweeper(SqlFiles(database), SqlUploads(database), batches, blobs, logs, clock).sweep_orphans()
        left.append(await logs.batch_ids())
        await database.close()

    assert left == [[running.id], [running.id]]
