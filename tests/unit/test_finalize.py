"""Merging: each request of the input exactly once, in exactly one file, in the order of the input."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from overnight.domain.frame import MAGIC, Segment, encode
from overnight.domain.ids import BatchId, request_id
from overnight.domain.index import pack
from overnight.domain.result import BATCH_CANCELLED, BATCH_EXPIRED, Result, ResultKind, Tally, response_line
from overnight.domain.usage import Usage
from overnight.services.finalize import Merge, Merged, merge

BATCH = BatchId("batch_0123")
OK, BAD = ResultKind.SUCCEEDED, ResultKind.FAILED


def a_result(line: int, kind: ResultKind = OK, text: str = "") -> Result:
    body = json.dumps({"text": text}).encode()
    record = response_line(f'"r{line}"'.encode(), request_id(BATCH, line), 200 if kind is OK else 400, "q", body)
    return Result(line=line, kind=kind, record=record, usage=Usage(input_tokens=1, output_tokens=line))


class Bench:
    """Files to merge."""

    def __init__(self, folder: Path, requests: int) -> None:
        self.folder = folder
        lines = [json.dumps({"custom_id": f"r{number}", "body": {"x": "ü"}}).encode() for number in range(requests)]
        self.input, self.index = folder / "input", folder / "index"
        self.input.write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(lines))
        places, offset = b"", 3
        for line in lines:
            places += pack(offset, len(line))
            offset += len(line) + 2
        self.index.write_bytes(places)
        self.segments: list[Segment] = []

    def segment(self, *results: Result, tail: bytes = b"", cut: int = 0) -> None:
        path = self.folder / f"{len(self.segments)}.log"
        data = MAGIC + b"".join(map(encode, results)) + tail
        path.write_bytes(data)
        self.segments.append(Segment(path=str(path), length=len(data) - cut))

    def merge(self, unrun: tuple[str, str] = BATCH_EXPIRED) -> tuple[Merged, list[Any], list[Any]]:
        output, errors = self.folder / "output", self.folder / "errors"
        job = Merge(
            batch_id=BATCH,
            input_path=str(self.input),
            index_path=str(self.index),
            segments=self.segments,
            unrun=unrun,
        )
        merged = merge(job, output, errors, self.folder / "places")
        return merged, _entries(output), _entries(errors)


def _entries(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def ids_of(entries: list[Any]) -> list[str]:
    return [entry["custom_id"] for entry in entries]


def test_results_go_to_their_files_in_the_order_of_the_input(tmp_path: Path) -> None:
    """Whatever the order in which they were recorded."""
    bench = Bench(tmp_path, 5)
    bench.segment(a_result(3, BAD), a_result(4))
    bench.segment(a_result(0, BAD), a_result(2), a_result(1))

    merged, output, errors = bench.merge()

    assert (ids_of(output), ids_of(errors)) == (["r1", "r2", "r4"], ["r0", "r3"])
    usage = Usage(input_tokens=5, output_tokens=10)
    assert merged == Merged(tally=Tally(completed=3, failed=2, usage=usage), unrun=0)


@pytest.mark.parametrize("unrun", [BATCH_EXPIRED, BATCH_CANCELLED])
def test_requests_without_a_result_end_as_not_executed(tmp_path: Path, unrun: tuple[str, str]) -> None:
    """They count as neither completed nor failed."""
    bench = Bench(tmp_path, 3)
    bench.segment(a_result(1))

    merged, output, errors = bench.merge(unrun)

    assert (merged.tally.completed, merged.tally.failed, merged.unrun) == (1, 0, 2)
    assert ids_of(output) == ["r1"]
    assert errors == [
        {
            "id": request_id(BATCH, line),
            "custom_id": f"r{line}",
            "response": None,
            "error": {"code": unrun[0], "message": unrun[1]},
        }
        for line in (0, 2)
    ]


def test_of_two_results_of_a_line_the_first_counts(tmp_path: Path) -> None:
    """Also when they are of different kinds and in different segments."""
    bench = Bench(tmp_path, 2)
    bench.segment(a_result(1, OK, "first"), a_result(1, BAD, "second"))
    bench.segment(a_result(1, BAD, "third"), a_result(0, BAD))

    merged, output, errors = bench.merge()

    assert [entry["response"]["body"]["text"] for entry in output] == ["first"]
    assert ids_of(errors) == ["r0"]
    assert (merged.tally.completed, merged.tally.failed) == (1, 1)


def test_what_lies_behind_the_length_of_a_segment_is_not_read(tmp_path: Path) -> None:
    """A worker that lost its lease wrote it."""
    bench = Bench(tmp_path, 2)
    late = encode(a_result(1))
    bench.segment(a_result(0), tail=late, cut=len(late))

    merged, output, _ = bench.merge()

    assert (ids_of(output), merged.unrun) == (["r0"], 1)


def test_a_torn_tail_is_not_read(tmp_path: Path) -> None:
    """Its request is not executed."""
    bench = Bench(tmp_path, 2)
    bench.segment(a_result(0), tail=encode(a_result(1))[:-1])

    assert bench.merge()[0].unrun == 1


def test_a_batch_without_a_log_was_not_executed(tmp_path: Path) -> None:
    """And its output is empty."""
    merged, output, errors = Bench(tmp_path, 2).merge()

    assert (merged, output, ids_of(errors)) == (Merged(tally=Tally(), unrun=2), [], ["r0", "r1"])


def test_a_missing_segment_is_an_error(tmp_path: Path) -> None:
    """Never a result that silently became `not executed`."""
    bench = Bench(tmp_path, 1)
    bench.segments.append(Segment(path=str(tmp_path / "none"), length=99))

    with pytest.raises(FileNotFoundError):
        bench.merge()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(data=st.data(), requests=st.integers(1, 12))
def test_each_request_ends_exactly_once(tmp_path: Path, data: st.DataObject, requests: int) -> None:
    """Property: over any log."""
    bench = Bench(tmp_path, requests)
    line = st.tuples(st.integers(0, requests - 1), st.sampled_from(ResultKind))
    log = data.draw(st.lists(st.lists(line, max_size=8), max_size=3))
    for segment in log:
        bench.segment(*(a_result(*result) for result in segment))
    first: dict[int, ResultKind] = {}
    for number, kind in (result for segment in log for result in segment):
        first.setdefault(number, kind)

    merged, output, errors = bench.merge()

    assert ids_of(output) == [f"r{number}" for number in range(requests) if first.get(number) is OK]
    assert ids_of(errors) == [f"r{number}" for number in range(requests) if first.get(number) is not OK]
    assert merged.tally.completed == len(output)
    assert merged.tally.failed + merged.unrun == len(errors)
    assert merged.unrun == requests - len(first)
