"""What can be done with many batches or files: to which, what follows, and how one of them is done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

from overnight.domain.errors import InvalidRequest, NotFound
from overnight.domain.ids import BatchId, FileId
from overnight.domain.listing import BatchQuery
from overnight.services.files import FileQuery
from overnight.services.retry import RETRY_OF, NewRetry
from overnight.studio import filters, view_models
from overnight.studio.excerpt import visible

if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Set as AbstractSet

    from overnight.domain.batch import Batch
    from overnight.domain.file import File
    from overnight.domain.ids import ResourceId
    from overnight.services.batches import BatchService
    from overnight.studio.context import Parts

_AT_ONCE = 100
# How far one question looks.
LOOKED_AT = 10_000
_VIEWS = frozenset({"all", "active", "attention"})


class Words(msgspec.Struct, frozen=True, kw_only=True):
    """What pages say of a deed; ``older`` tells how to reach what is beyond its bound."""

    title: str
    verb: str
    past: str
    one: str
    many: str
    consequence: str
    keep: str
    older: str
    danger: bool = True


class Thing(msgspec.Struct, frozen=True, kw_only=True):
    """A batch or a file; ``why`` says what is against the deed."""

    id: str
    name: str
    why: str = ""


class Piece(msgspec.Struct, frozen=True, kw_only=True):
    """Some of what a filter finds; ``looked`` is how much was looked at, ``after`` where to go on."""

    things: tuple[Thing, ...]
    looked: int
    after: str | None


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """A batch that a deed made."""

    id: str
    name: str
    of: str


class Deed(Protocol):
    """One deed; no more than ``most`` things at once. ``section`` is where its list is."""

    words: Words
    section: str
    name: str
    most: int

    async def find(self, resource: ResourceId, thing_id: str) -> Thing:
        """Say what a thing is, and whether the deed can be done. Raises ``NotFound``."""

    async def matching(self, resource: ResourceId, wanted: Mapping[str, str], after: str | None) -> Piece:
        """Look at some of what a list shows. Raises ``InvalidRequest`` for a filter that is not understood."""

    async def do(self, resource: ResourceId, thing_id: str, once: str) -> Made | None:
        """Do it; the same ``once`` makes nothing a second time. Raises ``ServiceError``, and ``StorageFull``."""

    async def look(self, resource: ResourceId, thing_id: str) -> Thing:
        """Do as ``find``, but say it of a thing that is gone, too; one of another resource is."""
        try:
            return await self.find(resource, thing_id)
        except NotFound:
            return Thing(id=thing_id, name=thing_id, why="gone already")

    async def done_before(self, resource: ResourceId) -> AbstractSet[str]:
        """Give the ids of what a filter shall not find again, because the deed leaves it as it was."""
        del resource
        return frozenset()


class Cancel(Deed):
    """Cancels batches."""

    section, name, most = "batches", "cancel", 1_000
    words = Words(
        title="Cancel batches",
        verb="Cancel",
        past="Cancelled",
        one="batch",
        many="batches",
        consequence="No further request is sent for them; the running requests get a moment to finish, and every"
        " result so far is kept. This cannot be undone.",
        keep="Keep them",
        older="Do it again for the others.",
    )

    def __init__(self, parts: Parts) -> None:
        self._batches = parts.batches

    async def find(self, resource: ResourceId, thing_id: str) -> Thing:
        return self._thing(await self._batches.get(resource, BatchId(thing_id)))

    async def matching(self, resource: ResourceId, wanted: Mapping[str, str], after: str | None) -> Piece:
        found, looked, cursor = await _matching(self._batches, resource, wanted, after)
        return Piece(things=tuple(self._thing(batch) for batch in found), looked=looked, after=cursor)

    async def do(self, resource: ResourceId, thing_id: str, once: str) -> None:
        del once
        await self._batches.cancel(resource, BatchId(thing_id))

    def _thing(self, batch: Batch) -> Thing:
        stopping = "being cancelled already" if batch.cancelling_at is not None else ""
        return _thing_of(batch, "ended already" if batch.ended else stopping)


class Retry(Deed):
    """Runs the failed requests of batches again, each batch as a new one."""

    section, name, most = "batches", "retry", 200
    words = Words(
        title="Retry batches",
        verb="Retry",
        past="Retried",
        one="batch",
        many="batches",
        consequence="The failed requests of each of them are copied into a new file, and one new batch each is made"
        " of it, with the same endpoint and metadata. The old batches stay as they are.",
        keep="Not now",
        older="Add a created:< to the filter for older ones.",
        danger=False,
    )

    def __init__(self, parts: Parts) -> None:
        self._batches = parts.batches
        self._files = parts.files
        self._retries = parts.retries

    async def find(self, resource: ResourceId, thing_id: str) -> Thing:
        return await self._thing(await self._batches.get(resource, BatchId(thing_id)))

    async def matching(self, resource: ResourceId, wanted: Mapping[str, str], after: str | None) -> Piece:
        found, looked, cursor = await _matching(self._batches, resource, wanted, after)
        return Piece(things=tuple([await self._thing(batch) for batch in found]), looked=looked, after=cursor)

    async def done_before(self, resource: ResourceId) -> AbstractSet[str]:
        """Read it from the metadata of the newest batches: who asks twice does not get everything twice."""
        retried: set[str] = set()
        looked, cursor = 0, None
        while looked < LOOKED_AT:
            page = await self._batches.page(resource, BatchQuery(after=cursor, limit=_AT_ONCE))
            retried.update((batch.metadata or {}).get(RETRY_OF, "") for batch in page.items)
            if not page.has_more:
                break
            looked, cursor = looked + len(page.items), page.items[-1].id
        return retried

    async def do(self, resource: ResourceId, thing_id: str, once: str) -> Made:
        new = NewRetry(idempotency_key=f"{once}:{thing_id}" if once else None)
        batch = await self._retries.retry(resource, BatchId(thing_id), new)
        return Made(id=batch.id, name=view_models.name_of(batch), of=thing_id)

    async def _thing(self, batch: Batch) -> Thing:
        if not batch.ended:
            return _thing_of(batch, "not ended yet")
        if not batch.accepted:
            return _thing_of(batch, "none of its requests was accepted")
        if not batch.failed:
            return _thing_of(batch, "no request failed")
        try:
            await self._files.get(batch.resource, batch.input_file_id)
        except NotFound:
            return _thing_of(batch, "the input file is gone")
        return _thing_of(batch)


class Delete(Deed):
    """Deletes files."""

    section, name, most = "files", "delete", 1_000
    words = Words(
        title="Delete files",
        verb="Delete",
        past="Deleted",
        one="file",
        many="files",
        consequence="They are gone for good. A batch that is reading one goes on to its end; ended batches keep"
        " their results, but can no longer be repeated from a deleted input.",
        keep="Keep them",
        older="Do it again for the others.",
    )

    def __init__(self, parts: Parts) -> None:
        self._files = parts.files

    async def find(self, resource: ResourceId, thing_id: str) -> Thing:
        return _thing_of_file(await self._files.get(resource, FileId(thing_id)))

    async def matching(self, resource: ResourceId, wanted: Mapping[str, str], after: str | None) -> Piece:
        cursor = None if after is None else FileId(after)
        query = FileQuery(after=cursor, limit=_AT_ONCE, purpose=wanted.get("purpose") or None)
        page = await self._files.page(resource, query)
        things = tuple(_thing_of_file(file) for file in page.items)
        return Piece(things=things, looked=len(things), after=things[-1].id if page.has_more else None)

    async def do(self, resource: ResourceId, thing_id: str, once: str) -> None:
        del once
        await self._files.delete(resource, FileId(thing_id))


async def _matching(
    batches: BatchService, resource: ResourceId, wanted: Mapping[str, str], after: str | None
) -> tuple[list[Batch], int, str | None]:
    """Give the batches of one look that match, how many were looked at, and where to go on."""
    text, view = wanted.get("q", ""), wanted.get("view") or "all"
    found = filters.parse(text, view)
    # A part that does not count would make the filter wider than whoever wrote it thinks.
    if found.problem or len(text) > filters.MOST_CHARS or view not in _VIEWS:
        why = found.problem or f"It has more than {filters.MOST_CHARS} characters, or an unknown view."
        message = f"Nothing is done with a filter that is not understood in full. {why}"
        raise InvalidRequest(message, param="q")
    cursor = None if after is None else BatchId(after)
    page = await batches.page(resource, BatchQuery(after=cursor, limit=_AT_ONCE, conditions=found.conditions))
    matching = [batch for batch in page.items if found.matches(batch)]
    return matching, len(page.items), page.items[-1].id if page.has_more else None


def _thing_of(batch: Batch, why: str = "") -> Thing:
    return Thing(id=batch.id, name=view_models.name_of(batch), why=why)


def _thing_of_file(file: File) -> Thing:
    return Thing(id=file.id, name=visible(file.filename))
