"""Well-formed answers of an OpenAI-compatible server, made from the request alone: same question, same answer."""

from __future__ import annotations

import hashlib
import json
from typing import Any

ECHO = "echo: "
"""What stands before the text of the question in every answer."""

_CREATED = 1_700_000_000
_DIMENSIONS = 8

Json = dict[str, Any]


def answer_to(path: str, body: bytes, models: tuple[str, ...]) -> tuple[int, Json]:
    """Give the status and the answer to a request; one that no server could answer gets the error of a real one."""
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):
        return 400, error_object("We could not parse the JSON body of your request.")
    if not isinstance(asked, dict) or not isinstance(asked.get("model"), str):
        return 400, error_object("you must provide a model parameter", param="model")
    if asked["model"] not in models:
        message = f"The model `{asked['model']}` does not exist or you do not have access to it."
        return 404, error_object(message, param="model", code="model_not_found")
    return 200, _write(path, asked, hashlib.sha256(body).hexdigest()[:24])


def error_object(
    message: str, *, kind: str = "invalid_request_error", param: str | None = None, code: str | None = None
) -> Json:
    """Give an error in OpenAI's envelope."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def model_list(models: tuple[str, ...]) -> Json:
    """Give the answer to ``GET /v1/models``."""
    data = [{"id": name, "object": "model", "created": _CREATED, "owned_by": "overnight"} for name in models]
    return {"object": "list", "data": data}


def _write(path: str, asked: Json, digest: str) -> Json:
    for suffix, write in _WRITERS.items():
        if path.endswith(suffix):
            return {**write(asked, digest), "model": asked["model"]}
    return {"id": f"echo-{digest}", "object": "echo", "model": asked["model"], "echo": asked}


def _chat_completion(asked: Json, digest: str) -> Json:
    text = _text_of(asked.get("messages"))
    message = {"role": "assistant", "content": ECHO + text, "refusal": None}
    return {
        "id": f"chatcmpl-{digest}",
        "object": "chat.completion",
        "created": _CREATED,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": _usage(text),
    }


def _completion(asked: Json, digest: str) -> Json:
    text = _text_of(asked.get("prompt"))
    return {
        "id": f"cmpl-{digest}",
        "object": "text_completion",
        "created": _CREATED,
        "choices": [{"index": 0, "text": ECHO + text, "logprobs": None, "finish_reason": "stop"}],
        "usage": _usage(text),
    }


def _response(asked: Json, digest: str) -> Json:
    text = _text_of(asked.get("input"))
    part = {"type": "output_text", "text": ECHO + text, "annotations": []}
    message = {
        "id": f"msg_{digest}",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [part],
    }
    used = _usage(text)
    return {
        "id": f"resp_{digest}",
        "object": "response",
        "created_at": _CREATED,
        "status": "completed",
        "output": [message],
        "usage": {
            "input_tokens": used["prompt_tokens"],
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": used["completion_tokens"],
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": used["total_tokens"],
        },
    }


def _embeddings(asked: Json, _digest: str) -> Json:
    given = asked.get("input")
    texts = given if isinstance(given, list) and all(isinstance(item, str) for item in given) else [_text_of(given)]
    data = [{"object": "embedding", "index": index, "embedding": _vector(text)} for index, text in enumerate(texts)]
    tokens = sum(_tokens(text) for text in texts)
    return {"object": "list", "data": data, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}


def _moderation(_asked: Json, digest: str) -> Json:
    scores = dict.fromkeys(_MODERATED, 0.0)
    result = {"flagged": False, "categories": dict.fromkeys(scores, False), "category_scores": scores}
    return {"id": f"modr-{digest}", "results": [result]}


_MODERATED = (
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/instructions",
    "self-harm/intent",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
)


def _image(asked: Json, digest: str) -> Json:
    return {"created": _CREATED, "data": [{"b64_json": digest, "revised_prompt": ECHO + _text_of(asked.get("prompt"))}]}


def _video(_asked: Json, digest: str) -> Json:
    return {"id": f"video_{digest}", "object": "video", "created_at": _CREATED, "status": "completed", "progress": 100}


_WRITERS = {
    "/chat/completions": _chat_completion,
    "/completions": _completion,
    "/responses": _response,
    "/embeddings": _embeddings,
    "/moderations": _moderation,
    "/images/generations": _image,
    "/images/edits": _image,
    "/videos": _video,
}


def _text_of(given: object) -> str:
    """Find the text of a question: a string, the last message, or the text parts of either."""
    if isinstance(given, str):
        return given
    if isinstance(given, dict):
        return _text_of(given.get("content", given.get("text", "")))
    if not isinstance(given, list) or not given:
        return ""
    last = given[-1]
    if isinstance(last, dict) and "role" not in last:
        return " ".join(filter(None, map(_text_of, given)))
    return _text_of(last)


def _vector(text: str) -> list[float]:
    return [byte / 255 for byte in hashlib.sha256(text.encode()).digest()[:_DIMENSIONS]]


def _tokens(text: str) -> int:
    return len(text) // 4 + 1


def _usage(text: str) -> Json:
    asked, answered = _tokens(text), _tokens(ECHO + text)
    return {"prompt_tokens": asked, "completion_tokens": answered, "total_tokens": asked + answered}
