"""One connection, and the layers around the application, in the process of the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any

import pytest
import uvicorn
from tests.edge.raw import Echo, Line
from uvicorn.server import ServerState

from overnight.bootstrap.http import Connection, Crowd
from overnight.config import ConnectionSettings

Listening = Callable[..., AbstractAsyncContextManager["House"]]


class House:
    """A server of ours with small bounds."""

    def __init__(self, port: int, app: Echo, crowd: Crowd) -> None:
        self.port, self.app, self.crowd = port, app, crowd
        self._lines: list[Line] = []

    async def call(self, **options: Any) -> Line:
        """Open a connection."""
        line = await Line.to(self.port, **options)
        self._lines.append(line)
        return line

    def hang_up(self) -> None:
        """Close all connections."""
        for line in self._lines:
            line.close()


@asynccontextmanager
async def _listening(**settings: Any) -> AsyncIterator[House]:
    app, crowd = Echo(), Crowd(ConnectionSettings(**settings))
    config = uvicorn.Config(app, lifespan="off", ws="none", log_config=None, access_log=False, timeout_keep_alive=1)
    state = ServerState()
    making = partial(Connection, crowd, config=config, server_state=state, app_state={})
    server = await asyncio.get_running_loop().create_server(making, "127.0.0.1", 0)
    house = House(server.sockets[0].getsockname()[1], app, crowd)
    try:
        yield house
    finally:
        house.hang_up()
        server.close()
        for connection in list(state.connections):
            connection.transport.abort()
        await _until(lambda: not state.connections and not state.tasks)


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what it waits for is set by nobody
            await asyncio.sleep(0.005)


@pytest.fixture
def listening() -> Listening:
    """A server with the settings of connections that a test gives."""
    return _listening


@pytest.fixture
def until() -> Callable[[Callable[[], bool]], Awaitable[None]]:
    """Waiting for a condition."""
    return _until
