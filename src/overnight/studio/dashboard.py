"""What the overview and the upstreams show: rates over time, how upstreams answer, what a resource may still use."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from overnight import human
from overnight.domain.cap import Measure, describe
from overnight.domain.price import money
from overnight.ports.upstream import HealthState, UpstreamHealth
from overnight.studio.excerpt import visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from overnight.services.meters import Activity
    from overnight.services.quotas import QuotaState
    from overnight.services.traffic import Points
    from overnight.services.usage import PricedDay, UsageReport

SPANS = (("1h", "1 h"), ("24h", "24 h"), ("7d", "7 days"))
_NEARLY = 80
# The word, its tone, and a sign for those who do not see colours.
_STATES = {
    HealthState.PAUSED: ("Paused", "neutral", "○"),
    HealthState.ANSWERS: ("Answers", "success", "✓"),
    HealthState.LEFT_ALONE: ("Left alone", "danger", "✕"),
}


class Chart(msgspec.Struct, frozen=True, kw_only=True):
    """What a chart draws: rates at each of the times (unix seconds), over ``length`` seconds up to ``end``."""

    length: int
    end: float
    times: tuple[float, ...]
    done: tuple[float, ...]
    failed: tuple[float, ...]
    tokens_in: tuple[float, ...]
    tokens_out: tuple[float, ...]
    summary: str


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """A chart of rates: where its ``Chart`` comes from, of which span, and whose requests they are."""

    source: str
    span: str
    whose: str
    spans: tuple[tuple[str, str], ...] = SPANS


class UpstreamRow(msgspec.Struct, frozen=True, kw_only=True):
    """An upstream and how it does; ``url`` is empty for whoever need not know it."""

    id: str
    name: str
    url: str
    word: str
    tone: str
    icon: str
    problem: str
    models: tuple[str, ...]
    in_flight: str
    limit: str
    share: int
    paused: bool = False
    p50: str = "–"
    p95: str = "–"
    errors: str = "–"
    numbers: tuple[tuple[str, str], ...] = ()
    since_start: str = ""


class Meter(msgspec.Struct, frozen=True, kw_only=True):
    """Something of which there is only so much; ``share`` is the per cent that is used."""

    name: str
    text: str
    share: int
    tone: str


class Allowance(msgspec.Struct, frozen=True, kw_only=True):
    """What a resource may still use, and what it used: each use is a time with its figures."""

    meters: tuple[Meter, ...]
    uses: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]

    @property
    def empty(self) -> bool:
        """Whether there is nothing to show."""
        return not self.meters and not self.uses


def chart(points: Points, now: float) -> Chart:
    """Put rates into what a chart draws."""
    return Chart(
        length=points.length,
        end=now,
        times=points.times,
        done=_rounded(points.done),
        failed=_rounded(points.failed),
        tokens_in=_rounded(points.tokens_in),
        tokens_out=_rounded(points.tokens_out),
        summary=_in_words(points, now),
    )


def _rounded(rates: Iterable[float]) -> tuple[float, ...]:
    return tuple(float(f"{rate:.4g}") for rate in rates)


def _in_words(points: Points, now: float) -> str:
    since = f"Counted since the service started, {human.ago(int(points.since), now)}."
    if not any(points.done) and not any(points.failed):
        return f"No request has ended in this time. {since}"
    tokens = points.tokens_in[-1] + points.tokens_out[-1]
    used = f" They use {tokens:,.0f} tokens a second." if tokens else ""
    return f"{now_in_words(points.done, points.failed)}{used} {since}"


def now_in_words(done: Sequence[float], failed: Sequence[float]) -> str:
    """Say of rates, which are requests a second, how the newest compare with the highest; there is at least one."""
    succeeding = f"{human.rate(done[-1])} succeed now" if done[-1] else "No request succeeds now"
    failing = f", and {human.rate(failed[-1])} fail" if failed[-1] else ""
    return f"{succeeding}{failing}; at most it was {human.rate(max(done)) if any(done) else 'none'}."


def upstream_row(
    number: int,
    health: UpstreamHealth,
    models: tuple[str, ...],
    activity: Activity | None = None,
    *,
    may_operate: bool,
) -> UpstreamRow:
    """Show an upstream; where it is, is for operators."""
    word, tone, icon = _STATES[health.state]
    row = UpstreamRow(
        id=f"upstream-{number}",
        name=health.name,
        url=health.url if may_operate else "",
        word=word,
        tone=tone,
        icon=icon,
        problem=visible(health.problem or ""),
        models=models,
        in_flight=f"{health.in_flight:,}",
        limit=f"{health.limit:,}",
        share=min(100, health.in_flight * 100 // health.limit) if health.limit else 0,
        paused=health.paused,
    )
    return row if activity is None else _with_figures(row, activity)


def _with_figures(row: UpstreamRow, activity: Activity) -> UpstreamRow:
    figures, recent, start = activity.figures, activity.figures.recent, activity.figures.since_start
    p50, p95 = human.took(figures.p50), human.took(figures.p95)
    numbers = [
        ("p50", p50),
        ("p95", p95),
        ("Succeeded", human.share(recent.succeeded, recent.total)),
        ("Refused (429)", human.share(recent.refused, recent.total)),
        ("Errors (5xx)", human.share(recent.broken, recent.total)),
        ("Other errors", human.share(recent.rejected, recent.total)),
        ("Not answered", human.share(recent.unanswered, recent.total)),
        ("Tokens in", f"{figures.tokens_in:,.0f}/s"),
        ("Tokens out", f"{figures.tokens_out:,.0f}/s"),
    ]
    if activity.left_alone:
        numbers.append(("Left alone for", f"{activity.left_alone:,.0f} s"))
    failed = start.total - start.succeeded
    return msgspec.structs.replace(
        row,
        p50=p50,
        p95=p95,
        errors=human.share(recent.total - recent.succeeded, recent.total),
        numbers=tuple(numbers),
        since_start=f"{start.succeeded:,} succeeded and {failed:,} failed" if start.total else "nothing was sent yet",
    )


def allowance(quotas: Sequence[QuotaState], report: UsageReport) -> Allowance:
    """Show what a resource may still use and what it used; ``report`` is of this month up to today."""
    meters = [
        _meter(f"Enqueued for {visible(state.deployment)}", state.enqueued, state.limit.tokens, "tokens")
        for state in quotas
        if state.limit.tokens is not None
    ]
    meters.extend(
        _meter(
            "Cap on money" if each.cap.measure is Measure.SPEND else "Cap on tokens",
            each.used,
            each.cap.amount,
            describe(each.cap, report.currency),
        )
        for each in report.caps
    )
    today = [each for each in report.entries if each.entry.day == report.days.last]
    uses = [("Today", today), ("This month", list(report.entries))]
    shown = [(name, _sums(entries, report.currency)) for name, entries in uses if entries]
    return Allowance(meters=tuple(meters), uses=tuple(shown))


def _meter(name: str, used: int, most: int, what: str) -> Meter:
    share = min(100, used * 100 // most) if most else 100
    tone = "danger" if share >= 100 else "warning" if share >= _NEARLY else "neutral"  # noqa: PLR2004 - all of it
    text = f"{used:,} of {most:,} tokens" if what == "tokens" else f"{share} % of {what}"
    return Meter(name=name, text=text, share=share, tone=tone)


def _sums(entries: Sequence[PricedDay], currency: str) -> tuple[tuple[str, str], ...]:
    books = [each.entry for each in entries]
    found = [
        ("Succeeded", f"{sum(each.completed for each in books):,}"),
        ("Failed", f"{sum(each.failed for each in books):,}"),
        ("Tokens in", f"{sum(each.usage.input_tokens for each in books):,}"),
        ("Tokens out", f"{sum(each.usage.output_tokens for each in books):,}"),
    ]
    costs = [each.cost for each in entries if each.cost is not None]
    if costs:
        found.append(("Cost", f"{money(sum(costs))} {currency}"))
    return tuple(found)
