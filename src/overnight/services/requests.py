"""Looking into a batch, while it runs and afterwards: its requests, why some failed, and its newest results."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import msgspec
import structlog

from overnight.domain.blob_keys import index_key, places_key
from overnight.domain.errors import Conflict, NotFound, Unavailable
from overnight.domain.places import DamagedPlaces, OtherPlaces, State, unpack
from overnight.domain.reason import ending
from overnight.domain.throughput import NO_THROUGHPUT, Throughput
from overnight.domain.trail import NO_TRAIL, Trail, decode_trail
from overnight.services.live import LiveView, LiveViews
from overnight.services.merged import merged_lines
from overnight.services.sheets import (
    EndedSheet,
    LiveSheet,
    RequestPage,
    RequestQuery,
    RequestRow,
    Sheet,
    find_before,
    find_line,
    find_next,
    read_page,
    read_row,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from overnight.domain.batch import Batch
    from overnight.domain.ids import BatchId, FileId, ResourceId
    from overnight.domain.places import Place, Reason
    from overnight.ports.batches import Batches
    from overnight.ports.blobs import Blobs
    from overnight.ports.clock import Clock
    from overnight.ports.files import Files
    from overnight.ports.results import ResultLogs

log = structlog.get_logger()

P = ParamSpec("P")
T = TypeVar("T")

PREVIEW_BYTES = 64 * 1024
"""So much of a line and of a result is shown unless all of it is asked for."""


class Preview(msgspec.Struct, frozen=True, kw_only=True):
    """The beginning of a line, or all of it; ``bytes`` is how long it is in all."""

    data: bytes
    bytes: int

    @property
    def truncated(self) -> bool:
        """Whether there is more."""
        return len(self.data) < self.bytes


class RequestDetail(msgspec.Struct, frozen=True, kw_only=True):
    """One request. ``asked`` is its line, ``got`` its result, each ``None`` where there is none or none any more.

    ``trail`` is what was tried before it ended; it is empty while it waits.
    """

    row: RequestRow
    asked: Preview | None
    got: Preview | None
    trail: Trail = NO_TRAIL


class FailureGroup(msgspec.Struct, frozen=True, kw_only=True):
    """Requests without success for the same reason, at one upstream; empty where no attempt was made, or at too many.

    What is known of the first is empty once its files are gone.
    """

    state: State
    code: str
    count: int
    first_line: int
    first_custom_id: str = ""
    message: str = ""
    upstream: str = ""


class _Opened:
    """A sheet, and how to read the results that lie in the log of a batch that runs."""

    def __init__(self, sheet: Sheet, batch: Batch, view: LiveView | None, views: LiveViews) -> None:
        self.sheet = sheet
        self._batch = batch
        self._view = view
        self._views = views

    async def result(self, line: int, place: Place, most: int | None) -> bytes | None:
        """Read the result of a request or its beginning; ``None`` if it has none, or none any more."""
        length = place.length if most is None else min(place.length, most)
        if self._view is not None:
            return (
                None if place.state is State.WAITING else await self._views.read(self._batch, self._view, line, length)
            )
        span = self.sheet.result(place)
        return None if span is None else await asyncio.to_thread(span.read, length)

    async def trail(self, line: int, place: Place) -> Trail:
        """Read what was tried of a request."""
        data = b""
        if isinstance(self.sheet, EndedSheet):
            data = await asyncio.to_thread(self.sheet.trail(place).read)
        elif self._view is not None and place.trail_length:
            data = await self._views.trail(self._batch, self._view, line)
        return decode_trail(data)

    @property
    def newest(self) -> Sequence[int]:
        """The lines of the newest results, newest first; none for a batch that has ended."""
        return [] if self._view is None else list(self._view.newest)[::-1]


class RequestService:
    """The use cases of requests; every one raises ``NotFound`` for a batch that is unknown or foreign."""

    def __init__(self, batches: Batches, files: Files, blobs: Blobs, logs: ResultLogs, clock: Clock) -> None:
        self._batches = batches
        self._files = files
        self._blobs = blobs
        self._clock = clock
        self._views = LiveViews(logs, clock)

    async def page(self, resource: ResourceId, batch_id: BatchId, query: RequestQuery) -> RequestPage:
        """List requests in the order of the input. Raises ``Conflict`` if that is not known any more."""

        async def look(opened: _Opened) -> RequestPage:
            return await asyncio.to_thread(read_page, opened.sheet, query)

        nothing = RequestPage(rows=(), total=0, next_offset=None, searched=0)
        return await self._look(resource, batch_id, look, nothing)

    async def one(
        self, resource: ResourceId, batch_id: BatchId, custom_id: str, line: int | None = None, *, full: bool = False
    ) -> RequestDetail:
        """Give one request by its custom_id, or at once by its line, from 0; then an empty ``custom_id`` will do.

        Raises:
            NotFound: there is no such request.
            Conflict: where the requests lie is not known any more.
        """

        async def look(opened: _Opened) -> RequestDetail | None:
            number = line if line is not None else await _search(opened.sheet, custom_id)
            if number is None or not 0 <= number < opened.sheet.total:
                return None
            row, place = await asyncio.to_thread(read_row, opened.sheet, number)
            if custom_id and row.custom_id != custom_id:
                return None
            return await _detail(opened, row, place, None if full else PREVIEW_BYTES)

        found = await self._look(resource, batch_id, look, None)
        if found is None:
            what = f"'{custom_id}'" if line is None else f"in line {line}"
            message = f"The batch '{batch_id}' has no request {what}."
            raise NotFound(message, param="custom_id" if line is None else "line")
        return found

    async def neighbours(
        self, resource: ResourceId, batch_id: BatchId, query: RequestQuery, line: int
    ) -> tuple[int | None, int | None]:
        """Give the lines before and behind one to which the conditions of a query apply; ``None`` where there is none.

        A search by custom_id does not look beyond its bounds. Raises ``Conflict`` as ``page`` does.
        """

        async def look(opened: _Opened) -> tuple[int | None, int | None]:
            before = await asyncio.to_thread(find_before, opened.sheet, query, line)
            return before, await asyncio.to_thread(find_next, opened.sheet, query, line)

        return await self._look(resource, batch_id, look, (None, None))

    async def failures(self, resource: ResourceId, batch_id: BatchId) -> Sequence[FailureGroup]:
        """Group the requests without success by their reason, the most frequent first. Raises ``Conflict``."""

        async def look(opened: _Opened) -> Sequence[FailureGroup]:
            most_first = sorted(opened.sheet.reasons, key=lambda each: -each.count)
            return [await _group(opened, reason) for reason in most_first]

        return await self._look(resource, batch_id, look, ())

    async def throughput(self, resource: ResourceId, batch_id: BatchId) -> Throughput:
        """Say how a batch got on over time, from its first result to its newest. Raises ``Conflict``."""

        async def look(opened: _Opened) -> Throughput:
            return await asyncio.to_thread(lambda: opened.sheet.throughput)

        return await self._look(resource, batch_id, look, NO_THROUGHPUT)

    async def newest(self, resource: ResourceId, batch_id: BatchId, limit: int) -> Sequence[RequestRow]:
        """Give the newest results of a batch that runs, newest first; none once it has ended. Raises ``Conflict``."""

        async def look(opened: _Opened) -> Sequence[RequestRow]:
            return [(await asyncio.to_thread(read_row, opened.sheet, line))[0] for line in opened.newest[:limit]]

        return await self._look(resource, batch_id, look, ())

    async def results(self, resource: ResourceId, batch_id: BatchId) -> AsyncIterator[bytes]:
        """Give the lines of both files as one stream, in the order of the input.

        Raises:
            Conflict: the batch has not ended, or a file that it had is gone.
        """
        batch = await self._get(resource, batch_id)
        if not batch.ended:
            message = f"The batch '{batch_id}' has not ended yet, so its files are not written. Wait for its end."
            raise Conflict(message)
        blobs = []
        for file_id in (batch.output_file_id, batch.error_file_id):
            if file_id is None:
                continue
            blob = await self._blob(resource, file_id)
            if blob is None:
                message = f"The file '{file_id}' of the batch '{batch_id}' was deleted or has expired."
                raise Conflict(message)
            blobs.append(self._blobs.stream(blob))
        return merged_lines(blobs)

    @asynccontextmanager
    async def ended(self, batch: Batch) -> AsyncIterator[Sheet]:
        """Open the sheet of a batch that has ended. Raises ``Conflict`` if where its requests lie is not known.

        It may turn out to be damaged at any time while it is open.
        """
        async with AsyncExitStack() as stack:
            try:
                opened = await self._open_ended(batch, stack)
            except (FileNotFoundError, OtherPlaces) as error:
                raise _not_known(batch) from error
            except DamagedPlaces as error:
                raise _damaged(batch, error) from error
            try:
                yield opened.sheet
            except DamagedPlaces as error:
                raise _damaged(batch, error) from error

    async def _look(
        self,
        resource: ResourceId,
        batch_id: BatchId,
        look: Callable[[_Opened], Awaitable[T]],
        nothing: T,
        *,
        again: bool = False,
    ) -> T:
        """Open the batch and look into it; ``nothing`` is there in one whose requests were never let in."""
        batch = await self._get(resource, batch_id)
        if not batch.accepted:
            return nothing
        try:
            async with AsyncExitStack() as stack:
                open_it = self._open_ended if batch.ended else self._open_running
                return await look(await open_it(batch, stack))
        except FileNotFoundError as error:
            if batch.ended:
                raise _not_known(batch) from error
            if again:
                message = f"The requests of the batch '{batch.id}' cannot be read now. Try again later."
                raise Unavailable(message) from error
        except OtherPlaces as error:
            raise _not_known(batch) from error
        except DamagedPlaces as error:
            raise _damaged(batch, error) from error
        # It has ended meanwhile, and what belonged to its run is gone.
        return await self._look(resource, batch_id, look, nothing, again=True)

    async def _get(self, resource: ResourceId, batch_id: BatchId) -> Batch:
        batch = await self._batches.get(resource, batch_id)
        if batch is None:
            message = f"No batch found with id '{batch_id}'."
            raise NotFound(message)
        return batch

    async def _open_ended(self, batch: Batch, stack: AsyncExitStack) -> _Opened:
        places = await self._open(places_key(batch), stack)
        # By its file: what was deleted or has expired is not shown until its bytes are swept away, too.
        source = await self._open_file(batch, batch.input_file_id, stack)
        output = await self._open_file(batch, batch.output_file_id, stack)
        errors = await self._open_file(batch, batch.error_file_id, stack)
        sheet = await asyncio.to_thread(EndedSheet, places, source, output, errors)
        return _Opened(sheet, batch, None, self._views)

    async def _open_running(self, batch: Batch, stack: AsyncExitStack) -> _Opened:
        view = await self._views.of(batch)
        index = await self._open(index_key(batch), stack)
        source = await self._open(str(batch.input_blob), stack)
        return _Opened(LiveSheet(view, index, source), batch, view, self._views)

    async def _open(self, blob: str, stack: AsyncExitStack) -> int:
        path = await stack.enter_async_context(self._blobs.local(blob))
        descriptor = await asyncio.to_thread(os.open, path, os.O_RDONLY)
        stack.callback(os.close, descriptor)
        return descriptor

    async def _open_if_there(self, blob: str, stack: AsyncExitStack) -> int | None:
        try:
            return await self._open(blob, stack)
        except FileNotFoundError:
            return None

    async def _open_file(self, batch: Batch, file_id: FileId | None, stack: AsyncExitStack) -> int | None:
        blob = None if file_id is None else await self._blob(batch.resource, file_id)
        return None if blob is None else await self._open_if_there(blob, stack)

    async def _blob(self, resource: ResourceId, file_id: FileId) -> str | None:
        file = await self._files.get(resource, file_id, now=self._clock.now())
        return None if file is None else file.blob


async def _search(sheet: Sheet, custom_id: str) -> int | None:
    """Look through the whole input, in pieces, so that other work in threads has its turn."""
    found, go_on = await asyncio.to_thread(find_line, sheet, custom_id, 0)
    while go_on is not None:
        found, go_on = await asyncio.to_thread(find_line, sheet, custom_id, go_on)
    return found


async def _detail(opened: _Opened, row: RequestRow, place: Place, most: int | None) -> RequestDetail:
    span = opened.sheet.line(row.line, place)
    asked = None if span is None else Preview(data=await asyncio.to_thread(span.read, most), bytes=span.length)
    result = await opened.result(row.line, place, most)
    got = None if result is None else Preview(data=result, bytes=place.length)
    return RequestDetail(row=row, asked=asked, got=got, trail=await opened.trail(row.line, place))


async def _group(opened: _Opened, reason: Reason) -> FailureGroup:
    place = unpack(await asyncio.to_thread(opened.sheet.entries, reason.first_line, 1), 0)
    record = await opened.result(reason.first_line, place, None)
    first = None if record is None else await asyncio.to_thread(ending, record)
    return FailureGroup(
        state=reason.state,
        code=reason.code,
        count=reason.count,
        first_line=reason.first_line,
        first_custom_id=first.custom_id if first else "",
        message=first.message if first else "",
        upstream=reason.upstream,
    )


def _not_known(batch: Batch) -> Conflict:
    message = (
        f"Where the requests of the batch '{batch.id}' lie is not known any more: its files are gone, or it ended under"
        " another version, which did not write this down, or not like this one. Read its output and error file while"
        " they are there."
    )
    return Conflict(message)


def _damaged(batch: Batch, error: DamagedPlaces) -> Conflict:
    log.error("places.damaged", batch_id=batch.id, reason=str(error))
    message = (
        f"What was written down about where the requests of the batch '{batch.id}' lie is damaged ({error}). Read its"
        " output and error file instead, and tell the operator: the disk may be failing."
    )
    return Conflict(message)
