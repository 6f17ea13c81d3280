"""Live parts of pages: the same templates as on the whole page, one part at a time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from overnight.domain.errors import InvalidRequest
from overnight.domain.ids import BatchId
from overnight.studio.events import MOST_TOPICS, Topic
from overnight.studio.looking import PAGE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from overnight.studio.looking import Looking
    from overnight.studio.session import Visitor
    from overnight.studio.templating import Templates
    from overnight.studio.view_models import BatchRow

_PLAIN = frozenset({"overview", "batches", "upstreams", "allowance"})
_OF_BATCHES = ("batch:", "inside:", "rows:")


class LiveParts:
    """Renders the parts of a topic by their ids; no token and nothing of one visitor is in them."""

    def __init__(self, looking: Looking, templates: Templates) -> None:
        self._looking = looking
        self._templates = templates

    async def render(self, topic: Topic) -> Mapping[str, str]:
        """Render all that a topic keeps up to date; the event loop goes on meanwhile. Raises ``ServiceError``."""
        kind, _, named = topic.name.partition(":")
        match kind:
            case "batch":
                return await self._batch(topic, BatchId(named))
            case "inside":
                return await self._inside(topic, BatchId(named))
            case "rows":
                ids = [BatchId(each) for each in named.split(".")[:PAGE]]
                return await asyncio.to_thread(self._render_rows, await self._looking.rows(topic.resource, ids))
            case "batches":
                return await self._newest(topic)
            case "upstreams":
                rows = self._looking.upstreams(may_operate=topic.may_operate)
                return await self._parts({"upstream-list": "upstream_list"}, rows=rows)
            case "allowance":
                allowance = await self._looking.allowance(topic.resource)
                return await self._parts({"allowance": "allowance"}, allowance=allowance)
        overview = await self._looking.overview(topic.resource, may_operate=topic.may_operate)
        parts = await self._parts({name: name for name in ("cards", "active", "strip", "events")}, overview=overview)
        return parts if overview.empty else {**parts, "start": '<div id="start"></div>'}

    async def _batch(self, topic: Topic, batch_id: BatchId) -> Mapping[str, str]:
        _, detail = await self._looking.batch(topic.resource, batch_id)
        names = {"batch-state": "batch_state", "batch-numbers": "batch_numbers"}
        return await self._parts(names, detail=detail)

    async def _inside(self, topic: Topic, batch_id: BatchId) -> Mapping[str, str]:
        batch, _ = await self._looking.batch(topic.resource, batch_id)
        inside = await self._looking.inside(batch)
        return await self._parts({name: name for name in ("failures", "tail")}, inside=inside)

    async def _newest(self, topic: Topic) -> Mapping[str, str]:
        rows = await self._looking.newest(topic.resource)
        parts = await asyncio.to_thread(self._render_rows, rows)
        return parts | await self._parts({"newest": "newest"}, ids=[row.id for row in rows])

    def _render_rows(self, rows: Sequence[BatchRow]) -> dict[str, str]:
        return {f"row-{row.id}": self._templates.render("parts/batch_row.html", row=row, pick=True) for row in rows}

    async def _parts(self, names: Mapping[str, str], **models: object) -> dict[str, str]:
        """Render parts: ``names`` are those of their templates by their ids."""
        return await asyncio.to_thread(self._render_parts, names, models)

    def _render_parts(self, names: Mapping[str, str], models: Mapping[str, object]) -> dict[str, str]:
        return {part_id: self._templates.render(f"parts/{name}.html", **models) for part_id, name in names.items()}


def topics_of(text: str, visitor: Visitor) -> list[Topic]:
    """Read which topics a page asks for. Raises ``InvalidRequest``."""
    names = [name for name in text.split(",") if name]
    known = all(name in _PLAIN or name.startswith(_OF_BATCHES) for name in names)
    if not names or len(names) > MOST_TOPICS or not known:
        raise InvalidRequest("There is no such live part.", param="topics")
    caller = visitor.caller
    return [Topic(caller.resource, name, caller.may_operate) for name in names]
