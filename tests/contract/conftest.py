"""Each promise of a port is checked against every adapter that makes it."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import structlog
from tests.contract.records import Records

from overnight.adapters.blobs.local import LocalBlobs
from overnight.adapters.results.local import LocalResultLogs
from overnight.adapters.sql.batches import SqlBatches
from overnight.adapters.sql.database import Database, sqlite_file
from overnight.adapters.sql.files import SqlFiles, SqlUploads
from overnight.adapters.workplace import Workplace
from overnight.domain.ids import WorkerId
from overnight.ports.batches import Batches
from overnight.ports.blobs import Blobs
from overnight.ports.files import Files, Uploads
from overnight.ports.results import ResultLogs
from overnight.services.troubles import TroublesInMind
from overnight.testing.clock import ManualClock
from overnight.testing.results import MemoryResultLogs
from overnight.testing.stores import MemoryBatches, MemoryBlobs, MemoryFiles, MemoryUploads, Tables


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """What an adapter logs of injected faults is not looked at here."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    yield
    structlog.reset_defaults()


@pytest.fixture(params=["memory", "sqlite"])
async def records(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Records]:
    """Empty stores of records."""
    if request.param == "memory":
        tables = Tables()
        yield Records(MemoryBatches(tables), MemoryFiles(tables), MemoryUploads(tables))
        return
    database = Database(sqlite_file(tmp_path))
    await database.migrate()
    yield Records(SqlBatches(database), SqlFiles(database), SqlUploads(database))
    await database.close()


@pytest.fixture
def batches(records: Records) -> Batches:
    """An empty store of batches."""
    return records.batches


@pytest.fixture
def files(records: Records) -> Files:
    """An empty store of files."""
    return records.files


@pytest.fixture
def uploads(records: Records) -> Uploads:
    """An empty store of uploads."""
    return records.uploads


@pytest.fixture
def workplace(tmp_path: Path) -> Iterator[Workplace]:
    """The folder of a worker."""
    workplace = Workplace(tmp_path, WorkerId("me"))
    yield workplace
    workplace.close()


@pytest.fixture(params=["memory", "disk"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    """An empty blob store."""
    if request.param == "memory":
        return MemoryBlobs(tmp_path)
    workplace: Workplace = request.getfixturevalue("workplace")
    return LocalBlobs(tmp_path, workplace.temporary)


@pytest.fixture
def troubles() -> TroublesInMind:
    """What is noted of batches that wait for the disk."""
    return TroublesInMind(ManualClock())


@pytest.fixture(params=["memory", "disk"])
def logs(request: pytest.FixtureRequest, tmp_path: Path, troubles: TroublesInMind) -> ResultLogs:
    """Result logs without a result."""
    return MemoryResultLogs(tmp_path) if request.param == "memory" else LocalResultLogs(tmp_path, troubles)
