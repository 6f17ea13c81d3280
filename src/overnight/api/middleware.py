"""What every request passes through: the key, and a bound on bodies that are read whole."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from overnight.api.context import API, MANAGES, OPERATES, RESOURCE
from overnight.api.errors import MOST_JSON_BYTES, BodyTooLarge, answer, below, flavour_of, too_large
from overnight.domain import key
from overnight.domain.errors import ServiceError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from overnight.api.auth import Keys

_TAKES_FILES = re.compile(rf"{API}/files/?$|{API}/uploads/[^/]+/parts$")
_KEYED = ("/v1/", "/openai/")
_ADMIN = "/admin/"
_OPERATED = re.compile(r"/admin/upstreams(/|$)")
_READING = ("GET", "HEAD")

# So much of a file may arrive before its key is asked for again.
_UNCHECKED = 16 * 1024 * 1024
# How much of a refused body is read, so that a client that is still sending gets to see why.
_MOST_DRAINED = 256 * 1024 * 1024


class Entrance:
    """The layer of the application that knows who calls."""

    def __init__(self, app: ASGIApp, keys: Keys, root_path: str = "") -> None:
        self._app = app
        self._keys = keys
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        try:
            await self._let_in(scope, headers)
        except ServiceError as error:
            await _drain(receive)
            flavour = flavour_of(scope["path"], self._root_path)
            await answer(error, flavour)(scope, receive, send)
            return
        if scope["method"] == "POST" and _TAKES_FILES.search(scope["path"]):
            await self._app(scope, self._looked_after(scope, headers, receive), send)
            return
        # Every other body is JSON, whatever a client such as plain curl calls it.
        others = [header for header in scope["headers"] if header[0] != b"content-type"]
        scope["headers"] = [*others, (b"content-type", b"application/json")]
        await self._bounded(scope, receive, send)

    async def _let_in(self, scope: Scope, headers: dict[bytes, bytes]) -> None:
        """Note who calls, before anything is told of what can be called. Raises ``ServiceError``."""
        path = below(self._root_path, scope["path"])
        if _OPERATED.match(path):
            await self._keys.require_operator(headers)
            scope[OPERATES] = True
        elif path.startswith(_ADMIN):
            await self._keys.require_admin(headers)
            scope[MANAGES] = True
        if path.startswith(_KEYED):
            wanted = key.Scope.READ if scope["method"] in _READING else key.Scope.SUBMIT
            scope[RESOURCE] = await self._keys.resource_of(headers, flavour_of(path), wanted)

    def _looked_after(self, scope: Scope, headers: dict[bytes, bytes], receive: Receive) -> Receive:
        """Ask for the key again while a file arrives, and before it counts: that may take hours."""
        flavour = flavour_of(scope["path"], self._root_path)
        unchecked = 0
        begun = False

        async def watched() -> Message:
            nonlocal unchecked, begun
            message = await receive()
            unchecked += len(message.get("body", b""))
            at_the_end = begun and message["type"] == "http.request" and not message.get("more_body", False)
            if at_the_end or unchecked > _UNCHECKED:
                unchecked = 0
                await self._keys.check_again(headers, flavour, key.Scope.SUBMIT)
            begun = True
            return message

        return watched

    async def _bounded(self, scope: Scope, receive: Receive, send: Send) -> None:
        taken = 0

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > MOST_JSON_BYTES:
                raise BodyTooLarge
            return message

        try:
            await self._app(scope, counted, send)
        except BodyTooLarge:
            await too_large()(scope, receive, send)


async def _drain(receive: Receive) -> None:
    taken = 0
    more = True
    while more and taken < _MOST_DRAINED:
        message = await receive()
        taken += len(message.get("body", b""))
        more = message.get("more_body", False)
