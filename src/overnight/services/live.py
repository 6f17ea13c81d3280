"""What the result log of a running batch holds, read piece by piece as it grows, by whatever process wants to know.

Nothing is asked of the owner of the batch: the log is the truth, also while another process writes it.
"""

from __future__ import annotations

import asyncio
from array import array
from collections import OrderedDict, deque
from io import BytesIO
from typing import TYPE_CHECKING

from overnight.domain.frame import MAGIC, scan_from
from overnight.domain.places import ENTRY_BYTES, Place, State, is_waiting, pack, unpack
from overnight.domain.reason import status_code
from overnight.domain.result import ResultKind
from overnight.services.placing import Findings

if TYPE_CHECKING:
    from overnight.domain.batch import Batch
    from overnight.domain.frame import Frame, Segment
    from overnight.domain.ids import BatchId
    from overnight.domain.places import Reason
    from overnight.domain.throughput import Throughput
    from overnight.ports.clock import Clock
    from overnight.ports.results import ResultLogs

NEWEST_KEPT = 200
"""So many of the newest results of a running batch can be listed."""

# In seconds: results that are younger may not be seen yet.
_FRESH_FOR = 0.5
# Views in memory, and the requests of all of them: some 50 MB. Those of one batch are kept however many they are.
VIEWS_KEPT = 250
REQUESTS_KEPT = 1_000_000
_PIECE = 4 * 1024 * 1024


class LiveView:
    """The places of one running batch, as far as its log was read: 50 bytes a request."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.entries = bytearray(total * ENTRY_BYTES)
        self.newest: deque[int] = deque(maxlen=NEWEST_KEPT)
        self._segment = array("I", [0]) * total
        self._names: list[str] = []
        self._read_to: list[int] = []
        self._findings = Findings()

    def reasons(self) -> tuple[Reason, ...]:
        """Give the reasons of the failures so far, also while another thread takes in more."""
        return self._findings.reasons.known()

    def upstreams(self) -> tuple[str, ...]:
        """Give the upstreams whose numbers the entries have."""
        return self._findings.upstreams.known()

    def throughput(self) -> Throughput:
        """Say how the batch got on so far."""
        return self._findings.throughput.throughput()

    def segment_of(self, line: int) -> str:
        """Say in which segment the result of a request lies."""
        return self._names[self._segment[line]]

    def fits(self, segments: list[Segment]) -> bool:
        """Say whether what was read is the beginning of these segments."""
        names = [segment.path for segment in segments[: len(self._names)]]
        return names == self._names and all(
            segment.length >= read_to for segment, read_to in zip(segments, self._read_to, strict=False)
        )

    def begin(self, number: int, name: str) -> int:
        """Say from where on the segment of this number is to be read."""
        if number == len(self._names):
            self._names.append(name)
            self._read_to.append(len(MAGIC))
        return self._read_to[number]

    def take(self, number: int, data: bytes) -> int:
        """Take the whole frames at the beginning of a piece, and say how many bytes they are."""
        start = self._read_to[number]
        taken = 0
        for frame in scan_from(BytesIO(data), 0, len(data)):
            taken = frame.end
            if is_waiting(self.entries, frame.line):
                self._note(number, start, frame, data[frame.offset : frame.offset + frame.length])
        self._read_to[number] = start + taken
        return taken

    def _note(self, number: int, start: int, frame: Frame, record: bytes) -> None:
        line, usage, last = frame.line, frame.usage, self._findings.read(frame)
        state, reason = State.SUCCEEDED, 0
        if frame.kind is ResultKind.FAILED:
            state, reason = State.FAILED, self._findings.failed(line, record, last.upstream)
        place = Place(
            state=state,
            offset=start + frame.offset,
            length=frame.length,
            reason=reason,
            status_code=status_code(record),
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            upstream=last.upstream,
            attempts=last.attempts,
            milliseconds=last.milliseconds,
            ended_at=last.ended_at,
            trail_length=len(frame.trail),
        )
        self._segment[line] = number
        # Last, for another thread may read the entry at once and ask for its segment.
        self.entries[line * ENTRY_BYTES : (line + 1) * ENTRY_BYTES] = pack(place)
        self.newest.append(line)


class _Kept:
    """A view, and when it was last brought up to date."""

    def __init__(self, total: int) -> None:
        self.view = LiveView(total)
        self.read_at: float | None = None
        self.lock = asyncio.Lock()


class LiveViews:
    """The views of the batches that were last looked at; a few, so that memory stays bounded."""

    def __init__(self, logs: ResultLogs, clock: Clock) -> None:
        self._logs = logs
        self._clock = clock
        self._kept: OrderedDict[BatchId, _Kept] = OrderedDict()

    async def of(self, batch: Batch) -> LiveView:
        """Give the view of a running batch, at most half a second old.

        Raises ``FileNotFoundError`` if its log is removed meanwhile, which is when it has ended.
        """
        kept = self._kept.get(batch.id)
        if kept is None:
            kept = self._kept[batch.id] = _Kept(batch.total)
        self._kept.move_to_end(batch.id)
        while len(self._kept) > 1 and (len(self._kept) > VIEWS_KEPT or self._requests() > REQUESTS_KEPT):
            self._kept.popitem(last=False)
        async with kept.lock:
            await self._refresh(kept, batch)
        return kept.view

    def _requests(self) -> int:
        return sum(kept.view.total for kept in self._kept.values())

    async def read(self, batch: Batch, view: LiveView, line: int, length: int) -> bytes:
        """Read the beginning of a recorded result. Raises ``FileNotFoundError`` as ``of`` does."""
        offset = unpack(view.entries, line).offset
        return await self._logs.read(batch.id, view.segment_of(line), offset=offset, length=length)

    async def trail(self, batch: Batch, view: LiveView, line: int) -> bytes:
        """Read the trail of a recorded result, which lies behind it. Raises as ``read`` does."""
        place = unpack(view.entries, line)
        offset = place.offset + place.length
        return await self._logs.read(batch.id, view.segment_of(line), offset=offset, length=place.trail_length)

    async def _refresh(self, kept: _Kept, batch: Batch) -> None:
        now = self._clock.ticks()
        if kept.read_at is not None and now - kept.read_at < _FRESH_FOR:
            return
        segments = list(await self._logs.durable(batch.id, epoch=batch.epoch))
        if not kept.view.fits(segments):
            kept.view = LiveView(batch.total)
        for number, segment in enumerate(segments):
            await self._read_on(kept.view, number, segment, batch.id)
        kept.read_at = now

    async def _read_on(self, view: LiveView, number: int, segment: Segment, batch_id: BatchId) -> None:
        start, most = view.begin(number, segment.path), _PIECE
        while start < segment.length:
            piece = min(most, segment.length - start)
            data = await self._logs.read(batch_id, segment.path, offset=start, length=piece)
            taken = await asyncio.to_thread(view.take, number, data)
            if not taken and start + piece == segment.length:
                return
            # A frame that is larger than a piece needs a larger one.
            most = _PIECE if taken else most * 4
            start += taken
