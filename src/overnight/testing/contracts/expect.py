"""How a promise that was not kept is told."""

from __future__ import annotations


class Broken(AssertionError):
    """A promise was not kept."""


def expect(expected: object, actual: object) -> None:
    """Raise ``Broken`` unless both are equal."""
    if expected != actual:
        message = f"expected {expected!r}, found {actual!r}"
        raise Broken(message)
