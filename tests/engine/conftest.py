import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import structlog
from tests.engine.house import House, commit_at_once, opened

from overnight.adapters.sql.database import Database, sqlite_file


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Formatting the tracebacks of a thousand scripted faults would take longer than the faults."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database, migrated once."""
    folder = tmp_path_factory.mktemp("template")

    async def make() -> None:
        database = Database(sqlite_file(folder))
        await database.migrate()
        await database.close()

    asyncio.run(make())
    return sqlite_file(folder)


@pytest.fixture(params=["memory", "disk"])
async def house(
    request: pytest.FixtureRequest, tmp_path: Path, template: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[House]:
    """The engine on stores in memory, and again on SQLite and a disk."""
    commit_at_once(monkeypatch.setattr)
    async for house in opened(tmp_path, request.param, template):
        yield house


@pytest.fixture
async def quick(tmp_path: Path, template: Path) -> AsyncIterator[House]:
    """The engine on stores in memory, where the stores make no difference."""
    async for house in opened(tmp_path, "memory", template):
        yield house
