"""Requests and responses as conversations: what was said by whom, bounded, and with nothing that steers a browser."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

import msgspec

from overnight.studio.excerpt import escaped, readable

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_BUBBLES = 50
_MOST_BLOCKS = 50
_MOST_CHARS = 20_000
_MOST_IMAGE = 4 * 1024 * 1024
_SHOWN_NUMBERS = 4
PREVIEW = 64 * 1024
# Pictures that cannot hold a script, and only those that are in the request itself: nothing is loaded from elsewhere.
_IMAGE = re.compile(r"data:image/(?:png|jpeg|gif|webp);base64,[A-Za-z0-9+/=\s]+")


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of a message. ``kind`` is text, image, tool, note or error; ``cut`` says how much is not shown."""

    kind: str
    text: str
    title: str = ""
    cut: str = ""


class Bubble(msgspec.Struct, frozen=True, kw_only=True):
    """What one side said."""

    role: str
    blocks: tuple[Block, ...]

    @property
    def side(self) -> str:
        """Which side of the page it stands on: a tone of the style, whatever the role is called."""
        return self.role if self.role in {"system", "developer", "user", "assistant", "tool", "error"} else "other"


class Raw(msgspec.Struct, frozen=True, kw_only=True):
    """JSON as text; ``more`` says how much of it is not shown."""

    text: str
    more: str = ""


def asked(line: bytes) -> tuple[Bubble, ...] | None:
    """Show the request of an input line; ``None`` if it is none, or of no known shape."""
    body = _dict(_dict(_decode(line)).get("body"))
    bubbles = tuple(_bounded(_request(body)))
    return bubbles or None


def answered(line: bytes) -> tuple[Bubble, ...] | None:
    """Show the response in a line of an output or error file; ``None`` if it is of no known shape."""
    record = _dict(_decode(line))
    body = _dict(record.get("response")).get("body")
    bubbles = tuple(_bounded(_response(record, body)))
    return bubbles or None


def pretty(line: bytes, size: int, *, full: bool) -> Raw:
    """Lay out a line for reading: with indents where all of it is there, and no more than 64 KB unless ``full``."""
    try:
        text = msgspec.json.format(line, indent=2) if len(line) == size else line
    except (msgspec.DecodeError, RecursionError):
        text = line
    kept = text if full else text[:PREVIEW]
    hidden = size - len(kept) if len(line) < size else len(text) - len(kept)
    return Raw(text=readable(kept.decode(errors="replace")), more=f"{hidden:,} more bytes" if hidden > 0 else "")


def curl(line: bytes) -> str:
    """Say the same request as a command to a model server; its address and key are left to the environment."""
    if len(line) > PREVIEW:
        return ""
    record = _dict(_decode(line))
    url, body = record.get("url"), record.get("body")
    if not isinstance(url, str) or not isinstance(body, dict):
        return ""
    path = url if url.startswith("/v1/") else f"/v1{url}"
    return " \\\n  ".join(
        (
            f'curl "$UPSTREAM_URL"{shlex.quote(path)}',
            '-H "Authorization: Bearer $UPSTREAM_API_KEY"',
            '-H "Content-Type: application/json"',
            f"-d {shlex.quote(escaped(msgspec.json.encode(body).decode()))}",
        )
    )


def endpoint_in(line: str) -> str:
    """Give the endpoint that an input line names; empty if it names none."""
    url = _dict(_decode(line.encode())).get("url")
    return url if isinstance(url, str) else ""


def _request(body: dict[str, object]) -> Iterator[Bubble]:
    instructions = body.get("instructions")
    if isinstance(instructions, str):
        yield Bubble(role="system", blocks=(_text(instructions),))
    for name in ("messages", "input"):
        value = body.get(name)
        if isinstance(value, list) and any(isinstance(each, dict) for each in value):
            yield from (_message(_dict(each)) for each in value[: MOST_BUBBLES + 1])
        elif value is not None:
            yield Bubble(role="user", blocks=_texts(value))
    if "prompt" in body:
        yield Bubble(role="user", blocks=_texts(body["prompt"]))


def _response(record: dict[str, object], body: object) -> Iterator[Bubble]:
    if isinstance(body, str):
        yield Bubble(role="error", blocks=(_text(body),))
    content = _dict(body)
    for error in (record.get("error"), content.get("error")):
        if error:
            yield _error(error)
    for choice in _list(content.get("choices")):
        found = _dict(choice)
        yield _message(_dict(found["message"])) if "message" in found else _said("assistant", found.get("text"))
    for item in _list(content.get("output")):
        yield _message({"role": "assistant", **_dict(item)})
    vectors = [vector for each in _list(content.get("data")) if (vector := _vector(_dict(each)))]
    if vectors:
        yield Bubble(role="assistant", blocks=tuple(vectors[:_MOST_BLOCKS]))
    if len(vectors) > _MOST_BLOCKS:
        yield _said("assistant", f"{len(vectors) - _MOST_BLOCKS:,} more")
    for each in _list(content.get("results")):
        yield Bubble(role="assistant", blocks=(_json("moderation", each),))


def _error(error: object) -> Bubble:
    told = _dict(error)
    code, message = told.get("code") or told.get("type"), told.get("message")
    if isinstance(message, str):
        title = readable(str(code)[:100]) if code else ""
        return Bubble(role="error", blocks=(_text(message, kind="error", title=title),))
    return Bubble(role="error", blocks=(_json("error", error),))


def _message(message: dict[str, object]) -> Bubble:
    role = message.get("role")
    blocks = [*_content(message.get("content"))]
    for name, title in (("reasoning_content", "Reasoning"), ("refusal", "Refusal")):
        value = message.get(name)
        if isinstance(value, str) and value:
            blocks.append(_text(value, kind="note", title=title))
    blocks += [_call(_dict(call)) for call in _list(message.get("tool_calls"))[:_MOST_BLOCKS]]
    if not blocks and message.get("type") == "function_call":
        blocks.append(_call({"function": message}))
    if not blocks:
        blocks.append(_json(str(message.get("type", "message"))[:50], message))
    return Bubble(role=readable(role[:50]) if isinstance(role, str) else "user", blocks=tuple(blocks))


def _content(content: object) -> Iterator[Block]:
    if isinstance(content, str):
        yield _text(content)
    for part in _list(content)[:_MOST_BLOCKS]:
        found = _dict(part)
        text = found.get("text")
        if isinstance(text, str):
            yield _text(text)
        elif "image_url" in found:
            yield _image(found["image_url"])
        else:
            yield _json(str(found.get("type", "part"))[:50], part)


def _image(value: object) -> Block:
    url = value if isinstance(value, str) else _dict(value).get("url")
    if not isinstance(url, str):
        return _json("image", value)
    if len(url) <= _MOST_IMAGE and _IMAGE.fullmatch(url):
        return Block(kind="image", text=url, title="Picture in the request")
    if url.startswith("data:"):
        return Block(kind="note", title="Picture", text=f"not shown: {readable(url[:40])}… ({len(url):,} characters)")
    return Block(kind="note", title="Picture elsewhere, not loaded", text=readable(url[:2_000]))


def _call(call: dict[str, object]) -> Block:
    function = _dict(call.get("function"))
    arguments = function.get("arguments")
    text = arguments if isinstance(arguments, str) else _encode(call)
    return _text(text, kind="tool", title=f"calls {readable(str(function.get('name', '?'))[:100])}")


def _vector(item: dict[str, object]) -> Block | None:
    vector = item.get("embedding")
    if isinstance(vector, str):
        return Block(kind="note", title="Embedding", text=f"base64, {len(vector):,} characters")
    numbers = _list(vector)
    if not numbers:
        return None
    first = ", ".join(_number(number) for number in numbers[:_SHOWN_NUMBERS] if isinstance(number, int | float))
    return Block(kind="note", title="Embedding", text=f"{len(numbers):,} numbers: {first}, …")


def _number(number: float) -> str:
    try:
        return f"{number:.4g}"
    except OverflowError:
        # JSON bounds no integer.
        return "∞"


def _texts(value: object) -> tuple[Block, ...]:
    if isinstance(value, str):
        return (_text(value),)
    several = _list(value)
    if several and all(isinstance(each, str) for each in several):
        more = len(several) - _MOST_BLOCKS
        blocks = tuple(_text(str(each)) for each in several[:_MOST_BLOCKS])
        return (*blocks, Block(kind="note", text=f"{more:,} more")) if more > 0 else blocks
    return (_json("tokens", value),)


def _said(role: str, text: object) -> Bubble:
    return Bubble(role=role, blocks=_texts(text))


def _text(text: str, *, kind: str = "text", title: str = "") -> Block:
    more = len(text) - _MOST_CHARS
    cut = f"{more:,} more characters" if more > 0 else ""
    return Block(kind=kind, text=readable(text[:_MOST_CHARS]), title=title, cut=cut)


def _json(title: str, value: object) -> Block:
    return _text(_encode(value), kind="tool", title=readable(title))


def _encode(value: object) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def _bounded(bubbles: Iterator[Bubble]) -> Iterator[Bubble]:
    for number, bubble in enumerate(bubbles):
        if number == MOST_BUBBLES:
            yield Bubble(role="other", blocks=(Block(kind="note", text="More messages follow; the JSON has them."),))
            return
        yield bubble


def _decode(line: bytes) -> object:
    try:
        return msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _dict(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []
