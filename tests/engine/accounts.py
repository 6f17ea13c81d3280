"""What tests of quotas and caps share: a house with limits, and what its books say."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace
from tests.engine.house import MODEL, House, line

from overnight.adapters.tokens.choice import ChosenCounters
from overnight.dispatch.owned import QuotaParts
from overnight.domain.accounting import Days, difference, tally_of
from overnight.domain.batch import Batch, BatchStatus
from overnight.domain.cap import Cap, Measure, Period
from overnight.domain.ids import DEFAULT_RESOURCE
from overnight.domain.quota import OverQuota
from overnight.domain.result import Tally
from overnight.services.quotas import Inputs, QuotaService
from overnight.testing.in_process import Reply, answer
from overnight.testing.offload import InPlace
from overnight.testing.quotas import MemoryQuotas
from overnight.testing.stores import MemoryKeys, Tables

EACH = 8
"""The prompt tokens of each of ``requests``: 7 of the message and its prompt, 1 of the text."""
CAP_CODE = "billing_hard_limit_reached"
EVER = Days(first="1970-01-01", last="9999-12-31")


def requests(count: int) -> list[bytes]:
    """Write requests of ``EACH`` tokens."""
    messages = [{"role": "user", "content": "word"}]
    return [line(number, body={"model": MODEL, "messages": messages, "n": number}) for number in range(count)]


def hold(house: House) -> asyncio.Event:
    """Let no request be answered until the event is set."""
    held = asyncio.Event()
    house.upstream.script = lambda _: Reply(outcome=answer(), held=held)
    return held


async def statuses(house: House, batches: Sequence[Batch]) -> list[BatchStatus]:
    """Look at several."""
    return [(await house.look(batch)).status for batch in batches]


class Counting(InPlace):
    """Notes how often a file was checked or counted."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    async def run(self, work: Any, /, *args: Any, **kwargs: Any) -> Any:
        self.calls.append(work.__name__)
        return await super().run(work, *args, **kwargs)


class Quota:
    """The quota on the one deployment of a house."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.counting = Counting()
        tables = Tables()
        self.quotas, self.keys = MemoryQuotas(tables), MemoryKeys(tables)

    def set(self, requests: int | None, over: OverQuota = OverQuota.FAIL) -> None:
        """Let so many requests be enqueued."""
        (deployment,) = self.house.deployments.now.deployments
        tokens = None if requests is None else requests * EACH
        changed = replace(deployment, enqueued_tokens=tokens, over_quota=over)
        self.house.deployments.now = replace(self.house.deployments.now, deployments=(changed,))
        self.open()

    def open(self) -> None:
        """Work on the stores as they are now."""
        stores = self.house.stores
        self.service = QuotaService(self.quotas, stores.batches, self.house.deployments)
        self.inputs = Inputs(stores.blobs, self.counting, self.counting, ChosenCounters({}), self.house.entropy)
        self.house.quotas = QuotaParts(service=self.service, inputs=self.inputs)

    async def enqueued(self) -> int:
        """Say how many requests are enqueued, as far as their tokens go."""
        found = await self.house.stores.batches.enqueued(DEFAULT_RESOURCE, [MODEL])
        return int(found[MODEL]) // EACH


async def set_cap(house: House, amount: int, period: Period = Period.DAY, measure: Measure = Measure.TOKENS) -> None:
    """Bound what the resource of a house may use."""
    await house.usage.set_cap(Cap(resource=DEFAULT_RESOURCE, period=period, measure=measure, amount=amount))


async def booked(house: House) -> Tally:
    """Give what the books say of all resources and days."""
    sum_ = Tally()
    for total in await house.stores.books.totals(EVER):
        sum_ = _plus(sum_, Tally(completed=total.completed, failed=total.failed, usage=total.usage))
    return sum_


async def check_books(house: House, *batches: Batch) -> None:
    """The books must add up to what the batches count."""
    counted = Tally()
    for batch in batches:
        counted = _plus(counted, tally_of(await house.look(batch)))

    assert await booked(house) == counted


def _plus(one: Tally, other: Tally) -> Tally:
    return difference(one, difference(Tally(), other))
