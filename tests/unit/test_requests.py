"""Looking into batches, retrying them and checking files: the services on stores in memory."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from overnight.domain.batch import Batch, BatchStatus, Expiry
from overnight.domain.blob_keys import error_key, index_key, output_key, places_key
from overnight.domain.errors import Conflict, InvalidRequest, NotFound, TooManyRequests, Unavailable
from overnight.domain.file import File, Purpose
from overnight.domain.flavour import Flavour
from overnight.domain.frame import encode
from overnight.domain.ids import BatchId, FileId, ResourceId, request_id
from overnight.domain.limits import DEFAULTS
from overnight.domain.places import ENTRY_BYTES, Place, State
from overnight.domain.result import BATCH_EXPIRED, Result, ResultKind, error_line, response_line
from overnight.domain.usage import Usage
from overnight.domain.validation import Rules
from overnight.ports.upstream import Known
from overnight.services import live, sheets
from overnight.services.batches import BatchService
from overnight.services.check import CheckService, Counted, OfferedModel
from overnight.services.files import FileService, NewFile
from overnight.services.finalize import Merge, merge
from overnight.services.merged import merged_lines
from overnight.services.requests import PREVIEW_BYTES, RequestService
from overnight.services.retention import Sweeper
from overnight.services.retry import NewRetry, RetryService, Which
from overnight.services.sheets import RequestQuery
from overnight.services.turns import Turns
from overnight.services.validate import check_file
from overnight.testing.blobs import MemoryBlobs
from overnight.testing.clock import ManualClock
from overnight.testing.entropy import CountedEntropy
from overnight.testing.in_process import InProcessUpstream, ScriptedDeployments, deployment
from overnight.testing.offload import InPlace
from overnight.testing.results import MemoryResultLogs
from overnight.testing.stores import MemoryBatches, MemoryFiles, MemoryUploads, Tables

MINE, OTHERS = ResourceId("mine"), ResourceId("others")
W, OK, BAD, UNRUN = State.WAITING, State.SUCCEEDED, State.FAILED, State.NOT_RUN
URL = "/v1/chat/completions"
LONG = 100_000


def a_line(name: str, text: str = "", **more: Any) -> bytes:
    body = {"model": "m", "messages": [], "text": text}
    return json.dumps({"custom_id": name, "method": "POST", "url": URL, "body": body} | more).encode()


def turned(name: str, text: str) -> bytes:
    """Give a line whose custom_id comes last."""
    body = {"model": "m", "messages": [], "text": text}
    return json.dumps({"body": body, "url": URL, "method": "POST", "custom_id": name}).encode()


class Shop:
    """The services, and one batch at whatever point of its life a test wants it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock, self.entropy, self.tables = ManualClock(), CountedEntropy(), Tables()
        self.blobs, self.logs = MemoryBlobs(folder, self.clock.now), MemoryResultLogs(folder)
        self.batches, self.file_records = MemoryBatches(self.tables), MemoryFiles(self.tables)
        limits = dict(DEFAULTS)
        self.files = FileService(self.file_records, self.blobs, self.clock, self.entropy, limits)
        self.batch_service = BatchService(self.batches, self.clock, self.entropy, limits, self)
        self.requests = RequestService(self.batches, self.file_records, self.blobs, self.logs, self.clock)
        self.retries = RetryService(self.requests, self.batch_service, self.files)
        self.deployments = ScriptedDeployments([deployment("m", InProcessUpstream(self.clock))])
        self.checks = CheckService(self.files, self.blobs, self.deployments, Turns(InPlace()), limits)
        uploads = MemoryUploads(self.tables)
        self.sweeper = Sweeper(self.file_records, uploads, self.batches, self.blobs, self.logs, self.clock)

    def batch_created(self) -> None:
        """Nobody works here."""

    def batch_changed(self, batch_id: BatchId) -> None:
        """Nobody works here."""

    async def upload(self, content: bytes, purpose: str = "batch") -> File:
        async with self.files.receiving(Flavour.OPENAI) as receiver:
            await receiver.write(content)
            return await receiver.finish(MINE, Flavour.OPENAI, NewFile(filename="in.jsonl", purpose=purpose))

    async def begin(self, lines: Sequence[bytes], **changes: Any) -> Batch:
        """Store a batch that is in progress."""
        file = await self.upload(b"\r\n\r\n".join(lines))
        now = int(self.clock.now())
        batch = Batch(
            id=BatchId("batch_0123"),
            resource=MINE,
            flavour=Flavour.OPENAI,
            endpoint=URL,
            input_file_id=file.id,
            completion_window="24h",
            created_at=now,
            expires_at=now + 86_400,
            expiry=Expiry.EXPIRE,
            status=BatchStatus.IN_PROGRESS,
            epoch=1,
            in_progress_at=now,
            total=len(lines),
            input_blob=file.blob,
        )
        batch = replace(batch, **changes)
        rules = Rules(flavour=Flavour.OPENAI, requests_per_file=1_000_000, line_bytes=10_000_000)
        async with self.blobs.local(file.blob) as path, self.blobs.placing(index_key(batch)) as index:
            assert check_file(path, rules, index).problems == ()
        await self.batches.add(batch)
        return batch

    async def record(self, batch: Batch, *results: Result, epoch: int = 1) -> None:
        """Append to the log, and let time pass until a reader looks again."""
        async with self.logs.open(batch.id, epoch=epoch, total=batch.total, on_durable=lambda _: None) as log:
            for result in results:
                log.append(result)
        self.clock.jump(1.0)

    async def end(self, batch: Batch) -> Batch:
        """Write the files of a batch and end it, as the dispatcher does."""
        async with (
            self.blobs.local(str(batch.input_blob)) as source,
            self.blobs.local(index_key(batch)) as index,
            self.logs.segments(batch.id, epoch=batch.epoch) as segments,
            self.blobs.placing(output_key(batch)) as output,
            self.blobs.placing(error_key(batch)) as errors,
            self.blobs.placing(places_key(batch)) as places,
        ):
            job = Merge(
                batch_id=batch.id,
                input_path=str(source),
                index_path=str(index),
                segments=segments,
                unrun=BATCH_EXPIRED,
            )
            merge(job, output, errors, places)
        files = [self._file(batch, "file-out", output_key(batch)), self._file(batch, "file-err", error_key(batch))]
        ended = replace(batch, status=BatchStatus.COMPLETED, output_file_id=files[0].id, error_file_id=files[1].id)
        assert await self.batches.save(ended, expected=batch, files=files)
        await self.logs.delete(batch.id)
        await self.blobs.delete(index_key(batch))
        return ended

    def _file(self, batch: Batch, name: str, blob: str) -> File:
        return File(
            id=FileId(name),
            resource=batch.resource,
            purpose=Purpose.BATCH_OUTPUT,
            filename=name,
            bytes=1,
            created_at=1,
            blob=blob,
        )

    async def page(self, batch: Batch, **query: Any) -> sheets.RequestPage:
        return await self.requests.page(MINE, batch.id, RequestQuery(**query))

    async def states(self, batch: Batch) -> list[State]:
        return [row.state for row in (await self.page(batch)).rows]


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def good(line: int, text: str = "") -> Result:
    body = json.dumps({"text": text}).encode()
    record = response_line(f'"r{line}"'.encode(), own_id(line), 200, "q", body)
    return Result(line=line, kind=ResultKind.SUCCEEDED, record=record, usage=Usage(input_tokens=5, output_tokens=line))


def bad(line: int, code: str = "server_busy") -> Result:
    body = json.dumps({"error": {"code": code, "message": f"{code} it was"}}).encode()
    record = response_line(f'"r{line}"'.encode(), own_id(line), 503, "q", body)
    return Result(line=line, kind=ResultKind.FAILED, record=record)


def timed_out(line: int) -> Result:
    record = error_line(f'"r{line}"'.encode(), own_id(line), "request_timeout", "late")
    return Result(line=line, kind=ResultKind.FAILED, record=record)


async def _stream(pieces: Sequence[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


def own_id(line: int) -> str:
    return request_id(BatchId("batch_0123"), line)


def some(count: int) -> list[bytes]:
    return [a_line(f"r{number}") for number in range(count)]


class TestPage:
    async def test_it_grows_while_a_batch_runs_and_stays_after_its_end(self, shop: Shop) -> None:
        """The same rows, from the log and then from the files."""
        batch = await shop.begin(some(5))
        nothing = await shop.states(batch)
        await shop.record(batch, good(3), bad(0))
        first = await shop.states(batch)
        await shop.record(batch, timed_out(1), good(3, "again"))
        running = await shop.page(batch)
        ended = await shop.end(batch)

        after = await shop.page(ended)

        assert (nothing, first) == ([W] * 5, [BAD, W, W, OK, W])
        shown = [(row.custom_id, row.state, row.status_code, row.code, row.output_tokens) for row in after.rows]
        assert shown == [
            ("r0", BAD, 503, "server_busy", 0),
            ("r1", BAD, None, "request_timeout", 0),
            ("r2", UNRUN, None, "batch_expired", 0),
            ("r3", OK, 200, None, 3),
            ("r4", UNRUN, None, "batch_expired", 0),
        ]
        assert [row.state for row in running.rows] == [BAD, BAD, W, OK, W]
        assert [row for row in running.rows if row.state is not W] == [row for row in after.rows if row.state != UNRUN]

    async def test_it_is_cut_by_offset_and_limit(self, shop: Shop) -> None:
        """And says where to go on."""
        batch = await shop.begin(some(5))

        first, rest = await shop.page(batch, limit=2), await shop.page(batch, offset=4, limit=2)

        assert ([row.line for row in first.rows], first.next_offset, first.searched) == ([0, 1], 2, 2)
        assert ([row.line for row in rest.rows], rest.next_offset, rest.total) == ([4], None, 5)
        assert (await shop.page(batch, offset=9)).rows == []

    async def test_it_is_filtered(self, shop: Shop) -> None:
        """By state, code and a part of the custom_id, alone and together."""
        batch = await shop.begin(some(12))
        await shop.record(batch, bad(1), bad(2, "other"), bad(11), good(10))

        async def lines(**query: Any) -> list[int]:
            return [row.line for row in (await shop.page(batch, **query)).rows]

        assert await lines(state=BAD) == [1, 2, 11]
        assert await lines(code="server_busy") == [1, 11]
        assert await lines(code="unheard_of") == []
        assert await lines(custom_id="r1") == [1, 10, 11]
        assert await lines(custom_id="r1", state=BAD, code="server_busy", offset=2) == [11]

    async def test_a_search_stops_at_its_bounds_and_goes_on(self, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
        """So many requests, or so many bytes, for each call."""
        monkeypatch.setattr(sheets, "SCAN_REQUESTS", 4)
        batch = await shop.begin(some(10))
        first = await shop.page(batch, custom_id="r9")
        monkeypatch.setattr(sheets, "SCAN_BYTES", 1)
        second = await shop.page(batch, custom_id="r9", offset=4)

        assert (first.rows, first.next_offset, first.searched) == ([], 4, 4)
        assert (second.rows, second.next_offset, second.searched) == ([], 5, 1)

    async def test_a_batch_that_was_not_let_in_has_none(self, shop: Shop) -> None:
        """Its file may have been no good."""
        batch = await shop.begin(some(1), in_progress_at=None, status=BatchStatus.VALIDATING)

        assert (await shop.page(batch)).total == 0
        assert await shop.requests.failures(MINE, batch.id) == ()
        assert await shop.requests.newest(MINE, batch.id, 9) == ()
        with pytest.raises(NotFound):
            await shop.requests.one(MINE, batch.id, "r0")

    async def test_a_foreign_batch_is_unknown(self, shop: Shop) -> None:
        """As everywhere."""
        batch = await shop.begin(some(1))

        with pytest.raises(NotFound, match="No batch found"):
            await shop.requests.page(OTHERS, batch.id, RequestQuery())

    async def test_custom_ids_are_found_wherever_they_stand_in_a_long_line(self, shop: Shop) -> None:
        """Early, without the whole line; else by reading it."""
        first = a_line("early\u00fc", "x" * LONG)
        last = turned("late", "x" * LONG)
        batch = await shop.begin([first, last])

        assert [row.custom_id for row in (await shop.page(batch)).rows] == ["early\u00fc", "late"]

    async def test_without_the_input_the_ids_are_read_off_the_results(self, shop: Shop) -> None:
        """Also long ones; without both there are none."""
        name = "long" * 2_000
        lines = [a_line(name), a_line("r1")]
        batch = await shop.begin(lines)
        record = response_line(json.dumps(name).encode(), own_id(0), 200, "q", b"{}")
        await shop.record(batch, Result(line=0, kind=ResultKind.SUCCEEDED, record=record), bad(1))
        ended = await shop.end(batch)
        await shop.blobs.delete(str(batch.input_blob))
        with_results = [row.custom_id for row in (await shop.page(ended)).rows]
        await shop.files.delete(MINE, FileId("file-out"))
        await shop.blobs.delete(error_key(batch))

        without = [row.custom_id for row in (await shop.page(ended)).rows]

        assert (with_results, without) == ([name, "r1"], [None, None])

    async def test_without_places_it_says_so(self, shop: Shop) -> None:
        """A batch of an earlier version, or one whose files are all gone."""
        ended = await shop.end(await shop.begin(some(1)))
        await shop.blobs.delete(places_key(ended))

        with pytest.raises(Conflict, match="not known any more"):
            await shop.page(ended)
        with pytest.raises(Conflict, match="not known any more"):
            await shop.retries.retry(MINE, ended.id, NewRetry())

    async def test_a_batch_that_ends_meanwhile_is_opened_again(
        self, shop: Shop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What belonged to its run is gone; if it has not ended, something is wrong with the store."""
        batch = await shop.begin(some(2))
        await shop.record(batch, good(0), good(1))
        real = shop.batches.get

        async def get(resource: ResourceId, batch_id: BatchId) -> Batch | None:
            found = await real(resource, batch_id)
            if found is not None and not found.ended:
                await shop.end(found)
            return found

        monkeypatch.setattr(shop.batches, "get", get)
        assert await shop.states(batch) == [OK, OK]
        monkeypatch.undo()
        lost = replace(batch, id=BatchId("batch_lost"))
        await shop.batches.add(lost)

        with pytest.raises(Unavailable, match="cannot be read now"):
            await shop.page(lost)


class TestLive:
    async def test_large_results_are_read_in_larger_pieces(self, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
        """One that does not fit in a piece, among small ones."""
        monkeypatch.setattr(live, "_PIECE", 400)
        batch = await shop.begin(some(4))
        await shop.record(batch, good(0), good(1, "x" * 9_000), good(2))

        assert await shop.states(batch) == [OK, OK, OK, W]

    async def test_a_torn_tail_is_left_alone_until_it_is_whole(self, shop: Shop) -> None:
        """It is read again from its beginning."""
        batch = await shop.begin(some(2))
        await shop.record(batch, good(0), good(1))
        segment = shop.logs.logs[batch.id].segments[1]
        whole = bytes(segment)
        del segment[-3:]
        torn = await shop.states(batch)
        segment[:] = whole
        shop.clock.jump(1.0)

        assert (torn, await shop.states(batch)) == ([OK, W], [OK, OK])

    async def test_what_a_new_epoch_left_out_is_forgotten(self, shop: Shop) -> None:
        """Its old owner wrote it too late."""
        batch = await shop.begin(some(2))
        await shop.record(batch, good(0))
        counted = len(shop.logs.logs[batch.id].segments[1])
        await shop.record(batch, good(1))
        before = await shop.states(batch)
        shop.logs.logs[batch.id].pins[2] = {1: counted}
        shop.clock.jump(1.0)

        assert (before, await shop.states(batch)) == ([OK, OK], [OK, W])

    @pytest.mark.parametrize(("views", "requests"), [(3, 100), (100, 3)])
    async def test_so_many_batches_are_remembered_as_memory_is_meant_for(
        self, shop: Shop, monkeypatch: pytest.MonkeyPatch, views: int, requests: int
    ) -> None:
        """The others are read again, from the beginning."""
        monkeypatch.setattr(live, "VIEWS_KEPT", views)
        monkeypatch.setattr(live, "REQUESTS_KEPT", requests)
        batch = await shop.begin(some(1))
        await shop.record(batch, good(0))
        four = [replace(batch, id=BatchId(f"batch_{number}")) for number in range(4)]
        known = live.LiveViews(shop.logs, shop.clock)
        before = [await known.of(each) for each in four[:3]]
        again = [await known.of(each) for each in four[:3]]
        await known.of(four[3])
        after = [await known.of(each) for each in (*four[1:3], four[0])]

        assert [one is two for one, two in zip(before, again, strict=True)] == [True] * 3
        assert [one is two for one, two in zip((*before[1:], before[0]), after, strict=True)] == [True, True, False]

    async def test_one_batch_is_remembered_however_large_it_is(
        self, shop: Shop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Else each look at it would read it from the beginning."""
        monkeypatch.setattr(live, "REQUESTS_KEPT", 1)
        batch = await shop.begin(some(2))
        known = live.LiveViews(shop.logs, shop.clock)

        assert await known.of(batch) is await known.of(batch)

    async def test_results_that_have_just_been_read_are_not_read_again(self, shop: Shop) -> None:
        """A reader that asks ten times a second costs as much as one that asks twice."""
        batch = await shop.begin(some(1))
        before = await shop.states(batch)
        async with shop.logs.open(batch.id, epoch=1, total=1, on_durable=lambda _: None) as log:
            log.append(good(0))

        assert (before, await shop.states(batch)) == ([W], [W])

    def test_its_results_are_in_no_file(self) -> None:
        """But in the log."""
        assert sheets.LiveSheet(live.LiveView(1), 0, 0).result(Place(state=OK)) is None

    async def test_an_entry_is_there_only_when_its_segment_is_known(self) -> None:
        """A reader in another thread may ask for it at once."""

        class Watched(bytearray):
            def __setitem__(self, at: Any, entry: Any) -> None:
                seen.append(view.segment_of(at.start // ENTRY_BYTES))
                super().__setitem__(at, entry)

        seen: list[str] = []
        view = live.LiveView(2)
        view.entries = Watched(view.entries)
        view.begin(0, "first")
        view.begin(1, "second")
        frame = encode(good(1))

        view.take(1, frame)

        assert seen == ["second"]

    async def test_the_newest_come_first(self, shop: Shop) -> None:
        """As they were recorded; at the end none is newer than another."""
        batch = await shop.begin(some(4))
        await shop.record(batch, good(2), bad(0), good(3))

        newest = await shop.requests.newest(MINE, batch.id, 2)

        assert [row.custom_id for row in newest] == ["r3", "r0"]
        await shop.end(batch)
        assert await shop.requests.newest(MINE, batch.id, 2) == []


class TestOne:
    async def test_it_is_found_by_its_name_or_its_line(self, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
        """A search goes on until the end of the input."""
        monkeypatch.setattr(sheets, "SCAN_REQUESTS", 2)
        batch = await shop.begin(some(6))
        await shop.record(batch, bad(5))

        found = await shop.requests.one(MINE, batch.id, "r5")

        assert found.asked is not None
        assert found.got is not None
        assert found.asked.data.rstrip() == a_line("r5")
        assert found.got.data == bad(5).record
        assert (await shop.requests.one(MINE, batch.id, "r5", 5)).row.line == 5
        assert (await shop.requests.one(MINE, batch.id, "", 4)).got is None

    @pytest.mark.parametrize(("name", "line"), [("r9", None), ("r1", 2), ("", 3), ("", -1)])
    async def test_what_is_not_there_is_not_found(self, shop: Shop, name: str, line: int | None) -> None:
        """Nor is a line that has another name."""
        batch = await shop.begin(some(3))

        with pytest.raises(NotFound, match="has no request"):
            await shop.requests.one(MINE, batch.id, name, line)

    async def test_only_the_beginning_of_something_long_is_shown_unless_all_is_asked_for(self, shop: Shop) -> None:
        """64 KB of the line, and of the result."""
        batch = await shop.begin([a_line("r0", "x" * LONG)])
        await shop.record(batch, good(0, "y" * LONG))
        await shop.end(batch)

        short, full = [await shop.requests.one(MINE, batch.id, "r0", full=full) for full in (False, True)]

        assert short.asked is not None
        assert short.got is not None
        assert (len(short.asked.data), short.asked.truncated) == (PREVIEW_BYTES, True)
        assert (len(short.got.data), short.got.truncated) == (PREVIEW_BYTES, True)
        assert full.got is not None
        assert (full.got.data, full.got.truncated) == (good(0, "y" * LONG).record, False)


class TestFailures:
    async def test_they_are_grouped_while_a_batch_runs_and_afterwards(self, shop: Shop) -> None:
        """The most frequent reason first, with what the first one says."""
        batch = await shop.begin(some(5))
        await shop.record(batch, timed_out(0), bad(3), bad(1), good(2))
        running = await shop.requests.failures(MINE, batch.id)
        await shop.end(batch)
        ended = await shop.requests.failures(MINE, batch.id)
        await shop.files.delete(MINE, FileId("file-err"))

        without = await shop.requests.failures(MINE, batch.id)

        assert [(each.code, each.count, each.first_line, each.first_custom_id, each.message) for each in running] == [
            ("server_busy", 2, 1, "r1", "server_busy it was"),
            ("request_timeout", 1, 0, "r0", "late"),
        ]
        assert {each.code: each.state for each in ended}["batch_expired"] is UNRUN
        assert [(each.first_custom_id, each.message) for each in without] == [("", "")] * 3


class TestMerged:
    async def test_both_files_become_one_stream_in_the_order_of_the_input(self, shop: Shop) -> None:
        """Byte for byte."""
        batch = await shop.begin(some(4))
        await shop.record(batch, good(3), bad(0), good(1), good(2, "x" * 300_000))
        await shop.end(batch)

        pieces = [piece async for piece in await shop.requests.results(MINE, batch.id)]

        expected = [bad(0).record, good(1).record, good(2, "x" * 300_000).record, good(3).record]
        assert b"".join(pieces) == b"\n".join(expected) + b"\n"
        assert len(pieces) == 2

    async def test_a_line_of_many_pieces_stays_whole(self) -> None:
        """Also where a break is at the edge of one, and where a piece has several lines."""
        records = [good(0, "x" * 90).record, bad(1).record, good(2, "y" * 40).record]
        content = b"\n".join(records) + b"\n"

        for size in (1, 2, 7, len(records[0]), len(records[0]) + 1, len(content)):
            pieces = [content[at : at + size] for at in range(0, len(content), size)]
            assert b"".join([piece async for piece in merged_lines([_stream(pieces)])]) == content

    async def test_nothing_makes_an_empty_stream(self) -> None:
        """No file, or empty ones."""

        async def empty() -> AsyncIterator[bytes]:
            nothing: tuple[bytes, ...] = ()
            for piece in nothing:
                yield piece

        assert [piece async for piece in merged_lines([empty(), empty()])] == []

    async def test_a_batch_without_an_output_file_has_its_errors(self, shop: Shop) -> None:
        """OpenAI shows no empty file."""
        batch = await shop.begin(some(1))
        ended = await shop.end(batch)
        shop.tables.batches[batch.id] = replace(ended, output_file_id=None)

        pieces = [piece async for piece in await shop.requests.results(MINE, batch.id)]

        assert len(b"".join(pieces).splitlines()) == 1
        assert (await shop.page(ended)).rows[0].custom_id == "r0"

    async def test_a_batch_that_runs_or_lost_a_file_has_none(self, shop: Shop) -> None:
        """Half of the results would look like all of them."""
        batch = await shop.begin(some(1))
        with pytest.raises(Conflict, match="has not ended"):
            await shop.requests.results(MINE, batch.id)
        await shop.end(batch)
        await shop.files.delete(MINE, FileId("file-err"))

        with pytest.raises(Conflict, match="was deleted or has expired"):
            await shop.requests.results(MINE, batch.id)


class TestRetry:
    @pytest.mark.parametrize(
        ("which", "lines"), [(Which.FAILED, [0]), (Which.NOT_RUN, [2, 3]), (Which.ALL_UNFINISHED, [0, 2, 3])]
    )
    async def test_it_copies_the_lines_that_are_wanted(self, shop: Shop, which: Which, lines: list[int]) -> None:
        """With the endpoint, the metadata and the life of the output."""
        asked = [a_line(f"r{number}", "ü") for number in range(4)]
        batch = await shop.begin(asked, metadata={"a": "b"}, output_expires_after=7_200)
        await shop.record(batch, bad(0), good(1))
        await shop.end(batch)

        again = await shop.retries.retry(MINE, batch.id, NewRetry(which=which))

        assert shop.blobs.held[f"files/{again.input_file_id}"] == b"".join(asked[line] + b"\n" for line in lines)
        assert (again.endpoint, again.output_expires_after) == (URL, 7_200)
        assert again.metadata == {"a": "b", "retry_of": batch.id}

    async def test_full_metadata_stays_as_it_is(self, shop: Shop) -> None:
        """There is no room to name the old batch."""
        full = {str(number): "" for number in range(16)}
        batch = await shop.begin(some(1), metadata=full)
        await shop.end(batch)

        again = await shop.retries.retry(MINE, batch.id, NewRetry(which=Which.NOT_RUN))

        assert again.metadata == full

    async def test_many_lines_are_copied_in_pieces(self, shop: Shop) -> None:
        """Memory does not grow with the file."""
        asked = [a_line(f"r{number}", "x" * 300_000) for number in range(5)]
        batch = await shop.begin(asked)
        await shop.end(batch)

        again = await shop.retries.retry(MINE, batch.id, NewRetry(which=Which.ALL_UNFINISHED))

        assert shop.blobs.held[f"files/{again.input_file_id}"] == b"".join(line + b"\n" for line in asked)

    async def test_sent_again_it_gives_the_same_batch_and_leaves_no_file(self, shop: Shop) -> None:
        """With a key, or by the client's own word; another request with the key is refused."""
        batch = await shop.begin(some(2))
        await shop.record(batch, bad(0))
        await shop.end(batch)
        keyed = NewRetry(idempotency_key="k")
        first, second = [await shop.retries.retry(MINE, batch.id, keyed) for _ in range(2)]
        third, fourth = [await shop.retries.retry(MINE, batch.id, NewRetry(sent_again=True)) for _ in range(2)]

        with pytest.raises(Conflict, match="was used within"):
            await shop.retries.retry(MINE, batch.id, replace(keyed, which=Which.NOT_RUN))

        assert (first.id, third.id) == (second.id, fourth.id)
        stored = [file for file in shop.tables.files.values() if file.deleted_at is None]
        inputs = {file.id for file in stored if file.purpose is Purpose.BATCH}
        assert inputs == {batch.input_file_id, first.input_file_id, third.input_file_id}

    async def test_sent_twice_at_once_it_makes_one_batch_and_one_file(self, shop: Shop) -> None:
        """Neither finds the other before it has copied its file."""
        batch = await shop.begin(some(2))
        await shop.record(batch, bad(0))
        await shop.end(batch)
        keyed = NewRetry(idempotency_key="k")

        first, second = await asyncio.gather(*(shop.retries.retry(MINE, batch.id, keyed) for _ in range(2)))

        assert first.id == second.id
        stored = [file for file in shop.tables.files.values() if file.deleted_at is None]
        inputs = {file.id for file in stored if file.purpose is Purpose.BATCH}
        assert inputs == {batch.input_file_id, first.input_file_id}

    async def test_sent_again_it_needs_the_input_no_more(self, shop: Shop) -> None:
        """It is told of its batch, whatever became of the old one."""
        batch = await shop.begin(some(1))
        await shop.end(batch)
        keyed = NewRetry(which=Which.NOT_RUN, idempotency_key="k")
        first = await shop.retries.retry(MINE, batch.id, keyed)
        await shop.blobs.delete(str(batch.input_blob))

        assert (await shop.retries.retry(MINE, batch.id, keyed)).id == first.id

    @pytest.mark.parametrize(
        ("which", "words"),
        [
            (Which.FAILED, "failed, so"),
            (Which.NOT_RUN, "was not run, so"),
            (Which.ALL_UNFINISHED, "failed or was not run, so"),
        ],
    )
    async def test_with_nothing_to_run_again_it_says_so(self, shop: Shop, which: Which, words: str) -> None:
        """And nothing is stored."""
        batch = await shop.begin(some(1))
        await shop.record(batch, good(0))
        await shop.end(batch)
        before = set(shop.blobs.held)

        with pytest.raises(Conflict, match=words):
            await shop.retries.retry(MINE, batch.id, NewRetry(which=which))

        assert set(shop.blobs.held) == before

    async def test_a_batch_that_runs_or_was_not_let_in_is_refused(self, shop: Shop) -> None:
        """The one may still succeed, the other has no requests."""
        batch = await shop.begin(some(1))
        with pytest.raises(Conflict, match="has not ended yet"):
            await shop.retries.retry(MINE, batch.id, NewRetry())
        shop.tables.batches[batch.id] = replace(batch, status=BatchStatus.FAILED, in_progress_at=None)

        with pytest.raises(Conflict, match=f"new batch from its input file '{batch.input_file_id}'"):
            await shop.retries.retry(MINE, batch.id, NewRetry())

    async def test_no_file_is_left_of_one_too_many(self, shop: Shop) -> None:
        """Else each try would take a place among the files that a resource may have."""
        batch = await shop.begin(some(1))
        await shop.end(batch)
        limits = {flavour: replace(each, batches_per_hour=1) for flavour, each in DEFAULTS.items()}
        batches = BatchService(shop.batches, shop.clock, shop.entropy, limits, shop)
        before = set(shop.tables.files)

        with pytest.raises(TooManyRequests):
            await RetryService(shop.requests, batches, shop.files).retry(MINE, batch.id, NewRetry(which=Which.NOT_RUN))
        live = {file_id for file_id in shop.tables.files if await shop.file_records.get(MINE, file_id, now=0)}

        assert live <= before

    @pytest.mark.parametrize(
        "odd", [b"\xef\xbb\xbf" + a_line("r0"), a_line("r0", url="/chat/completions"), b" " + a_line("r0")]
    )
    async def test_odd_lines_stay_as_they_were(self, shop: Shop, odd: bytes) -> None:
        """Only a byte order mark is none of the line."""
        url = json.loads(odd.decode("utf-8-sig"))["url"]
        batch = await shop.begin([odd, a_line("r1", url=url)])
        await shop.record(batch, good(1))
        await shop.end(batch)
        first = await shop.retries.retry(MINE, batch.id, NewRetry(which=Which.NOT_RUN))
        copied = shop.blobs.held[f"files/{first.input_file_id}"]

        assert json.loads(copied)["custom_id"] == "r0"
        assert copied == odd.removeprefix(b"\xef\xbb\xbf") + b"\n"

    async def test_a_deleted_input_is_gone_at_once(self, shop: Shop) -> None:
        """Before its bytes are: nobody sees a prompt that was deleted, and nothing is copied of it."""
        batch = await shop.begin(some(2))
        await shop.record(batch, bad(0))
        await shop.end(batch)
        await shop.files.delete(MINE, batch.input_file_id)

        assert (await shop.requests.one(MINE, batch.id, "r0")).asked is None
        with pytest.raises(Conflict, match="was deleted or has expired"):
            await shop.retries.retry(MINE, batch.id, NewRetry())

    async def test_without_its_input_it_is_refused(self, shop: Shop) -> None:
        """Nothing can be copied."""
        batch = await shop.begin(some(1))
        await shop.end(batch)
        await shop.blobs.delete(str(batch.input_blob))

        with pytest.raises(Conflict, match="was deleted or has expired"):
            await shop.retries.retry(MINE, batch.id, NewRetry(which=Which.NOT_RUN))


class TestPlacesOfEndedBatches:
    async def test_they_stay_as_long_as_one_of_the_files(self, shop: Shop) -> None:
        """Those of an owner that lost its lease go at once."""
        ended = await shop.end(await shop.begin(some(1)))
        stale = places_key(replace(ended, epoch=0))
        shop.blobs.put(stale, b"x")
        shop.clock.jump(7_200)
        await shop.sweeper.sweep_orphans()
        with_all = {key for key in shop.blobs.held if key.endswith(".places")}
        await shop.files.delete(MINE, ended.input_file_id)
        await shop.files.delete(MINE, FileId("file-out"))
        await shop.sweeper.sweep()
        await shop.sweeper.sweep_orphans()
        with_one = {key for key in shop.blobs.held if key.endswith(".places")}
        await shop.files.delete(MINE, FileId("file-err"))
        await shop.sweeper.sweep()
        await shop.sweeper.sweep_orphans()

        assert with_all == with_one == {places_key(ended)}
        assert shop.blobs.held == {}


class TestCheck:
    async def test_a_file_is_described_and_judged(self, shop: Shop) -> None:
        """Its problems, models, endpoints and first lines; nothing is stored for it."""
        other = a_line("b", body={"model": "unknown", "messages": []})
        content = b"\n".join([a_line("a"), other, b"{", a_line("c", "x" * LONG), a_line("d", url="/v1/embeddings")])
        file = await shop.upload(content)
        before = dict(shop.blobs.held)

        check = await shop.checks.check(MINE, Flavour.OPENAI, file.id)

        assert [(problem.line, problem.code) for problem in check.report.problems] == [
            (2, "model_not_found"),
            (3, "invalid_json_line"),
            (5, "invalid_url"),
        ]
        assert check.models == (
            OfferedModel(name="m", requests=3, offered=True),
            OfferedModel(name="unknown", requests=1, offered=False),
        )
        assert check.endpoints == (Counted(name=URL, requests=3), Counted(name="/v1/embeddings", requests=1))
        assert [(first.line, first.data) for first in check.first] == [(1, a_line("a")), (2, other), (3, b"{")]
        assert shop.blobs.held == before

    async def test_what_an_upstream_may_offer_is_left_open(self, shop: Shop) -> None:
        """While it has not told its models."""
        shop.deployments.now = Known(deployments=[], complete=False)
        file = await shop.upload(a_line("a"))

        check = await shop.checks.check(MINE, Flavour.OPENAI, file.id)

        assert check.report.problems == ()
        assert check.models == (OfferedModel(name="m", requests=1, offered=None),)

    async def test_names_without_end_are_not_all_kept(self, shop: Shop) -> None:
        """A file may name a new model in each line, or none."""
        lines = [a_line(f"r{number}", body={"model": f"m{number}"}) for number in range(60)]
        file = await shop.upload(b"\n".join([a_line("x", body={}), *lines]))

        check = await shop.checks.check(MINE, Flavour.OPENAI, file.id)

        assert len(check.models) == 50

    async def test_names_that_are_long_are_cut(self, shop: Shop) -> None:
        """A line may be one name."""
        line = a_line("a", body={"model": "x" * LONG, "messages": []}, url="/" + "y" * LONG)
        file = await shop.upload(line)

        check = await shop.checks.check(MINE, Flavour.OPENAI, file.id)

        assert (check.models[0].name, check.endpoints[0].name) == ("x" * 256 + "…", "/" + "y" * 255 + "…")
        assert sum(len(problem.message) for problem in check.report.problems) < 2_000

    async def test_other_files_are_refused(self, shop: Shop) -> None:
        """Those for something else, and those that are gone."""
        file, gone = await shop.upload(b"x", "user_data"), await shop.upload(a_line("a"))
        await shop.blobs.delete(gone.blob)

        with pytest.raises(InvalidRequest, match="Only files with the purpose 'batch'"):
            await shop.checks.check(MINE, Flavour.OPENAI, file.id)
        with pytest.raises(NotFound):
            await shop.checks.check(MINE, Flavour.OPENAI, gone.id)
