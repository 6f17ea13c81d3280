"""Batches of a deployment with a content filter: prompts are judged before the model, answers before they count.

The filter is asked by the pools of its own upstreams, ahead of the model and behind it: neither holds the other's slot.
"""

from __future__ import annotations

import heapq
from collections import deque
from math import inf
from typing import TYPE_CHECKING

import msgspec

from overnight.dispatch.run import Run
from overnight.dispatch.work import Attempt
from overnight.domain.batch import Batch, StopCause
from overnight.domain.content_filter import (
    SAFE,
    ContentFilter,
    FilterKind,
    FilterPolicy,
    Judged,
    Text,
    Verdict,
    as_trouble,
    question_to,
    read_verdicts,
)
from overnight.domain.filtered_body import (
    FILTER_UNAVAILABLE,
    FILTER_UNSUPPORTED,
    answers,
    prompt_error,
    with_unfiltered,
    with_verdicts,
    worst,
)
from overnight.domain.limits import MIB
from overnight.domain.outcome import examine, to_result, tries
from overnight.domain.prompt_texts import Unjudgeable, prompts
from overnight.domain.request import Request
from overnight.domain.result import Answer, Result, ResultKind, error_line, response_line
from overnight.domain.retry import Failure
from overnight.domain.trail import NO_TRAIL, Trail, encode_trail
from overnight.domain.usage import NO_USAGE, Usage

if TYPE_CHECKING:
    import asyncio

    from overnight.dispatch.work import Work
    from overnight.domain.deployment import Deployment, UpstreamName
    from overnight.domain.index import Index
    from overnight.domain.retry import Outcome, RetryPolicy

# So many prompts are judged ahead of the model; what waits for the filter is bounded by the same number.
_AHEAD = 256
# So much may wait to be judged behind the model before it is given no more.
_MOST_ANSWERS = 256
_MOST_ANSWER_BYTES = 32 * MIB


def open_run(batch: Batch, deployment: Deployment, index: Index, source: int, *, held_until: float = inf) -> Run:
    """Make the run of a batch as its deployment says."""
    if deployment.content_filter is not None:
        return FilteredRun(batch, deployment, index, source, deployment.content_filter, held_until=held_until)
    kind = UnfilteredRun if deployment.says_unfiltered else Run
    return kind(batch, deployment, index, source, held_until=held_until)


class UnfilteredRun(Run):
    """A run whose answers say that no filter has judged them."""

    def end(self, request: Request, attempt: Attempt, outcome: Outcome) -> None:
        if isinstance(outcome, Answer) and outcome.succeeded:
            outcome = msgspec.structs.replace(outcome, body=with_unfiltered(self.endpoint, outcome.body))
        super().end(request, attempt, outcome)


class FilteredRun(Run):
    """A run whose model gets only prompts that passed the filter; ``checks`` are what the filter is asked."""

    def __init__(
        self,
        batch: Batch,
        deployment: Deployment,
        index: Index,
        source: int,
        rules: ContentFilter,
        *,
        held_until: float = inf,
    ) -> None:
        super().__init__(batch, deployment, index, source, held_until=held_until)
        self.rules = rules
        self.checks = Checks(self)
        self._judges_prompts = Judged.PROMPT in rules.judges
        self._judges_answers = Judged.ANSWER in rules.judges
        # Prompts that have passed: in which order the model gets them, and what was found, until the request ends.
        self._passed: deque[int] = deque()
        self._found: dict[int, tuple[Verdict, ...]] = {}

    def works(self) -> list[tuple[Work, tuple[UpstreamName, ...]]]:
        return [*super().works(), (self.checks, self.deployment.filter_upstreams)]

    # --- for the model

    @property
    def has_more(self) -> bool:
        if super().has_more:
            return True
        # The model may be faster than the filter: what it has not judged yet is still to be started.
        return self._judges_prompts and (super()._find_next() >= 0 or self.checks.has_prompts)

    def take(self, now: float, ticks: float) -> Attempt | None:
        return None if self.checks.full else super().take(now, ticks)

    def due_at(self, now: float) -> float | None:
        return None if self.checks.full else super().due_at(now)

    def _find_next(self) -> int:
        if not self._judges_prompts:
            return super()._find_next()
        return self._passed[0] if self._passed else -1

    def _claim(self, line: int) -> None:
        if not self._judges_prompts:
            super()._claim(line)
            return
        self._passed.popleft()
        if len(self._passed) == _AHEAD - 1:
            self.on_put_back()

    def end(self, request: Request, attempt: Attempt, outcome: Outcome) -> None:
        if not isinstance(outcome, Answer) or not outcome.succeeded:
            super().end(request, attempt, outcome)
            return
        if not self._judges_answers:
            self.deliver(request, attempt, outcome, None)
            return
        try:
            texts = answers(self.endpoint, outcome.body)
        except Unjudgeable as error:
            detail = f": {error}."
            self.refuse(request.line, request.custom_id, FILTER_UNSUPPORTED, detail, outcome.usage, attempt.trail)
            return
        if texts:
            self.checks.hold(request, attempt, outcome, self._with_questions(request, texts))
        else:
            self.deliver(request, attempt, outcome, None)

    def _with_questions(self, request: Request, texts: tuple[str, ...]) -> tuple[Text, ...]:
        """Give a guard the prompt beside the answer: it judges conversations."""
        asked: tuple[str, ...] = ()
        if self.rules.kind is FilterKind.GUARD:
            try:
                asked = prompts(self.endpoint, request.body)
            except Unjudgeable:
                asked = ()
        count = len(texts)
        return tuple(
            Text(text, asked[place * len(asked) // count] if asked else None) for place, text in enumerate(texts)
        )

    # --- for the checks

    def take_unjudged(self, now: float) -> int:
        """Give the line of a prompt that is to be judged, -1 if there is none."""
        if not self.has_unjudged(now):
            return -1
        line = super()._find_next()
        super()._claim(line)
        return line

    def has_unjudged(self, now: float) -> bool:
        """Say whether ``take_unjudged`` would give one."""
        room = self._judges_prompts and len(self._passed) < _AHEAD
        return room and self._may_send(now) and super()._find_next() >= 0

    def expire(self, now: float) -> None:
        """Stop if the window has closed."""
        self._may_take(now)

    def may_judge(self, now: float) -> bool:
        """Say whether a check may be sent: those of answers may after a stop, too."""
        return self._log is not None and now < self._held_until

    def took(self) -> None:
        """Count what must be left before the run ends."""
        self._taken += 1

    def untook(self) -> None:
        """Count that something need not be waited for any more."""
        self._taken -= 1
        self._check_end()

    def passed(self, line: int, verdicts: tuple[Verdict, ...]) -> None:
        """Let the model have a request."""
        self._passed.append(line)
        self._found[line] = verdicts
        self.on_put_back()

    def refuse_prompt(self, line: int, custom_id: bytes, verdicts: tuple[Verdict, ...]) -> None:
        """End a request whose prompt is filtered."""
        own_id = self.own_id(line)
        body = prompt_error(self.rules.thresholds, worst(verdicts))
        record = response_line(custom_id, own_id, _BAD_REQUEST, own_id, body)
        self.record(Result(line=line, kind=ResultKind.FAILED, record=record))

    def deliver(self, request: Request, attempt: Attempt, answer: Answer, verdicts: tuple[Verdict, ...] | None) -> None:
        """End a request with its answer, or with what the filter leaves of it."""
        found = self._found.get(request.line)
        body = with_verdicts(self.endpoint, answer.body, self.rules.thresholds, found, verdicts)
        answer = msgspec.structs.replace(answer, body=body)
        self.record(to_result(request, self.own_id(request.line), answer, attempt.trail, attempt.number))

    def refuse(
        self,
        line: int,
        custom_id: bytes,
        error: tuple[str, str],
        detail: str,
        usage: Usage = NO_USAGE,
        trail: Trail = NO_TRAIL,
    ) -> None:
        """End a request that cannot be judged; ``usage`` and ``trail`` are those of an answer that is withheld."""
        code, message = error
        record = error_line(custom_id, self.own_id(line), code, message + detail)
        result = Result(line=line, kind=ResultKind.FAILED, record=record, usage=usage, trail=encode_trail(trail))
        self.record(result)

    def record(self, result: Result) -> None:
        self._found.pop(result.line, None)
        super().record(result)

    def stop(self, cause: StopCause) -> None:
        if self.cause is None:
            self.checks.stop(expired=cause is StopCause.EXPIRY)
        super().stop(cause)

    def abort(self) -> None:
        self.checks.drop()
        super().abort()


_BAD_REQUEST = 400


# Why there is no verdict, by the stop that the batch ends with.
_CLOSED = "The completion window closed before it did."
_STOPPED = "The batch was stopped before it did."
_ENDINGS = {StopCause.EXPIRY: _CLOSED, StopCause.CANCEL: _STOPPED, StopCause.CAP: _STOPPED}


class _Held(msgspec.Struct, frozen=True, kw_only=True):
    """An answer that waits for its verdict; the request is without its body."""

    request: Request
    attempt: Attempt
    answer: Answer


class _Check(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked about one request: its answer if that is ``held``, else its prompt.

    ``texts`` are ``None`` while a prompt waits for another try, and read again.
    """

    custom_id: bytes
    texts: tuple[Text, ...] | None
    held: _Held | None = None
    verdicts: tuple[Verdict, ...] = ()


class Checks:
    """The questions to the filter of one run: answers first, which hold memory, then prompts."""

    def __init__(self, run: FilteredRun) -> None:
        self.batch = run.batch
        self.endpoint = run.rules.endpoint
        self.policy: RetryPolicy | None = FilterPolicy(on_trouble=run.rules.on_trouble)
        self.on_put_back = run.on_put_back
        self._run = run
        self._rules = run.rules
        self._checks: dict[int, _Check] = {}
        self._ready: deque[Attempt] = deque()
        self._waiting: list[tuple[float, int, Attempt]] = []
        self._answers = 0
        self._answer_bytes = 0

    @property
    def full(self) -> bool:
        """Whether so many answers wait that the model is to be given no more."""
        return self._answers >= _MOST_ANSWERS or self._answer_bytes >= _MOST_ANSWER_BYTES

    @property
    def has_prompts(self) -> bool:
        """Whether there are prompts that the model may get once they are judged."""
        return any(check.held is None for check in self._checks.values())

    def hold(self, request: Request, attempt: Attempt, answer: Answer, texts: tuple[Text, ...]) -> None:
        """Take an answer that is to be judged; the run does not end before it is."""
        request = Request(line=request.line, custom_id=request.custom_id, body=b"")
        held = _Held(request=request, attempt=attempt, answer=answer)
        self._run.took()
        self._answers += 1
        self._answer_bytes += len(answer.body)
        self._go_on(request.line, _Check(custom_id=request.custom_id, texts=texts, held=held))

    # --- for the pool

    def take(self, now: float, ticks: float) -> Attempt | None:
        if not self._run.may_judge(now):
            return None
        # What is late ends here, before it is tried again.
        self._run.expire(now)
        attempt = self._next(now, ticks)
        if attempt is not None:
            self._run.took()
        return attempt

    def _next(self, now: float, ticks: float) -> Attempt | None:
        if self._ready:
            return self._ready.popleft()
        if self._waiting and self._waiting[0][0] <= ticks:
            return heapq.heappop(self._waiting)[2]
        line = self._run.take_unjudged(now) if len(self._waiting) < _AHEAD else -1
        return None if line < 0 else Attempt(line)

    def due_at(self, now: float) -> float | None:
        if not self._run.may_judge(now):
            return None
        if self._ready or (len(self._waiting) < _AHEAD and self._run.has_unjudged(now)):
            return 0.0
        return self._waiting[0][0] if self._waiting else None

    def read(self, line: int) -> Request | None:
        check = self._checks.get(line)
        if check is None or check.texts is None:
            check = self._read_prompt(line, check)
        if check is not None:
            asked = self._asked(check)
            if asked:
                self._checks[line] = check
                return Request(line=line, custom_id=check.custom_id, body=question_to(self._rules, asked))
            self._conclude(line, check)
        self._run.untook()
        self._run.on_put_back()
        return None

    def _read_prompt(self, line: int, before: _Check | None) -> _Check | None:
        request = self._run.read(line)
        try:
            texts = tuple(Text(text) for text in prompts(self._run.endpoint, request.body))
        except Unjudgeable as error:
            self._run.refuse(line, request.custom_id, FILTER_UNSUPPORTED, f": {error}.")
            return None
        verdicts = _safe_ahead(texts, () if before is None else before.verdicts)
        return _Check(custom_id=request.custom_id, texts=texts, verdicts=verdicts)

    def _asked(self, check: _Check) -> tuple[Text, ...]:
        start = len(check.verdicts)
        return (check.texts or ())[start : start + self._rules.texts_at_once]

    def examine(self, line: int, outcome: Outcome) -> Outcome:
        check = self._checks.get(line)
        return as_trouble(self._rules, examine(outcome), 0 if check is None else len(self._asked(check)))

    def end(self, request: Request, attempt: Attempt, outcome: Outcome) -> None:
        check = self._checks.pop(request.line, None)
        if check is None:
            return
        if isinstance(outcome, Answer) and outcome.succeeded:
            asked = self._asked(check)
            verdicts = check.verdicts + read_verdicts(self._rules, outcome.body, len(asked))
            self._go_on(request.line, msgspec.structs.replace(check, verdicts=verdicts))
            return
        self._refuse(request.line, check, _trouble_of(outcome) + tries(attempt.number, attempt.trail.earlier_status))

    def put_back(self, attempt: Attempt, *, not_before: float) -> None:
        check = self._checks.get(attempt.line)
        if check is None:
            return
        if check.held is None:
            if self._run.cause is not None:
                del self._checks[attempt.line]
                return
            # Prompts may be long, and many may wait.
            self._checks[attempt.line] = msgspec.structs.replace(check, texts=None)
        heapq.heappush(self._waiting, (not_before, attempt.line, attempt))
        self._run.on_put_back()

    def break_off(self, error: Exception) -> None:
        self._run.break_off(error)

    def entered(self, slot: asyncio.Task[None]) -> bool:
        return self._run.entered(slot)

    def left(self, slot: asyncio.Task[None]) -> None:
        self._run.left(slot)

    def was_aborted(self, slot: asyncio.Task[None]) -> bool:
        return self._run.was_aborted(slot)

    @property
    def log_is_full(self) -> bool:
        return self._run.log_is_full

    async def room(self) -> None:
        await self._run.room()

    # --- what follows

    def _go_on(self, line: int, check: _Check) -> None:
        """Ask about the texts that are left, or end."""
        check = msgspec.structs.replace(check, verdicts=_safe_ahead(check.texts or (), check.verdicts))
        if not self._asked(check):
            self._conclude(line, check)
            return
        self._checks[line] = check
        self._ready.append(Attempt(line))
        self._run.on_put_back()

    def _conclude(self, line: int, check: _Check) -> None:
        self._checks.pop(line, None)
        if check.held is not None:
            held = check.held
            self._run.deliver(held.request, held.attempt, held.answer, check.verdicts)
            self._let_go(held)
        elif any(self._rules.thresholds.block(verdict) for verdict in check.verdicts):
            self._run.refuse_prompt(line, check.custom_id, check.verdicts)
        else:
            self._run.passed(line, check.verdicts)

    def _refuse(self, line: int, check: _Check, detail: str) -> None:
        what = Judged.PROMPT if check.held is None else Judged.ANSWER
        usage, trail = NO_USAGE, NO_TRAIL
        if check.held is not None:
            usage, trail = check.held.answer.usage, check.held.attempt.trail
        self._run.refuse(line, check.custom_id, FILTER_UNAVAILABLE, f" on the {what}. {detail}", usage, trail)
        if check.held is not None:
            self._let_go(check.held)

    def _let_go(self, held: _Held) -> None:
        was_full = self.full
        self._answers -= 1
        self._answer_bytes -= len(held.answer.body)
        self._run.untook()
        if was_full:
            self._run.on_put_back()

    # --- stops

    def stop(self, *, expired: bool) -> None:
        """Judge no more prompts; if the window has closed, what has waited for another try ends without a verdict."""
        for _, line, _ in self._waiting:
            if expired:
                self._give_up(line, _CLOSED)
            elif self._checks[line].held is None:
                self._give_up(line)
        self._waiting = [entry for entry in self._waiting if entry[1] in self._checks]
        heapq.heapify(self._waiting)
        for attempt in self._ready:
            if self._checks[attempt.line].held is None:
                del self._checks[attempt.line]
        self._ready = deque(attempt for attempt in self._ready if attempt.line in self._checks)

    def drop(self) -> None:
        """Leave everything; a request whose answer is not judged runs again, unless the batch ends here.

        Then it has run, and what the model used for it counts.
        """
        why = _ENDINGS.get(self._run.cause) if self._run.cause is not None else None
        self._ready.clear()
        self._waiting.clear()
        for line in list(self._checks):
            self._give_up(line, why if self._checks[line].held is not None else None)

    def _give_up(self, line: int, why: str | None = None) -> None:
        check = self._checks.pop(line)
        if why is not None:
            self._refuse(line, check, why)
        elif check.held is not None:
            self._let_go(check.held)


def _safe_ahead(texts: tuple[Text, ...], verdicts: tuple[Verdict, ...]) -> tuple[Verdict, ...]:
    """Add the verdicts of empty texts that come next: there is nothing to ask."""
    while len(verdicts) < len(texts) and not texts[len(verdicts)].text.strip():
        verdicts = (*verdicts, SAFE)
    return verdicts


def _trouble_of(outcome: Outcome) -> str:
    if isinstance(outcome, Failure):
        return outcome.detail
    return f"It answers with status {outcome.status}."
