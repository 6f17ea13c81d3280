"""Live parts of pages: rendered once a second for each topic, and sent to all who look at it."""

from __future__ import annotations

import asyncio
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from overnight.dispatch.dispatcher import safely
from overnight.domain.errors import ServiceError, Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence

    from overnight.domain.ids import ResourceId
    from overnight.ports.clock import Clock, Entropy

# In seconds.
_EVERY = 1.0
_SILENCE = 15.0
# A slow refresh makes the next one wait, so that looking never takes more than a quarter of the time.
_REST = 3.0
_MOST_STREAMS = 1_000
# One resource leaves room for others.
_MOST_OF_A_RESOURCE = 250
MOST_TOPICS = 16

_RELATIVE_TIMES = re.compile(rb"(<time\b[^>]*>)[^<]*")
_ALIVE = b": alive\n\n"


class Topic(msgspec.Struct, frozen=True):
    """What can be looked at: ``name`` is as the page asked for it."""

    resource: ResourceId
    name: str
    may_operate: bool = False


class _Fragment(msgspec.Struct, frozen=True):
    event: bytes
    essence: bytes
    tick: int


class _Subscription(msgspec.Struct, eq=False):
    resource: ResourceId
    topics: frozenset[Topic]
    changed: asyncio.Event
    # The newest state of each part: however slow the reader, no more than one page waits for it.
    waiting: dict[str, bytes]
    closed: bool = False


class Hub:
    """Knows who looks at what. ``render`` gives the parts of a topic as HTML by their ids."""

    def __init__(self, render: Callable[[Topic], Awaitable[Mapping[str, str]]], clock: Clock, entropy: Entropy) -> None:
        self._render = render
        self._clock = clock
        self._name = entropy.hex()[:8]
        self._tick = 0
        self._watched = asyncio.Event()
        self._subscriptions: set[_Subscription] = set()
        self._fragments: dict[Topic, dict[str, _Fragment]] = {}
        # What was said of those that cannot be shown now.
        self._failing: dict[Topic, bytes] = {}
        self._ended = False

    async def keep_live(self) -> None:
        """Refresh what is looked at until cancelled; then every stream ends."""
        try:
            while True:
                await self._watched.wait()
                began = self._clock.ticks()
                await self.refresh()
                took = self._clock.ticks() - began
                await self._clock.sleep(max(_EVERY - took, _REST * took))
        finally:
            self._ended = True
            for subscription in self._subscriptions:
                subscription.closed = True
                subscription.changed.set()

    async def refresh(self) -> None:
        """Render every topic that somebody looks at, once, and hand out what has changed."""
        watched = {topic for subscription in self._subscriptions for topic in subscription.topics}
        for topic in watched:
            # The service goes on whatever one part meets.
            if not await safely("live parts", self._refresh(topic)):
                self._stale(topic, "This cannot be shown now. The log of the service tells more.")

    async def _refresh(self, topic: Topic) -> None:
        try:
            parts = await self._render(topic)
        except ServiceError as error:
            self._stale(topic, error.message)
            return
        if not self._looked_at(topic):
            return
        news = self._take(topic, parts)
        if self._failing.pop(topic, None) is not None:
            news[f"stale:{topic.name}"] = _named("fresh", "")
        if news:
            self._hand_out(topic, news)

    def _looked_at(self, topic: Topic) -> bool:
        """Ask it before anything is kept: whoever looked may have gone while the topic was rendered."""
        return any(topic in subscription.topics for subscription in self._subscriptions)

    def _stale(self, topic: Topic, message: str) -> None:
        if topic not in self._failing and self._looked_at(topic):
            event = self._failing[topic] = _named("stale", message)
            self._hand_out(topic, {f"stale:{topic.name}": event})

    def _take(self, topic: Topic, parts: Mapping[str, str]) -> dict[str, bytes]:
        # Each topic has ticks of its own: a reader may go when only some of its topics are done.
        self._tick += 1
        known = self._fragments.setdefault(topic, {})
        for gone in known.keys() - parts.keys():
            del known[gone]
        news: dict[str, bytes] = {}
        for part_id, html in parts.items():
            event = _partial(part_id, html, f"{self._name}-{self._tick}")
            # Browsers keep relative times up to date by themselves.
            essence = _RELATIVE_TIMES.sub(rb"\1", html.encode())
            before = known.get(part_id)
            if before is None or before.essence != essence:
                known[part_id] = _Fragment(event, essence, self._tick)
                news[part_id] = event
        return news

    def _hand_out(self, topic: Topic, news: Mapping[str, bytes]) -> None:
        for subscription in self._subscriptions:
            if topic in subscription.topics:
                # Behind what waits already: the last id that a reader got speaks for all before it.
                for part_id in news:
                    subscription.waiting.pop(part_id, None)
                subscription.waiting |= news
                subscription.changed.set()

    def check_room(self, resource: ResourceId) -> None:
        """Raise ``Unavailable`` if nobody else of a resource can look: too many do, or the service stops."""
        own = sum(subscription.resource == resource for subscription in self._subscriptions)
        if self._ended or own >= _MOST_OF_A_RESOURCE or len(self._subscriptions) >= _MOST_STREAMS:
            raise Unavailable("No more live updates can be given now. The page still works; load it again to see more.")

    @contextmanager
    def subscribed(self, topics: Sequence[Topic], last_event_id: str = "") -> Iterator[_Subscription]:
        """Look at some topics; what changed behind ``last_event_id`` waits already, everything without it.

        Raises:
            Unavailable: too many look at once, or the service stops.
        """
        resource = topics[0].resource
        self.check_room(resource)
        subscription = _Subscription(resource, frozenset(topics), asyncio.Event(), self._since(topics, last_event_id))
        if subscription.waiting:
            subscription.changed.set()
        self._subscriptions.add(subscription)
        self._watched.set()
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)
            self._forget(subscription.topics)
            if not self._subscriptions:
                self._watched.clear()

    def _forget(self, topics: frozenset[Topic]) -> None:
        """Keep nothing of what nobody looks at any more: it would be older than the page of whoever comes next."""
        for topic in topics.difference(*(subscription.topics for subscription in self._subscriptions)):
            self._fragments.pop(topic, None)
            self._failing.pop(topic, None)

    def _since(self, topics: Sequence[Topic], last_event_id: str) -> dict[str, bytes]:
        name, _, number = last_event_id.partition("-")
        seen = int(number) if name == self._name and number.isdecimal() and len(number) < 18 else -1  # noqa: PLR2004 - no tick has more digits
        missed = {
            part_id: fragment.event
            for topic in topics
            for part_id, fragment in self._fragments.get(topic, {}).items()
            if fragment.tick > seen
        }
        stale = {f"stale:{topic.name}": self._failing[topic] for topic in topics if topic in self._failing}
        return missed | stale

    async def stream(
        self, topics: Sequence[Topic], last_event_id: str, allowed: Callable[[], Awaitable[bool]]
    ) -> AsyncIterator[bytes]:
        """Give events until the reader goes, the service stops, or whoever looks is no longer ``allowed`` to."""
        with self.subscribed(topics, last_event_id) as subscription:
            yield _ALIVE
            while not subscription.closed:
                changed = await self._clock.wait(subscription.changed, _SILENCE)
                if not await allowed():
                    return
                subscription.changed.clear()
                waiting, subscription.waiting = subscription.waiting, {}
                yield b"".join(waiting.values()) if changed else _ALIVE


def _partial(part_id: str, html: str, event_id: str) -> bytes:
    body = f'<hx-partial hx-target="#{part_id}" hx-swap="outerMorph">{html}</hx-partial>'
    return _event(f"id: {event_id}\n", body)


def _named(name: str, text: str) -> bytes:
    return _event(f"event: {name}\n", text)


def _event(head: str, text: str) -> bytes:
    lines = "".join(f"data: {line}\n" for line in text.splitlines() or [""])
    return f"{head}{lines}\n".encode()
