"""What pages show of a batch: the badge, the progress, the words. Templates only put it into place."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from overnight import human
from overnight.domain.batch import Batch, BatchStatus
from overnight.studio.excerpt import visible

if TYPE_CHECKING:
    from overnight.domain.file import File

S = BatchStatus

_ICONS = {
    "neutral": "○",
    "info": "◐",
    "progress": "◕",
    "success": "✓",
    "warning": "△",
    "danger": "✕",
    "cancel": "⊘",
}
_SUSPICIOUSLY_FEW = 20
_EARLY = 0.05


class Badge(msgspec.Struct, frozen=True, kw_only=True):
    """A status as people see it: a word, a tone and a sentence that says what it means now."""

    word: str
    tone: str
    sentence: str = ""

    @property
    def icon(self) -> str:
        """The sign that goes with the tone, so that colour is never alone."""
        return _ICONS[self.tone]


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """How fast the requests of a batch end: a second, over its whole time and of late, if that is known by now."""

    overall: float = 0.0
    recent: float | None = None

    @property
    def now(self) -> float:
        """The best guess of how fast it is at present."""
        return self.overall if self.recent is None else self.recent


NO_PACE = Pace()


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """A time: ``text`` is how long ago or ahead, ``iso`` for programs, ``exact`` for people."""

    iso: str
    exact: str
    text: str


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of the progress bar; ``start`` and ``width`` are per cent of it."""

    kind: str
    start: float
    width: float


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a batch is. ``text`` is for a screen reader, ``counts`` are the numbers with their names."""

    percent: int
    segments: tuple[Segment, ...]
    text: str
    counts: tuple[tuple[str, str, str], ...]


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """A point of the timeline: ``state`` is done, now or ahead; ``took`` is the time since the one before."""

    name: str
    state: str
    moment: Moment | None = None
    took: str = ""


class BatchRow(msgspec.Struct, frozen=True, kw_only=True):
    """A batch in a list."""

    id: str
    name: str
    url: str
    badge: Badge
    progress: Progress
    endpoint: str
    model: str
    created: Moment
    duration: str
    active: bool
    downloads: tuple[tuple[str, str], ...]


def badge(batch: Batch, pace: Pace = NO_PACE, obstacle: str | None = None) -> Badge:
    """Say how a batch does, from its status and its counts; ``obstacle`` is what keeps it from going on."""
    match batch.status:
        case S.VALIDATING:
            return Badge(word="Validating", tone="neutral", sentence=validating(batch))
        case S.IN_PROGRESS:
            return _running(batch, pace, obstacle)
        case S.FINALIZING:
            return Badge(word="Finalizing", tone="progress", sentence=f"Writing {human.plural(_done(batch), 'result')}")
        case S.COMPLETED:
            return _completed(batch)
        case S.FAILED:
            return Badge(word="Failed validation", tone="danger", sentence=_first_problem(batch))
        case S.EXPIRED:
            sentence = f"{_done(batch):,} done before the {batch.completion_window} window closed"
            return Badge(word="Expired", tone="warning", sentence=sentence)
        case S.CANCELLING:
            return Badge(word="Cancelling", tone="cancel", sentence="Waiting for the running requests")
        case S.CANCELLED:
            return Badge(word="Cancelled", tone="cancel", sentence=_partial(batch))


def validating(batch: Batch) -> str:
    """Say what a batch that is being validated waits for."""
    return "Waiting for room in the quota" if waits_for_room(batch) else "Checking the lines of the input"


def waits_for_room(batch: Batch) -> bool:
    """Whether a batch that is being validated is good, and only its quota keeps it."""
    # They are counted last, and only where there is a quota.
    return batch.prompt_tokens is not None


def _running(batch: Batch, pace: Pace, obstacle: str | None) -> Badge:
    if obstacle is not None:
        return Badge(word="Stalled", tone="warning", sentence=obstacle)
    if not _done(batch):
        return Badge(word="Queued", tone="neutral", sentence="Waiting for a free slot")
    return Badge(word="In progress", tone="info", sentence=" · ".join(_pace_words(batch, pace)))


def _completed(batch: Batch) -> Badge:
    if not batch.failed:
        took = _span((batch.completed_at or batch.created_at) - batch.created_at)
        return Badge(word="Completed", tone="success", sentence=f"{batch.completed:,} succeeded in {took}")
    if batch.completed:
        sentence = f"{batch.completed:,} succeeded, {batch.failed:,} failed"
        return Badge(word="Completed with failures", tone="warning", sentence=sentence)
    sentence = f"None of {human.plural(batch.total, 'request')} succeeded: the error file says why"
    return Badge(word="All requests failed", tone="danger", sentence=sentence)


def _first_problem(batch: Batch) -> str:
    if not batch.errors:
        return "The input was refused"
    first = batch.errors[0]
    where = "" if first.line is None else f"Line {first.line:,}: "
    more = len(batch.errors) - 1
    return f"{where}{visible(first.message)}" + (f" (and {human.plural(more, 'more problem')})" if more else "")


def _partial(batch: Batch) -> str:
    if not batch.accepted:
        return "Stopped before any request ran"
    words = [f"{batch.completed:,} succeeded"]
    if batch.failed:
        words.append(f"{batch.failed:,} failed")
    if _left(batch):
        words.append(f"{_left(batch):,} not run")
    return ", ".join(words)


def _pace_words(batch: Batch, pace: Pace) -> list[str]:
    words = [f"{percent(batch)} %"]
    if pace.now:
        words.append(human.rate(pace.now))
    elif pace.recent is not None:
        words.append("none has ended of late")
    remaining = time_left(batch, pace)
    if remaining:
        words.append(remaining)
    return words


def time_left(batch: Batch, pace: Pace) -> str:
    """Say when a running batch may be done; nothing while that would be a guess."""
    rates = [pace.overall, pace.now]
    enough = _done(batch) >= _SUSPICIOUSLY_FEW and _done(batch) >= _EARLY * batch.total
    if batch.status != S.IN_PROGRESS or not all(rates) or not enough or not _left(batch):
        return ""
    return human.between(_left(batch) / max(rates), _left(batch) / min(rates))


def percent(batch: Batch) -> int:
    """Give the share of the requests that have ended; 100 only when all have."""
    return _done(batch) * 100 // batch.total if batch.total else 0


def progress(batch: Batch) -> Progress:
    """Stack what is done, what failed and what is left."""
    rest = "waiting" if batch.status in {S.VALIDATING, S.IN_PROGRESS} else "unfinished"
    pieces = [("done", batch.completed, "done"), ("failed", batch.failed, "failed")]
    if _left(batch):
        pieces.append((rest, _left(batch), "waiting" if rest == "waiting" else "not run"))
    segments, start = [], 0.0
    for kind, count, _ in pieces:
        width = round(100 * count / batch.total, 3) if batch.total else 0.0
        if width:
            segments.append(Segment(kind=kind, start=round(start, 3), width=width))
        start += width
    shown = [piece for piece in pieces if piece[1] or (batch.total and piece[0] == "done")]
    counts = tuple((kind, f"{count:,}", word) for kind, count, word in shown)
    return Progress(percent=percent(batch), segments=tuple(segments), text=_aloud(batch), counts=counts)


def _aloud(batch: Batch) -> str:
    if not batch.total:
        return _uncounted(batch)
    failed = f", {batch.failed:,} failed" if batch.failed else ""
    return f"{_done(batch):,} of {batch.total:,}{failed}"


def _uncounted(batch: Batch) -> str:
    return "none accepted" if batch.ended else "not counted yet"


_STEPS = (("Created", "created_at"), ("Started", "in_progress_at"), ("Finalizing", "finalizing_at"))
_ENDS = {
    "completed_at": "Completed",
    "failed_at": "Failed validation",
    "expired_at": "Expired",
    "cancelled_at": "Cancelled",
}


def timeline(batch: Batch, now: float) -> tuple[Step, ...]:
    """Give what has happened to a batch, with the time each took, and what is still ahead."""
    stamps = [*_STEPS]
    if batch.cancelling_at is not None:
        stamps.append(("Cancelling", "cancelling_at"))
    end = next((field for field in _ENDS if getattr(batch, field) is not None), None)
    stamps.append((_ENDS[end], end) if end else (_expected_end(batch), "completed_at"))
    happened = sorted(
        ((getattr(batch, field), order, name) for order, (name, field) in enumerate(stamps) if getattr(batch, field)),
    )
    steps = [
        Step(
            name=name,
            state="done",
            moment=moment(at, now),
            took=_span(at - happened[place - 1][0]) if place else "",
        )
        for place, (at, _, name) in enumerate(happened)
    ]
    if batch.ended:
        return tuple(steps)
    steps[-1] = msgspec.structs.replace(steps[-1], state="now")
    ahead = [name for name, field in stamps if getattr(batch, field) is None]
    if batch.cancelling_at is not None:
        ahead = ahead[-1:]
    return (*steps, *(Step(name=name, state="ahead") for name in ahead))


def _expected_end(batch: Batch) -> str:
    return "Cancelled" if batch.cancelling_at is not None else "Completed"


def moment(timestamp: float, now: float) -> Moment:
    """Show a time by its distance from now."""
    at = datetime.fromtimestamp(timestamp, UTC)
    return Moment(
        iso=at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        exact=at.strftime("%Y-%m-%d %H:%M:%S UTC"),
        text=human.until(timestamp, now),
    )


def duration(batch: Batch, now: float) -> str:
    """Say how long a batch took, or has taken so far."""
    return _span((ended_at(batch) or now) - batch.created_at)


def _span(seconds: float) -> str:
    """Say how long something took; the moments are known to the second, no better."""
    whole = int(seconds)
    if whole < 1:
        return "under 1 s"
    return f"{whole} s" if whole < human.MINUTE else human.span(whole)


def ended_at(batch: Batch) -> int | None:
    """Give when a batch ended."""
    return next((getattr(batch, field) for field in _ENDS if getattr(batch, field) is not None), None)


def name_of(batch: Batch) -> str:
    """Give what its owner calls the batch, or how its id begins."""
    return visible((batch.metadata or {}).get("name", "")) or batch.id


def batch_row(batch: Batch, now: float, root: str, pace: Pace = NO_PACE, obstacle: str | None = None) -> BatchRow:
    """Show a batch in a list."""
    return BatchRow(
        id=batch.id,
        name=name_of(batch),
        url=f"{root}/studio/batches/{batch.id}",
        badge=badge(batch, pace, obstacle),
        progress=progress(batch),
        endpoint=batch.endpoint,
        model=visible(batch.deployment or batch.model or ""),
        created=moment(batch.created_at, now),
        duration=duration(batch, now),
        active=not batch.ended,
        downloads=downloads(batch, root),
    )


def downloads(batch: Batch, root: str) -> tuple[tuple[str, str], ...]:
    """Name the files of a batch that can be fetched, with where."""
    files = (("Output", batch.output_file_id), ("Errors", batch.error_file_id))
    return tuple((word, f"{root}/studio/files/{file_id}/content") for word, file_id in files if file_id)


class FileRow(msgspec.Struct, frozen=True, kw_only=True):
    """A file in a list."""

    id: str
    filename: str
    url: str
    purpose: str
    size: str
    created: Moment
    expires: Moment | None
    usable: bool


def file_row(file: File, now: float, root: str) -> FileRow:
    """Show a file in a list."""
    return FileRow(
        id=file.id,
        filename=visible(file.filename),
        url=f"{root}/studio/files/{file.id}",
        purpose=file.purpose.replace("_", " "),
        size=human.size(file.bytes),
        created=moment(file.created_at, now),
        expires=None if file.expires_at is None else moment(file.expires_at, now),
        usable=file.purpose == "batch",
    )


def _done(batch: Batch) -> int:
    return batch.completed + batch.failed


def _left(batch: Batch) -> int:
    return max(0, batch.total - _done(batch))


def numbers(batch: Batch, now: float, pace: Pace) -> tuple[tuple[str, str], ...]:
    """Give what is worth knowing of a batch in figures, each with its name."""
    found = [("Duration", duration(batch, now))]
    if pace.now:
        found.append(("Throughput", human.rate(pace.now)))
    elif batch.ended and _done(batch) and batch.in_progress_at is not None:
        took = max(1, (batch.finalizing_at or ended_at(batch) or batch.in_progress_at) - batch.in_progress_at)
        found.append(("Throughput", human.rate(_done(batch) / took)))
    if remaining := time_left(batch, pace):
        found.append(("Time left", remaining))
    found.append(("Requests", f"{batch.total:,}" if batch.total else _uncounted(batch)))
    if batch.usage.total_tokens:
        found.append(("Tokens in", f"{batch.usage.input_tokens:,}"))
        found.append(("Tokens out", f"{batch.usage.output_tokens:,}"))
    return tuple(found)


def problems(batch: Batch) -> tuple[tuple[str, str, str], ...]:
    """Give what is wrong with the input: the line, the code and the message of each problem."""
    return tuple(
        ("" if problem.line is None else f"{problem.line:,}", problem.code, visible(problem.message))
        for problem in batch.errors
    )


def details(batch: Batch, now: float) -> tuple[tuple[str, str], ...]:
    """Give the fields of a batch that do not change, as its owner set them."""
    ending = "goes on" if batch.expiry == "continue" else "ends with what is done"
    found = [
        ("Batch", batch.id),
        ("Endpoint", batch.endpoint),
        ("Model", batch.deployment or batch.model or "not known yet"),
        ("Rules of", "Azure OpenAI" if batch.flavour == "azure" else "OpenAI"),
        ("Window", f"{batch.completion_window}, then it {ending}"),
        ("Created", moment(batch.created_at, now).exact),
    ]
    if batch.output_expires_after is not None:
        found.append(("Results expire", f"{human.span(batch.output_expires_after)} after they are written"))
    found.extend((f"metadata.{visible(name)}", visible(value)) for name, value in (batch.metadata or {}).items())
    return tuple(found)
