"""What keeps log lines clean: no text of a caller can forge a line, and no text of an exception gets in.

The text of an exception may quote what was being worked on, such as a prompt; its type and its place never do.
"""

from __future__ import annotations

import re
import sys
import traceback
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from structlog.typing import EventDict

_MOST_CHARS = 1_000
# Line breaks of all kinds, what terminals obey, and what turns the direction of writing around.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def without_controls(_logger: object, _name: str, event: EventDict) -> EventDict:
    """Write control characters of all values as escapes, and cut off what is very long."""
    return {_line(name): value if name == "exception" else _clean(value) for name, value in event.items()}


def frames(error: BaseException) -> str:
    """Give the types and the places of an exception and of what led to it, without their texts."""
    return "\n".join(_lines(error, set()))


def format_exception(_logger: object, _name: str, event: EventDict) -> EventDict:
    """Put an exception into the event as text."""
    given: Any = event.pop("exc_info", None)
    if given is True:
        given = sys.exc_info()[1]
    if isinstance(given, tuple):
        given = given[1]
    if isinstance(given, BaseException):
        event["exception"] = frames(given)
    return event


def _lines(error: BaseException, seen: set[int]) -> Iterator[str]:
    seen.add(id(error))
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if before is not None and id(before) not in seen:
        yield from _lines(before, seen)
        yield "which led to"
    for frame in traceback.extract_tb(error.__traceback__):
        yield f"  {frame.filename}:{frame.lineno} in {frame.name}"
    yield _name(error)
    for inner in error.exceptions if isinstance(error, BaseExceptionGroup) else ():
        if id(inner) not in seen:
            yield from _lines(inner, seen)


def _name(error: BaseException) -> str:
    name = f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
    # What the system says of itself: a number and a few words.
    return f"{name} ({error.strerror})" if isinstance(error, OSError) and error.strerror else name


def _clean(value: object) -> object:
    if isinstance(value, bool | int | float | None):
        return value
    if isinstance(value, str):
        return _line(value)
    if isinstance(value, list | tuple):
        return [_clean(each) for each in value[:20]]
    return _line(repr(value) if isinstance(value, bytes) else str(value))


def _line(text: str) -> str:
    shown = text if len(text) <= _MOST_CHARS else f"{text[:_MOST_CHARS]}…"
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), shown)
