"""Made-up requests, results and rates for the gallery, in every state that a part of them has."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec

from overnight.domain.batch import BatchStatus
from overnight.domain.deployment import UpstreamName
from overnight.domain.places import State
from overnight.domain.trail import NO_TRAIL, Attempted, Trail
from overnight.ports.upstream import UpstreamHealth
from overnight.services.requests import FailureGroup, Preview, RequestDetail
from overnight.services.sheets import RequestRow
from overnight.services.traffic import Points
from overnight.studio import dashboard
from overnight.studio.bubbles import Block, Bubble, Raw
from overnight.studio.excerpt import visible
from overnight.studio.gallery import HOSTILE, LONG, batch_in
from overnight.studio.inside import Inside, inside_of
from overnight.studio.looking import Overview
from overnight.studio.one_request import RequestView, Side, Target, view_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from overnight.domain.batch import Batch

M = TypeVar("M")

_TARGET = Target(url="http://10.0.0.7:8000/v1", model="Qwen/Qwen3-32B")
_PICTURE = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAABgAAAAYCAIAAABvFaqvAAAAbklEQVR42u3TkRLDUBRF0fc5oVApFAqVSp0NpVCpFAqVSqVSKB"
    "QKdfY3Rcr1evr40Z25eM6ic9P2+e7uiCc84wV7vOJ/5oUTzrjgim9MARWEKqzxgA222OVqNxxwxDs+8JnLBFQSimXHrwVUBPoBXnrJXYWcBdcA"
    "AAAASUVORK5CYII="
)
# Really so much text would take a browser's checks many seconds.
_CUT = Side(
    bubbles=(Bubble(role="user", blocks=(Block(kind="text", text="word " * 90, cut="5,000 more characters"),)),),
    raw=Raw(text='{"custom_id": "a-00003", "url": "/v1/chat', more="9,000 more bytes"),
    size="74.5 kB",
)
_NAMES = ("nothing yet", "some minutes", "an hour")


class Specimen(msgspec.Struct, Generic[M], frozen=True, kw_only=True):
    """A part in one state; ``model`` is what its template takes."""

    id: str
    name: str
    model: M


def requests(now: float) -> tuple[Specimen[RequestView], ...]:
    """Give a request in each state, and with each kind of content."""
    ended = batch_in(int(now), "requests", BatchStatus.COMPLETED, completed_at=int(now), total=12)
    running = batch_in(int(now), "requests", BatchStatus.IN_PROGRESS, total=12)
    asked, answered = _asked(_said("user", "Is this review positive?")), _answered({"content": "Yes."})
    tool: dict[str, object] = {
        "content": None,
        "tool_calls": [{"function": {"name": "find", "arguments": '{"city": "Bern"}'}}],
    }
    shown = [{"type": "text", "text": "What is this?"}, _image(_PICTURE), _image("https://example.com/cat.png")]
    vector = {"data": [{"embedding": [0.12, -0.5, 0.25, 0.03, 0.9]}]}
    refused = {"error": {"code": "context_length_exceeded", "message": "At most 4,096 tokens."}}
    ways = (
        ("conversation", ended, asked, answered),
        ("tool call", ended, asked, _answered(tool)),
        ("refusal", ended, asked, _answered({"content": None, "refusal": "I cannot help with that."})),
        ("image", ended, _asked(_said("user", shown)), answered),
        ("embedding", ended, _line({"model": "m", "input": ["a", "b"]}), _response(200, vector)),
        ("hostile text", ended, _asked(_said(HOSTILE, HOSTILE)), _answered({"content": HOSTILE * 9})),
        ("JSON only", ended, _line({"model": "m", "query": {"text": "a"}}), _response(200, {"answer": [1, 2]})),
        ("too long to be shown whole", ended, asked, answered),
        ("failed", ended, asked, _response(400, refused)),
        ("waiting", running, asked, None),
        ("files missing", ended, None, None),
    )
    return _numbered("a-request", ((name, _view(name, *content)) for name, *content in ways))


def insides() -> tuple[Specimen[Inside], ...]:
    """Give failures and newest results in each state."""
    failed = FailureGroup(state=State.FAILED, code="rate_limit_exceeded", count=28, first_line=0, message="Too many.")
    failed = msgspec.structs.replace(failed, upstream="vllm-2")
    groups = (
        failed,
        msgspec.structs.replace(failed, code=HOSTILE, count=3, message=LONG),
        msgspec.structs.replace(failed, state=State.NOT_RUN, code="batch_cancelled", count=1_200, message=""),
    )
    rows = (
        RequestRow(line=9, custom_id="a-00009", state=State.SUCCEEDED, status_code=200, output_tokens=1_234),
        RequestRow(line=8, custom_id=LONG, state=State.FAILED, status_code=429, code="rate_limit_exceeded"),
        RequestRow(line=7, custom_id=HOSTILE, state=State.SUCCEEDED, status_code=200),
        RequestRow(line=6, custom_id=None, state=State.NOT_RUN, code="batch_cancelled"),
    )
    running = batch_in(0, "inside", BatchStatus.IN_PROGRESS, total=2_000)
    ways = (
        ("results and failures", inside_of(groups, rows, running, "#")),
        ("none yet", inside_of((), (), running, "#")),
        ("being read", Inside(loading=True, running=True)),
        ("not to be read", Inside(problem="Where the requests lie is not known any more: its files are gone.")),
        ("none at all", Inside()),
    )
    return _numbered("an-inside", ways)


def strips() -> tuple[Specimen[Overview], ...]:
    """Give the strip of upstreams without any, and with one in each state."""
    answers = UpstreamHealth(name=UpstreamName("vllm-1"), url="", in_flight=64, limit=96)
    healths = (
        answers,
        msgspec.structs.replace(answers, name=LONG, paused=True, in_flight=0),
        msgspec.structs.replace(answers, name="vllm-3", problem=HOSTILE, in_flight=0),
    )
    rows = tuple(dashboard.upstream_row(number, each, (), may_operate=False) for number, each in enumerate(healths))
    with_figures = msgspec.structs.replace(rows[0], p95="1.2 s", errors="0.4 %")
    ways = (("every state", (with_figures, *rows[1:])), ("none is set up", ()))
    empty = Overview(cards=(), active=(), upstreams=(), events=(), empty=False, problem="")
    return _numbered(
        "a-strip", ((name, msgspec.structs.replace(empty, upstreams=upstreams)) for name, upstreams in ways)
    )


def allowances() -> tuple[Specimen[dashboard.Allowance], ...]:
    """Give quotas and caps that are hardly used, nearly and wholly used up, with and without use."""
    meters = (
        _meter("Enqueued for qwen3", "1,200,000 of 10,000,000 tokens", 12, "neutral"),
        _meter(f"Enqueued for {visible(HOSTILE)}", "900,000 of 1,000,000 tokens", 90, "warning"),
        _meter("Cap on tokens", "100 % of 1,000,000 tokens a day", 100, "danger"),
        _meter("Cap on money", "0 % of 250 EUR a month", 0, "neutral"),
    )
    figures = (("Succeeded", "49,969"), ("Failed", "31"), ("Tokens in", "12,000,000"), ("Tokens out", "900,000"))
    uses = (("Today", figures), ("This month", (*figures, ("Cost", "12.40 EUR"))))
    ways = (
        ("quotas, caps and use", dashboard.Allowance(meters=meters, uses=uses)),
        ("use without limits", dashboard.Allowance(meters=(), uses=uses)),
        ("nothing used, nothing limited", dashboard.Allowance(meters=(), uses=())),
    )
    return _numbered("an-allowance", ways)


def traffics(root: str) -> tuple[Specimen[dashboard.Traffic], ...]:
    """Give the chart of the overview before there is anything to draw, and with little and much of it."""
    source = f"{root}/studio/_gallery/traffic"
    ways = [
        (name, dashboard.Traffic(source=f"{source}/{number}", span="1h", whose="nobody"))
        for number, name in enumerate(_NAMES)
    ]
    return _numbered("a-traffic", ways)


def chart(name: str, now: float) -> dashboard.Chart:
    """Give what one of these charts draws."""
    count = {"1": 12, "2": 360}.get(name, 0)
    waves = [1 + math.sin(place / 20) for place in range(count)]
    points = Points(
        length=3_600,
        since=now - 3_600,
        times=tuple(now - 10 * (count - place) for place in range(count)),
        done=tuple(90 * wave for wave in waves),
        failed=tuple(3 * wave for wave in waves),
        tokens_in=tuple(9_000 * wave for wave in waves),
        tokens_out=tuple(2_000 * wave for wave in waves),
    )
    return dashboard.chart(points, now)


def _numbered(prefix: str, ways: Iterable[tuple[str, M]]) -> tuple[Specimen[M], ...]:
    return tuple(Specimen(id=f"{prefix}-{number}", name=name, model=model) for number, (name, model) in enumerate(ways))


def _view(name: str, batch: Batch, asked: bytes | None, got: bytes | None) -> RequestView:
    state = State.FAILED if name == "failed" else State.WAITING if got is None else State.SUCCEEDED
    row = RequestRow(
        line=3,
        custom_id="a-00003",
        state=state,
        status_code={State.FAILED: 400, State.SUCCEEDED: 200}.get(state),
        code="context_length_exceeded" if state is State.FAILED else None,
        input_tokens=1_200 if state is State.SUCCEEDED else 0,
        output_tokens=34 if state is State.SUCCEEDED else 0,
    )
    detail = RequestDetail(row=row, asked=_preview(asked), got=_preview(got), trail=_trail(name))
    # One stands for those whose address is not shown.
    view = view_of(detail, batch, "#", None if name == "hostile text" else _TARGET)
    if name.startswith("too long"):
        view = msgspec.structs.replace(view, asked=_CUT, curl="")
    return msgspec.structs.replace(view, id=f"request-{name.replace(' ', '-').lower()}")


def _trail(name: str) -> Trail:
    refused = Attempted(upstream="vllm-2", at=0, seconds=0.012, status=429, wait=2.4)
    answered = Attempted(upstream="vllm-1", at=8, seconds=1.73, status=200)
    late = msgspec.structs.replace(refused, at=3, seconds=600, status=0, fault="timeout", wait=1.1)
    trails = {
        "conversation": Trail((answered,)),
        "image": Trail((refused, late, answered), 3),
        "failed": Trail((refused, msgspec.structs.replace(answered, status=400, upstream=LONG))),
    }
    return trails.get(name, NO_TRAIL)


def _preview(line: bytes | None) -> Preview | None:
    return None if line is None else Preview(data=line, bytes=len(line))


def _line(body: object) -> bytes:
    return msgspec.json.encode({"custom_id": "a-00003", "url": "/v1/chat/completions", "body": body})


def _asked(*messages: object) -> bytes:
    return _line({"model": "qwen3", "messages": [_said("system", "Answer in one word."), *messages]})


def _said(role: str, content: object) -> dict[str, object]:
    return {"role": role, "content": content}


def _image(url: str) -> dict[str, object]:
    return {"type": "image_url", "image_url": {"url": url}}


def _answered(message: dict[str, object]) -> bytes:
    return _response(200, {"choices": [{"message": {"role": "assistant", **message}}]})


def _response(status: int, body: object) -> bytes:
    return msgspec.json.encode({"response": {"status_code": status, "request_id": "req_8f2", "body": body}})


def _meter(name: str, text: str, share: int, tone: str) -> dashboard.Meter:
    return dashboard.Meter(name=name, text=text, share=share, tone=tone)
