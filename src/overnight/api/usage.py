"""Routes of usage and of estimates: what was used and what it cost, and what a file will need."""

import asyncio
from typing import Annotated, Literal, Self

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from overnight.api.context import Context, reply
from overnight.api.schemas import UsageObject
from overnight.domain.cap import CapState, Measure
from overnight.domain.forecast import Forecast
from overnight.domain.ids import FileId
from overnight.domain.price import CostRange, money
from overnight.domain.usage import NO_USAGE
from overnight.services.estimates import Estimate, PricedModel
from overnight.services.usage import PricedDay, UsageQuery, UsageReport

_COST = "Decimal number, in the currency of the reply; null where there is no price."


class UsageCounts(BaseModel):
    """Requests that ended."""

    completed: int
    failed: int


class UsageDayObject(BaseModel):
    """What was used of one deployment on one day (UTC)."""

    object: Literal["usage.day"] = "usage.day"
    day: str
    deployment: str
    request_counts: UsageCounts
    usage: UsageObject
    cost: str | None = Field(description=_COST)

    @classmethod
    def of(cls, priced: PricedDay) -> Self:
        """Put an entry of the books into its wire shape."""
        entry = priced.entry
        return cls(
            day=entry.day,
            deployment=entry.deployment,
            request_counts=UsageCounts(completed=entry.completed, failed=entry.failed),
            usage=UsageObject.of(entry.usage),
            cost=_money(priced.cost),
        )


class CapObject(BaseModel):
    """A cap, and how much of it is used in the day or month that runs."""

    object: Literal["usage.cap"] = "usage.cap"
    period: Literal["day", "month"]
    measure: Literal["tokens", "spend"]
    limit: str = Field(description="Tokens, or money as a decimal number.")
    used: str = Field(description="As `limit`.")
    reached: bool

    @classmethod
    def of(cls, state: CapState) -> Self:
        """Put the state of a cap into its wire shape."""
        show = str if state.cap.measure is Measure.TOKENS else money
        return cls(
            period=state.cap.period.value,
            measure=state.cap.measure.value,
            limit=show(state.cap.amount),
            used=show(state.used),
            reached=state.reached,
        )


class UsageReportObject(BaseModel):
    """What was used in a range of days, both ends included; `cost` sums the entries that have one."""

    object: Literal["usage"] = "usage"
    first_day: str
    last_day: str
    currency: str
    request_counts: UsageCounts
    usage: UsageObject
    cost: str | None = Field(description=_COST)
    data: list[UsageDayObject]
    caps: list[CapObject]

    @classmethod
    def of(cls, report: UsageReport) -> Self:
        """Put a report into its wire shape."""
        entries = [priced.entry for priced in report.entries]
        costs = [priced.cost for priced in report.entries if priced.cost is not None]
        return cls(
            first_day=report.days.first,
            last_day=report.days.last,
            currency=report.currency,
            request_counts=UsageCounts(
                completed=sum(entry.completed for entry in entries), failed=sum(entry.failed for entry in entries)
            ),
            usage=UsageObject.of(sum((entry.usage for entry in entries), NO_USAGE)),
            cost=_money(sum(costs) if costs else None),
            data=[UsageDayObject.of(priced) for priced in report.entries],
            caps=[CapObject.of(state) for state in report.caps],
        )


class PromptTokens(BaseModel):
    """How many tokens prompts have: `count` is right within `error` in 95 of 100 cases, as far as sampling goes."""

    count: int
    error: int
    basis: Literal["exact", "sampled", "estimate"] = Field(
        description="exact: all were counted; sampled: some of a large file; estimate: no tokenizer of the model is"
        " known, or a part of the prompts has no documented count."
    )
    tokenizer: str


class CostRangeObject(BaseModel):
    """From the prompts alone to the longest answers that the requests allow; nothing is taken to be cached."""

    least: str
    most: str | None = Field(description="Null where a request does not bound its answer.")

    @classmethod
    def of(cls, cost: CostRange) -> Self:
        """Put a range into its wire shape."""
        return cls(least=money(cost.least), most=_money(cost.most))


class ModelEstimate(BaseModel):
    """The requests for one model."""

    model: str
    requests: int
    images: int
    prompt_tokens: PromptTokens
    max_output_tokens: int | None = Field(description="Null where a request does not bound its answer.")
    cost: CostRangeObject | None

    @classmethod
    def of(cls, priced: PricedModel) -> Self:
        """Put what is known of a model into its wire shape."""
        tokens = priced.tokens
        return cls(
            model=tokens.model,
            requests=tokens.requests,
            images=tokens.images,
            prompt_tokens=PromptTokens(
                count=tokens.prompt_tokens,
                error=tokens.error,
                basis=tokens.accuracy.value,
                tokenizer=tokens.tokenizer,
            ),
            max_output_tokens=tokens.max_output_tokens if tokens.bounded == tokens.requests else None,
            cost=CostRangeObject.of(priced.cost) if priced.cost else None,
        )


class DurationObject(BaseModel):
    """How long the requests take if they get on as those of another batch did, and nothing else runs."""

    seconds: float
    requests_per_second: float
    basis: str = Field(description="Id of that batch: of the newest 100 of the same model, the one that ran longest.")

    @classmethod
    def of(cls, found: Forecast) -> Self:
        """Put a forecast into its wire shape."""
        return cls(seconds=round(found.seconds, 1), requests_per_second=round(found.rate, 3), basis=found.basis)


class EstimateObject(BaseModel):
    """What a file will need. Lines that are no requests are counted in `unreadable` only."""

    object: Literal["file.estimate"] = "file.estimate"
    file_id: str
    requests: int
    unreadable: int
    bytes: int
    models: list[ModelEstimate]
    currency: str
    cost: CostRangeObject | None = Field(description="The sum over the models that have a price.")
    duration: DurationObject | None = Field(description="Null unless a batch of the same model tells how fast it is.")

    @classmethod
    def of(cls, file_id: str, estimate: Estimate) -> Self:
        """Put an estimate into its wire shape."""
        return cls(
            file_id=file_id,
            requests=estimate.tokens.requests,
            unreadable=estimate.tokens.unreadable,
            bytes=estimate.tokens.bytes,
            models=[ModelEstimate.of(each) for each in estimate.models],
            currency=estimate.currency,
            cost=CostRangeObject.of(estimate.cost) if estimate.cost else None,
            duration=DurationObject.of(estimate.duration) if estimate.duration else None,
        )


def usage_routes(context: Context) -> APIRouter:
    """Make the routes of usage for one prefix."""
    routes = APIRouter()
    usage, estimates = context.services.usage, context.services.estimates

    @routes.get("/usage", response_model=UsageReportObject)
    async def get_usage(
        request: Request,
        first: Annotated[
            str | None, Query(alias="from", description="First day (UTC), YYYY-MM-DD; 30 days in all if left out.")
        ] = None,
        last: Annotated[
            str | None, Query(alias="to", description="Last day (UTC), YYYY-MM-DD; today if left out.")
        ] = None,
        only: Annotated[str | None, Query(alias="deployment", description="Only this one.")] = None,
    ) -> Response:
        """Tell what was used, by day and deployment: at most 366 days and 10,000 entries in one reply."""
        query = UsageQuery(first=first, last=last, deployment=only)
        report = await usage.report(context.resource(request), query)
        # Ten thousand entries take a while to write out.
        return await asyncio.to_thread(lambda: reply(UsageReportObject.of(report)))

    @routes.get("/files/{file_id}/estimate", response_model=EstimateObject)
    async def estimate_file(request: Request, file_id: str) -> Response:
        """Estimate tokens, cost and time of a file of requests; texts of files over 16 MB are counted in part."""
        estimate = await estimates.estimate(context.resource(request), FileId(file_id))
        return reply(EstimateObject.of(file_id, estimate))

    return routes


def _money(amount: int | None) -> str | None:
    return None if amount is None else money(amount)
