"""The real clock, real randomness and worker processes."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import secrets
import signal
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
T = TypeVar("T")

# Two, so that a large file being checked does not hold up a small batch that is done.
_WORKERS = 2


class SystemClock:
    """The time of this machine."""

    def now(self) -> float:
        return time.time()

    def ticks(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(seconds, 0))

    async def wait(self, event: asyncio.Event, seconds: float | None) -> bool:
        try:
            async with asyncio.timeout(None if seconds is None else max(seconds, 0)):
                await event.wait()
        except TimeoutError:
            return event.is_set()
        return True


class SystemEntropy:
    """Randomness: unguessable for ids, cheap for jitter."""

    def hex(self) -> str:
        return secrets.token_hex(16)

    def fraction(self) -> float:
        return random.random()  # noqa: S311 - jitter is no secret


class WorkerProcesses:
    """Runs processor-bound work in other processes, so that the event loop answers meanwhile."""

    def __init__(self, workers: int = _WORKERS) -> None:
        self._workers = workers
        self._pool = _start(workers)

    async def run(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        call = partial(work, *args, **kwargs)
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._pool, call)
        except BrokenProcessPool:
            # The worker was killed, for its memory perhaps. The caller's batch is tried again with a new one.
            self._pool = _start(self._workers)
            raise

    def close(self) -> None:
        """End the processes."""
        self._pool.shutdown(wait=False, cancel_futures=True)


class WorkerThreads:
    """Runs what is short but waits for the disk in threads: there is no other process to start or to wait for."""

    async def run(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.to_thread(work, *args, **kwargs)


def _start(workers: int) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(max_workers=workers, mp_context=context, initializer=_end_with_parent)


def _end_with_parent() -> None:
    # Ctrl-C is for the parent to hear: it lets this work end first.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_after, args=(parent.join,), daemon=True).start()


def _exit_after(wait: Callable[[], None]) -> None:
    wait()
    os._exit(0)
