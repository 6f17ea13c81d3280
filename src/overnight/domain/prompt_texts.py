"""Every text of a request that a model may read, for a content filter; what cannot be read as text is refused.

Servers read more than the documented members, so a member has to be known before it may pass.
"""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

from overnight.domain.endpoints import EMBEDDINGS, canonical

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
RESPONSES = "/v1/responses"

# What steers the model, or names something, without a word in its prompt.
_SETTINGS = frozenset(
    """
    model stream stream_options n best_of temperature top_p top_k top_a min_p typical_p seed use_beam_search
    early_stopping max_tokens max_completion_tokens max_output_tokens min_tokens presence_penalty frequency_penalty
    repetition_penalty repeat_penalty length_penalty no_repeat_ngram_size logit_bias logprobs top_logprobs
    prompt_logprobs stop stop_token_ids ignore_eos include_stop_str_in_output skip_special_tokens
    spaces_between_special_tokens echo user metadata store service_tier safety_identifier prompt_cache_key
    prompt_cache_retention cache_salt cache_prompt priority request_id parallel_tool_calls max_tool_calls
    tool_choice modalities audio reasoning reasoning_effort include_reasoning thinking_token_budget verbosity
    include truncation background add_generation_prompt continue_final_message add_special_tokens
    truncate_prompt_tokens return_token_ids return_tokens_as_token_ids encoding_format dimensions
    """.split()  # noqa: SIM905 - shorter than one on each line
)
# Read as they stand, whatever is in them: names of members are part of the prompt, too.
_WHOLE = ("tools", "functions", "function_call", "response_format", "text", "prediction", "web_search_options")
_CONSTRAINTS = ("guided_json", "guided_choice", "guided_regex", "guided_grammar", "structured_outputs")
_TEMPLATE_INPUT = ("documents", "chat_template_kwargs")
_READ = {
    CHAT: ("messages", *_TEMPLATE_INPUT, *_WHOLE, *_CONSTRAINTS),
    RESPONSES: ("instructions", "input", *_TEMPLATE_INPUT, *_WHOLE, *_CONSTRAINTS),
    COMPLETIONS: ("prompt", "suffix", "response_format", *_CONSTRAINTS),
    EMBEDDINGS: ("messages", "input", *_TEMPLATE_INPUT),
}
_STORED = ("prompt", "previous_response_id", "conversation")

_ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
_WORD = re.compile(r"[A-Za-z_]{1,40}")
_WORDS_ONLY = frozenset({"type", "status", "detail"})
# Calls of tools and their results are put into the prompt as JSON.
_AS_JSON = frozenset({"tool_calls", "function_call", "arguments", "output"})
# Images, sounds and files are no texts.
_MEDIA = frozenset(
    """
    image_url image input_image image_embeds audio audio_url input_audio video video_url input_video file file_data
    file_id file_url
    """.split()  # noqa: SIM905 - shorter than one on each line
)
_LONGEST_NAME = 40

_members_decoder = msgspec.json.Decoder(dict[str, Any])
_any_decoder = msgspec.json.Decoder()
_decode_errors = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Unjudgeable(ValueError):
    """There is something that the filter cannot read, so that it could pass unfiltered; the text says what."""


def prompts(endpoint: str, body: bytes) -> tuple[str, ...]:
    """Give the text of each prompt of a request. Images, sounds and files are left out. Raises ``Unjudgeable``."""
    try:
        members = {name: value for name, value in _members_decoder.decode(body).items() if value is not None}
        _check_once(body)
        return _prompts(canonical(endpoint), members)
    except _decode_errors as error:
        # What is nested too deeply for the decoder or for us is among these.
        message = "its body cannot be read"
        raise Unjudgeable(message) from error


def _check_once(body: bytes) -> None:
    """Refuse a member that is given twice: of two, we read the last, and a server may read the first."""
    json.loads(body, object_pairs_hook=_once, parse_int=str, parse_float=str)


def _once(pairs: list[tuple[str, object]]) -> None:
    names = {name for name, _ in pairs}
    if len(names) < len(pairs):
        message = "a member of its body is given twice, and servers differ in which of them they read"
        raise Unjudgeable(message)


def _prompts(endpoint: str, members: dict[str, Any]) -> tuple[str, ...]:
    _check_names(endpoint, members)
    if endpoint == COMPLETIONS:
        rest = "".join(f"\n{text}" for text in _texts_of(members, _READ[endpoint][1:]))
        return tuple(text + rest for text in _plain(members.get("prompt")))
    if endpoint == EMBEDDINGS and "messages" not in members:
        return _plain(members.get("input"))
    return ("\n".join(_texts_of(members, _READ[endpoint])),)


def _check_names(endpoint: str, members: dict[str, Any]) -> None:
    if endpoint not in _READ:
        message = f"it covers chat completions, completions, responses and embeddings, not {endpoint}"
        raise Unjudgeable(message)
    if endpoint == RESPONSES:
        for name in _STORED:
            if name in members:
                message = f"what `{name}` refers to is not in the request"
                raise Unjudgeable(message)
    for name, value in members.items():
        if name not in _READ[endpoint] and name not in _SETTINGS and value is not False:
            message = f"it does not know what `{name[:_LONGEST_NAME]}` adds to the prompt"
            raise Unjudgeable(message)


def _plain(given: object) -> tuple[str, ...]:
    texts = given if isinstance(given, list) else [given]
    if not texts or not all(isinstance(text, str) for text in texts):
        message = "a prompt is not given as text"
        raise Unjudgeable(message)
    return tuple(texts)


def _texts_of(members: dict[str, Any], names: tuple[str, ...]) -> list[str]:
    gathered = _Texts()
    for name in names:
        value = members.get(name)
        if value is None or value == []:
            continue
        if name in _WHOLE or name in _CONSTRAINTS:
            gathered.whole(value)
        else:
            _check(name, value)
            gathered.gather(value)
    return gathered.found


def _check(name: str, value: object) -> None:
    if name == "chat_template_kwargs" and not (isinstance(value, dict) and "chat_template" not in value):
        message = "a chat template is a program, whose text is not in the request"
        raise Unjudgeable(message)
    for item in value if name == "input" and isinstance(value, list) else ():
        if isinstance(item, dict) and (item.get("type") == "item_reference" or not item.keys() - {"id", "type"}):
            message = "what an item of `input` refers to is not in the request"
            raise Unjudgeable(message)


class _Texts:
    """Gathers texts in the order in which they stand."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def gather(self, given: object, *, parts: bool = False) -> None:
        """Take each string, at any depth; ``parts`` says that these are parts of a message."""
        if isinstance(given, str):
            self.found.extend(spelled_out(given))
        elif isinstance(given, list):
            for each in given:
                self.gather(each, parts=parts)
        elif isinstance(given, dict):
            for name, value in given.items():
                self._member(name, value, parts=parts)

    def whole(self, given: object) -> None:
        """Take a value as JSON, and the JSON that its texts may be without escapes."""
        if isinstance(given, str):
            self.found.extend(spelled_out(given))
            return
        self.found.append(_json(given))
        for text in _strings(given):
            self.found.extend(spelled_out(text)[1:])

    def _member(self, name: str, value: object, *, parts: bool) -> None:
        if value is None or value == [] or (parts and name in _MEDIA) or _says_nothing(name, value):
            return
        if not _WORD.fullmatch(name):
            self.found.append(name)
        if name in _AS_JSON and not isinstance(value, list if name == "output" else ()):
            self.whole(value)
        else:
            self.gather(value, parts=parts or name in {"content", "output"})


def _says_nothing(name: str, value: object) -> bool:
    if not isinstance(value, str):
        return False
    # Templates write a role into the prompt as it is given.
    return value in _ROLES if name == "role" else name in _WORDS_ONLY and _WORD.fullmatch(value) is not None


def spelled_out(text: str) -> list[str]:
    """Give a text and, where it is JSON whose escapes may hide words, what it says without them."""
    if "\\u" not in text:
        return [text]
    try:
        return [text, _json(_any_decoder.decode(text))]
    except _decode_errors:
        return [text]


def _strings(given: object) -> list[str]:
    if isinstance(given, str):
        return [given]
    values = given.values() if isinstance(given, dict) else given if isinstance(given, list) else ()
    return [text for value in values for text in _strings(value)]


def _json(given: object) -> str:
    return msgspec.json.encode(given).decode()
