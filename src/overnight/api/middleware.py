"""What every request passes through: a request id, clean paths, and a bound on bodies that are read whole."""

from __future__ import annotations

import re
import uuid
from typing import TYPE_CHECKING

from overnight.api.errors import envelope

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SLASHES = re.compile(r"//+")
_MOST_JSON_BYTES = 1024 * 1024


class BodyTooLarge(Exception):
    """A body that is read whole went over its bound."""


class Entrance:
    """The outermost layer of the application."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # Some clients put a slash too many behind the endpoint (CONTRACT section 1.2).
        scope = {**scope, "path": _SLASHES.sub("/", scope["path"])}
        headers = dict(scope["headers"])
        request_id = str(uuid.uuid4()).encode()

        async def identified(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-request-id", request_id)]
            await send(message)

        if headers.get(b"content-type", b"").startswith(b"multipart/"):
            await self._app(scope, receive, identified)
            return
        await self._bounded(scope, receive, identified, int(headers.get(b"content-length", b"0") or 0))

    async def _bounded(self, scope: Scope, receive: Receive, send: Send, announced: int) -> None:
        taken = 0

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > _MOST_JSON_BYTES:
                raise BodyTooLarge
            return message

        if announced > _MOST_JSON_BYTES:
            await _refuse(scope, receive, send)
            return
        try:
            await self._app(scope, counted, send)
        except BodyTooLarge:
            await _refuse(scope, receive, send)


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
    text = f"The body of this request may have {_MOST_JSON_BYTES:,} bytes at most; only files may be larger."
    await envelope(413, text, code="request_too_large")(scope, receive, send)
