"""The engine, put together as the service does it, on a clock and upstreams that the test moves."""

import asyncio
import json
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import msgspec

from overnight.adapters.blobs.local import LocalBlobs
from overnight.adapters.results import local as local_results
from overnight.adapters.results.local import LocalResultLogs
from overnight.adapters.sql.batches import SqlBatches
from overnight.adapters.sql.database import Database, sqlite_file
from overnight.adapters.sql.files import SqlFiles, SqlUploads
from overnight.adapters.sql.usage import SqlBooks, SqlCaps
from overnight.adapters.sql.webhooks import SqlWebhooks
from overnight.adapters.workplace import Workplace
from overnight.dispatch.attempt import Attempts
from overnight.dispatch.dispatcher import Dispatcher
from overnight.dispatch.owned import Parts, QuotaParts
from overnight.dispatch.pool import Pool
from overnight.dispatch.router import Router
from overnight.domain.batch import Batch, BatchStatus
from overnight.domain.file import File
from overnight.domain.flavour import Flavour
from overnight.domain.ids import DEFAULT_RESOURCE, BatchId, FileId, WorkerId
from overnight.domain.limits import DEFAULTS
from overnight.domain.price import Price, Prices
from overnight.domain.retry import RetryPolicy
from overnight.ports.troubles import Troubles
from overnight.services.batches import BatchService, NewBatch
from overnight.services.files import FileService, NewFile
from overnight.services.retention import Sweeper
from overnight.services.troubles import TroublesInMind
from overnight.services.usage import UsageService
from overnight.testing.blobs import MemoryBlobs
from overnight.testing.clock import ManualClock
from overnight.testing.entropy import CountedEntropy
from overnight.testing.in_process import InProcessUpstream, ScriptedDeployments, deployment
from overnight.testing.offload import InPlace
from overnight.testing.results import MemoryResultLogs
from overnight.testing.stores import (
    MemoryBatches,
    MemoryBooks,
    MemoryCaps,
    MemoryFiles,
    MemoryUploads,
    Tables,
)
from overnight.testing.webhooks import MemoryWebhooks

STOP_GRACE = 30.0
SHUTDOWN_GRACE = 10.0
MODEL = "m"
URL = "/v1/chat/completions"


PRICES = Prices(currency="EUR", by_deployment={MODEL: Price(input=1_000_000, cached_input=100_000, output=4_000_000)})


class InlineExecutor(ThreadPoolExecutor):
    """Does on the spot what would go to a thread, so that a test of the loop repeats exactly."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            done.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - an executor hands every error to its caller
            done.set_exception(error)
        return done


class Busy:
    """Counts the calls that are under way in threads of their own."""

    def __init__(self) -> None:
        self.calls = 0

    def watch(self, store: Any) -> Any:
        """Give the store with each of its calls counted."""
        return _Watched(store, self)


class _Watched:
    def __init__(self, store: Any, busy: Busy) -> None:
        self._store = store
        self._busy = busy

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._store, name)

        @wraps(call)
        async def counted(*args: Any, **kwargs: Any) -> Any:
            self._busy.calls += 1
            try:
                return await call(*args, **kwargs)
            finally:
                self._busy.calls -= 1

        return counted


@dataclass
class Stores:
    """What survives a crash."""

    batches: Any
    files: Any
    uploads: Any
    blobs: Any
    logs: Any
    books: Any
    caps: Any
    webhooks: Any


class Memory:
    """Stores in memory: what was committed is kept when they are opened again."""

    def __init__(self, folder: Path, clock: ManualClock) -> None:
        self.tables = Tables()
        self.blobs = MemoryBlobs(folder, clock.now)
        self.logs = MemoryResultLogs(folder)

    async def open(self) -> Stores:
        batches, files, uploads = MemoryBatches(self.tables), MemoryFiles(self.tables), MemoryUploads(self.tables)
        books, caps = MemoryBooks(self.tables), MemoryCaps(self.tables)
        webhooks = MemoryWebhooks(self.tables.webhooks)
        return Stores(batches, files, uploads, self.blobs, self.logs, books, caps, webhooks)

    async def close(self) -> None:
        return


class Disk:
    """SQLite and files in a folder."""

    def __init__(self, folder: Path, template: Path, busy: Busy, troubles: Troubles) -> None:
        self._folder = folder
        self._troubles = troubles
        self._busy = busy
        self._opened = 0
        shutil.copy(template, sqlite_file(folder))

    async def open(self) -> Stores:
        self._opened += 1
        self._database = Database(sqlite_file(self._folder))
        self._workplace = Workplace(self._folder, WorkerId(f"process-{self._opened}"))
        return Stores(
            self._busy.watch(SqlBatches(self._database)),
            self._busy.watch(SqlFiles(self._database)),
            self._busy.watch(SqlUploads(self._database)),
            LocalBlobs(self._folder, self._workplace.temporary),
            LocalResultLogs(self._folder, self._troubles),
            self._busy.watch(SqlBooks(self._database)),
            self._busy.watch(SqlCaps(self._database)),
            self._busy.watch(SqlWebhooks(self._database)),
        )

    async def close(self) -> None:
        await self._database.close()
        self._workplace.close()


class House:
    """A whole service without HTTP."""

    def __init__(self, kind: Memory | Disk, clock: ManualClock, troubles: TroublesInMind) -> None:
        self.clock = clock
        self.troubles = troubles
        self.upstream = InProcessUpstream(clock)
        self.upstreams = [self.upstream]
        self.deployments = ScriptedDeployments([deployment(MODEL, self.upstream)])
        self.dispatcher: Dispatcher | None = None
        self.entropy = CountedEntropy()
        self.quotas: QuotaParts | None = None
        self.kind = kind
        self.pools: dict[Any, Pool] = {}
        self._task: asyncio.Task[None] | None = None
        self._starts = 0
        self._batch_files: dict[BatchId, list[str]] = {}

    async def open(self) -> None:
        """Open the stores and the services on them."""
        self.stores = await self.kind.open()
        limits = dict(DEFAULTS)
        self.files = FileService(self.stores.files, self.stores.blobs, self.clock, self.entropy, limits)
        self.batches = BatchService(self.stores.batches, self.clock, self.entropy, limits, self)
        self.usage = UsageService(self.stores.books, self.stores.caps, PRICES, self.clock)

    def batch_created(self) -> None:
        """Pass the nudge on to whoever works at the moment."""
        if self.dispatcher is not None:
            self.dispatcher.batch_created()

    def batch_changed(self, batch_id: BatchId) -> None:
        """Pass the nudge on to whoever works at the moment."""
        if self.dispatcher is not None:
            self.dispatcher.batch_changed(batch_id)

    def start(self) -> None:
        """Start to work; a start after a start is a second process."""
        self._starts += 1
        self.dispatcher = self.make_dispatcher(f"worker-{self._starts}")
        self._task = asyncio.get_running_loop().create_task(self.dispatcher.run(), name="dispatcher")

    def make_dispatcher(self, worker: str) -> Dispatcher:
        """Put an engine together on our stores."""
        attempts = Attempts(RetryPolicy(), self.clock, self.entropy)
        self.pools = {upstream.name: Pool(upstream, attempts, self.clock) for upstream in self.upstreams}
        parts = Parts(
            batches=self.stores.batches,
            files=self.stores.files,
            blobs=self.stores.blobs,
            logs=self.stores.logs,
            deployments=self.deployments,
            router=Router(self.pools.values(), self.clock),
            offload=InPlace(),
            clock=self.clock,
            entropy=self.entropy,
            limits=dict(DEFAULTS),
            troubles=self.troubles,
            usage=self.usage,
            stop_grace=STOP_GRACE,
            quotas=self.quotas,
        )
        stores = self.stores
        sweeper = Sweeper(stores.files, stores.uploads, stores.batches, stores.blobs, stores.logs, self.clock)
        return Dispatcher(parts, sweeper, WorkerId(worker), shutdown_grace=SHUTDOWN_GRACE)

    @property
    def working(self) -> bool:
        """Whether the engine runs."""
        return self._task is not None and not self._task.done()

    async def stop(self, *, within: float = 3_600.0) -> None:
        """Stop in order."""
        if self.dispatcher is not None and self._task is not None:
            self.dispatcher.stop()
            await self.clock.run_until(self._task.done, within=within)
            await self._task
        self._task = self.dispatcher = None

    async def kill(self) -> None:
        """Drop everything that is in memory."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        self._task = self.dispatcher = None
        await self.clock.settle()

    async def reopen(self) -> None:
        """Open the stores again, as a new process does."""
        await self.kind.close()
        await self.open()

    async def close(self) -> None:
        """Leave nothing behind; an engine that died in between makes itself heard here at the latest."""
        try:
            await self.kill()
        finally:
            await self.kind.close()

    async def upload(self, content: bytes, flavour: Flavour = Flavour.OPENAI, **more: Any) -> File:
        """Store an input file."""
        new = NewFile(filename="in.jsonl", purpose="batch", **more)
        async with self.files.receiving(flavour) as receiver:
            await receiver.write(content)
            return await receiver.finish(DEFAULT_RESOURCE, flavour, new)

    async def submit(
        self, requests: int | Sequence[bytes] = 3, flavour: Flavour = Flavour.OPENAI, **more: Any
    ) -> Batch:
        """Upload a file and create a batch of it."""
        lines = [line(number) for number in range(requests)] if isinstance(requests, int) else requests
        file = await self.upload(b"\n".join(lines), flavour)
        new = NewBatch(**{"input_file_id": file.id, "endpoint": URL, "completion_window": "24h"} | more)
        batch = await self.batches.create(DEFAULT_RESOURCE, flavour, new)
        self._batch_files[batch.id] = [json.loads(raw)["custom_id"] for raw in lines]
        return batch

    async def adopt(self, batch: Batch) -> Batch:
        """Have a batch that ``submit`` did not create checked like those that it did."""
        content = await self.content(batch.input_file_id)
        self._batch_files[batch.id] = [json.loads(raw)["custom_id"] for raw in content.splitlines()]
        return batch

    async def look(self, batch: Batch) -> Batch:
        """Read the batch as it stands."""
        return await self.batches.get(DEFAULT_RESOURCE, batch.id)

    async def cancel(self, batch: Batch) -> Batch:
        """Cancel the batch."""
        return await self.batches.cancel(DEFAULT_RESOURCE, batch.id)

    async def reach(self, batch: Batch, *statuses: BatchStatus, within: float = 3_600.0) -> Batch:
        """Let time pass until the batch has one of the statuses; without any, until it has ended."""

        async def there() -> bool:
            self.complain()
            found = await self.look(batch)
            return found.status in statuses if statuses else found.ended

        await self.clock.run_until(there, within=within)
        return await self.look(batch)

    def complain(self) -> None:
        """Fail with the engine's own error if it died."""
        if self._task is not None and self._task.done():
            self._task.result()

    async def sent(self, count: int) -> None:
        """Let time pass until so many requests have reached the upstream."""

        def there() -> bool:
            self.complain()
            return len(self.upstream.sent) >= count

        await self.clock.run_until(there)

    async def content(self, file_id: FileId | None) -> bytes:
        """Read a file, or nothing."""
        if file_id is None:
            return b""
        _, pieces = await self.files.content(DEFAULT_RESOURCE, file_id)
        return b"".join([piece async for piece in pieces])

    async def results(self, batch: Batch) -> tuple[list[Any], list[Any]]:
        """Read both files of a batch."""
        output, errors = await self.content(batch.output_file_id), await self.content(batch.error_file_id)
        return [json.loads(raw) for raw in output.splitlines()], [json.loads(raw) for raw in errors.splitlines()]

    async def check(self, batch: Batch) -> tuple[list[Any], list[Any]]:
        """Check what must hold of every batch that was run and has ended; gives both files."""
        output, errors = await self.results(batch)
        asked = self._batch_files[batch.id]
        unrun = [entry for entry in errors if entry["error"] and entry["error"]["code"].startswith(("batch_", "bill"))]

        assert batch.ended
        assert Counter(asked) == Counter(entry["custom_id"] for entry in output + errors)
        assert [name for name in asked if name in {entry["custom_id"] for entry in output}] == [
            entry["custom_id"] for entry in output
        ]
        assert batch.total == len(asked)
        assert batch.completed == len(output)
        assert batch.failed == len(errors) - len(unrun)
        # An answer that no filter has judged is withheld, but the model made it.
        withheld = [entry for entry in errors if entry["error"] and " on the answer." in entry["error"]["message"]]
        assert batch.usage.output_tokens == 2 * len(output + withheld)
        assert all(entry["response"]["status_code"] < 300 for entry in output)
        if batch.status is BatchStatus.COMPLETED:
            assert unrun == []
        return output, errors


def line(number: int, **changes: Any) -> bytes:
    """Write the line of a request."""
    body = {"model": MODEL, "messages": [], "n": number}
    return json.dumps({"custom_id": f"r{number}", "method": "POST", "url": URL, "body": body} | changes).encode()


def number_of(body: bytes) -> int:
    """Say which request a body belongs to."""
    return int(msgspec.json.decode(body)["n"])


async def opened(folder: Path, kind: str, template: Path) -> AsyncIterator[House]:
    """Lend a house with everything on this thread but SQLite's own."""
    asyncio.get_running_loop().set_default_executor(InlineExecutor())
    busy = Busy()
    clock = ManualClock(busy=lambda: busy.calls > 0)
    troubles = TroublesInMind(clock)
    stores = Memory(folder, clock) if kind == "memory" else Disk(folder, template, busy, troubles)
    house = House(stores, clock, troubles)
    await house.open()
    try:
        yield house
    finally:
        await house.close()


def commit_at_once(patch: Callable[[object, str, object], None]) -> None:
    """Let the result log commit as soon as something has arrived."""
    patch(local_results, "COMMIT_EVERY", 0.0)
