"""What is said of a file before there is a batch of it: problems, models, tokens, cost, and room in the quota."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from overnight import human
from overnight.domain.endpoints import ENDPOINTS, canonical
from overnight.domain.errors import InvalidRequest
from overnight.domain.price import money
from overnight.domain.tokens import Accuracy
from overnight.studio import bubbles
from overnight.studio.excerpt import visible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from overnight.domain.file import File
    from overnight.domain.flavour import Flavour
    from overnight.domain.ids import ResourceId
    from overnight.domain.price import CostRange
    from overnight.services.check import FileCheck
    from overnight.services.estimates import Estimate
    from overnight.services.quotas import QuotaState
    from overnight.studio.bubbles import Bubble
    from overnight.studio.context import Parts
    from overnight.studio.excerpt import Excerpt

_CHAT = "/v1/chat/completions"
_BASIS = {
    Accuracy.EXACT: "all prompts counted with {}",
    Accuracy.SAMPLED: "a sample counted with {}",
    Accuracy.ESTIMATE: "estimated, {}",
}


class FirstRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One of the first lines: as a conversation, or as text where it has no known shape."""

    number: int
    bubbles: tuple[Bubble, ...] | None
    text: str


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """A model that lines name; ``word`` says whether an upstream has it."""

    name: str
    requests: str
    word: str
    tone: str
    icon: str


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """All that is said of a file; ``why`` is why no batch can be made of it, empty if one can."""

    tone: str
    summary: str
    why: str
    problems: tuple[tuple[str, str, str], ...]
    more: str
    models: tuple[Model, ...]
    numbers: tuple[tuple[str, str, str], ...]
    notes: tuple[str, ...]


async def check(parts: Parts, resource: ResourceId, file: File, flavour: Flavour) -> Check:
    """Check a file and estimate what it needs. Raises ``NotFound``."""
    try:
        found = await parts.checks.check(resource, flavour, file.id)
        estimate = await parts.estimates.estimate(resource, file.id)
    except InvalidRequest as error:
        return Check(
            tone="neutral",
            summary=error.message,
            why=error.message,
            problems=(),
            more="",
            models=(),
            numbers=(),
            notes=(),
        )
    return check_of(found, estimate, await parts.quotas.states(resource))


def check_of(found: FileCheck, estimate: Estimate, quotas: Sequence[QuotaState]) -> Check:
    """Put a check into words."""
    report = found.report
    count = report.problem_count
    bad = human.plural(count, "problem")
    lines = human.plural(report.requests, "request")
    more = count - len(report.problems)
    return Check(
        tone="danger" if count else "success",
        summary=f"{bad} in {lines}" if count else f"{lines}, no problems",
        why=f"{bad} in the file: repair it and upload it again." if count else "",
        problems=tuple(
            ("" if each.line is None else f"{each.line:,}", each.code, visible(each.message))
            for each in report.problems
        ),
        more=f"{human.plural(more, 'more problem')} not listed" if more > 0 else "",
        models=tuple(_model(each.name, each.requests, offered=each.offered) for each in found.models),
        numbers=_numbers(estimate),
        notes=_room(estimate, quotas),
    )


def _model(name: str, requests: int, *, offered: bool | None) -> Model:
    words = {
        True: ("found", "success", "✓"),
        False: ("no upstream has it", "danger", "✕"),
        None: ("not known yet: an upstream does not answer", "warning", "△"),
    }
    word, tone, icon = words[offered]
    return Model(name=visible(name[:200]), requests=human.plural(requests, "request"), word=word, tone=tone, icon=icon)


def _numbers(estimate: Estimate) -> tuple[tuple[str, str, str], ...]:
    found = []
    for each in estimate.models:
        tokens = each.tokens
        about = f"± {tokens.error:,}, " if tokens.error else ""
        basis = _BASIS[tokens.accuracy].format(tokens.tokenizer)
        name = "Prompt tokens" if len(estimate.models) == 1 else f"Prompt tokens, {visible(tokens.model[:60])}"
        found.append((name, f"{tokens.prompt_tokens:,}", f"{about}{basis}"))
    bounded = bool(estimate.models) and all(each.tokens.bounded == each.tokens.requests for each in estimate.models)
    if bounded:
        most = sum(each.tokens.max_output_tokens for each in estimate.models)
        found.append(("Answers, at most", f"{most:,}", "tokens, from the bounds in the requests"))
    if estimate.cost is not None:
        found.append(
            ("Cost", cost_words(estimate.cost, estimate.currency), "by the prices that are set, nothing cached")
        )
    if estimate.duration is not None:
        basis = f"as fast as {estimate.duration.basis}: {human.rate(estimate.duration.rate)}"
        found.append(("Time", human.between(estimate.duration.seconds, estimate.duration.seconds), basis))
    return tuple(found)


def cost_words(cost: CostRange, currency: str) -> str:
    """Say what something may cost."""
    if cost.most is None:
        return f"{money(cost.least)} {currency} and the answers"
    return f"{money(cost.least)} to {money(cost.most)} {currency}"


def _room(estimate: Estimate, quotas: Sequence[QuotaState]) -> tuple[str, ...]:
    by_name = {each.deployment: each for each in quotas}
    notes = []
    for each in estimate.models:
        quota = by_name.get(each.tokens.model)
        if quota is None or quota.available is None:
            continue
        needed = each.tokens.prompt_tokens + each.tokens.error
        fits = "fits" if needed <= quota.available else "does not fit now"
        notes.append(f"It {fits}: {quota.available:,} tokens of the quota of {quota.deployment} are free.")
    return tuple(notes)


def first_of(excerpt: Excerpt | None) -> tuple[FirstRequest, ...]:
    """Show the first requests of a file."""
    if excerpt is None:
        return ()
    return tuple(
        FirstRequest(number=number, bubbles=bubbles.asked(line.raw), text=f"{line.text}{'…' if line.cut else ''}")
        for number, line in enumerate(excerpt.lines, 1)
    )


def endpoint_of(excerpt: Excerpt) -> str:
    """Give the endpoint that the first request names, if a batch may have it."""
    for line in excerpt.lines[:1]:
        named = canonical(bubbles.endpoint_in(line.raw.decode(errors="replace")))
        if named in ENDPOINTS:
            return named
    return _CHAT
