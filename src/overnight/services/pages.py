"""Pages of what is short enough to be read as a whole.

That is what whoever runs the service has set or let in, and no client can add to: own quotas (a resource and deployment
each), caps (four for each resource), and sums of usage (a resource and deployment each, however many days).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from overnight.ports.batches import Page
from overnight.services.files import unknown_cursor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")


def page_of(items: Sequence[T], id_of: Callable[[T], str], *, kind: str, after: str | None, limit: int) -> Page[T]:
    """Give the page behind the item whose id is ``after``. Raises ``InvalidRequest`` if there is none."""
    start = 0
    if after is not None:
        found = next((place for place, item in enumerate(items) if id_of(item) == after), None)
        if found is None:
            raise unknown_cursor(kind, after)
        start = found + 1
    return Page(list(items[start : start + limit]), len(items) > start + limit)
