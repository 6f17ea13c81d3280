"""How long a text of a caller may be."""

from __future__ import annotations

from overnight.domain.errors import InvalidRequest


def too_long(param: str, what: str, most: int, length: int) -> InvalidRequest:
    """Refuse a text, in OpenAI's words."""
    message = (
        f"Invalid '{param}': {what} too long. Expected a {what} with maximum length {most},"
        f" but got a {what} with length {length} instead."
    )
    return InvalidRequest(message, param=param, code="string_above_max_length")


def check_length(param: str, value: str, most: int) -> None:
    """Let pass what has up to ``most`` characters. Raises ``InvalidRequest``."""
    if len(value) > most:
        raise too_long(param, "string", most, len(value))
