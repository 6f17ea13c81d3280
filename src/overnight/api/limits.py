"""What a request may be and how often it may come, decided before any of its body is read."""

from __future__ import annotations

import re
from contextlib import nullcontext
from typing import TYPE_CHECKING, TypeAlias

from overnight.api.addresses import neighbourhood
from overnight.api.auth import key_in
from overnight.api.context import API, RESOURCE
from overnight.api.errors import MOST_JSON_BYTES, answer, below, envelope, flavour_of, too_large
from overnight.api.headers import Headers
from overnight.domain.errors import TooLarge, TooManyRequests
from overnight.domain.key import hash_of
from overnight.domain.rate import Rate
from overnight.services.rates import Allowances, Known, Rates, Running

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fastapi.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from overnight.config import RateSettings
    from overnight.domain.flavour import Flavour
    from overnight.domain.limits import Limits
    from overnight.domain.rate import Taken
    from overnight.ports.clock import Clock

MOST_URL_BYTES = 8 * 1024
MOST_PARAMETERS = 100
MOST_HEADERS = 128
MOST_HEADER_BYTES = 64 * 1024
"""All names and values together."""
FORM_BYTES = 1024 * 1024
"""What a form may have around the file that it carries."""

CALLER = "overnight.caller"
"""The member of a request's scope that tells one caller from another, found out once."""

Caller: TypeAlias = tuple[str, bytes]

_SLASHES = re.compile(r"//+")
_FILE = re.compile(rf"{API}/files/?$|/studio/upload$")
_PART = re.compile(rf"{API}/uploads/[^/]+/parts/?$")
# It counts the attempts to sign in itself; a session that is over is no wrong key, and its visitors send none.
_STUDIO = re.compile(r"/studio(/|$)")
_BEGUN = re.compile(r"/(files|uploads)/?$")
# A tab whose session is over is refused like a wrong key, but has none: it only asks again, as all tabs do after a
# restart.
_TAB = re.compile(r"/studio/(?!sign-in$)")
_UNAUTHORIZED = 401


class Gate:
    """Refuses requests of a shape that none can have, and addresses that try one wrong key after the other."""

    def __init__(
        self, app: ASGIApp, failures: Rates | None, known: Known, limits: Mapping[Flavour, Limits], root_path: str = ""
    ) -> None:
        self._app = app
        self._failures = failures
        self._known = known
        self._limits = limits
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # Some clients put a slash too many behind the endpoint (CONTRACT section 1.2); all that decides by the path is
        # further in.
        scope = {**scope, "path": _SLASHES.sub("/", scope["path"])}
        refusal = _shape_problem(scope) or self._size_problem(scope)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        if self._failures is None or _STUDIO.match(below(self._root_path, scope["path"])):
            await self._app(scope, receive, send)
            return
        await self._watched(self._failures, scope, receive, send)

    async def _watched(self, failures: Rates, scope: Scope, receive: Receive, send: Send) -> None:
        scope[CALLER] = caller = address, _ = _caller(scope)
        # A caller with a right key goes on, even where others behind the same proxy have wrong ones.
        if caller not in self._known:
            allowance = failures.look(address)
            if not allowance.given:
                message = "Too many calls with a wrong API key came from this address. Check the key and wait."
                refusal = answer(TooManyRequests(message, wait=allowance.wait), self._flavour(scope))
                await refusal(scope, receive, send)
                return

        guesses = not _TAB.match(below(self._root_path, scope["path"]))

        async def watching(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == _UNAUTHORIZED and guesses:
                failures.take(address)
                self._known.discard(caller)
            await send(message)

        await self._app(scope, receive, watching)

    def _size_problem(self, scope: Scope) -> Response | None:
        length = next((int(value) for name, value in scope["headers"] if name == b"content-length"), 0)
        if length <= MOST_JSON_BYTES:
            return None
        flavour = self._flavour(scope)
        limits = self._limits[flavour]
        if scope["method"] == "POST" and _FILE.search(scope["path"]):
            most = max(limits.file_bytes, limits.input_file_bytes)
        elif scope["method"] == "POST" and _PART.search(scope["path"]):
            most = limits.upload_part_bytes
        else:
            return too_large()
        if length <= most + FORM_BYTES:
            return None
        message = f"The body announces {length:,} bytes; a file sent here may have {most:,} at most. Split it."
        return answer(TooLarge(message, param="file", code="file_too_large"), flavour)

    def _flavour(self, scope: Scope) -> Flavour:
        return flavour_of(scope["path"], self._root_path)


class Paced:
    """Holds each key to its requests in a minute, and each resource to its uploads at the same time.

    It stands behind the look at the key, and so only ever counts for keys that there are.
    """

    def __init__(self, app: ASGIApp, allowances: Allowances, known: Known, root_path: str = "") -> None:
        self._app = app
        self._allowances = allowances
        self._known = known
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        resource = scope.get(RESOURCE)
        if resource is None:
            await self._app(scope, receive, send)
            return
        caller = scope.get(CALLER) or _caller(scope)
        self._known.add(caller)
        try:
            sending = self._counted(caller, send)
            if scope["method"] == "POST" and _BEGUN.search(scope["path"]):
                self._allowances.count_file(resource, flavour_of(scope["path"], self._root_path))
            with self._allowances.uploading(resource) if _uploads(scope) else nullcontext():
                await self._app(scope, receive, sending)
        except TooManyRequests as error:
            await answer(error, flavour_of(scope["path"], self._root_path))(scope, receive, send)

    def _counted(self, caller: Caller, send: Send) -> Send:
        _, key = caller
        taken = self._allowances.count_request(key)
        if taken is None or self._allowances.requests is None:
            return send
        return _with_allowance(send, self._allowances.requests.rate, taken)


def _uploads(scope: Scope) -> bool:
    return scope["method"] == "POST" and bool(_FILE.search(scope["path"]) or _PART.search(scope["path"]))


def _shape_problem(scope: Scope) -> Response | None:
    if len(scope["raw_path"]) + len(scope["query_string"]) > MOST_URL_BYTES:
        return envelope(414, f"The URL is longer than {MOST_URL_BYTES:,} bytes.", code="url_too_long")
    if scope["query_string"].count(b"&") >= MOST_PARAMETERS:
        return envelope(400, f"The URL has more than {MOST_PARAMETERS} parameters.", code="too_many_parameters")
    headers = scope["headers"]
    if len(headers) > MOST_HEADERS or sum(len(name) + len(value) for name, value in headers) > MOST_HEADER_BYTES:
        message = f"A request may have {MOST_HEADERS} headers of {MOST_HEADER_BYTES:,} bytes together."
        return envelope(431, message, code="headers_too_large")
    return None


def _with_allowance(send: Send, rate: Rate, taken: Taken) -> Send:
    spent = rate.most - taken.left
    added = (
        (b"x-ratelimit-limit-requests", b"%d" % rate.most),
        (b"x-ratelimit-remaining-requests", b"%d" % taken.left),
        (b"x-ratelimit-reset-requests", b"%dms" % round(spent * rate.each * 1000)),
    )

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], *added]}
        await send(message)

    return sending


def allowances_of(rate: RateSettings, limits: Mapping[Flavour, Limits], clock: Clock) -> Allowances:
    """Give the allowances that the settings name."""
    uploads = Running(rate.concurrent_uploads or None)
    new_files = {flavour: _rates(each.uploads_per_minute, clock) for flavour, each in limits.items()}
    return Allowances(_rates(rate.requests_per_minute, clock), new_files, uploads)


def failures_of(rate: RateSettings, clock: Clock) -> Rates | None:
    """Give how often an address may come with a wrong key."""
    return _rates(rate.failed_keys_per_minute, clock)


def _rates(most: int | None, clock: Clock) -> Rates | None:
    return Rates(Rate(most=most), clock) if most else None


def guarded(
    app: ASGIApp,
    entrance: Callable[[ASGIApp], ASGIApp],
    failures: Rates | None,
    allowances: Allowances,
    limits: Mapping[Flavour, Limits],
    *,
    root_path: str = "",
) -> ASGIApp:
    """Put the layers around an application; ``entrance`` is the one that finds out who calls."""
    known = Known()
    paced = Paced(app, allowances, known, root_path)
    return Headers(Gate(entrance(paced), failures, known, limits, root_path))


def _caller(scope: Scope) -> Caller:
    return neighbourhood(scope["client"][0] if scope["client"] else ""), _key(scope)


def _key(scope: Scope) -> bytes:
    """Tell one key from another without keeping it: the one that counts, since a caller may add others as it likes."""
    return bytes.fromhex(hash_of(key_in(dict(scope["headers"]))))
