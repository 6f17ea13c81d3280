"""What the chart of one batch draws: what ended a second, how long it took, and its tokens, from the beginning on."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import msgspec

from overnight import human

if TYPE_CHECKING:
    from collections.abc import Sequence

    from overnight.domain.throughput import Throughput

T = TypeVar("T")

# A rate is that of so large a share of all stretches, so that it does not jump with each request.
_SMOOTHED = 24


class BatchChart(msgspec.Struct, frozen=True, kw_only=True):
    """Rates and durations (seconds) at each of the times (unix seconds), over ``length`` seconds up to ``end``."""

    length: int
    end: float
    times: tuple[float, ...]
    done: tuple[float, ...]
    failed: tuple[float, ...]
    p50: tuple[float | None, ...]
    p95: tuple[float | None, ...]
    tokens_in: tuple[float, ...]
    tokens_out: tuple[float, ...]
    summary: str


def batch_chart(found: Throughput, now: float | None) -> BatchChart:
    """Turn what is known of a batch into lines; ``now`` is ``None`` once it has ended."""
    stretches = found.stretches
    if now is not None:
        # The last stretch of a batch that runs is not over, so its counts would look like a collapse.
        over = int(now - 1 - found.start) // found.width
        stretches = stretches[: max(over, 0)]
    times = tuple(float(found.start + place * found.width) for place in range(len(stretches) + 1)) if stretches else ()
    done = _rates([each.succeeded for each in stretches], found.width)
    failed = _rates([each.failed for each in stretches], found.width)
    return BatchChart(
        length=len(stretches) * found.width,
        end=times[-1] if times else 0.0,
        times=times,
        done=done,
        failed=failed,
        p50=_from_the_start([_rounded(each.p50) for each in stretches]),
        p95=_from_the_start([_rounded(each.p95) for each in stretches]),
        tokens_in=_rates([each.input_tokens for each in stretches], found.width),
        tokens_out=_rates([each.output_tokens for each in stretches], found.width),
        summary=_in_words(found, done, failed, runs=now is not None),
    )


def _rates(counts: list[int], width: int) -> tuple[float, ...]:
    window = -(-len(counts) // _SMOOTHED) or 1
    sums = [sum(counts[max(0, place - window + 1) : place + 1]) for place in range(len(counts))]
    spans = [min(place + 1, window) * width for place in range(len(counts))]
    return _from_the_start([round(count / seconds, 2) for count, seconds in zip(sums, spans, strict=True)])


def _from_the_start(values: list[T]) -> tuple[T, ...]:
    """Let the line begin where the first stretch does."""
    return (*values[:1], *values)


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else float(f"{seconds:.3g}")


def _in_words(found: Throughput, done: Sequence[float], failed: Sequence[float], *, runs: bool) -> str:
    if not done:
        return "Drawn as soon as there is something to see." if runs else "Nothing is known of when its requests ended."
    answers = (
        f" Half of the answers took up to {human.took(found.p50)}, 95 % up to {human.took(found.p95)}."
        if found.p50
        else ""
    )
    if runs:
        failing = f", and {failed[-1]:,.1f} fail" if failed[-1] else ""
        return f"{done[-1]:,.1f} requests a second succeed now{failing}; at most it was {max(done):,.1f}.{answers}"
    return f"At most {max(done):,.1f} requests a second succeeded.{answers}"
