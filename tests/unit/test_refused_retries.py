"""What a retry that is refused costs: nothing is copied where that can be told before, and no copy stays."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from tests.unit.test_requests import MINE, Shop, some

from overnight.domain.batch import Batch
from overnight.domain.errors import QuotaExceeded, ServiceError, TokenLimitExceeded, TooManyRequests, Unavailable
from overnight.domain.flavour import Flavour
from overnight.domain.limits import CREATION_SECONDS, DEFAULTS, Limits
from overnight.domain.rate import Rate
from overnight.services.batches import BatchService
from overnight.services.files import FileService, Receiver
from overnight.services.rates import Allowances, Rates, Running
from overnight.services.retry import NewRetry, RetryService, Which

UNBOUNDED = Allowances(None, {Flavour.OPENAI: None}, Running(None))


class CountedFiles(FileService):
    """Counts the copies that were begun."""

    copies = 0

    @asynccontextmanager
    async def receiving(self, flavour: Flavour, *, limit: int | None = None) -> AsyncIterator[Receiver]:
        self.copies += 1
        async with super().receiving(flavour, limit=limit) as receiver:
            yield receiver


class Full:
    """A quota without room (``services/gate.py``), which may be seen before the input or only by it."""

    def __init__(self, *, seen_before: bool) -> None:
        self.seen_before = seen_before

    async def require_any(self, batch: Batch) -> None:
        if self.seen_before:
            raise TokenLimitExceeded("no room", code="token_limit_exceeded")

    async def check(self, batch: Batch) -> None:
        raise TokenLimitExceeded("no room", code="token_limit_exceeded")


class Counter:
    """A shop with a batch that can be run again."""

    def __init__(self, folder: Path) -> None:
        self.shop = Shop(folder)
        self.bounded()

    def bounded(self, gate: Any = None, allowances: Allowances = UNBOUNDED, **limits: Any) -> None:
        """Put bounds on what comes from now on."""
        shop = self.shop
        in_force: dict[Flavour, Limits] = {flavour: replace(each, **limits) for flavour, each in DEFAULTS.items()}
        self.files = CountedFiles(shop.file_records, shop.blobs, shop.clock, shop.entropy, in_force)
        self.batches = BatchService(shop.batches, shop.clock, shop.entropy, in_force, shop, gate)
        self.retries = RetryService(shop.requests, self.batches, self.files, allowances)

    async def begin(self) -> None:
        """Let a batch end without a result."""
        self.batch = await self.shop.end(await self.shop.begin(some(2)))

    async def retry(self) -> Batch:
        """Run it again."""
        return await self.retries.retry(MINE, self.batch.id, NewRetry(which=Which.NOT_RUN))

    async def refused(self, error: type[ServiceError]) -> None:
        """Try to run it again."""
        with pytest.raises(error):
            await self.retry()

    def inputs(self) -> int:
        """Count the uploaded files whose bytes are stored."""
        return sum(key.startswith("files/") for key in self.shop.blobs.held)


@pytest.fixture
async def counter(tmp_path: Path) -> Counter:
    made = Counter(tmp_path)
    await made.begin()
    return made


async def test_in_a_full_hour_one_copy_is_made_and_none_stays(counter: Counter) -> None:
    """The first refusal tells how long all others are refused for."""
    counter.bounded(batches_per_hour=1)
    before = counter.inputs()
    for _ in range(3):
        await counter.refused(TooManyRequests)

    assert (counter.files.copies, counter.inputs()) == (1, before)

    counter.shop.clock.jump(CREATION_SECONDS)
    await counter.retry()

    assert (counter.files.copies, counter.inputs()) == (2, before + 1)


@pytest.mark.parametrize(("seen_before", "copies"), [(True, 0), (False, 1)])
async def test_without_tokens_no_copy_stays(counter: Counter, copies: int, *, seen_before: bool) -> None:
    """Nor is one made where not a single token is left."""
    counter.bounded(Full(seen_before=seen_before))
    before = counter.inputs()
    await counter.refused(TokenLimitExceeded)

    assert (counter.files.copies, counter.inputs()) == (copies, before)


async def test_as_many_files_as_there_may_be_are_counted_before(counter: Counter) -> None:
    """The copy would be one more."""
    counter.bounded(files_with_expiry=1)
    await counter.refused(QuotaExceeded)

    assert counter.files.copies == 0


async def test_a_retry_counts_as_a_file_that_is_begun(counter: Counter) -> None:
    """It costs as much."""
    rates = Rates(Rate(most=1), counter.shop.clock)
    counter.bounded(allowances=Allowances(None, {Flavour.OPENAI: rates}, Running(None)))
    await counter.retry()
    await counter.refused(TooManyRequests)

    assert counter.files.copies == 1


async def test_a_retry_counts_as_a_file_that_is_sent(counter: Counter) -> None:
    """While it copies, and no longer."""
    sent = Running(1)
    counter.bounded(allowances=Allowances(None, {Flavour.OPENAI: None}, sent))
    await counter.retry()
    sent.begin(MINE)
    await counter.refused(TooManyRequests)

    assert counter.files.copies == 1


async def test_a_copy_that_somebody_found_and_used_keeps_its_bytes(counter: Counter) -> None:
    """Its record was in the lists for a moment; a batch that reads it goes on."""
    shop = counter.shop
    file = await shop.upload(b"{}")
    await shop.batches.add(replace(counter.batch, id="batch_other", status="in_progress", input_file_id=file.id))
    await counter.files.discard(MINE, file.id)

    assert file.blob in shop.blobs.held
    assert (await shop.file_records.get(MINE, file.id, now=0)) is None


async def test_only_the_copy_goes_at_once(counter: Counter) -> None:
    """What else was deleted waits for a sweep."""
    shop = counter.shop
    other, copy = await shop.upload(b"{}"), await shop.upload(b"{}")
    await counter.files.delete(MINE, other.id)
    await counter.files.discard(MINE, copy.id)

    assert (other.blob in shop.blobs.held, copy.blob in shop.blobs.held) == (True, False)


class Failing:
    """A store that breaks while a batch is being stored, before or after it is (``ports/batches.py``)."""

    def __init__(self, shop: Shop, *, stores: bool, answers: bool) -> None:
        self._under, self._stores, self._answers = shop.batches, stores, answers
        self.broken = False

    def __getattr__(self, name: str) -> Any:
        if self.broken and not self._answers:
            raise Unavailable("away")
        return getattr(self._under, name)

    async def add(self, batch: Batch, **more: Any) -> None:
        self.broken = True
        if self._stores:
            await self._under.add(batch, **more)
        raise Unavailable("away")


@pytest.mark.parametrize(
    ("stores", "answers", "left"), [(False, True, 0), (True, True, 1), (False, False, 1), (True, False, 1)]
)
async def test_when_the_store_breaks_the_copy_goes_unless_a_batch_may_need_it(
    counter: Counter, left: int, *, stores: bool, answers: bool
) -> None:
    """Whether the batch was stored is looked up, and where that cannot be, the copy stays until it expires."""
    shop = counter.shop
    failing: Any = Failing(shop, stores=stores, answers=answers)
    batches = BatchService(failing, shop.clock, shop.entropy, DEFAULTS, shop)
    counter.retries = RetryService(shop.requests, batches, counter.files)
    before = counter.inputs()
    await counter.refused(Unavailable)

    assert before + left == counter.inputs()
