"""The least that an upload can be: a bare ASGI application that writes a body into a file and syncs it."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn
from starlette.requests import Request
from starlette.responses import PlainTextResponse

from bench.parts import free_port, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.types import Receive, Scope, Send


# Else the C library gives each chunk's memory back to the kernel, and the page faults cost more than the upload.
_KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "33554432", "MALLOC_TRIM_THRESHOLD_": "33554432"}


@contextmanager
def raw_server(folder: Path) -> Iterator[tuple[str, int]]:
    """Run the application as a process; give its URL and process id."""
    port = free_port()
    folder.mkdir()
    command = [sys.executable, "-m", "bench.raw_upload", str(folder), str(port)]
    with subprocess.Popen(command, env={**os.environ, **_KEEP_MEMORY}) as process:
        try:
            wait_for(port)
            yield f"http://127.0.0.1:{port}", process.pid
        finally:
            process.terminate()


def _serve(folder: Path, port: int) -> None:
    numbers = itertools.count()

    async def take(scope: Scope, receive: Receive, send: Send) -> None:
        # Each body stays, as ours do: a new file in recycled memory would be faster.
        with (folder / str(next(numbers))).open("wb", buffering=0) as file:
            async for chunk in Request(scope, receive).stream():
                file.write(chunk)
            os.fsync(file.fileno())
        await PlainTextResponse("{}")(scope, receive, send)

    uvicorn.run(take, port=port, loop="uvloop", http="httptools", lifespan="off", log_config=None, access_log=False)


if __name__ == "__main__":
    _serve(Path(sys.argv[1]), int(sys.argv[2]))
