"""What a content filter is asked, how its verdict is read, and what follows: severities as Azure names them."""

from __future__ import annotations

import re
from enum import IntEnum, StrEnum

import msgspec

from overnight.domain.result import Answer
from overnight.domain.retry import Accept, Decision, Failure, Fault, Leave, Outcome, RetryPolicy


class FilterKind(StrEnum):
    """How a filter is asked: by OpenAI's moderations, or as a chat with a guard model such as Llama Guard."""

    MODERATION = "moderation"
    GUARD = "guard"


class Judged(StrEnum):
    """What a filter looks at."""

    PROMPT = "prompt"
    ANSWER = "answer"


class Severity(IntEnum):
    """How bad a text is in one category."""

    SAFE = 0
    LOW = 1
    MEDIUM = 2
    HIGH = 3


class Threshold(StrEnum):
    """From which severity on a category is filtered."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    OFF = "off"


class Category(StrEnum):
    """Azure's categories of harm."""

    HATE = "hate"
    SELF_HARM = "self_harm"
    SEXUAL = "sexual"
    VIOLENCE = "violence"


class OnTrouble(StrEnum):
    """What becomes of a request while its filter does not work. In neither case is it answered unfiltered."""

    WAIT = "wait"
    FAIL = "fail"


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """The severity of one text in each category."""

    hate: Severity = Severity.SAFE
    self_harm: Severity = Severity.SAFE
    sexual: Severity = Severity.SAFE
    violence: Severity = Severity.SAFE

    def of(self, category: Category) -> Severity:
        """Give the severity in one category."""
        severity: Severity = getattr(self, category)
        return severity


SAFE = Verdict()


class Thresholds(msgspec.Struct, frozen=True, kw_only=True):
    """The threshold of each category; Azure's are medium unless changed."""

    hate: Threshold = Threshold.MEDIUM
    self_harm: Threshold = Threshold.MEDIUM
    sexual: Threshold = Threshold.MEDIUM
    violence: Threshold = Threshold.MEDIUM

    def filters(self, verdict: Verdict, category: Category) -> bool:
        """Say whether a text of this verdict is filtered for one category."""
        return _REACHED[getattr(self, category)] <= verdict.of(category)

    def block(self, verdict: Verdict) -> bool:
        """Say whether a text of this verdict is filtered."""
        return any(self.filters(verdict, category) for category in Category)

    def report(self, verdict: Verdict) -> dict[str, dict[str, object]]:
        """Give Azure's block: for each category whether it was filtered, and its severity."""
        return {
            category: {"filtered": self.filters(verdict, category), "severity": verdict.of(category).name.lower()}
            for category in Category
        }


_NEVER = 99
_REACHED = {
    Threshold.LOW: Severity.LOW,
    Threshold.MEDIUM: Severity.MEDIUM,
    Threshold.HIGH: Severity.HIGH,
    Threshold.OFF: _NEVER,
}


class ContentFilter(msgspec.Struct, frozen=True, kw_only=True):
    """A filter of a deployment; ``model`` may be empty for moderations."""

    name: str
    kind: FilterKind
    model: str = ""
    thresholds: Thresholds = Thresholds()
    judges: frozenset[Judged] = frozenset(Judged)
    on_trouble: OnTrouble = OnTrouble.WAIT

    @property
    def endpoint(self) -> str:
        """Where it is asked."""
        return "/v1/moderations" if self.kind is FilterKind.MODERATION else "/v1/chat/completions"

    @property
    def texts_at_once(self) -> int:
        """How many texts one call may have."""
        return _TEXTS_AT_ONCE[self.kind]


# The list is answered in one go; a guard judges one conversation.
_TEXTS_AT_ONCE = {FilterKind.MODERATION: 32, FilterKind.GUARD: 1}


class Text(msgspec.Struct, frozen=True):
    """What is to be judged: a prompt, or an answer and the prompt that it answers."""

    text: str
    question: str | None = None


class NoVerdict(ValueError):
    """The answer of a filter cannot be read as a verdict, so nothing is known of the text."""


def question_to(rules: ContentFilter, texts: tuple[Text, ...]) -> bytes:
    """Write the body that asks for a verdict on some texts, at most ``texts_at_once`` of them."""
    if rules.kind is FilterKind.GUARD:
        return msgspec.json.encode(_conversation(rules, texts[0]))
    given = texts[0].text if len(texts) == 1 else [each.text for each in texts]
    model = {"model": rules.model} if rules.model else {}
    return msgspec.json.encode({**model, "input": given})


# The longest verdict names all hazards.
_VERDICT_TOKENS = 100


def _conversation(rules: ContentFilter, text: Text) -> dict[str, object]:
    turns = [("user", text.text)] if text.question is None else [("user", text.question), ("assistant", text.text)]
    return {
        "model": rules.model,
        "messages": [{"role": role, "content": content} for role, content in turns],
        "temperature": 0,
        "max_tokens": _VERDICT_TOKENS,
    }


def read_verdicts(rules: ContentFilter, body: bytes, count: int) -> tuple[Verdict, ...]:
    """Read the verdicts on so many texts, in their order. Raises ``NoVerdict``."""
    verdicts = _read_scores(body) if rules.kind is FilterKind.MODERATION else (_read_guard(body),)
    if len(verdicts) != count:
        message = f"The filter gave {len(verdicts)} verdicts on {count} texts."
        raise NoVerdict(message)
    return verdicts


# --- moderations --------------------------------------------------------------------------------------------------


class _Scored(msgspec.Struct):
    category_scores: dict[str, float]
    categories: dict[str, bool | None] = {}


class _Moderations(msgspec.Struct):
    results: list[_Scored]


_moderations_decoder = msgspec.json.Decoder(_Moderations)

# OpenAI's categories; what has no counterpart in Azure's, such as `illicit`, is not looked at.
_MODERATED: dict[str, Category] = {
    "hate": Category.HATE,
    "hate/threatening": Category.HATE,
    "harassment": Category.HATE,
    "harassment/threatening": Category.HATE,
    "self-harm": Category.SELF_HARM,
    "self-harm/intent": Category.SELF_HARM,
    "self-harm/instructions": Category.SELF_HARM,
    "sexual": Category.SEXUAL,
    "sexual/minors": Category.SEXUAL,
    "violence": Category.VIOLENCE,
    "violence/graphic": Category.VIOLENCE,
    "illicit/violent": Category.VIOLENCE,
}
# The least score of each severity.
_SCORES = ((0.8, Severity.HIGH), (0.5, Severity.MEDIUM), (0.2, Severity.LOW))


def _read_scores(body: bytes) -> tuple[Verdict, ...]:
    try:
        results = _moderations_decoder.decode(body).results
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        message = "The filter's answer is not one of moderations."
        raise NoVerdict(message) from error
    return tuple(_verdict_of(result) for result in results)


def _verdict_of(result: _Scored) -> Verdict:
    found: dict[str, Severity] = {}
    for name, score in result.category_scores.items():
        category = _MODERATED.get(name)
        if category is None:
            continue
        if not 0.0 <= score <= 1.0:
            message = f"The filter's score of `{name}` is not between 0 and 1."
            raise NoVerdict(message)
        severity = _severity_of(score)
        if result.categories.get(name):
            # What the server itself flags is no less than what is filtered by default.
            severity = max(severity, Severity.MEDIUM)
        found[category] = max(severity, found.get(category, Severity.SAFE))
    missing = [category for category in Category if category not in found]
    if missing:
        message = f"The filter gave no score for `{missing[0]}`."
        raise NoVerdict(message)
    return Verdict(**found)


def _severity_of(score: float) -> Severity:
    return next((severity for least, severity in _SCORES if score >= least), Severity.SAFE)


# --- guards -------------------------------------------------------------------------------------------------------


class _Message(msgspec.Struct):
    content: str


class _Choice(msgspec.Struct):
    message: _Message


class _Chat(msgspec.Struct):
    choices: list[_Choice]


_chat_decoder = msgspec.json.Decoder(_Chat)

# Only the first of several line breaks can be the one that is wanted: looking for others takes quadratic time.
_UNSAFE = re.compile(r"unsafe[^\S\n]*\n\s*(S\d{1,2}(?:\s*,\s*S\d{1,2})*)")
_LAST_HAZARD = 14
# The hazards of Llama Guard 3; those that are none of Azure's categories are missing here and count for nothing.
_HAZARDS: dict[int, Category] = {
    1: Category.VIOLENCE,
    3: Category.SEXUAL,
    4: Category.SEXUAL,
    9: Category.VIOLENCE,
    10: Category.HATE,
    11: Category.SELF_HARM,
    12: Category.SEXUAL,
}


def _read_guard(body: bytes) -> Verdict:
    try:
        said = _chat_decoder.decode(body).choices[0].message.content.strip()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, IndexError) as error:
        message = "The filter's answer is not one of a chat."
        raise NoVerdict(message) from error
    if said == "safe":
        return SAFE
    match = _UNSAFE.fullmatch(said)
    hazards = [int(code.strip()[1:]) for code in match[1].split(",")] if match else []
    if not hazards or not all(1 <= hazard <= _LAST_HAZARD for hazard in hazards):
        message = "The filter's answer is neither `safe` nor `unsafe` with the hazards S1 to S14."
        raise NoVerdict(message)
    # A guard knows no degrees: what it flags is high.
    flagged = {_HAZARDS[hazard]: Severity.HIGH for hazard in hazards if hazard in _HAZARDS}
    return Verdict(**flagged)


# --- trouble ------------------------------------------------------------------------------------------------------

# Statuses that tell of the filter, its key or its model, and nothing of the text.
_NOT_THE_TEXT = frozenset({401, 403, 404, 407, 429, 502, 503, 504})


class FilterPolicy(RetryPolicy, frozen=True, kw_only=True):
    """When a filter is asked again. One that waits does so without end for trouble that is not about the text."""

    on_trouble: OnTrouble = OnTrouble.WAIT

    def decide(self, outcome: Outcome, *, attempt: int, now: float, deadline: float | None, jitter: float) -> Decision:
        """Say what follows, as ``RetryPolicy`` does; what cannot be judged in time ends with an error of its own."""
        decision = super().decide(outcome, attempt=attempt, now=now, deadline=deadline, jitter=jitter)
        return Accept() if isinstance(decision, Leave) else decision

    def _attempts_for(self, outcome: Outcome) -> float | None:
        if self.on_trouble is OnTrouble.FAIL:
            return super()._attempts_for(outcome)
        if isinstance(outcome, Answer):
            return float("inf") if outcome.status in _NOT_THE_TEXT else self._patient(outcome)
        return super()._attempts_for(outcome) if outcome.fault is Fault.UNREADABLE else self._patient(outcome)

    def _patient(self, outcome: Outcome) -> float | None:
        limit = super()._attempts_for(outcome)
        return None if limit is None else max(limit, self.overload_attempts)


def as_trouble(rules: ContentFilter, outcome: Outcome, count: int) -> Outcome:
    """Look at what a filter answered on so many texts: without a verdict on each it has failed."""
    if isinstance(outcome, Failure):
        # A filter that is not waited for must use up the tries of its requests, so it counts as one that fails.
        if outcome.fault is Fault.UNREACHABLE and rules.on_trouble is OnTrouble.FAIL:
            return msgspec.structs.replace(outcome, fault=Fault.BROKEN_OFF)
        return outcome
    if not outcome.succeeded:
        return outcome
    try:
        read_verdicts(rules, outcome.body, count)
    except NoVerdict as error:
        return Failure(fault=Fault.UNREADABLE, status=outcome.status, detail=str(error))
    return outcome
