"""Looking up host names, so that name servers that do not answer hold up nobody but those who asked for them."""

from __future__ import annotations

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from overnight.domain.ids import ResourceId

    LookUp = Callable[[str], Sequence[str]]

AT_ONCE = 64
AT_ONCE_EACH = 8
"""How many names are looked up at once, in all and for one resource.

A name server that does not answer holds its thread for half a minute, long after the attempt was given up, and whoever
owns a domain can make as many such names as they like.
"""


def _look_up(host: str) -> list[str]:
    return [str(entry[4][0]) for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]


class Resolver:
    """The system's resolver, in threads of its own, of which each resource has a share, and each name of it one."""

    def __init__(self, look_up: LookUp = _look_up) -> None:
        self._look_up = look_up
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="webhook-lookup")
        self._running: dict[tuple[ResourceId, str], asyncio.Future[Sequence[str]]] = {}
        self._shares: WeakValueDictionary[ResourceId, asyncio.Semaphore] = WeakValueDictionary()

    def close(self) -> None:
        """Wait for nothing any more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def __call__(self, host: str, resource: ResourceId) -> Sequence[str]:
        """Give the addresses of a host, in turn with what else is looked up for this resource. Raises ``OSError``.

        Whoever asks for a name that is being looked up for the same resource gets the same answer.
        """
        share = self._shares.get(resource)
        if share is None:
            share = self._shares[resource] = asyncio.Semaphore(AT_ONCE_EACH)
        key = (resource, host)
        if key not in self._running:
            await share.acquire()
            if key in self._running:
                share.release()
            else:
                self._begin(key, share)
        return list(dict.fromkeys(await asyncio.shield(self._running[key])))

    def _begin(self, key: tuple[ResourceId, str], share: asyncio.Semaphore) -> None:
        lookup = asyncio.get_running_loop().run_in_executor(self._threads, self._look_up, key[1])
        self._running[key] = lookup
        lookup.add_done_callback(partial(self._end, key, share))

    def _end(
        self, key: tuple[ResourceId, str], share: asyncio.Semaphore, lookup: asyncio.Future[Sequence[str]]
    ) -> None:
        del self._running[key]
        share.release()
        if not lookup.cancelled():
            # Seen here, since perhaps nobody waits for it any more.
            lookup.exception()
