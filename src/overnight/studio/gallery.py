"""Every part in every state, for those who work on the Studio; the requests and numbers are made up, and say so."""

from __future__ import annotations

import msgspec

from overnight.domain.batch import Batch, BatchStatus, Expiry, Problem
from overnight.domain.deployment import UpstreamName
from overnight.domain.flavour import Flavour
from overnight.domain.ids import BatchId, FileId, ResourceId
from overnight.domain.places import State
from overnight.ports.upstream import UpstreamHealth
from overnight.services.requests import FailureGroup
from overnight.studio import dashboard, excerpt, looking, view_models
from overnight.studio.inside import Inside, inside_of
from overnight.studio.view_models import NO_PACE, Pace

S = BatchStatus
_HOUR = 3_600
LONG = "a name that is much longer than any column, as people give them to remember what a batch was for"
HOSTILE = "<script>alert(1)</script> \u202egnp.exe"


class Example(msgspec.Struct, frozen=True, kw_only=True):
    """A batch in one state, as its page shows it."""

    name: str
    detail: looking.BatchDetail
    inside: Inside


def examples(now: float, root: str) -> list[Example]:
    """Give a batch in each state that has a badge of its own."""
    return [
        Example(
            name=name,
            detail=looking.detail_of(batch, now, root, pace=pace, obstacle=obstacle),
            inside=_inside(batch),
        )
        for name, batch, pace, obstacle in _states(int(now))
    ]


def _states(now: int) -> list[tuple[str, Batch, Pace, str | None]]:
    start = now - _HOUR
    running = batch_in(now, "running", S.IN_PROGRESS, in_progress_at=start, total=50_000)
    ended = {"in_progress_at": start, "finalizing_at": now - 60}
    done = {**ended, "completed_at": now - 20, "output_file_id": FileId("file-output"), "total": 50_000}
    pace = Pace(overall=180.0, recent=212.0)
    nobody = "No upstream serves qwen3 now: connection refused"
    stopped = {**ended, "total": 50_000, "completed": 38_000, "failed": 12, "error_file_id": FileId("file-errors")}
    problems = (
        Problem(code="duplicate_custom_id", message="Line 9 has the custom_id of line 3.", line=9, param="custom_id"),
        Problem(code="invalid_json_line", message=f"This is no JSON: {HOSTILE}", line=17),
    )
    return [
        ("validating", batch_in(now, "validating", S.VALIDATING), NO_PACE, None),
        ("queued", running, NO_PACE, None),
        ("in progress", msgspec.structs.replace(running, completed=12_379, failed=31), pace, None),
        ("stalled", msgspec.structs.replace(running, completed=12_379), NO_PACE, nobody),
        ("finalizing", batch_in(now, "finalizing", S.FINALIZING, **ended, total=9, completed=9), NO_PACE, None),
        ("completed", batch_in(now, LONG, S.COMPLETED, **done, completed=50_000), NO_PACE, None),
        ("with failures", batch_in(now, HOSTILE, S.COMPLETED, **done, completed=49_969, failed=31), NO_PACE, None),
        ("all failed", batch_in(now, "all failed", S.COMPLETED, **done, failed=50_000), NO_PACE, None),
        ("failed validation", batch_in(now, "", S.FAILED, failed_at=now - 9, errors=problems), NO_PACE, None),
        ("expired", batch_in(now, "expired", S.EXPIRED, **stopped, expired_at=now - 5), NO_PACE, None),
        ("cancelling", batch_in(now, "cancelling", S.CANCELLING, **_running(now), cancelling_at=now), NO_PACE, None),
        ("cancelled", batch_in(now, "cancelled", S.CANCELLED, **stopped, cancelled_at=now), NO_PACE, None),
    ]


def _running(now: int) -> dict[str, object]:
    return {"in_progress_at": now - 90, "total": 900, "completed": 300}


def batch_in(now: int, name: str, status: BatchStatus, **changes: object) -> Batch:
    """Make up a batch."""
    batch = Batch(
        id=BatchId(f"batch_{status.encode().hex()[:24]}{len(name):04d}{len(changes):04d}"),
        resource=ResourceId("gallery"),
        flavour=Flavour.OPENAI,
        endpoint="/v1/chat/completions",
        input_file_id=FileId("file-input"),
        completion_window="24h",
        created_at=now - _HOUR - 20,
        expires_at=now + 23 * _HOUR,
        expiry=Expiry.EXPIRE,
        status=status,
        model="qwen3-32b",
        metadata={"name": name} if name else None,
    )
    return msgspec.structs.replace(batch, **changes)


def _inside(batch: Batch) -> Inside:
    groups = (
        FailureGroup(
            state=State.FAILED,
            code="rate_limit_exceeded",
            count=batch.failed,
            first_line=0,
            message="Too many requests.",
        ),
        FailureGroup(state=State.FAILED, code="context_length_exceeded", count=3, first_line=9, message=HOSTILE),
    )
    return inside_of(groups if batch.failed else (), (), batch, "#")


def upstreams() -> tuple[dashboard.UpstreamRow, ...]:
    """Give an upstream that does well, and one that does not answer."""
    well = UpstreamHealth(name=UpstreamName("vllm-1"), url="http://10.0.0.7:8000/v1", in_flight=64, limit=96)
    down = UpstreamHealth(name=UpstreamName("vllm-2"), url="http://10.0.0.8:8000/v1", problem="connection refused")
    return tuple(
        dashboard.upstream_row(number, health, ("qwen3-32b", "an-embedding-model"), may_operate=True)
        for number, health in enumerate((well, down))
    )


def lines() -> excerpt.Excerpt:
    """Give lines of a file, one of them long, one that would steer a terminal."""
    raw = b'{"custom_id":"a"}\n' + b'{"custom_id":"' + b"x" * 3_000 + b'"}\n' + f"\x1b[31m{HOSTILE}\n".encode()
    return excerpt.lines_of(raw, 0, len(raw))


def tones() -> tuple[view_models.Badge, ...]:
    """Give a badge of each tone."""
    names = ("neutral", "info", "progress", "success", "warning", "danger", "cancel")
    return tuple(view_models.Badge(word=tone.capitalize(), tone=tone) for tone in names)
