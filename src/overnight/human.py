"""Numbers, sizes, spans and times, as people read them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime

MINUTE = 60
HOUR = 3600
DAY = 86_400
_LAST_SECOND = 253_402_300_799


def size(count: int | None) -> str:
    """`183.2 MB`; decimal units, as disks and upload limits are sold."""
    if count is None:
        return ""
    if count < 1000:  # noqa: PLR2004 - the next unit
        return f"{count} B"
    value = count / 1000
    for unit in ("kB", "MB"):
        if value < 999.95:  # noqa: PLR2004 - would be shown as 1000.0
            return f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"


def plural(count: int, noun: str) -> str:
    """`1 line`, `50,000 lines`."""
    if count == 1:
        return f"1 {noun}"
    return f"{count:,} {noun[:-1] + 'ies' if noun.endswith('y') else noun + 's'}"


def span(seconds: float) -> str:
    """`0.6 s`, `12 s`, `4 min 02 s`, `3 h 05 min`, `2 d 04 h`."""
    if seconds < 9.95:  # noqa: PLR2004 - below ten, a tenth of a second matters
        return f"{max(seconds, 0):.1f} s"
    whole = round(seconds)
    if whole < MINUTE:
        return f"{whole} s"
    if whole < HOUR:
        return f"{whole // MINUTE} min {whole % MINUTE:02d} s"
    if whole < DAY:
        return f"{whole // HOUR} h {whole % HOUR // MINUTE:02d} min"
    return f"{whole // DAY} d {whole % DAY // HOUR:02d} h"


def took(seconds: float | None) -> str:
    """`320 ms`, `1.2 s`, `under 1 ms`, `–` if nobody knows: how long an answer took, as exactly as it is known."""
    if seconds is None:
        return "–"
    if seconds < 0.0005:  # noqa: PLR2004 - would be shown as 0
        return "under 1 ms"
    return f"{seconds * 1000:.0f} ms" if seconds < 0.9995 else span(seconds)  # noqa: PLR2004 - would be shown as 1000


def share(part: int, whole: int) -> str:
    """`97.5 %`, `under 0.1 %`, `over 99.9 %`, `–` of nothing."""
    if not whole:
        return "–"
    per_cent = 100 * part / whole
    if 0 < per_cent < 0.1:  # noqa: PLR2004 - would be shown as 0.0
        return "under 0.1 %"
    if 99.95 <= per_cent < 100:  # noqa: PLR2004 - would be shown as 100
        return "over 99.9 %"
    return f"{per_cent:.1f} %" if per_cent % 1 else f"{per_cent:.0f} %"


def between(low: float, high: float) -> str:
    """`about 3 min`, `2 to 4 min`: a range of seconds in one unit, no more exact than it is."""
    unit, step, word = _unit_for(high)
    first = max(step, math.floor(low / unit / step) * step)
    last = max(step, math.ceil(high / unit / step) * step)
    if last - first <= step:
        return f"about {last:g} {word}"
    return f"{first:g} to {last:g} {word}"


def _unit_for(seconds: float) -> tuple[int, float, str]:
    if seconds < 90:  # noqa: PLR2004 - "85 s" says more than "2 min"
        return 1, 5, "s"
    if seconds < 90 * MINUTE:
        return MINUTE, 1, "min"
    return HOUR, 0.5, "h"


def rate(per_second: float) -> str:
    """`212 requests/s`; slower than one a second, per minute, and slower than that, per hour."""
    if per_second >= 9.95:  # noqa: PLR2004 - three digits are enough
        return f"{per_second:,.0f} requests/s"
    if per_second >= 1:
        return f"{per_second:.1f} requests/s"
    if per_second * MINUTE >= 0.1 or not per_second:  # noqa: PLR2004 - would be shown as 0.0
        return f"{per_second * MINUTE:.1f} requests/min"
    return f"{per_second * HOUR:.1f} requests/h"


def ago(timestamp: int | None, now: float) -> str:
    """`12 s ago`, `3 h ago`, `5 d ago`."""
    return f"{_rough(now - timestamp)} ago" if timestamp else ""


def until(timestamp: float | None, now: float) -> str:
    """`in 3 h`, `in 5 d`; of what is over, how long ago it was."""
    if not timestamp or timestamp <= now:
        return ago(int(timestamp or 0), now)
    return f"in {_rough(timestamp - now)}"


def _rough(seconds: float) -> str:
    whole = max(0, int(seconds))
    for length, unit in ((DAY, "d"), (HOUR, "h"), (MINUTE, "min")):
        if whole >= length:
            return f"{whole // length} {unit}"
    return f"{whole} s"


def moment(timestamp: int | None) -> str:
    """`2026-11-23T06:07:41Z`; what is beyond the last date that can be written is shown as that."""
    if not timestamp:
        return ""
    return datetime.fromtimestamp(min(timestamp, _LAST_SECOND), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def listing(parts: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    if len(parts) < 2:  # noqa: PLR2004 - nothing to join
        return "".join(parts)
    return ", ".join(parts[:-1]) + f" and {parts[-1]}"
