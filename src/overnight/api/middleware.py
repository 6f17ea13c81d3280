"""What every request passes through: a request id, clean paths, and a bound on bodies that are read whole."""

from __future__ import annotations

import re
import uuid
from typing import TYPE_CHECKING

from overnight.api.errors import MOST_JSON_BYTES, BodyTooLarge, too_large

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SLASHES = re.compile(r"//+")


class Entrance:
    """The outermost layer of the application."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # Some clients put a slash too many behind the endpoint (CONTRACT section 1.2).
        headers = dict(scope["headers"])
        multipart = headers.get(b"content-type", b"").startswith(b"multipart/")
        scope = {**scope, "path": _SLASHES.sub("/", scope["path"])}
        request_id = str(uuid.uuid4()).encode()

        async def identified(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-request-id", request_id)]
            await send(message)

        if multipart:
            await self._app(scope, receive, identified)
            return
        # Every other body is JSON, whatever a client such as plain curl calls it.
        others = [header for header in scope["headers"] if header[0] != b"content-type"]
        scope["headers"] = [*others, (b"content-type", b"application/json")]
        await self._bounded(scope, receive, identified, int(headers.get(b"content-length", b"0") or 0))

    async def _bounded(self, scope: Scope, receive: Receive, send: Send, announced: int) -> None:
        taken = 0

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > MOST_JSON_BYTES:
                raise BodyTooLarge
            return message

        if announced > MOST_JSON_BYTES:
            await too_large()(scope, receive, send)
            return
        try:
            await self._app(scope, counted, send)
        except BodyTooLarge:
            await too_large()(scope, receive, send)
