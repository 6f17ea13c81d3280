"""What pages and live parts show, read through the use cases and put into view models."""

from __future__ import annotations

from contextlib import suppress
from heapq import nlargest
from typing import TYPE_CHECKING

import msgspec

from overnight.domain.batch import Batch, BatchStatus
from overnight.domain.cap import Period, days_of
from overnight.domain.errors import Conflict, NotFound
from overnight.domain.ids import BatchId
from overnight.domain.limits import WINDOW_SECONDS
from overnight.domain.listing import BatchQuery
from overnight.services.usage import UsageQuery
from overnight.studio import dashboard, view_models
from overnight.studio.filters import ENDED, UNENDED
from overnight.studio.inside import NEWEST, Inside, inside_of, list_of, list_to_come
from overnight.studio.pace import Paces
from overnight.studio.view_models import BatchRow, Moment, Pace, Progress, Step

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from overnight.domain.ids import ResourceId
    from overnight.domain.listing import Condition
    from overnight.ports.batches import Page
    from overnight.studio.context import Parts
    from overnight.studio.dashboard import Allowance, UpstreamRow
    from overnight.studio.filters import Filter
    from overnight.studio.inside import RequestList, Wanted

PAGE = 50
# How many batches a search looks at, and an overview counts.
_SCANNED = 1_000
_COUNTED = 100
_EVENTS = 10
_DAY = 86_400
# How the cursors of a list with the active batches first begin.
_ACTIVE, _OTHERS = "active:", "others:"


class BatchList(msgspec.Struct, frozen=True, kw_only=True):
    """A page of batches; ``after`` is the cursor of the next one. ``bound`` says where a search stopped looking."""

    rows: tuple[BatchRow, ...]
    after: str | None
    bound: str = ""


class BatchDetail(msgspec.Struct, frozen=True, kw_only=True):
    """Everything of a batch that changes while it runs; ``title`` is the title of its page."""

    row: BatchRow
    title: str
    state: str
    progress: Progress
    steps: tuple[Step, ...]
    expires: Moment | None
    numbers: tuple[tuple[str, str], ...]
    problems: tuple[tuple[str, str, str], ...]
    cancellable: bool
    failed: int
    charted: bool


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """A number of the overview, and where it leads."""

    name: str
    value: str
    note: str
    url: str
    tone: str


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened to a batch."""

    moment: Moment
    icon: str
    tone: str
    text: str
    name: str
    url: str


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """What needs whoever looks, and whether all is well."""

    cards: tuple[Card, ...]
    active: tuple[BatchRow, ...]
    upstreams: tuple[UpstreamRow, ...]
    events: tuple[Event, ...]
    empty: bool
    problem: str


class Looking:
    """Reads for one visitor at a time; what it notes is how fast batches get on."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.paces = Paces()

    async def rows(self, resource: ResourceId, ids: Sequence[BatchId]) -> list[BatchRow]:
        """Give batches for a list; those that are gone are left out."""
        found = []
        for batch_id in ids:
            with suppress(NotFound):
                found.append(self._row(await self._parts.batches.get(resource, batch_id)))
        return found

    async def newest(self, resource: ResourceId) -> Sequence[BatchRow]:
        """Give the newest batches."""
        page = await self._parts.batches.page(resource, BatchQuery(limit=_COUNTED))
        return [self._row(batch) for batch in page.items]

    async def batches(self, resource: ResourceId, wanted: Filter, after: str | None) -> BatchList:
        """Give a page of the batches that are wanted, newest first. Raises ``InvalidRequest`` for its cursor."""
        rows: list[BatchRow] = []
        scanned = 0
        for part, conditions in _parts_from(wanted, after):
            cursor, more = _within(part, after), True
            while more and len(rows) < PAGE and scanned < _SCANNED:
                query = BatchQuery(after=_cursor(cursor), limit=PAGE, conditions=(*wanted.conditions, *conditions))
                page = await self._parts.batches.page(resource, query)
                more = page.has_more
                for batch in page.items:
                    scanned, cursor = scanned + 1, batch.id
                    if wanted.matches(batch):
                        rows.append(self._row(batch))
                    if len(rows) == PAGE:
                        more = more or batch is not page.items[-1]
                        break
            if more:
                stopped = len(rows) < PAGE
                bound = f"Looked at {scanned:,} batches so far; go on to look at older ones." if stopped else ""
                return BatchList(rows=tuple(rows), after=f"{part}{cursor or ''}", bound=bound)
        return BatchList(rows=tuple(rows), after=None)

    async def batch(self, resource: ResourceId, batch_id: BatchId) -> tuple[Batch, BatchDetail]:
        """Give a batch with what its page shows. Raises ``NotFound``."""
        batch = await self._parts.batches.get(resource, batch_id)
        now = self._parts.clock.now()
        pace, obstacle = self.paces.see(batch, now), self._obstacle(batch)
        return batch, detail_of(batch, now, self._parts.root, pace=pace, obstacle=obstacle)

    def home(self, batch: Batch) -> str:
        """Give the address of the page of a batch."""
        return f"{self._parts.root}/studio/batches/{batch.id}"

    async def inside(self, batch: Batch) -> Inside:
        """Give why requests of a batch failed, and what came last. Raises ``NotFound``."""
        read, home = self._parts.requests, self.home(batch)
        try:
            groups = await read.failures(batch.resource, batch.id)
            newest = await read.newest(batch.resource, batch.id, NEWEST)
        except Conflict as error:
            return Inside(problem=error.message, running=not batch.ended)
        return inside_of(groups, newest, batch, home)

    async def requests(self, batch: Batch, wanted: Wanted) -> RequestList:
        """Give a page of the requests of a batch. Raises ``NotFound``."""
        home = self.home(batch)
        if batch.status == BatchStatus.VALIDATING:
            return list_to_come(batch, wanted, home)
        try:
            page = await self._parts.requests.page(batch.resource, batch.id, wanted.query())
        except Conflict as error:
            return list_of(None, wanted, home, error.message)
        return list_of(page, wanted, home)

    async def overview(self, resource: ResourceId, *, may_operate: bool) -> Overview:
        """Give what the first page shows."""
        now = self._parts.clock.now()
        recent = await self._parts.batches.page(resource, BatchQuery(limit=_COUNTED))
        active = await self._parts.batches.page(resource, BatchQuery(limit=_COUNTED, conditions=UNENDED))
        rows = [self._row(batch) for batch in active.items]
        known = {batch.id: batch for batch in (*recent.items, *active.items)}
        return Overview(
            cards=_cards(recent, active, self._parts.root, now),
            active=tuple(rows[:5]),
            upstreams=self.upstreams(may_operate=may_operate),
            events=_events(known.values(), now, self._parts.root),
            empty=not recent.items,
            problem=await self._parts.problem() or "",
        )

    def upstreams(self, *, may_operate: bool) -> tuple[UpstreamRow, ...]:
        """Give all upstreams; where they are is for operators."""
        return tuple(
            dashboard.upstream_row(number, each.health, each.models, each.activity, may_operate=may_operate)
            for number, each in enumerate(self._parts.upstreams.reports())
        )

    async def allowance(self, resource: ResourceId) -> Allowance:
        """Give what a resource may still use, and what it used today and this month."""
        days = days_of(Period.MONTH, self._parts.clock.now())
        report = await self._parts.usage.report(resource, UsageQuery(first=days.first, last=days.last))
        return dashboard.allowance(await self._parts.quotas.states(resource), report)

    def _row(self, batch: Batch) -> BatchRow:
        now = self._parts.clock.now()
        pace = self.paces.see(batch, now)
        return view_models.batch_row(batch, now, self._parts.root, pace, self._obstacle(batch))

    def _obstacle(self, batch: Batch) -> str | None:
        """Say what keeps a batch from going on now."""
        if batch.status != BatchStatus.IN_PROGRESS:
            return None
        trouble = next((each for each in self._parts.troubles() if each.batch_id == batch.id), None)
        if trouble is not None:
            return f"Its results cannot be stored: {trouble.problem}"
        name = batch.deployment or batch.model
        deployment = None if name is None else self._parts.deployments.known().find(name)
        if deployment is None:
            return f"No upstream serves {name} now" if name else None
        health = {state.name: state for state in self._parts.upstreams.health()}
        states = [health[upstream] for upstream in deployment.upstreams if upstream in health]
        problems = ["it is paused" if state.paused else state.problem for state in states]
        if problems and all(problems):
            return f"No upstream serves {name} now: {problems[0]}"
        return None


def detail_of(
    batch: Batch,
    now: float,
    root: str,
    *,
    pace: Pace,
    obstacle: str | None,
) -> BatchDetail:
    """Put everything of a batch that changes into what its page shows."""
    row = view_models.batch_row(batch, now, root, pace, obstacle)
    share = f"{row.progress.percent} % · " if batch.status == BatchStatus.IN_PROGRESS else ""
    return BatchDetail(
        row=row,
        title=f"{share}{row.badge.word} · {row.name}",
        state=row.badge.word,
        progress=row.progress,
        steps=view_models.timeline(batch, now),
        expires=None if batch.ended else view_models.moment(batch.expires_at, now),
        numbers=view_models.numbers(batch, now, pace),
        problems=view_models.problems(batch),
        cancellable=not batch.ended and batch.status != BatchStatus.CANCELLING,
        failed=batch.failed,
        charted=not batch.ended or batch.completed + batch.failed > 0,
    )


def _parts_from(wanted: Filter, after: str | None) -> Sequence[tuple[str, Sequence[Condition]]]:
    """Give the parts of a list that are still to come: how their cursors begin, and which batches are in them."""
    if not wanted.active_first:
        return (("", ()),)
    parts = ((_ACTIVE, UNENDED), (_OTHERS, ENDED))
    return parts[1:] if after is not None and after.startswith(_OTHERS) else parts


def _within(part: str, after: str | None) -> str | None:
    """Give the batch behind which a part of a list goes on, if a cursor names one."""
    return after.removeprefix(part) or None if after is not None and after.startswith(part) else None


def _cursor(after: str | None) -> BatchId | None:
    return None if after is None else BatchId(after)


def _cards(recent: Page[Batch], active: Page[Batch], root: str, now: float) -> tuple[Card, ...]:
    today = [batch for batch in recent.items if (view_models.ended_at(batch) or 0) >= now - _DAY]
    attention = [batch for batch in today if view_models.badge(batch).tone in {"warning", "danger"}]
    completed = [batch for batch in today if batch.status == BatchStatus.COMPLETED]
    queued = sum(max(0, batch.total - batch.completed - batch.failed) for batch in active.items)
    batches = f"{root}/studio/batches"
    more = "+" if active.has_more else ""
    # Only the newest are looked at. What else ended lately is older than those; most batches end within their window.
    short = recent.has_more and recent.items[-1].created_at >= now - _DAY - WINDOW_SECONDS
    at_least, among = ("+", f", among the newest {_COUNTED}") if short else ("", "")
    when = f"in the last 24 hours{among}"
    return (
        Card(
            name="Active",
            value=f"{len(active.items):,}{more}",
            note="batches under way",
            url=f"{batches}?view=active",
            tone="info",
        ),
        Card(
            name="Needs attention",
            value=f"{len(attention):,}{at_least}",
            note=when,
            url=f"{batches}?view=attention",
            tone="warning" if attention else "neutral",
        ),
        Card(
            name="Completed",
            value=f"{len(completed):,}{at_least}",
            note=when,
            url=f"{batches}?q=status%3Acompleted",
            tone="success",
        ),
        Card(
            name="Queued requests",
            value=f"{queued:,}{more}",
            note="not yet answered",
            url=f"{batches}?view=active",
            tone="neutral",
        ),
    )


def _events(batches: Iterable[Batch], now: float, root: str) -> tuple[Event, ...]:
    """Give what happened last, newest first."""
    happened = [
        (at, place, batch)
        for batch in batches
        for place, at in enumerate((batch.created_at, batch.in_progress_at, view_models.ended_at(batch)))
        if at is not None
    ]
    newest = nlargest(_EVENTS, happened, key=lambda each: each[:2])
    return tuple(_event(at, place, batch, now, root) for at, place, batch in newest)


def _event(at: int, place: int, batch: Batch, now: float, root: str) -> Event:
    final = view_models.badge(batch)
    kinds = (("○", "neutral", "created"), ("◐", "info", "started"), (final.icon, final.tone, final.word.lower()))
    icon, tone, text = kinds[place]
    return Event(
        moment=view_models.moment(at, now),
        icon=icon,
        tone=tone,
        text=text,
        name=view_models.name_of(batch),
        url=f"{root}/studio/batches/{batch.id}",
    )
