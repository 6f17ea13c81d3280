"""What is done with several batches or files at once: a page that says what it means, then the deed."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from overnight.domain.errors import InvalidRequest, NotFound, QuotaExceeded, ServiceError, TooManyRequests
from overnight.ports.blobs import StorageFull
from overnight.studio.deeds import LOOKED_AT, Cancel, Delete, Retry
from overnight.studio.pages import shell_for

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from starlette.requests import Request
    from starlette.responses import Response

    from overnight.domain.ids import ResourceId
    from overnight.studio.context import Parts
    from overnight.studio.deeds import Deed, Made, Thing, Words
    from overnight.studio.pages import Frame
    from overnight.studio.session import Sessions, Visitor

# As many as a page of a list holds.
_TICKED = 50
_NAMED = 50
# Gateways give up on an answer after a minute or less; what is not begun by then is asked about again.
_SECONDS = 20.0
_NOTHING = "Nothing was chosen: tick what you mean in the list."


class Chosen(msgspec.Struct, frozen=True, kw_only=True):
    """What a deed is meant for, what is left out and why, and where the looking stopped."""

    things: tuple[Thing, ...]
    left: Mapping[str, int]
    bound: str = ""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A question before a deed: ``names`` are some of what it is done to, ``ids`` all; ``left`` says what is not."""

    title: str
    consequence: str
    action: str
    word: str
    keep: str
    back: str
    ids: tuple[str, ...]
    names: tuple[tuple[str, str], ...]
    others: str
    left: tuple[str, ...]
    bound: str
    once: str
    danger: bool
    nothing: str


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a deed; ``rest`` was not begun, and ``problem`` says why."""

    title: str
    made: tuple[tuple[Made, str, str], ...]
    left: tuple[str, ...]
    problem: str
    rest: tuple[str, ...]
    word: str
    action: str
    once: str
    back: str


class Bulk:
    """Cancels and retries batches, and deletes files: those that were ticked in a list, or all that match."""

    def __init__(self, parts: Parts, sessions: Sessions, frame: Frame) -> None:
        self._parts = parts
        self._sessions = sessions
        self._frame = frame
        self._home = f"{parts.root}/studio"
        self.cancel, self.retry, self.delete = Cancel(parts), Retry(parts), Delete(parts)

    async def ask_to_cancel(self, request: Request) -> Response:
        return await self._ask(request, self.cancel)

    async def ask_to_retry(self, request: Request) -> Response:
        return await self._ask(request, self.retry)

    async def ask_to_delete(self, request: Request) -> Response:
        return await self._ask(request, self.delete)

    async def _ask(self, request: Request, deed: Deed) -> Response:
        visitor = await self._sessions.visitor(request)
        resource, params = visitor.caller.resource, request.query_params
        if params.get("all"):
            chosen, nothing = await _all_matching(deed, resource, params), "Nothing matches."
        else:
            chosen, nothing = await _ticked(deed, resource, params.getlist("id")), _NOTHING
        asked = self._question(deed, chosen, "" if chosen.left else nothing)
        shell = shell_for(visitor, deed.words.title, deed.section)
        return await self._frame.page(request, "bulk.html", shell, asked=asked)

    def _question(self, deed: Deed, chosen: Chosen, nothing: str) -> Asked:
        words, count = deed.words, len(chosen.things)
        what = f"{words.verb} {_counted(count, words)}"
        return Asked(
            title=f"{what}?",
            consequence=words.consequence,
            action=f"{self._home}/{deed.section}/{deed.name}",
            word=what,
            keep=words.keep,
            back=f"{self._home}/{deed.section}",
            ids=tuple(thing.id for thing in chosen.things),
            names=tuple((thing.id, thing.name) for thing in chosen.things[:_NAMED]),
            others=f"and {count - _NAMED:,} more" if count > _NAMED else "",
            left=_lines(chosen.left),
            bound=chosen.bound,
            once=self._parts.entropy.hex(),
            danger=words.danger,
            nothing=nothing,
        )

    async def act(self, request: Request, visitor: Visitor, deed: Deed, form: Mapping[str, Sequence[str]]) -> Response:
        """Do a deed to what the question named, and tell what came of it. Raises ``InvalidRequest`` for too much."""
        ids = list(dict.fromkeys(form.get("id", [])))
        if len(ids) > deed.most:
            message = f"At most {_counted(deed.most, deed.words)} at once."
            raise InvalidRequest(message, param="id")
        outcome = await self._do(deed, visitor, ids, form.get("once", [""])[0][:64])
        return await self._frame.page(
            request, "bulk_done.html", shell_for(visitor, deed.words.title, deed.section), outcome=outcome
        )

    async def _do(self, deed: Deed, visitor: Visitor, ids: Sequence[str], once: str) -> Outcome:
        until = self._parts.clock.ticks() + _SECONDS
        made: list[Made] = []
        left: Counter[str] = Counter()
        done, problem = 0, ""
        for each in ids:
            if self._parts.clock.ticks() >= until:
                problem = "This takes long, so it stopped here."
                break
            try:
                # Each is a request of its own when programs do it.
                self._parts.allowances.count_request(visitor.key)
                new = await deed.do(visitor.caller.resource, each, once)
            except (QuotaExceeded, TooManyRequests) as error:
                problem = error.message
                break
            except StorageFull:
                problem = "The server has no room left for another file."
                break
            except NotFound:
                left["gone already"] += 1
                continue
            except ServiceError as error:
                left[error.message] += 1
                continue
            done += 1
            if new is not None:
                made.append(new)
        words, rest = deed.words, tuple(ids[done + left.total() :])
        return Outcome(
            title=f"{words.past} {_counted(done, words)}",
            made=tuple((each, self._batch(each.of), self._batch(each.id)) for each in made),
            left=_lines(left),
            problem=problem,
            rest=rest,
            word=f"{words.verb} the other {len(rest):,}",
            action=f"{self._home}/{deed.section}/{deed.name}",
            once=once,
            back=f"{self._home}/{deed.section}",
        )

    def _batch(self, batch_id: str) -> str:
        return f"{self._home}/batches/{batch_id}"


async def _ticked(deed: Deed, resource: ResourceId, ids: Sequence[str]) -> Chosen:
    """Look at each id once, and at no more than a page of a list holds."""
    return _sorted([await deed.look(resource, each) for each in list(dict.fromkeys(ids))[:_TICKED]])


async def _all_matching(deed: Deed, resource: ResourceId, wanted: Mapping[str, str]) -> Chosen:
    """Find all that a filter matches, newest first, as far as the bounds go; only names are kept of them."""
    things: list[Thing] = []
    left: Counter[str] = Counter()
    before = await deed.done_before(resource)
    looked, after = 0, None
    while True:
        piece = await deed.matching(resource, wanted, after)
        looked, after = looked + piece.looked, piece.after
        some = _sorted([_unless(thing, deed, before) for thing in piece.things])
        things.extend(some.things)
        left.update(some.left)
        if after is None or len(things) >= deed.most or looked >= LOOKED_AT:
            break
    many, bound = deed.words.many, ""
    if len(things) > deed.most or (after is not None and len(things) == deed.most):
        bound = f"At most {deed.most:,} {many} at once: these are the newest. {deed.words.older}"
    elif after is not None:
        bound = f"Looked at the newest {looked:,} {many} only; older ones are not meant."
    return Chosen(things=tuple(things[: deed.most]), left=left, bound=bound)


def _unless(thing: Thing, deed: Deed, before: AbstractSet[str]) -> Thing:
    if thing.why or thing.id not in before:
        return thing
    return msgspec.structs.replace(thing, why=f"{deed.words.past.lower()} already")


def _sorted(things: Sequence[Thing]) -> Chosen:
    return Chosen(
        things=tuple(thing for thing in things if not thing.why),
        left=Counter(thing.why for thing in things if thing.why),
    )


def _counted(count: int, words: Words) -> str:
    return f"{count:,} {words.one if count == 1 else words.many}"


def _lines(left: Mapping[str, int]) -> tuple[str, ...]:
    return tuple(f"{count:,} left out: {why}" for why, count in left.items())
