"""What is done with several batches or files at once: a page that says what it means, then the deed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from overnight.domain.errors import Conflict, NotFound
from overnight.domain.ids import BatchId, FileId
from overnight.studio import view_models
from overnight.studio.excerpt import visible
from overnight.studio.pages import shell_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.requests import Request
    from starlette.responses import Response

    from overnight.domain.ids import ResourceId
    from overnight.studio.context import Parts
    from overnight.studio.pages import Frame
    from overnight.studio.session import Sessions

MOST = 50


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A question before a deed: ``names`` are what it is done to, each with its id; ``left_out`` says what is not."""

    title: str
    consequence: str
    action: str
    word: str
    back: str
    names: tuple[tuple[str, str], ...]
    left_out: str


class Bulk:
    """Cancels batches and deletes files that were ticked in a list."""

    def __init__(self, parts: Parts, sessions: Sessions, frame: Frame) -> None:
        self._parts = parts
        self._sessions = sessions
        self._frame = frame
        self._home = f"{parts.root}/studio"

    async def ask_to_cancel(self, request: Request) -> Response:
        visitor = await self._sessions.visitor(request)
        chosen = _ids(request.query_params.getlist("id"))
        names: list[tuple[str, str]] = []
        for each in chosen:
            try:
                batch = await self._parts.batches.get(visitor.caller.resource, BatchId(each))
            except NotFound:
                continue
            if not batch.ended and batch.cancelling_at is None:
                names.append((batch.id, view_models.name_of(batch)))
        asked = Asked(
            title=f"Cancel {_counted(len(names), 'batch', 'batches')}?",
            consequence="No further request is sent for them; the running requests get a moment to finish, and every"
            " result so far is kept. This cannot be undone.",
            action=f"{self._home}/batches/cancel",
            word=f"Cancel {_counted(len(names), 'batch', 'batches')}",
            back=f"{self._home}/batches",
            names=tuple(names),
            left_out=_left_out(len(chosen) - len(names), "ended already, or is being cancelled, or is gone"),
        )
        return await self._frame.page(
            request, "bulk.html", shell_for(visitor, "Cancel batches", "batches"), asked=asked
        )

    async def ask_to_delete(self, request: Request) -> Response:
        visitor = await self._sessions.visitor(request)
        chosen = _ids(request.query_params.getlist("id"))
        names: list[tuple[str, str]] = []
        for each in chosen:
            try:
                file = await self._parts.files.get(visitor.caller.resource, FileId(each))
            except NotFound:
                continue
            names.append((file.id, visible(file.filename)))
        asked = Asked(
            title=f"Delete {_counted(len(names), 'file', 'files')}?",
            consequence="They are gone for good. A batch that is reading one goes on to its end; ended batches keep"
            " their results, but can no longer be repeated from a deleted input.",
            action=f"{self._home}/files/delete",
            word=f"Delete {_counted(len(names), 'file', 'files')}",
            back=f"{self._home}/files",
            names=tuple(names),
            left_out=_left_out(len(chosen) - len(names), "is gone already"),
        )
        return await self._frame.page(request, "bulk.html", shell_for(visitor, "Delete files", "files"), asked=asked)

    async def cancel(self, resource: ResourceId, ids: Sequence[str]) -> None:
        """Cancel batches; those that have ended meanwhile, or are gone, are what was wanted."""
        for each in _ids(ids):
            try:
                await self._parts.batches.cancel(resource, BatchId(each))
            except (NotFound, Conflict):
                continue

    async def delete(self, resource: ResourceId, ids: Sequence[str]) -> None:
        """Delete files; fine for those that are gone."""
        for each in _ids(ids):
            try:
                await self._parts.files.delete(resource, FileId(each))
            except NotFound:
                continue


def _ids(given: Sequence[str]) -> list[str]:
    """Give each id once, and no more than a page of a list holds."""
    return list(dict.fromkeys(given))[:MOST]


def _counted(count: int, one: str, many: str) -> str:
    return f"{count:,} {one if count == 1 else many}"


def _left_out(count: int, why: str) -> str:
    return f"{count:,} of what was chosen {why}, and is left out." if count else ""
