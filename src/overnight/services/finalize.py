"""Merging the result log into the output and the error file, in the order of the input.

``merge`` runs in a worker process (``ports/offload.py``), so it is synchronous and its arguments can be pickled.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import msgspec

from overnight.domain.frame import Frame, Segment, scan
from overnight.domain.ids import BatchId, request_id
from overnight.domain.index import Index
from overnight.domain.places import MAGIC, Place, State, Summary, encode_summary, pack
from overnight.domain.reason import status_code
from overnight.domain.request import parse_request
from overnight.domain.result import Count, Tally, error_line
from overnight.services.placing import Findings, Last

_WRITE_BUFFER = 1024 * 1024
_NOT_RUN = -1


class Merge(msgspec.Struct, frozen=True, kw_only=True):
    """What to merge: ``unrun`` is the code and message for requests that were never finished."""

    batch_id: BatchId
    input_path: str
    index_path: str
    segments: Sequence[Segment]
    unrun: tuple[str, str]


class Merged(msgspec.Struct, frozen=True, kw_only=True):
    """What came out: the counts, and how many requests had not run."""

    tally: Tally
    unrun: int


class _Found:
    """Where the result of each request lies: 37 bytes a request, whatever the size of the results."""

    def __init__(self, total: int) -> None:
        self.segment = array("i", [_NOT_RUN]) * total
        self.offset = array("Q", [0]) * total
        self.length = array("I", [0]) * total
        self.kind = bytearray(total)
        self.input_tokens = array("I", [0]) * total
        self.output_tokens = array("I", [0]) * total
        self.upstream = bytearray(total)
        self.attempts = bytearray(total)
        self.milliseconds = array("I", [0]) * total
        self.ended_at = array("I", [0]) * total
        self.trail = array("H", [0]) * total

    def note(self, segment: int, frame: Frame, last: Last) -> None:
        """Note the result of a request."""
        line = frame.line
        self.segment[line] = segment
        self.offset[line] = frame.offset
        self.length[line] = frame.length
        self.kind[line] = frame.kind
        self.input_tokens[line] = frame.usage.input_tokens
        self.output_tokens[line] = frame.usage.output_tokens
        self.upstream[line] = last.upstream
        self.attempts[line] = last.attempts
        self.milliseconds[line] = last.milliseconds
        self.ended_at[line] = last.ended_at
        self.trail[line] = len(frame.trail)


def merge(job: Merge, output_path: Path, error_path: Path, places_path: Path) -> Merged:
    """Write both files, each request of the input exactly once, in exactly one of them, and where each one lies.

    Raises ``OSError``.
    """
    index = Index(Path(job.index_path).read_bytes())
    findings = Findings()
    found, tally = _read_log(job.segments, len(index), findings)
    unrun = 0
    with ExitStack() as stack:
        files = [stack.enter_context(Path(segment.path).open("rb", buffering=0)) for segment in job.segments]
        logs = [file.fileno() for file in files]
        source = stack.enter_context(Path(job.input_path).open("rb", buffering=0))
        output = _Target(stack.enter_context(output_path.open("wb", buffering=_WRITE_BUFFER)))
        errors = _Target(stack.enter_context(error_path.open("wb", buffering=_WRITE_BUFFER)))
        places = _PlacesWriter(stack.enter_context(places_path.open("wb", buffering=_WRITE_BUFFER)), index, findings)
        for line in range(len(index)):
            segment = found.segment[line]
            if segment == _NOT_RUN:
                unrun += 1
                offset, length = index[line]
                record = _unrun_record(job, line, os.pread(source.fileno(), length, offset))
                places.not_run(line, job.unrun[0], record, errors.write(record))
            else:
                record = os.pread(logs[segment], found.length[line], found.offset[line])
                target = errors if found.kind[line] else output
                places.ended(line, found, record, target.write(record))
        for line, segment in enumerate(found.segment):
            if segment != _NOT_RUN:
                places.trail(os.pread(logs[segment], found.trail[line], found.offset[line] + found.length[line]))
        places.finish()
    return Merged(tally=tally, unrun=unrun)


class _Target:
    """A file of lines that knows where its end is."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._end = 0

    def write(self, record: bytes) -> int:
        """Add a line and say where it begins."""
        start = self._end
        self._file.write(record)
        self._file.write(b"\n")
        self._end += len(record) + 1
        return start


class _PlacesWriter:
    """Writes a blob of places, line by line."""

    def __init__(self, file: BinaryIO, index: Index, findings: Findings) -> None:
        self._file = file
        self._index = index
        self._findings = findings
        self._trails = 0
        self._file.write(MAGIC)

    def ended(self, line: int, found: _Found, record: bytes, offset: int) -> None:
        """Note a request that has a result."""
        state, reason = State.SUCCEEDED, 0
        if found.kind[line]:
            state = State.FAILED
            reason = self._findings.failed(line, record, found.upstream[line])
        asked_at, asked = self._index[line]
        place = Place(
            state=state,
            input_offset=asked_at,
            input_length=asked,
            offset=offset,
            length=len(record),
            reason=reason,
            status_code=status_code(record),
            input_tokens=found.input_tokens[line],
            output_tokens=found.output_tokens[line],
            upstream=found.upstream[line],
            attempts=found.attempts[line],
            milliseconds=found.milliseconds[line],
            ended_at=found.ended_at[line],
            trail_offset=self._trails,
            trail_length=found.trail[line],
        )
        self._trails += found.trail[line]
        self._file.write(pack(place))

    def trail(self, data: bytes) -> None:
        """Write the trail of a request, behind all entries, in their order."""
        self._file.write(data)

    def not_run(self, line: int, code: str, record: bytes, offset: int) -> None:
        """Note a request that the batch ended without."""
        asked_at, asked = self._index[line]
        place = Place(
            state=State.NOT_RUN,
            input_offset=asked_at,
            input_length=asked,
            offset=offset,
            length=len(record),
            reason=self._findings.reasons.add(State.NOT_RUN, code, line),
        )
        self._file.write(pack(place))

    def finish(self) -> None:
        """Write what the entries add up to."""
        findings = self._findings
        summary = Summary(
            total=len(self._index),
            reasons=findings.reasons.known(),
            upstreams=findings.upstreams.known(),
            trails=self._trails,
            throughput=findings.throughput.throughput(),
        )
        self._file.write(encode_summary(summary))


def _read_log(segments: Sequence[Segment], total: int, findings: Findings) -> tuple[_Found, Tally]:
    found = _Found(total)
    count = Count()
    for number, segment in enumerate(segments):
        with Path(segment.path).open("rb", buffering=_WRITE_BUFFER) as log:
            for frame in scan(log, segment.length):
                if found.segment[frame.line] == _NOT_RUN:
                    found.note(number, frame, findings.read(frame))
                    count.add(frame.kind, frame.usage)
    return found, count.tally()


def _unrun_record(job: Merge, line: int, raw: bytes) -> bytes:
    code, message = job.unrun
    return error_line(parse_request(line, raw).custom_id, request_id(job.batch_id, line), code, message)
