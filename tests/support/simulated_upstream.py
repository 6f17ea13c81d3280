"""A model server and a client that keeps it busy, in virtual time: what a limiter does to them."""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import exp, inf, log, sqrt
from random import Random

from overnight.dispatch.limiter import Limiter

# A refusal comes back at once, but for the way there and back.
REFUSAL_TIME = 0.02


@dataclass(frozen=True, kw_only=True)
class Server:
    """A server that takes ``latency`` seconds for a request, with ``slots`` at once, and lets ``queue`` more wait.

    ``spread`` is the standard deviation of the time over its mean. ``sharing``: it takes all requests at once, and past
    ``slots`` all get slower. ``flaky``: this share of requests is refused whatever the load; ``broken``: gets a 500.
    """

    slots: float = inf
    queue: float = inf
    latency: float = 1.0
    spread: float = 0.3
    sharing: bool = False
    flaky: float = 0.0
    broken: float = 0.0


@dataclass
class Trace:
    """What came of a run, as times: of answers, of refusals for overload, of changes of the limit."""

    answers: list[float] = field(default_factory=list)
    refusals: list[float] = field(default_factory=list)
    limits: list[tuple[float, int]] = field(default_factory=list)

    def throughput(self, begin: float, end: float) -> float:
        """Give the answers a second from ``begin`` to ``end``."""
        return _count(self.answers, begin, end) / (end - begin)

    def refused(self, begin: float, end: float) -> float:
        """Give the share of requests that were refused for overload."""
        refused = _count(self.refusals, begin, end)
        return refused / max(1, refused + _count(self.answers, begin, end))

    def mean_limit(self, begin: float, end: float) -> float:
        """Give the mean of the limit over time."""
        area, last, limit = 0.0, begin, self.limits[0][1]
        for time, value in [*self.limits, (end, 0)]:
            now = min(max(time, begin), end)
            area += limit * (now - last)
            last, limit = now, value
        return area / (end - begin)

    def limit_at(self, when: float) -> int:
        """Give the limit at a time."""
        return self.limits[max(0, bisect_right(self.limits, (when, 1 << 30)) - 1)][1]

    def reached(self, limit: int) -> float:
        """Say when the limit was first so high."""
        return next((time for time, value in self.limits if value >= limit), inf)


class Simulation:
    """Runs a client under a limiter against a server; deterministic for a seed."""

    def __init__(self, server: Server, limiter: Limiter, *, seed: int = 0) -> None:
        self.limiter = limiter
        self.trace = Trace(limits=[(0.0, limiter.limit)])
        self.now = 0.0
        self.demand = True
        # How far the clock that the limiter sees is off, from now on.
        self.offset = 0.0
        self._server = server
        self._slots = server.slots
        self._random = Random(seed)
        self._variance = log(1.0 + server.spread**2)
        self._events: list[tuple[float, int, int, float]] = []
        self._serial = 0
        self._in_flight = 0
        self._busy = 0
        self._waiting: list[float] = []
        self._next_waiting = 0
        # Of a sharing server: the service that each request has had since the start, and who ends at which.
        self._shared: list[tuple[float, int, float]] = []
        self._served = 0.0
        self._served_at = 0.0

    def run(self, until: float) -> Trace:
        """Go on until a time."""
        self._send()
        while True:
            step = self._next_event()
            if step > until:
                break
            self._happen()
        self.now = until
        return self.trace

    def resize(self, slots: float) -> None:
        """Change how many requests the server takes at once, now."""
        self._progress()
        self._slots = slots
        self._serve_waiting()

    # --- the client ---

    def _clock(self) -> float:
        return self.now + self.offset

    def _send(self) -> None:
        while self.demand and self._in_flight < self.limiter.limit:
            self._in_flight += 1
            self._arrive()

    def _answered(self, began: float) -> None:
        starved = not self.demand or self._in_flight < self.limiter.limit
        self._in_flight -= 1
        self.trace.answers.append(self.now)
        self.limiter.succeeded(began, self._clock(), starved)
        self._after()

    def _refused(self, began: float, *, overload: bool) -> None:
        self._in_flight -= 1
        if overload:
            self.trace.refusals.append(self.now)
        self.limiter.refused(began, self._clock())
        self._after()

    def _after(self) -> None:
        if self.limiter.limit != self.trace.limits[-1][1]:
            self.trace.limits.append((self.now, self.limiter.limit))
        self._send()

    # --- the server ---

    def _arrive(self) -> None:
        server, chance = self._server, self._random.random()
        if chance < server.flaky:
            self._at(self.now + REFUSAL_TIME * server.latency, _FLAKY, self._clock())
        elif chance < server.flaky + server.broken:
            self._at(self.now + REFUSAL_TIME * server.latency, _BROKEN, self._clock())
        elif server.sharing:
            self._progress()
            self._serial += 1
            heapq.heappush(self._shared, (self._served + self._duration(), self._serial, self._clock()))
        elif self._busy < self._slots:
            self._serve(self._clock())
        elif len(self._waiting) - self._next_waiting < server.queue:
            self._waiting.append(self._clock())
        else:
            self._at(self.now + REFUSAL_TIME * server.latency, _OVERLOAD, self._clock())

    def _serve(self, began: float) -> None:
        self._busy += 1
        self._at(self.now + self._duration(), _DONE, began)

    def _serve_waiting(self) -> None:
        while self._busy < self._slots and self._next_waiting < len(self._waiting):
            self._next_waiting += 1
            self._serve(self._waiting[self._next_waiting - 1])

    def _duration(self) -> float:
        if self._variance == 0.0:
            return self._server.latency
        return self._server.latency * exp(sqrt(self._variance) * self._random.gauss() - self._variance / 2.0)

    def _progress(self) -> None:
        if self._shared:
            self._served += (self.now - self._served_at) * min(1.0, self._slots / len(self._shared))
        self._served_at = self.now

    # --- events ---

    def _at(self, when: float, kind: int, began: float) -> None:
        self._serial += 1
        heapq.heappush(self._events, (when, self._serial, kind, began))

    def _end_of_shared(self) -> float:
        if not self._shared:
            return inf
        slowness = max(1.0, len(self._shared) / self._slots)
        return max(self.now, self._served_at + (self._shared[0][0] - self._served) * slowness)

    def _next_event(self) -> float:
        return min(self._events[0][0] if self._events else inf, self._end_of_shared())

    def _happen(self) -> None:
        shared = self._end_of_shared()
        if not self._events or shared < self._events[0][0]:
            self.now = shared
            self._progress()
            self._answered(heapq.heappop(self._shared)[2])
            return
        self.now, _, kind, began = heapq.heappop(self._events)
        if kind == _DONE:
            self._busy -= 1
            self._serve_waiting()
        if kind in (_DONE, _BROKEN):
            self._answered(began)
        else:
            self._refused(began, overload=kind == _OVERLOAD)


_DONE, _BROKEN, _OVERLOAD, _FLAKY = range(4)


@dataclass(frozen=True, kw_only=True)
class Steady:
    """What a limiter has made of a server after its start-up."""

    share: float  # of the throughput that the server is capable of
    refused: float  # share of requests refused for overload
    limit: float


def steady(server: Server, *, start: int = 8, cap: int = 512, seed: int = 0) -> Steady:
    """Let a limiter find out about a server, and measure from then on."""
    begin = server.latency * (100.0 + 1_000.0 / server.slots)
    end = begin + server.latency * max(150.0, 4_000.0 / server.slots)
    trace = Simulation(server, Limiter(start=start, cap=cap), seed=seed).run(end)
    return Steady(
        share=trace.throughput(begin, end) / (min(server.slots, cap) / server.latency),
        refused=trace.refused(begin, end),
        limit=trace.mean_limit(begin, end),
    )


def _count(times: Sequence[float], begin: float, end: float) -> int:
    return bisect_right(times, end) - bisect_right(times, begin)
