"""Where a list of requests leads: along its filter from one to the next, and to the list that is not there yet."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlencode

import msgspec

from overnight.studio import view_models
from overnight.studio.inside import FILTERS, list_of, request_url

if TYPE_CHECKING:
    from overnight.domain.batch import Batch
    from overnight.studio.inside import RequestList, Row, Wanted
    from overnight.studio.one_request import RequestView

Neighbours = tuple[int | None, int | None]


def list_along(found: RequestList) -> RequestList:
    """Let the links of a list say what it is filtered by."""
    return msgspec.structs.replace(found, rows=tuple(_row_along(row, found.wanted) for row in found.rows))


def list_to_come(batch: Batch, wanted: Wanted, home: str) -> RequestList:
    """Say why there is no list of a batch that is being validated, and where the page asks for it again."""
    words = f"{view_models.validating(batch)}. The requests are listed here once they are let in."
    address = wanted.url(f"{home}/requests").partition("#")[0]
    ask_again = f"{address}{'&' if '?' in address else '?'}validating=1"
    return msgspec.structs.replace(list_of(None, wanted, home, words), ask_again=ask_again)


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
    values = {name: getattr(wanted, name) for name in FILTERS}
    query = urlencode({name: value for name, value in values.items() if value})
    return f"&{query}" if query else ""
