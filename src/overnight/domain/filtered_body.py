"""Which texts of an answer a content filter judges, and the bodies that tell of it as Azure does."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, Raw, UnsetType

from overnight.domain.content_filter import Category, Thresholds, Verdict
from overnight.domain.endpoints import EMBEDDINGS, canonical
from overnight.domain.prompt_texts import CHAT, RESPONSES, Unjudgeable, spelled_out


class _Answer(msgspec.Struct):
    choices: list[dict[str, Raw]] | UnsetType = UNSET
    output: Raw | UnsetType = UNSET


_answer_decoder = msgspec.json.Decoder(_Answer)
_members_decoder = msgspec.json.Decoder(dict[str, Raw])
_choices_decoder = msgspec.json.Decoder(list[dict[str, Raw]])
_any_decoder = msgspec.json.Decoder()
_decode_errors = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def answers(endpoint: str, body: bytes) -> tuple[str, ...]:
    """Give the text of each choice of an answer; none for embeddings. Raises ``Unjudgeable``."""
    endpoint = canonical(endpoint)
    if endpoint == EMBEDDINGS:
        return ()
    try:
        found = _answer_decoder.decode(body)
        texts = _of_response(found) if endpoint == RESPONSES else _of_choices(found, endpoint)
    except _decode_errors as error:
        message = "the answer has not the form of its endpoint"
        raise Unjudgeable(message) from error
    return tuple("\n".join(_texts(text)) for text in texts)


def _of_response(found: _Answer) -> list[object]:
    if found.output is UNSET:
        message = "the answer has no `output`"
        raise Unjudgeable(message)
    return [_any_decoder.decode(found.output)]


def _of_choices(found: _Answer, endpoint: str) -> list[object]:
    wanted = "message" if endpoint == CHAT else "text"
    if found.choices is UNSET or not all(wanted in choice for choice in found.choices):
        message = f"the answer has no `choices` with a `{wanted}` each"
        raise Unjudgeable(message)
    return [_any_decoder.decode(choice[wanted]) for choice in found.choices]


# What names a thing of the protocol, or is not text at all, though it is a string.
_NO_TEXT = frozenset({"role", "type", "id", "call_id", "status", "data", "encrypted_content", "expires_at", "result"})


def _texts(given: object) -> list[str]:
    """Gather every string of an answer that may be text: content, reasoning, refusals, arguments of tools."""
    found: list[str] = []
    waiting = [given]
    while waiting:
        each = waiting.pop()
        if isinstance(each, str):
            found.extend(spelled_out(each))
        elif isinstance(each, dict):
            waiting.extend(value for name, value in reversed(each.items()) if name not in _NO_TEXT)
        elif isinstance(each, list):
            waiting.extend(reversed(each))
    return found


# --- bodies -------------------------------------------------------------------------------------------------------


def prompt_error(thresholds: Thresholds, verdict: Verdict) -> bytes:
    """Write the body of the error that a filtered prompt gets (CONTRACT section 3.6)."""
    code = "content_filter"
    error = {
        "message": "The content filter of this deployment filtered the prompt, so no model was asked. "
        "`innererror` says for which category; change the prompt and send it again.",
        "type": None,
        "param": "prompt",
        "code": code,
        "status": 400,
        "innererror": {"code": "ResponsibleAIPolicyViolation", "content_filter_result": thresholds.report(verdict)},
    }
    return msgspec.json.encode({"error": error})


def worst(verdicts: tuple[Verdict, ...]) -> Verdict:
    """Give the highest severity of each category over several texts."""
    return Verdict(**{category.value: max(each.of(category) for each in verdicts) for category in Category})


def with_verdicts(
    endpoint: str,
    body: bytes,
    thresholds: Thresholds,
    prompt: tuple[Verdict, ...] | None,
    answer: tuple[Verdict, ...] | None,
) -> bytes:
    """Add to a body what was found of its prompts and choices, and take out what is filtered.

    ``None`` means that it was not judged, and of that nothing is said. All other values keep their bytes.
    """
    blocks = None if prompt is None else [thresholds.report(verdict) for verdict in prompt]
    found = None if answer is None else [(thresholds.report(each), thresholds.block(each)) for each in answer]
    return _annotated(canonical(endpoint), body, blocks, found)


UNFILTERED = {
    **{category.value: {"filtered": False, "severity": "unknown"} for category in Category},
    "error": {"code": "content_filter_error", "message": "The contents are not filtered", "filtered": False},
}
"""Says in Azure's own words that nothing was judged, in a shape that clients can index as they are used to."""


def with_unfiltered(endpoint: str, body: bytes) -> bytes:
    """Add to a body that no filter has judged it; one of an unknown form stays as it is."""
    endpoint = canonical(endpoint)
    try:
        count = len(answers(endpoint, body))
    except Unjudgeable:
        return body
    return _annotated(endpoint, body, [UNFILTERED], [(UNFILTERED, False)] * count)


def _annotated(endpoint: str, body: bytes, prompt: list[Any] | None, answer: list[tuple[Any, bool]] | None) -> bytes:
    members: dict[str, Any] = _members_decoder.decode(body)
    if endpoint == RESPONSES:
        return msgspec.json.encode(_response(members, prompt, answer))
    if prompt is not None:
        members["prompt_filter_results"] = [
            {"prompt_index": index, "content_filter_results": block} for index, block in enumerate(prompt)
        ]
    if answer:
        choices = _choices_decoder.decode(members["choices"])
        members["choices"] = [_choice(endpoint, choice, *found) for choice, found in zip(choices, answer, strict=True)]
    return msgspec.json.encode(members)


def _choice(endpoint: str, choice: dict[str, Any], block: object, blocked: bool) -> dict[str, Any]:  # noqa: FBT001 - one of a pair
    if not blocked:
        return {**choice, "content_filter_results": block}
    # Nothing else is kept: servers add members in which the text may stand once more, such as `token_ids`.
    empty = {"message": {"role": "assistant", "content": None}} if endpoint == CHAT else {"text": ""}
    index = {"index": choice["index"]} if "index" in choice else {}
    return {**index, **empty, "logprobs": None, "finish_reason": "content_filter", "content_filter_results": block}


def _response(
    members: dict[str, Any], prompt: list[Any] | None, answer: list[tuple[Any, bool]] | None
) -> dict[str, Any]:
    found = [{"blocked": False, "source_type": "prompt", "content_filter_results": block} for block in prompt or ()]
    for block, blocked in answer or ():
        found.append({"blocked": blocked, "source_type": "completion", "content_filter_results": block})
        if blocked:
            emptied = {"output": [], "status": "incomplete", "incomplete_details": {"reason": "content_filter"}}
            members = {name: value for name, value in members.items() if name != "output_text"} | emptied
    return {**members, "content_filters": found}


FILTER_UNAVAILABLE = ("content_filter_unavailable", "The content filter of this deployment gave no verdict")
FILTER_UNSUPPORTED = ("content_filter_unsupported", "The content filter of this deployment cannot judge this request")
