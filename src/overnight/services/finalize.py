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

from overnight.domain.frame import Segment, scan
from overnight.domain.ids import BatchId, request_id
from overnight.domain.index import Index
from overnight.domain.request import parse_request
from overnight.domain.result import Count, Tally, error_line

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


class _Places:
    """Where the result of each request lies: 17 bytes a request, whatever the size of the results."""

    def __init__(self, total: int) -> None:
        self.segment = array("i", [_NOT_RUN]) * total
        self.offset = array("Q", [0]) * total
        self.length = array("I", [0]) * total
        self.kind = bytearray(total)


def merge(job: Merge, output_path: Path, error_path: Path) -> Merged:
    """Write both files: each request of the input exactly once, in exactly one of them. Raises ``OSError``."""
    index = Index(Path(job.index_path).read_bytes())
    places, tally = _read_log(job.segments, len(index))
    unrun = 0
    with ExitStack() as stack:
        files = [stack.enter_context(Path(segment.path).open("rb", buffering=0)) for segment in job.segments]
        logs = [file.fileno() for file in files]
        source = stack.enter_context(Path(job.input_path).open("rb", buffering=0))
        output = stack.enter_context(output_path.open("wb", buffering=_WRITE_BUFFER))
        errors = stack.enter_context(error_path.open("wb", buffering=_WRITE_BUFFER))
        for line in range(len(index)):
            segment = places.segment[line]
            if segment == _NOT_RUN:
                unrun += 1
                offset, length = index[line]
                _write(errors, _unrun_record(job, line, os.pread(source.fileno(), length, offset)))
            else:
                record = os.pread(logs[segment], places.length[line], places.offset[line])
                _write(errors if places.kind[line] else output, record)
    return Merged(tally=tally, unrun=unrun)


def _read_log(segments: Sequence[Segment], total: int) -> tuple[_Places, Tally]:
    places = _Places(total)
    count = Count()
    for number, segment in enumerate(segments):
        with Path(segment.path).open("rb", buffering=_WRITE_BUFFER) as log:
            for frame in scan(log, segment.length):
                if places.segment[frame.line] != _NOT_RUN:
                    continue
                places.segment[frame.line] = number
                places.offset[frame.line] = frame.offset
                places.length[frame.line] = frame.length
                places.kind[frame.line] = frame.kind
                count.add(frame.kind, frame.usage)
    return places, count.tally()


def _unrun_record(job: Merge, line: int, raw: bytes) -> bytes:
    code, message = job.unrun
    return error_line(parse_request(line, raw).custom_id, request_id(job.batch_id, line), code, message)


def _write(target: BinaryIO, record: bytes) -> None:
    target.write(record)
    target.write(b"\n")
