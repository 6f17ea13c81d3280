"""What a model reads of a request: its texts, its images, and the tokens that are known without a tokenizer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import UNSET, Raw, UnsetType

from overnight.domain.images import image_tokens, size_in_url

REPLY_TOKENS = 3
"""Every chat prompt ends with the beginning of the answer."""
MESSAGE_TOKENS = 4
"""For each message: the three that OpenAI documents, and its role, which is one token."""
NAME_TOKENS = 1
"""For a message with a name, besides the name."""


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """The prompt of one request.

    ``known_tokens`` are those beside the texts; ``guessed`` says that some part has no documented count (tools,
    sounds, files, images of unknown size); ``output_bound`` is the most tokens that the answer may have.
    """

    model: str
    texts: tuple[str, ...]
    known_tokens: int
    images: int
    guessed: bool
    output_bound: int | None


class _Body(msgspec.Struct):
    """The members that are looked at. Their types are not: counting must not refuse what validation lets through."""

    model: Any = None
    messages: Any = None
    input: Any = None
    prompt: Any = None
    instructions: Any = None
    tools: Raw | UnsetType = UNSET
    functions: Raw | UnsetType = UNSET
    max_tokens: Any = None
    max_completion_tokens: Any = None
    max_output_tokens: Any = None


class _Line(msgspec.Struct):
    body: _Body
    url: Any = None


_line_decoder = msgspec.json.Decoder(_Line)
_body_decoder = msgspec.json.Decoder(_Body)


def prompt_of_line(raw: bytes) -> Prompt | None:
    """Read a line of an input file; ``None`` if it is no request."""
    try:
        line = _line_decoder.decode(raw)
        return _prompt(line.body, line.url if isinstance(line.url, str) else "")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def prompt_of_body(raw: bytes, endpoint: str) -> Prompt | None:
    """Read the body of a request; ``None`` if it is no JSON object."""
    try:
        return _prompt(_body_decoder.decode(raw), endpoint)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _prompt(body: _Body, endpoint: str) -> Prompt:
    reader = _Reader()
    if endpoint.endswith("/responses"):
        reader.chat(_messages(body))
        # A stored prompt is not in the file.
        reader.guessed |= body.prompt is not None
    else:
        reader.chat(body.messages)
        reader.plain(body.input)
        reader.plain(body.prompt)
    for tools in (body.tools, body.functions):
        if isinstance(tools, Raw) and bytes(tools) not in {b"null", b"[]"}:
            reader.guess(bytes(tools).decode())
    return Prompt(
        model=body.model if isinstance(body.model, str) else "",
        texts=tuple(reader.texts),
        known_tokens=reader.known,
        images=reader.images,
        guessed=reader.guessed,
        output_bound=0 if endpoint.endswith("/embeddings") else _bound(body),
    )


def _messages(body: _Body) -> list[object]:
    """Give what a request for a response says as messages."""
    given = body.input if isinstance(body.input, list) else [{"content": body.input}]
    return given if body.instructions is None else [{"content": body.instructions}, *given]


def _bound(body: _Body) -> int | None:
    given = (body.max_completion_tokens, body.max_output_tokens, body.max_tokens)
    return next((each for each in given if isinstance(each, int) and each > 0), None)


class _Reader:
    """Gathers what the prompt consists of."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.known = 0
        self.images = 0
        self.guessed = False

    def chat(self, messages: object) -> None:
        found = list(_objects(messages))
        for message in found:
            self._message(message)
        self.known += REPLY_TOKENS if found else 0

    def plain(self, given: object) -> None:
        """Read a text, several, tokens that the caller has made already, or parts as of a message."""
        if isinstance(given, str):
            self.texts.append(given)
        elif isinstance(given, int):
            self.known += 1
        elif isinstance(given, dict):
            self._part(given)
        elif isinstance(given, list):
            for each in given:
                self.plain(each)

    def guess(self, text: str) -> None:
        """Take a text whose form in the prompt is not documented as it stands."""
        self.texts.append(text)
        self.guessed = True

    def _message(self, message: dict[str, Any]) -> None:
        self.known += MESSAGE_TOKENS
        self._content(message.get("content"))
        if isinstance(name := message.get("name"), str):
            self.known += NAME_TOKENS
            self.texts.append(name)
        for called in ("tool_calls", "function_call", "arguments", "output"):
            if message.get(called):
                self.guess(_text(message[called]))

    def _content(self, content: object) -> None:
        if isinstance(content, str):
            self.texts.append(content)
            return
        for part in _objects(content):
            self._part(part)

    def _part(self, part: dict[str, Any]) -> None:
        if isinstance(text := part.get("text"), str):
            self.texts.append(text)
        elif "image_url" in part:
            self._image(part["image_url"], part)
        else:
            self.guessed = True

    def _image(self, image: object, part: dict[str, Any]) -> None:
        inner = image if isinstance(image, dict) else {"url": image, "detail": part.get("detail")}
        url = inner.get("url")
        size = size_in_url(url) if isinstance(url, str) else None
        low = inner.get("detail") == "low"
        self.images += 1
        self.known += image_tokens(size, low=low)
        self.guessed |= size is None and not low


def _objects(given: object) -> Iterator[dict[str, Any]]:
    return (each for each in given if isinstance(each, dict)) if isinstance(given, list) else iter(())


def _text(given: object) -> str:
    return given if isinstance(given, str) else msgspec.json.encode(given).decode()
