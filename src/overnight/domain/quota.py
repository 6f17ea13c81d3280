"""Quotas of enqueued tokens: which one applies, what a batch holds of it, how a refusal reads (CONTRACT 3.2)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum

import msgspec

from overnight.domain.flavour import Flavour
from overnight.domain.ids import ResourceId

THOUSAND, MILLION, BILLION = 10**3, 10**6, 10**9

TOKEN_LIMIT_EXCEEDED = "token_limit_exceeded"  # noqa: S105 - no password but the code of an error
"""The code of the refusal. It stands in the message, too: SDKs may show nothing else (CONTRACT section 6.4)."""


class Offer(StrEnum):
    """The kinds of subscription that Azure's table knows."""

    ENTERPRISE = "enterprise"
    DEFAULT = "default"
    CREDIT_CARD = "credit-card"
    MSDN = "msdn"
    FREE = "free"


# In the order of Offer. None means that the model is not part of the offer.
_TABLE: Mapping[str, tuple[int | None, ...]] = {
    "gpt-4o": (5 * BILLION, 50 * MILLION, 1_350 * THOUSAND, 90 * THOUSAND, None),
    "gpt-4-turbo": (300 * MILLION, 40 * MILLION, 1_350 * THOUSAND, 90 * THOUSAND, None),
    "gpt-4": (150 * MILLION, 5 * MILLION, 200 * THOUSAND, 100 * THOUSAND, None),
    "gpt-35-turbo": (10 * BILLION, 100 * MILLION, 5 * MILLION, 2 * MILLION, 50 * THOUSAND),
}

PRESETS: Mapping[str, Mapping[Offer, int | None]] = {
    family: dict(zip(Offer, row, strict=True)) for family, row in _TABLE.items()
}
"""Most enqueued tokens by family of models and offer; ``None``: the model is not part of the offer."""

# A snapshot is named by its date: gpt-4o-2024-08-06, gpt-4-0613. The two previews of gpt-4-turbo are called gpt-4-….
_SNAPSHOT = r"(-\d{4}(-\d\d-\d\d)?)?"
_FAMILIES = (
    (re.compile(r"gpt-4-(turbo(-preview)?" + _SNAPSHOT + r"|1106-preview|0125-preview)"), "gpt-4-turbo"),
    (re.compile(r"gpt-4o" + _SNAPSHOT), "gpt-4o"),
    (re.compile(r"gpt-4" + _SNAPSHOT), "gpt-4"),
    (re.compile(r"gpt-3\.?5-turbo" + _SNAPSHOT), "gpt-35-turbo"),
)


class OverQuota(StrEnum):
    """What happens to a batch that does not fit."""

    FAIL = "fail"
    QUEUE = "queue"
    FAIL_FAST = "fail_fast"


class Basis(StrEnum):
    """Where a limit comes from, the strongest first."""

    RESOURCE = "resource"
    OFFER = "offer"
    DEPLOYMENT = "deployment"
    NONE = "none"


class Own(msgspec.Struct, frozen=True, kw_only=True):
    """The number that was set for one deployment of one resource; ``None`` means that there is no limit."""

    resource: ResourceId
    deployment: str
    tokens: int | None


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What was set for a resource: its offer, and numbers of its own by deployment."""

    offer: Offer | None = None
    own: Mapping[str, int | None] = {}


NO_TERMS = Terms()


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """Most enqueued tokens; ``None`` means that there is no limit. ``offer`` is there if the number comes from it."""

    tokens: int | None
    basis: Basis
    offer: Offer | None = None


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """Why a batch does not fit: its tokens (``None`` if they were not counted) and those enqueued already."""

    deployment: str
    model: str
    resource: ResourceId
    limit: Limit
    enqueued: int
    tokens: int | None = None


def family_of(model: str) -> str | None:
    """Give the row of the table that a model belongs to: itself, a dated snapshot, or with a provider's prefix.

    Variants with a price of their own, such as gpt-4o-mini, gpt-4-32k or a fine-tune, belong to none.
    """
    name = model.rpartition("/")[2].lower()
    return next((family for pattern, family in _FAMILIES if pattern.fullmatch(name)), None)


def limit_of(terms: Terms, deployment: str, model: str, setting: int | None) -> Limit:
    """Say which limit applies: the resource's own number, then its offer's, then the deployment's setting."""
    if deployment in terms.own:
        return Limit(tokens=terms.own[deployment], basis=Basis.RESOURCE)
    family = family_of(model)
    if terms.offer is not None and family is not None:
        return Limit(tokens=PRESETS[family][terms.offer] or 0, basis=Basis.OFFER, offer=terms.offer)
    if setting is not None:
        return Limit(tokens=setting, basis=Basis.DEPLOYMENT)
    return Limit(tokens=None, basis=Basis.NONE)


def held(reserved: int, total: int, done: int) -> int:
    """Say what an active batch still holds of its reservation: the share of its unfinished requests, rounded up."""
    return -(-reserved * (total - done) // total) if total else 0


def refusal_message(refusal: Refusal, flavour: Flavour) -> str:
    """Put a refusal into the vendor's words (CONTRACT section 3.4), and add the numbers and what to do."""
    return f"{_vendor_words(refusal, flavour)} ({TOKEN_LIMIT_EXCEEDED}: {_numbers(refusal)})"


def alone_too_large(limit: Limit, tokens: int) -> bool:
    """Whether a file does not fit however long it waits: where nothing is allowed, not even one of empty prompts."""
    return limit.tokens is not None and (tokens > limit.tokens or limit.tokens == 0)


def amount(tokens: int) -> str:
    """Write a round number short, as Azure does: 30K, 1.35M, 5B."""
    for size, unit in ((BILLION, "B"), (MILLION, "M"), (THOUSAND, "K")):
        if tokens >= size and tokens * 100 % size == 0:
            return f"{tokens / size:.2f}".rstrip("0").rstrip(".") + unit
    return str(tokens)


def _vendor_words(refusal: Refusal, flavour: Flavour) -> str:
    most = refusal.limit.tokens or 0
    if flavour is Flavour.AZURE:
        return (
            f"The number of enqueued tokens has surpassed the configured limit of {amount(most)} for the deployment"
            f" '{refusal.deployment}'. Please either increase the limit or try again once the current jobs have"
            " finished."
        )
    return (
        f"Enqueued token limit reached for {refusal.deployment} in organization {refusal.resource}. Limit: {most:,}"
        " enqueued tokens. Please try again once some in_progress batches have been completed."
    )


def _numbers(refusal: Refusal) -> str:
    most = refusal.limit.tokens or 0
    if most == 0 and refusal.limit.offer is not None:
        return f"the model {refusal.model} is not part of the offer '{refusal.limit.offer}', ask the operator"
    room = f"{refusal.enqueued:,} of {most:,} are enqueued"
    if refusal.tokens is None:
        return room
    if alone_too_large(refusal.limit, refusal.tokens):
        return f"this file alone has {refusal.tokens:,} prompt tokens, split it or ask the operator for a higher limit"
    return f"this file has {refusal.tokens:,} prompt tokens, {room}"
