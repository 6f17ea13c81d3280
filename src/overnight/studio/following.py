"""Following a filter from one request to the next: its links lead along what the list shows, beyond its page too."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlencode

import msgspec

from overnight.studio.inside import request_url

if TYPE_CHECKING:
    from overnight.studio.inside import RequestList, Row, Wanted
    from overnight.studio.one_request import RequestView

Neighbours = tuple[int | None, int | None]


def list_along(found: RequestList) -> RequestList:
    """Let the links of a list say what it is filtered by."""
    return msgspec.structs.replace(found, rows=tuple(_row_along(row, found.wanted) for row in found.rows))


def view_along(view: RequestView, wanted: Wanted, neighbours: Neighbours, home: str) -> RequestView:
    """Let a request lead to its ``neighbours`` in a filtered list: the lines before and behind it."""
    before, after = (
        "" if line is None else f"{request_url(home, None, line)}{_filter_of(wanted)}" for line in neighbours
    )
    row = _row_along(view.row, wanted)
    return msgspec.structs.replace(view, row=row, before=before, after=after, whole=f"{row.url}&full=1")


def _row_along(row: Row, wanted: Wanted) -> Row:
    return msgspec.structs.replace(row, url=f"{row.url}{_filter_of(wanted)}")


def _filter_of(wanted: Wanted) -> str:
    values = {"status": wanted.status, "code": wanted.code, "custom_id": wanted.custom_id}
    query = urlencode({name: value for name, value in values.items() if value})
    return f"&{query}" if query else ""
