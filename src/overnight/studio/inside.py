"""What pages show of the requests of a batch: the list with its filters, the failures, and what may run again."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

import msgspec

from overnight import human
from overnight.domain.batch import BatchStatus
from overnight.domain.places import State
from overnight.services.retry import Which
from overnight.services.sheets import RequestQuery
from overnight.studio import view_models
from overnight.studio.excerpt import offset_of, visible

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from overnight.domain.batch import Batch
    from overnight.services.requests import FailureGroup
    from overnight.services.sheets import RequestPage, RequestRow

SIZES = (50, 100)
NEWEST = 8
STATES = (("", "All"), ("succeeded", "Succeeded"), ("failed", "Failed"), ("waiting", "Waiting"), ("not_run", "Not run"))
_LOOKS = {
    State.WAITING: ("waiting", "neutral", "○"),
    State.SUCCEEDED: ("succeeded", "success", "✓"),
    State.FAILED: ("failed", "danger", "✕"),
    State.NOT_RUN: ("not run", "cancel", "⊘"),
}
_LONGEST = 512
# The members of `Wanted`, and of an address, that leave some requests out.
FILTERS = ("status", "code", "upstream", "custom_id")


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which requests the address asks for."""

    status: str = ""
    code: str = ""
    upstream: str = ""
    custom_id: str = ""
    offset: int = 0
    limit: int = SIZES[0]

    @property
    def filtered(self) -> bool:
        """Whether some requests are left out."""
        return any(getattr(self, name) for name in FILTERS)

    def query(self) -> RequestQuery:
        """Say the same to the service."""
        return RequestQuery(
            offset=self.offset,
            limit=self.limit,
            state=State[self.status.upper()] if self.status else None,
            code=self.code or None,
            upstream=self.upstream or None,
            custom_id=self.custom_id or None,
        )

    def url(self, home: str, **changes: object) -> str:
        """Give the address of this list with changes; ``home`` is the page of the batch."""
        values = {**msgspec.structs.asdict(self), **changes}
        default = msgspec.structs.asdict(Wanted())
        query = urlencode({name: value for name, value in values.items() if value != default[name]})
        return f"{home}?{query}#requests" if query else f"{home}#requests"

    def along(self) -> str:
        """Give what makes a request, by its address, one of this list."""
        values = {name: getattr(self, name) for name in FILTERS}
        query = urlencode({name: value for name, value in values.items() if value})
        return f"&{query}" if query else ""


EVERY = Wanted()


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A request in a list."""

    id: str
    name: str
    url: str
    word: str
    tone: str
    icon: str
    status_code: str
    code: str
    tokens_in: str
    tokens_out: str
    upstream: str
    took: str
    attempts: str


class Tab(msgspec.Struct, frozen=True, kw_only=True):
    """A choice of a filter."""

    name: str
    url: str
    current: bool


class RequestList(msgspec.Struct, frozen=True, kw_only=True):
    """A page of requests. ``bound`` says where a search stopped, ``problem`` why there is no list at all.

    ``upstreams`` are there to choose from if there is more than one. ``ask_again`` is where the list will be, while
    there is none yet.
    """

    wanted: Wanted
    tabs: tuple[Tab, ...]
    sizes: tuple[Tab, ...]
    clear: str
    home: str
    rows: tuple[Row, ...] = ()
    upstreams: tuple[str, ...] = ()
    place: str = ""
    bound: str = ""
    before: str = ""
    after: str = ""
    problem: str = ""
    ask_again: str = ""


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Failed requests of one code at one upstream, and the list that shows them."""

    code: str
    upstream: str
    count: str
    word: str
    message: str
    url: str


class Again(msgspec.Struct, frozen=True, kw_only=True):
    """Requests that can run again as a new batch."""

    which: str
    word: str
    count: str


class Inside(msgspec.Struct, frozen=True, kw_only=True):
    """Failures and newest results; ``problem`` says why they cannot be told."""

    failures: tuple[Failure, ...] = ()
    newest: tuple[Row, ...] = ()
    again: tuple[Again, ...] = ()
    running: bool = False
    loading: bool = False
    problem: str = ""


def wanted_in(params: Mapping[str, str]) -> Wanted:
    """Read the address; what it does not understand it leaves out."""
    status = params.get("status", "")
    limit = offset_of(params.get("limit", ""))
    return Wanted(
        status=status if status in dict(STATES) else "",
        code=params.get("code", "")[:_LONGEST],
        upstream=params.get("upstream", "")[:_LONGEST],
        custom_id=params.get("custom_id", "").strip()[:_LONGEST],
        offset=min(offset_of(params.get("offset", "")), 2**31),
        limit=limit if limit in SIZES else SIZES[0],
    )


def row_of(row: RequestRow, home: str, wanted: Wanted = EVERY) -> Row:
    """Show a request of a list."""
    word, tone, icon = _LOOKS[row.state]
    return Row(
        id=f"request-{row.line}",
        name=visible(row.custom_id[:200]) if row.custom_id is not None else f"request {row.line + 1:,}",
        url=request_url(home, row.custom_id, row.line, wanted),
        word=word,
        tone=tone,
        icon=icon,
        status_code=str(row.status_code or ""),
        code=visible(row.code or ""),
        tokens_in=f"{row.input_tokens:,}" if row.input_tokens else "",
        tokens_out=f"{row.output_tokens:,}" if row.output_tokens else "",
        upstream=visible(row.upstream or ""),
        took="" if row.seconds is None else human.took(row.seconds),
        attempts=human.plural(row.attempts, "attempt") if row.attempts > 1 else "",
    )


def request_url(home: str, custom_id: str | None, line: int, wanted: Wanted = EVERY) -> str:
    """Give the address of a request of a list: its line finds it at once, its custom_id is for people."""
    # Browsers take these two for folders, whatever they are written as.
    name = "" if custom_id in {None, ".", ".."} else quote(custom_id or "", safe="")
    return f"{home}/requests/{name}?line={line}{wanted.along()}"


def list_of(page: RequestPage | None, wanted: Wanted, home: str, problem: str = "") -> RequestList:
    """Show a page of requests; ``None`` if it could not be read."""
    tabs = tuple(
        Tab(name=name, url=wanted.url(home, status=status, offset=0), current=status == wanted.status)
        for status, name in STATES
    )
    sizes = tuple(
        Tab(name=str(size), url=wanted.url(home, limit=size, offset=0), current=size == wanted.limit) for size in SIZES
    )
    found = RequestList(wanted=wanted, tabs=tabs, sizes=sizes, clear=Wanted().url(home), home=home, problem=problem)
    if page is None:
        return found
    stopped = page.next_offset is not None and len(page.rows) < wanted.limit
    return msgspec.structs.replace(
        found,
        rows=tuple(row_of(row, home, wanted) for row in page.rows),
        upstreams=_choices(page.upstreams, wanted.upstream),
        place=_place(page, wanted),
        bound=_bound(page, wanted) if stopped else "",
        before=_before(wanted, home),
        after="" if page.next_offset is None else wanted.url(home, offset=page.next_offset),
    )


def list_to_come(batch: Batch, wanted: Wanted, home: str) -> RequestList:
    """Say why there is no list of a batch that is being validated, and where the page asks for it again."""
    words = f"{view_models.validating(batch)}. The requests are listed here once they are let in."
    address = wanted.url(f"{home}/requests").partition("#")[0]
    ask_again = f"{address}{'&' if '?' in address else '?'}told={told_while_validating(batch)}"
    return msgspec.structs.replace(list_of(None, wanted, home, words), ask_again=ask_again)


def told_while_validating(batch: Batch) -> str:
    """Name what a page tells of a batch in place of its list; none once there is one."""
    if batch.status != BatchStatus.VALIDATING:
        return ""
    return "waiting" if view_models.waits_for_room(batch) else "checking"


def _choices(known: Sequence[str], wanted: str) -> tuple[str, ...]:
    """Give what can be chosen, and always what is: a filter that is not shown could not be taken away."""
    if not wanted:
        return tuple(known) if len(known) > 1 else ()
    return tuple(known) if wanted in known else (*known, wanted)


def _place(page: RequestPage, wanted: Wanted) -> str:
    if wanted.filtered:
        return f"{human.plural(page.searched, 'request')} of {page.total:,} looked at"
    if not page.rows:
        return f"none of {human.plural(page.total, 'request')}" if page.total else "no requests"
    return f"{page.rows[0].line + 1:,} to {page.rows[-1].line + 1:,} of {human.plural(page.total, 'request')}"


def _bound(page: RequestPage, wanted: Wanted) -> str:
    return f"Searched up to request {wanted.offset + page.searched:,} of {page.total:,}; go on to search the rest."


def _before(wanted: Wanted, home: str) -> str:
    if not wanted.offset:
        return ""
    return wanted.url(home, offset=0 if wanted.filtered else max(0, wanted.offset - wanted.limit))


def inside_of(groups: Sequence[FailureGroup], newest: Sequence[RequestRow], batch: Batch, home: str) -> Inside:
    """Show why requests failed, what came last, and what can run again."""
    return Inside(
        failures=tuple(_failure(group, home) for group in groups),
        newest=tuple(row_of(row, home) for row in newest),
        again=_again(groups) if batch.ended else (),
        running=not batch.ended,
    )


def _failure(group: FailureGroup, home: str) -> Failure:
    status = "not_run" if group.state is State.NOT_RUN else "failed"
    return Failure(
        code=visible(group.code),
        upstream=visible(group.upstream),
        count=f"{group.count:,}",
        word="" if status == "failed" else "not run",
        message=visible(group.message),
        url=Wanted(status=status, code=group.code, upstream=group.upstream).url(home),
    )


def _again(groups: Sequence[FailureGroup]) -> tuple[Again, ...]:
    failed = sum(group.count for group in groups if group.state is State.FAILED)
    not_run = sum(group.count for group in groups if group.state is State.NOT_RUN)
    choices = [(Which.FAILED, "failed", failed), (Which.NOT_RUN, "not run", not_run)]
    if failed and not_run:
        choices.append((Which.ALL_UNFINISHED, "failed or not run", failed + not_run))
    return tuple(
        Again(which=which, word=word, count=human.plural(count, "request")) for which, word, count in choices if count
    )
