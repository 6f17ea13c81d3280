"""What the suites of the ports share."""

import asyncio
from typing import Any, NamedTuple

from overnight.ports.batches import Batches
from overnight.ports.files import Files, Uploads
from overnight.ports.keys import Keys
from overnight.ports.usage import Books, Caps


class Records(NamedTuple):
    """The stores of records, which share their tables."""

    batches: Batches
    files: Files
    uploads: Uploads
    keys: Keys
    books: Books
    caps: Caps


async def together(*calls: Any) -> list[Any]:
    """Make calls at the same time."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(call) for call in calls]
    return [task.result() for task in tasks]
