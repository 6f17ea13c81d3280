"""The books, prices, caps and estimates: pure rules, and the services on stores in memory."""

import asyncio
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.unit.test_services import Desk
from tests.unit.test_tokens import Words

from overnight.domain.accounting import (
    Days,
    UsageTotal,
    account_of,
    day_of,
    difference,
    parse_days,
    tally_after,
    tally_of,
)
from overnight.domain.batch import Batch, BatchStatus, Expiry
from overnight.domain.cap import Cap, CapState, Measure, Period, days_of, describe, parse_amount, problem_of, used
from overnight.domain.errors import InvalidRequest, NotFound
from overnight.domain.flavour import Flavour
from overnight.domain.forecast import Forecast
from overnight.domain.ids import BatchId, FileId, ResourceId
from overnight.domain.limits import USAGE_DAYS
from overnight.domain.price import CostRange, Price, Prices, cost, expected_cost, micros, money
from overnight.domain.result import Tally
from overnight.domain.usage import Usage
from overnight.services import estimates, usage
from overnight.services.estimates import EstimateService, put_prices
from overnight.services.tokens import count_file
from overnight.services.turns import Turns
from overnight.services.usage import UsageQuery, UsageService
from overnight.testing.clock import START, ManualClock
from overnight.testing.stores import MemoryBatches, MemoryBooks, MemoryCaps, Tables

MINE, OTHERS = ResourceId("mine"), ResourceId("others")
PRICE = Price(input=2_000_000, cached_input=500_000, output=8_000_000)
PRICES = Prices(currency="EUR", by_deployment={"m": PRICE})
START_DAY = "2023-11-14"


def a_batch(name: str = "batch_1", resource: ResourceId = MINE, **changes: Any) -> Batch:
    batch = Batch(
        id=BatchId(name),
        resource=resource,
        flavour=Flavour.OPENAI,
        endpoint="/v1/chat/completions",
        input_file_id=FileId("file-1"),
        completion_window="24h",
        created_at=5,
        expires_at=int(START) + 86_400,
        expiry=Expiry.EXPIRE,
        deployment="m",
    )
    return replace(batch, **changes)


class TestBooks:
    """What a batch adds to the books."""

    def test_a_day_is_one_of_utc(self) -> None:
        assert day_of(0) == "1970-01-01"
        assert day_of(86_399.999) == "1970-01-01"
        assert day_of(86_400) == "1970-01-02"
        assert day_of(START) == START_DAY

    def test_what_came_in_between_is_told_by_each_number(self) -> None:
        before = Tally(completed=1, failed=2, usage=Usage(input_tokens=3, cached_tokens=4))
        now = Tally(completed=11, failed=3, usage=Usage(input_tokens=5, cached_tokens=4, output_tokens=7))

        more = Usage(input_tokens=2, output_tokens=7)

        assert difference(now, before) == Tally(completed=10, failed=1, usage=more)

    def test_only_what_differs_is_written_over_what_is_stored(self) -> None:
        known = a_batch(completed=1)
        stored = a_batch(completed=4, failed=2)

        assert tally_after(stored, replace(known, failed=9), known) == Tally(completed=4, failed=9)
        assert tally_of(stored) == Tally(completed=4, failed=2)

    def test_results_are_booked_under_the_deployment(self) -> None:
        assert account_of(a_batch()) == "m"
        assert account_of(a_batch(deployment=None)) == ""

    def test_a_batch_knows_when_it_got_its_status(self) -> None:
        assert a_batch().moved_at == 5
        assert a_batch().to(BatchStatus.FAILED, 77.9).moved_at == 77
        assert a_batch(status=BatchStatus.COMPLETED).moved_at == 5


class TestDays:
    """Which days are told of."""

    def test_without_ends_these_are_the_last_thirty(self) -> None:
        assert parse_days(None, None, START) == Days(first="2023-10-16", last=START_DAY)

    def test_both_ends_are_taken_as_given(self) -> None:
        assert parse_days("2020-02-29", "2020-03-01", START) == Days(first="2020-02-29", last="2020-03-01")

    def test_a_beginning_alone_goes_up_to_today(self) -> None:
        assert parse_days(START_DAY, None, START) == Days(first=START_DAY, last=START_DAY)

    def test_the_beginning_of_time_is_no_end_of_it(self) -> None:
        assert parse_days(None, "0001-01-05", START) == Days(first="0001-01-01", last="0001-01-05")

    @pytest.mark.parametrize(
        ("first", "last", "param", "said"),
        [
            ("yesterday", None, "from", "YYYY-MM-DD"),
            (None, "2023-02-30", "to", "YYYY-MM-DD"),
            ("2023-11-02", "2023-11-01", "from", "earlier day first"),
            ("2022-11-01", "2023-11-02", "from", "366 days at most"),
        ],
    )
    def test_bad_ends_are_refused_with_what_to_do(
        self, first: str | None, last: str | None, param: str, said: str
    ) -> None:
        with pytest.raises(InvalidRequest, match=said) as caught:
            parse_days(first, last, START)

        assert (caught.value.param, caught.value.code) == (param, "invalid_value")

    def test_a_leap_year_is_the_longest_range(self) -> None:
        assert USAGE_DAYS == 366
        assert parse_days("2024-01-01", "2024-12-31", START).last == "2024-12-31"


class TestPrices:
    """Money in whole millionths."""

    @pytest.mark.parametrize(
        ("text", "amount"), [("0", 0), ("0.15", 150_000), ("12", 12_000_000), ("0.000001", 1), ("1E-2", 10_000)]
    )
    def test_an_amount_is_whole_millionths(self, text: str, amount: int) -> None:
        assert micros(Decimal(text)) == amount

    @pytest.mark.parametrize("text", ["-1", "NaN", "Infinity", "0.0000001"])
    def test_what_is_no_amount_is_refused(self, text: str) -> None:
        with pytest.raises(ValueError, match=r"amount|decimal places"):
            micros(Decimal(text))

    @pytest.mark.parametrize(
        ("amount", "text"),
        [(0, "0.00"), (1, "0.000001"), (150_000, "0.15"), (1_500_000, "1.50"), (12_345_678, "12.345678")],
    )
    def test_money_is_written_as_a_decimal_number(self, amount: int, text: str) -> None:
        assert money(amount) == text

    @given(st.integers(0, 10**15))
    def test_what_is_written_is_the_same_amount(self, amount: int) -> None:
        assert micros(Decimal(money(amount))) == amount

    def test_cached_tokens_have_their_own_price(self) -> None:
        spent = Usage(input_tokens=1_000_000, cached_tokens=400_000, output_tokens=500_000, reasoning_tokens=9)

        assert cost(PRICE, spent) == 1_200_000 + 200_000 + 4_000_000

    def test_more_cached_tokens_than_input_cannot_be(self) -> None:
        assert cost(PRICE, Usage(input_tokens=1_000, cached_tokens=9_000)) == 500

    def test_a_cost_is_rounded_to_a_millionth(self) -> None:
        price = Price(input=1, cached_input=0, output=0)

        assert [cost(price, Usage(input_tokens=count)) for count in (0, 499_999, 500_000, 1_499_999)] == [0, 0, 1, 1]

    def test_a_deployment_without_a_price_has_no_cost(self) -> None:
        assert PRICES.cost("other", Usage(input_tokens=1)) is None
        assert PRICES.cost("m", Usage(input_tokens=1)) == 2

    def test_an_expected_cost_goes_from_the_prompts_to_the_longest_answers(self) -> None:
        known = {"prompt_tokens": 1_000, "error": 100}

        assert expected_cost(PRICE, **known, output_bound=50) == CostRange(least=1_800, most=2_200 + 400)
        assert expected_cost(PRICE, **known, output_bound=None) == CostRange(least=1_800, most=None)
        assert expected_cost(PRICE, prompt_tokens=1, error=9, output_bound=0).least == 0


class TestCaps:
    """What a cap bounds."""

    def test_a_period_begins_with_its_first_day(self) -> None:
        assert days_of(Period.DAY, START) == Days(first=START_DAY, last=START_DAY)
        assert days_of(Period.MONTH, START) == Days(first="2023-11-01", last=START_DAY)

    def test_tokens_are_input_and_output_and_money_is_what_has_a_price(self) -> None:
        totals = [
            UsageTotal(resource=MINE, deployment=name, usage=Usage(input_tokens=10, output_tokens=5))
            for name in ("m", "free")
        ]

        assert used(Measure.TOKENS, totals, PRICES) == 30
        assert used(Measure.SPEND, totals, PRICES) == 60

    def test_a_cap_is_reached_when_all_of_it_is_used(self) -> None:
        cap = Cap(resource=MINE, period=Period.DAY, measure=Measure.TOKENS, amount=10)

        assert [CapState(cap=cap, used=count).reached for count in (9, 10, 11)] == [False, True, True]

    def test_the_problem_says_which_cap_and_what_to_do(self) -> None:
        cap = Cap(resource=MINE, period=Period.MONTH, measure=Measure.SPEND, amount=2_500_000)
        problem = problem_of(CapState(cap=cap, used=3), "EUR")

        assert problem.code == "billing_hard_limit_reached"
        assert problem.message == (
            "The cap of this resource is reached: 2.50 EUR a month (UTC). Create the batch again when the next month"
            " has begun, or ask the operator for a higher cap. If it was running already, retry only the requests"
            " that did not run."
        )
        assert describe(replace(cap, measure=Measure.TOKENS), "EUR") == "2,500,000 tokens a month"
        assert a_batch(errors=(problem,)).capped
        assert not a_batch().capped


class Office:
    """The service of usage, and batches that raise its books."""

    def __init__(self, prices: Prices = PRICES) -> None:
        self.clock, self.tables = ManualClock(), Tables()
        self.batches = MemoryBatches(self.tables)
        self.caps = MemoryCaps(self.tables)
        self.usage = UsageService(MemoryBooks(self.tables), self.caps, prices, self.clock)

    async def use(self, tokens: int, **changes: Any) -> None:
        """Have a new batch count some tokens today."""
        batch = a_batch(f"batch_{len(self.tables.batches)}", **changes)
        await self.batches.add(batch)
        tally = Tally(completed=1, usage=Usage(input_tokens=tokens))
        await self.batches.record_progress(batch, tally, now=self.clock.now())


@pytest.fixture
def office() -> Office:
    """Empty books."""
    return Office()


def cap(amount: int, period: Period = Period.DAY, measure: Measure = Measure.TOKENS) -> Cap:
    return Cap(resource=MINE, period=period, measure=measure, amount=amount)


class TestUsageService:
    """What is told, and who is stopped."""

    async def test_a_report_tells_each_day_and_deployment_of_one_resource(self, office: Office) -> None:
        await office.use(10)
        await office.use(20)
        await office.use(5, deployment="free")
        await office.use(99, resource=OTHERS)
        office.clock.jump(86_400)
        await office.use(40)
        await office.usage.set_cap(cap(50))

        report = await office.usage.report(MINE, UsageQuery())

        shown = [
            (each.entry.day, each.entry.deployment, each.entry.usage.input_tokens, each.cost) for each in report.entries
        ]
        assert shown == [(START_DAY, "free", 5, None), (START_DAY, "m", 30, 60), ("2023-11-15", "m", 40, 80)]
        assert report.currency == "EUR"
        assert [(state.used, state.reached) for state in report.caps] == [(40, False)]

    async def test_a_report_can_be_of_one_deployment(self, office: Office) -> None:
        await office.use(10)
        await office.use(5, deployment="free")

        report = await office.usage.report(MINE, UsageQuery(first=START_DAY, last=START_DAY, deployment="free"))

        assert [each.entry.deployment for each in report.entries] == ["free"]
        assert (report.days.first, report.days.last) == (START_DAY, START_DAY)

    async def test_a_report_has_its_bound(self, office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(usage, "USAGE_ROWS", 2)
        for name in ("a", "b"):
            await office.use(1, deployment=name)
        assert len((await office.usage.report(MINE, UsageQuery())).entries) == 2
        await office.use(1, deployment="c")

        with pytest.raises(InvalidRequest, match="fewer days or one deployment"):
            await office.usage.report(MINE, UsageQuery())

    async def test_the_sums_of_all_resources_are_told_to_the_operator(self, office: Office) -> None:
        await office.use(10)
        office.clock.jump(86_400)
        await office.use(20)
        await office.use(5, resource=OTHERS, deployment="free")

        found = await office.usage.totals(UsageQuery())

        assert [(each.total.resource, each.total.usage.input_tokens, each.cost) for each in found] == [
            (MINE, 30, 60),
            (OTHERS, 5, None),
        ]
        assert await office.usage.totals(UsageQuery(deployment="none")) == []

    async def test_nobody_is_stopped_without_a_cap(self, office: Office) -> None:
        await office.use(10)

        assert await office.usage.why_stopped(MINE) is None

    async def test_whoever_used_all_is_stopped(self, office: Office) -> None:
        await office.usage.set_cap(cap(30))
        await office.usage.set_cap(cap(10, measure=Measure.SPEND))
        await office.use(4)
        assert await office.usage.why_stopped(MINE) is None
        await office.use(1)

        problem = await office.usage.why_stopped(MINE)

        assert problem is not None
        assert "0.00001 EUR a day" in problem.message
        assert await office.usage.why_stopped(OTHERS) is None

    async def test_a_first_cap_is_noticed_within_a_second_and_a_higher_one_at_once(self, office: Office) -> None:
        await office.use(10)
        assert await office.usage.why_stopped(MINE) is None
        await office.usage.set_cap(cap(10))
        assert await office.usage.why_stopped(MINE) is None
        office.clock.jump(1)
        assert await office.usage.why_stopped(MINE) is not None

        await office.usage.set_cap(cap(11))

        assert await office.usage.why_stopped(MINE) is None

    async def test_a_cap_can_be_taken_away_once(self, office: Office) -> None:
        await office.usage.set_cap(cap(10))

        assert await office.usage.remove_cap(MINE, Period.DAY, Measure.TOKENS) is True
        assert await office.usage.remove_cap(MINE, Period.DAY, Measure.TOKENS) is False
        assert await office.usage.caps() == []

    async def test_money_cannot_be_capped_without_prices(self) -> None:
        office = Office(Prices(currency="EUR"))

        with pytest.raises(InvalidRequest, match="needs prices"):
            await office.usage.set_cap(cap(1, measure=Measure.SPEND))

        assert office.usage.prices.currency == "EUR"
        assert await office.usage.caps() == []


class Counting(Words):
    """Words of a model that is known, and how many files were counted at once."""


class Slow:
    """A place for work that takes a turn of the loop; knows how much was there at once."""

    def __init__(self) -> None:
        self.now = self.most = self.runs = 0

    async def run(self, work: Any, /, *args: Any, **kwargs: Any) -> Any:
        self.now += 1
        self.runs += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0)
        self.now -= 1
        return work(*args, **kwargs)


def request(model: str = "m", content: str = "one two three", **more: Any) -> bytes:
    body = {"model": model, "messages": [{"role": "user", "content": content}], **more}
    return (
        json.dumps({"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}).encode() + b"\n"
    )


class TestEstimates:
    """What a file will need."""

    @pytest.fixture
    def slow(self) -> Slow:
        return Slow()

    @pytest.fixture
    def desk(self, tmp_path: Path) -> Desk:
        return Desk(tmp_path)

    @pytest.fixture
    def service(self, desk: Desk, slow: Slow) -> EstimateService:
        return EstimateService(desk.files, MemoryBatches(desk.tables), desk.blobs, Turns(slow), Words(), PRICES)

    async def test_tokens_and_cost_are_told_by_model(self, desk: Desk, service: EstimateService) -> None:
        file = await desk.receive(request(max_tokens=100), request(max_tokens=50), request("free"))

        estimate = await service.estimate(MINE, file.id)

        first, second = estimate.models
        assert (first.tokens.model, first.tokens.requests, first.tokens.max_output_tokens) == ("m", 2, 150)
        assert first.cost == CostRange(
            least=2 * first.tokens.prompt_tokens, most=2 * first.tokens.prompt_tokens + 1_200
        )
        assert (second.tokens.model, second.cost) == ("free", None)
        assert estimate.cost == first.cost
        assert estimate.currency == "EUR"
        assert estimate.tokens.requests == 3

    async def test_time_is_told_by_the_batch_of_the_model_that_ran_longest(
        self, desk: Desk, service: EstimateService
    ) -> None:
        file = await desk.receive(*[request() for _ in range(10)])
        before = await service.estimate(MINE, file.id)
        done: dict[str, Any] = {
            "status": BatchStatus.COMPLETED,
            "in_progress_at": 10,
            "total": 100,
            "completed": 60,
            "failed": 40,
        }
        others: dict[str, dict[str, Any]] = {
            "batch_long": {"finalizing_at": 60},
            "batch_short": {"finalizing_at": 10},
            "batch_few": {"finalizing_at": 900, "completed": 3},
            "batch_other": {"finalizing_at": 900, "deployment": "free"},
            "batch_cancelled": {"finalizing_at": 900, "status": BatchStatus.CANCELLED},
        }
        for name, changes in others.items():
            await MemoryBatches(desk.tables).add(a_batch(name, **{**done, **changes}))

        after = await service.estimate(MINE, file.id)

        assert before.duration is None
        assert after.duration == Forecast(seconds=5.0, rate=2.0, basis=BatchId("batch_long"))

    async def test_time_is_not_told_for_several_models_or_by_what_others_ran(
        self, desk: Desk, service: EstimateService
    ) -> None:
        done: dict[str, Any] = {
            "status": BatchStatus.COMPLETED,
            "in_progress_at": 10,
            "finalizing_at": 60,
            "completed": 60,
        }
        await MemoryBatches(desk.tables).add(a_batch("batch_1", **done))
        await MemoryBatches(desk.tables).add(a_batch("batch_2", OTHERS, **done, deployment="free"))
        mixed = await desk.receive(request(), request("free"))
        free = await desk.receive(request("free"))

        assert (await service.estimate(MINE, mixed.id)).duration is None
        assert (await service.estimate(MINE, free.id)).duration is None

    async def test_where_an_answer_is_unbounded_so_is_the_cost(self, desk: Desk, service: EstimateService) -> None:
        file = await desk.receive(request(max_tokens=100), request())

        estimate = await service.estimate(MINE, file.id)

        assert estimate.cost is not None
        assert estimate.cost.most is None

    async def test_embeddings_have_no_answer_to_bound(self, desk: Desk, service: EstimateService) -> None:
        body = {"model": "m", "input": "one two"}
        line = {"custom_id": "a", "method": "POST", "url": "/v1/embeddings", "body": body}
        file = await desk.receive(json.dumps(line).encode())

        estimate = await service.estimate(MINE, file.id)

        assert estimate.cost == CostRange(least=4, most=4)

    async def test_a_file_is_counted_once(self, desk: Desk, service: EstimateService, slow: Slow) -> None:
        file = await desk.receive(request())

        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(service.estimate(MINE, file.id)) for _ in range(5)]

        assert len({id(task.result().tokens) for task in asked}) == 1
        assert (slow.runs, slow.most) == (1, 1)

    async def test_files_are_counted_one_after_the_other(
        self, desk: Desk, service: EstimateService, slow: Slow
    ) -> None:
        files = [await desk.receive(request()) for _ in range(3)]

        async with asyncio.TaskGroup() as group:
            for file in files:
                group.create_task(service.estimate(MINE, file.id))

        assert (slow.runs, slow.most) == (3, 1)

    async def test_what_was_asked_about_longest_ago_is_forgotten(
        self, desk: Desk, service: EstimateService, slow: Slow, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(estimates, "_MOST_KEPT", 2)
        first, second, third = [await desk.receive(request()) for _ in range(3)]
        for file in (first, second, first, third, first):
            await service.estimate(MINE, file.id)
        assert slow.runs == 3

        await service.estimate(MINE, second.id)

        assert slow.runs == 4

    async def test_a_foreign_or_deleted_file_is_unknown(self, desk: Desk, service: EstimateService) -> None:
        file = await desk.receive(request())
        await service.estimate(MINE, file.id)

        with pytest.raises(NotFound):
            await service.estimate(OTHERS, file.id)
        await desk.files.delete(MINE, file.id)
        with pytest.raises(NotFound):
            await service.estimate(MINE, file.id)

    async def test_only_files_of_requests_can_be_estimated(self, desk: Desk, service: EstimateService) -> None:
        file = await desk.receive(b"x", purpose="user_data")

        with pytest.raises(InvalidRequest, match="purpose 'user_data'"):
            await service.estimate(MINE, file.id)

    def test_without_prices_there_is_no_cost(self, tmp_path: Path) -> None:
        path = tmp_path / "in.jsonl"
        path.write_bytes(request())

        found = put_prices(count_file(path, Words()), Prices(currency="USD"))

        assert (found.cost, found.models[0].cost) == (None, None)


class TestAmounts:
    """The amount of a cap as people write it."""

    @pytest.mark.parametrize(
        ("text", "measure", "amount"),
        [
            ("1,000_000", Measure.TOKENS, 1_000_000),
            ("0", Measure.TOKENS, 0),
            ("2.5", Measure.SPEND, 2_500_000),
        ],
    )
    def test_it_is_read(self, text: str, measure: Measure, amount: int) -> None:
        assert amount == parse_amount(text, measure)

    @pytest.mark.parametrize(
        ("text", "measure"),
        [
            ("-1", Measure.TOKENS),
            ("many", Measure.TOKENS),
            ("9" * 30, Measure.TOKENS),
            ("much", Measure.SPEND),
            ("NaN", Measure.SPEND),
            ("1e999999", Measure.SPEND),
            ("-0.5", Measure.SPEND),
        ],
    )
    def test_what_is_none_is_refused(self, text: str, measure: Measure) -> None:
        with pytest.raises(ValueError, match=r"."):
            parse_amount(text, measure)


class TestPages:
    """The same page by page, for operators."""

    async def test_sums_follow_each_other(self, office: Office) -> None:
        await office.use(10)
        await office.use(5, deployment="free")
        await office.use(99, resource=OTHERS)

        first = await office.usage.total_page(UsageQuery(), None, after=None, limit=2)
        rest = await office.usage.total_page(UsageQuery(), None, after=usage.total_id(first.page.items[-1]), limit=2)
        mine = await office.usage.total_page(UsageQuery(), MINE, after=None, limit=9)

        assert [usage.total_id(each) for each in first.page.items] == ["mine/free", "mine/m"]
        assert [usage.total_id(each) for each in rest.page.items] == ["others/m"]
        assert (first.page.has_more, rest.page.has_more, len(mine.page.items)) == (True, False, 2)
        with pytest.raises(InvalidRequest):
            await office.usage.total_page(UsageQuery(), None, after="nobody/m", limit=2)

    async def test_caps_follow_each_other(self, office: Office) -> None:
        await office.usage.set_cap(cap(30))
        await office.usage.set_cap(cap(10, Period.MONTH))

        first = await office.usage.cap_page(None, after=None, limit=1)
        rest = await office.usage.cap_page(MINE, after=usage.cap_id(first.items[0].cap), limit=1)

        assert [each.cap.amount for each in (*first.items, *rest.items)] == [30, 10]
        assert (first.has_more, rest.has_more) == (True, False)
