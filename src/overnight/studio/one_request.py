"""One request as its page and the panel beside a list show it."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import msgspec

from overnight import human
from overnight.domain.endpoints import canonical
from overnight.domain.retry import Fault
from overnight.studio import bubbles, inside
from overnight.studio.excerpt import readable, steering_escaped, visible

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from overnight.domain.batch import Batch
    from overnight.domain.deployment import Deployment
    from overnight.domain.trail import Attempted, Trail
    from overnight.ports.upstream import UpstreamHealth
    from overnight.services.requests import Preview, RequestDetail
    from overnight.studio.bubbles import Bubble, Raw

_ADDRESS = '"$UPSTREAM_URL"'
# No line of JSON can be this word, so the text ends nowhere else.
_END = "END_OF_REQUEST"

_SUCCESS = 200
_FAULTS: dict[str, str] = {
    Fault.UNREACHABLE: "could not be reached",
    Fault.BROKEN_OFF: "broken off",
    Fault.TIMEOUT: "no answer in time",
    Fault.UNREADABLE: "answer not readable",
    Fault.TOO_LARGE: "answer too large",
}

_members = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Among(msgspec.Struct, frozen=True, kw_only=True):
    """The list that a request is one of. ``neighbours`` are the lines before and behind it there, else in the input."""

    wanted: inside.Wanted = inside.EVERY
    neighbours: tuple[int | None, int | None] | None = None


ALONE = Among()


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Where a request goes: the address of an upstream, and the name of the model there."""

    url: str
    model: str


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """The request or the response: as a conversation where it has a known shape, and as it is stored."""

    bubbles: tuple[Bubble, ...] | None
    raw: Raw
    size: str


class AttemptView(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt: how long after the first listed one, by whom, what it brought, how long it took, what came then."""

    after: str
    upstream: str
    word: str
    tone: str
    icon: str
    took: str
    wait: str


class RequestView(msgspec.Struct, frozen=True, kw_only=True):
    """A request with its response. ``whole`` is the address that shows all of it, ``full`` whether it is shown now.

    ``curl`` is empty where the request is gone or too long; ``request_id`` is the upstream's where it gave one.
    ``earlier`` tells of attempts before those that are listed, ``ended`` when the last one ended.
    """

    id: str = "request"
    line: int
    row: inside.Row
    asked: Side | None
    got: Side | None
    missing: str
    place: str
    before: str
    after: str
    whole: str
    full: bool
    request_id: str
    curl: str
    attempts: tuple[AttemptView, ...] = ()
    earlier: str = ""
    ended: str = ""


def view_of(
    detail: RequestDetail,
    batch: Batch,
    home: str,
    target: Target | None,
    among: Among = ALONE,
    *,
    full: bool = False,
) -> RequestView:
    """Put a request into what is shown of it; ``home`` is the page of its batch."""
    row, line, wanted = inside.row_of(detail.row, home, among.wanted), detail.row.line, among.wanted
    before, after = among.neighbours or (line - 1 if line else None, line + 1 if line + 1 < batch.total else None)
    gone = "There is none, or its file was deleted or has expired."
    return RequestView(
        line=line,
        row=row,
        asked=_side(detail.asked, full=full, request=True),
        got=_side(detail.got, full=full, request=False),
        missing=gone if batch.ended else "There is no response yet.",
        place=f"{line + 1:,} of {batch.total:,}",
        before="" if before is None else inside.request_url(home, None, before, wanted),
        after="" if after is None else inside.request_url(home, None, after, wanted),
        whole=f"{row.url}&full=1",
        full=full,
        request_id=_request_id(detail.got),
        curl="" if detail.asked is None or detail.asked.truncated else curl(detail.asked.data, target),
        attempts=_attempts(detail.trail),
        earlier=f"{human.plural(detail.trail.forgotten, 'attempt')} before" if detail.trail.forgotten else "",
        ended=human.moment(detail.row.ended_at),
    )


def _attempts(trail: Trail) -> tuple[AttemptView, ...]:
    return tuple(_attempt(made, made.at - trail.attempts[0].at) for made in trail.attempts)


def _attempt(made: Attempted, after: float) -> AttemptView:
    answered = _SUCCESS <= made.status < _SUCCESS + 100
    return AttemptView(
        after=human.span(after),
        upstream=visible(made.upstream),
        word=_FAULTS.get(made.fault, made.fault) if made.fault else f"HTTP {made.status}",
        tone="success" if answered and not made.fault else "danger",
        icon="✓" if answered and not made.fault else "✕",
        took=human.took(made.seconds),
        wait=human.span(made.wait) if made.wait else "",
    )


def target_of(deployment: Deployment | None, health: Sequence[UpstreamHealth]) -> Target | None:
    """Give where requests of a deployment go: the first of its upstreams that answers, or else its first."""
    if deployment is None:
        return None
    known = {each.name: each for each in health}
    states = [known[name] for name in deployment.upstreams if name in known]
    well = [each for each in states if each.problem is None and not each.paused]
    return Target(url=(well or states)[0].url, model=deployment.model) if states else None


def curl(line: bytes, target: Target | None) -> str:
    """Say a request as a command to its upstream; the key, and without a ``target`` the address, are left open.

    The body is as it stands in the line, but for the name of the model.
    """
    if len(line) > bubbles.PREVIEW:
        return ""
    try:
        record = _members.decode(line)
        url, body = msgspec.json.decode(record["url"], type=str), _members.decode(record["body"])
    except (msgspec.DecodeError, KeyError, UnicodeDecodeError, RecursionError):
        return ""
    return "\n".join((_command(url, target), _text(body, target), _END))


def _command(url: str, target: Target | None) -> str:
    path = canonical(url).removeprefix("/v1") if target else canonical(url)
    address = shlex.quote(readable(target.url + path)) if target else _ADDRESS + shlex.quote(readable(path))
    return " \\\n  ".join(
        (
            f"curl {address}",
            '-H "Authorization: Bearer $KEY"',
            '-H "Content-Type: application/json"',
            f"--data-binary @- <<'{_END}'",
        )
    )


def _text(body: Mapping[str, msgspec.Raw], target: Target | None) -> str:
    if target and "model" in body:
        body = {**body, "model": msgspec.Raw(msgspec.json.encode(target.model))}
    return steering_escaped(msgspec.json.format(msgspec.json.encode(body), indent=2).decode())


def _side(preview: Preview | None, *, full: bool, request: bool) -> Side | None:
    if preview is None:
        return None
    shown = None
    if not preview.truncated:
        shown = bubbles.asked(preview.data) if request else bubbles.answered(preview.data)
    data = preview.data.rstrip(b"\r\n")
    raw = bubbles.pretty(data, preview.bytes if preview.truncated else len(data), full=full)
    return Side(bubbles=shown, raw=raw, size=human.size(preview.bytes))


def _request_id(got: Preview | None) -> str:
    return "" if got is None or got.truncated else bubbles.request_id(got.data)
