"""The settings of deployments: their names, prices, quotas, and the content filters that they name."""

from __future__ import annotations

from decimal import Decimal
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from overnight.domain.batch import Expiry
from overnight.domain.content_filter import (
    Category,
    ContentFilter,
    FilterKind,
    Judged,
    OnTrouble,
    Threshold,
    Thresholds,
)
from overnight.domain.price import Price, micros
from overnight.domain.quota import OverQuota

_TOKENIZERS = ("auto", "estimate", "o200k", "cl100k")


def known_tokenizer(setting: str) -> str:
    """Give the setting back. Raises ``ValueError`` if it is neither a name nor the path of a JSON file."""
    if setting not in _TOKENIZERS and not setting.endswith(".json"):
        message = f"`{setting}` is no tokenizer: {', '.join(_TOKENIZERS)} or the path of a tokenizer.json"
        raise ValueError(message)
    return setting


class PriceSettings(BaseModel):
    """Prices for a million tokens, in the currency that the settings name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    input: Decimal = Field(ge=0, decimal_places=6, description="A million input tokens.")
    cached_input: Decimal | None = Field(
        default=None, ge=0, decimal_places=6, description="A million cached input tokens; as input if left out."
    )
    output: Decimal = Field(default=Decimal(0), ge=0, decimal_places=6, description="A million output tokens.")

    def to_price(self) -> Price:
        """Give the price in whole millionths."""
        cached = self.input if self.cached_input is None else self.cached_input
        return Price(input=micros(self.input), cached_input=micros(cached), output=micros(self.output))


class DeploymentSettings(BaseModel):
    """A name that callers use as ``model``; without any, each model of each upstream is one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="What callers write as model.")
    model: str = Field(default="", description="What the upstreams call it; the same name if left out.")
    upstreams: tuple[str, ...] = Field(default=(), description="Names of upstreams; all of them if left out.")
    expiry: Expiry | None = Field(
        default=None, description="expire or continue at the end of the window; the rule of the route if left out."
    )
    tokenizer: str = Field(
        default="auto",
        description="What counts prompt tokens: auto (by the model's name), estimate (by size), o200k, cl100k, or the "
        "path of a tokenizer.json.",
    )
    price: PriceSettings | None = Field(default=None, description="What its tokens cost; a table, see below.")

    enqueued_tokens: int | None = Field(
        default=None,
        ge=0,
        description="Most prompt tokens that each resource may have enqueued, unless it has a number or an offer of "
        "its own; no limit if left out.",
    )
    over_quota: OverQuota = Field(
        default=OverQuota.FAIL,
        description="What happens to a batch that does not fit: fail (it fails in validation), queue (it waits in "
        "validating), fail_fast (creating it is refused where that can be told at once).",
    )

    content_filter: str | None = Field(
        default=None, description="Name of the content filter that judges prompts and answers; none if left out."
    )
    annotate: Literal["unfiltered"] | None = Field(
        default=None,
        description="unfiltered adds content filter results to answers which say that no filter has judged them.",
    )

    @model_validator(mode="after")
    def _filtered_or_not(self) -> DeploymentSettings:
        if self.content_filter is not None and self.annotate is not None:
            message = "a deployment with a content filter cannot say that it is unfiltered; leave out annotate"
            raise ValueError(message)
        return self

    @field_validator("tokenizer")
    @classmethod
    def _known(cls, tokenizer: str) -> str:
        return known_tokenizer(tokenizer)


class ContentFilterSettings(BaseModel):
    """A filter that deployments name; it is asked at an upstream of its own or of a deployment."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="What deployments name as content_filter.")
    kind: FilterKind = Field(description="How it is asked: OpenAI's moderations, or a chat with a guard model.")
    upstream: str = Field(default="", description="Name of the upstream that it is asked at.")
    deployment: str = Field(default="", description="Or the name of a deployment, for its upstreams and its model.")
    model: str = Field(default="", description="What the upstream calls the model; moderations may do without.")
    thresholds: dict[Category, Threshold] = Field(
        default={},
        description="From which severity on a category is filtered: low, medium, high or off for each of hate, "
        "self_harm, sexual and violence; medium if left out.",
    )
    apply_to: tuple[Judged, ...] = Field(default=(), description="What is judged; both if left out.")
    on_trouble: OnTrouble = Field(
        default=OnTrouble.WAIT,
        description="While the filter does not work, its requests wait or, after the usual retries, fail.",
    )

    @model_validator(mode="after")
    def _asked_somewhere(self) -> ContentFilterSettings:
        if bool(self.upstream) == bool(self.deployment):
            message = "name either the upstream or the deployment where the filter is asked"
            raise ValueError(message)
        if self.kind is FilterKind.GUARD and self.upstream and not self.model:
            message = "name the model of the guard"
            raise ValueError(message)
        return self

    def rules(self, model: str) -> ContentFilter:
        """Give the filter as the domain knows it, asked for this model."""
        return ContentFilter(
            name=self.name,
            kind=self.kind,
            model=model,
            thresholds=Thresholds(**{category.value: each for category, each in self.thresholds.items()}),
            judges=frozenset(self.apply_to or Judged),
            on_trouble=self.on_trouble,
        )
