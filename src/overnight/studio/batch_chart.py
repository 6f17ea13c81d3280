"""What the chart of one batch draws: what ended a second, how long it took, and its tokens, from the beginning on."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, TypeVar

import msgspec

from overnight import human
from overnight.domain.throughput import MOST_STRETCHES, Stretch
from overnight.studio.dashboard import now_in_words

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
    stretches, end = (found.stretches, None) if now is None else _until(found, now)
    times = [float(found.start + place * found.width) for place in range(len(stretches) + 1)] if stretches else []
    if times and end is not None:
        times[-1] = end
    done = _rates([each.succeeded for each in stretches], found.width)
    failed = _rates([each.failed for each in stretches], found.width)
    return BatchChart(
        length=int(times[-1]) - found.start if times else 0,
        end=times[-1] if times else 0.0,
        times=tuple(times),
        done=done,
        failed=failed,
        p50=_from_the_start([each.p50 for each in stretches]),
        p95=_from_the_start([each.p95 for each in stretches]),
        tokens_in=_rates([each.input_tokens for each in stretches], found.width),
        tokens_out=_rates([each.output_tokens for each in stretches], found.width),
        summary=_in_words(found, done, failed, runs=now is not None),
    )


def _until(found: Throughput, now: float) -> tuple[Sequence[Stretch], float]:
    """Give the stretches of a batch that runs up to now, and where the last of them ends.

    The newest is not over, so its counts would look like a collapse. Those since the newest result are empty: a batch
    that stands still must not look as if it went on.
    """
    over = max(int(now - 1 - found.start) // found.width, 0)
    quiet = over - len(found.stretches) if found.stretches else 0
    return (*found.stretches[:over], *((Stretch(),) * min(quiet, MOST_STRETCHES))), found.start + over * found.width


def _rates(counts: list[int], width: int) -> tuple[float, ...]:
    window = -(-len(counts) // _SMOOTHED) or 1
    sums = list(accumulate(counts, initial=0))
    rates = [(sums[end] - sums[max(0, end - window)]) / (min(end, window) * width) for end in range(1, len(counts) + 1)]
    return _from_the_start([float(f"{rate:.4g}") for rate in rates])


def _from_the_start(values: list[T]) -> tuple[T, ...]:
    """Let the line begin where the first stretch does."""
    return (*values[:1], *values)


def _in_words(found: Throughput, done: Sequence[float], failed: Sequence[float], *, runs: bool) -> str:
    if not done:
        return "Drawn as soon as there is something to see." if runs else "Nothing is known of when its requests ended."
    answers = (
        f" Half of the answers took up to {human.took(found.p50)}, 95 % up to {human.took(found.p95)}."
        if found.p50
        else ""
    )
    if runs:
        return f"{now_in_words(done, failed)}{answers}"
    return f"At most {human.rate(max(done))} succeeded.{answers}" if any(done) else "No request succeeded."
