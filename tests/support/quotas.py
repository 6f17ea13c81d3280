"""Looking at a quota through the API, once or again and again."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from tests.support.api import Api

if TYPE_CHECKING:
    from typing import Self


def quota(api: Api, deployment: str) -> dict[str, Any]:
    """Get the quota of a deployment."""
    reply = api.get(f"/quotas/{deployment}")
    assert reply.status == 200, reply
    found: dict[str, Any] = reply.json()
    return found


class Watch:
    """Looks at a quota again and again while others work."""

    def __init__(self, api: Api, deployment: str) -> None:
        self.seen: list[int] = []
        self._api = api
        self._deployment = deployment
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.is_set():
            self.seen.append(quota(self._api, self._deployment)["enqueued_tokens"])
            time.sleep(0.02)
