"""Who asked how often, in the memory of this process: several processes count each for itself."""

from __future__ import annotations

from collections import OrderedDict
from contextlib import contextmanager
from math import ceil
from typing import TYPE_CHECKING

from overnight.domain.errors import TooManyRequests
from overnight.domain.rate import Taken, take

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Mapping

    from overnight.domain.flavour import Flavour
    from overnight.domain.ids import ResourceId
    from overnight.domain.rate import Rate
    from overnight.ports.clock import Clock

MOST_REMEMBERED = 50_000
"""How many callers are remembered, about 10 MB; beyond, whoever asked longest ago is forgotten."""


class Rates:
    """One allowance for each caller."""

    def __init__(self, rate: Rate, clock: Clock, *, remembered: int = MOST_REMEMBERED) -> None:
        self.rate = rate
        self._clock = clock
        self._remembered = remembered
        self._full_at: OrderedDict[Hashable, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_at)

    def take(self, caller: Hashable) -> Taken:
        """Ask once for a caller, and remember it if it was given."""
        taken = self.look(caller)
        if taken.given:
            self._full_at[caller] = taken.full_at
            self._full_at.move_to_end(caller)
            self._forget()
        return taken

    def look(self, caller: Hashable) -> Taken:
        """Say what ``take`` would give."""
        return take(self.rate, self._full_at.get(caller, 0.0), self._clock.ticks())

    def _forget(self) -> None:
        while len(self._full_at) > self._remembered:
            self._full_at.popitem(last=False)


class Known:
    """Who was let in lately, so that it stays in; a bounded number, and whoever came longest ago is forgotten."""

    def __init__(self, *, remembered: int = MOST_REMEMBERED) -> None:
        self._remembered = remembered
        self._callers: OrderedDict[Hashable, None] = OrderedDict()

    def __contains__(self, caller: Hashable) -> bool:
        return caller in self._callers

    def add(self, caller: Hashable) -> None:
        """Remember a caller."""
        self._callers[caller] = None
        self._callers.move_to_end(caller)
        if len(self._callers) > self._remembered:
            self._callers.popitem(last=False)

    def discard(self, caller: Hashable) -> None:
        """Forget a caller."""
        self._callers.pop(caller, None)


class Running:
    """How much of something is under way for each caller; ``most`` is ``None`` for no bound."""

    def __init__(self, most: int | None) -> None:
        self._most = most
        self._running: dict[Hashable, int] = {}

    def begin(self, caller: Hashable) -> bool:
        """Count one more, unless there are as many as there may be."""
        running = self._running.get(caller, 0)
        if self._most is not None and running >= self._most:
            return False
        self._running[caller] = running + 1
        return True

    def end(self, caller: Hashable) -> None:
        """Count one less."""
        self._running[caller] -= 1
        if self._running[caller] == 0:
            del self._running[caller]

    def total(self) -> int:
        """Say how much is under way for all callers."""
        return sum(self._running.values())


class Allowances:
    """What keys and resources may do in a time, whichever way they come; ``None`` is no bound.

    All methods raise ``TooManyRequests`` for what is beyond.
    """

    def __init__(self, requests: Rates | None, new_files: Mapping[Flavour, Rates | None], uploads: Running) -> None:
        self.requests = requests
        self._new_files = new_files
        self._uploads = uploads

    def count_request(self, key: bytes) -> Taken | None:
        """Count a request with a key, named by its SHA-256, and say what it has left."""
        if self.requests is None:
            return None
        taken = self.requests.take(key)
        if not taken.given:
            wait = max(1, ceil(taken.wait))
            most = f"{self.requests.rate.most:,}"
            message = f"This key made more than {most} requests within a minute. Try again in {wait:,} s."
            raise TooManyRequests(message, wait=taken.wait)
        return taken

    def count_file(self, resource: ResourceId, flavour: Flavour) -> None:
        """Count a file or an upload that a resource begins."""
        begun = self._new_files[flavour]
        if begun is None:
            return
        taken = begun.take(resource)
        if not taken.given:
            message = f"More than {begun.rate.most:,} files and uploads were begun within a minute. Send larger ones."
            raise TooManyRequests(message, wait=taken.wait)

    @contextmanager
    def uploading(self, resource: ResourceId) -> Iterator[None]:
        """Count a file or a part of one that is under way."""
        if not self._uploads.begin(resource):
            message = "As many files are being sent for this resource as may be at the same time. Wait for one to end."
            raise TooManyRequests(message, wait=1.0)
        try:
            yield
        finally:
            self._uploads.end(resource)
