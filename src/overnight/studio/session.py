"""Who is signed in: a cookie names a session, the session a key, and the key is asked for at every request."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from overnight.domain.errors import Forbidden, Unauthorized
from overnight.domain.key import hash_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.requests import Request
    from starlette.responses import Response

    from overnight.ports.clock import Clock, Entropy
    from overnight.studio.context import Caller, Callers

COOKIE = "overnight_session"
CSRF_FIELD = "csrf"
ONCE_FIELD = "once"
CSRF_HEADER = "x-csrf-token"

# In seconds: from the last page or deed, and from the sign-in.
_IDLE = 12 * 3600.0
_LONGEST = 7 * 86_400.0
_MOST = 10_000
# Whoever holds one key cannot push out the holders of others.
_MOST_OF_A_KEY = 1_000

_NO_KEY = hash_of("")

WRONG_KEY = "This key does not open anything here. Check that it is complete, or ask whoever runs the service for one."


class Visitor(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks for a page, and the token that its forms carry; ``signed_in`` is false where no key is asked for.

    ``key`` is the SHA-256 of the key, an empty one where none is asked for. ``once`` is another for each page: a form
    that is sent twice, as by a double click, shall do no more than once.
    """

    caller: Caller
    csrf: str
    once: str
    signed_in: bool
    key: bytes

    def must_submit(self) -> None:
        """Refuse what changes something to whoever may only read. Raises ``Forbidden``."""
        if not self.caller.may_submit:
            raise Forbidden(READ_ONLY, code="forbidden")

    def must_operate(self) -> None:
        """Refuse what concerns everybody to whoever does not run the service. Raises ``Forbidden``."""
        if not self.caller.may_operate:
            raise Forbidden("Upstreams are switched with a key of the scope 'admin'.", code="forbidden")


READ_ONLY = "This key may only read. Sign in with a key that has the scope 'submit' to change something."


class _Session(msgspec.Struct, kw_only=True):
    digest: str
    csrf: str
    began: float
    used: float


class Sessions:
    """The sign-ins of this process: a restart ends them. Kept are hashes of keys, never a key."""

    def __init__(self, callers: Callers, clock: Clock, entropy: Entropy) -> None:
        self._callers = callers
        self._clock = clock
        self._entropy = entropy
        self._sessions: dict[str, _Session] = {}
        # Protects the forms that are there before anybody has signed in.
        self.form_token = entropy.hex()

    async def visitor(self, request: Request, *, in_use: bool = True) -> Visitor:
        """Say who asks. Raises ``Unauthorized`` where nobody is signed in, ``Forbidden`` and ``Unavailable``.

        What a page asks for by itself is no use of the session: a tab that is left open does not keep it alive.
        """
        host = _host(f"//{request.headers.get('host', 'localhost')}")
        caller = await self._callers.open_to(host)
        if caller is not None:
            return self._visitor(caller, self.form_token, _NO_KEY, signed_in=False)
        name = request.cookies.get(COOKIE, "")
        session = self._alive(name)
        caller = None if session is None else await self._callers.recall(session.digest)
        if session is None or caller is None:
            self._sessions.pop(name, None)
            raise Unauthorized("Sign in to see this page.")
        # Parts that htmx asks for come with the page, or again and again after it.
        if in_use and "hx-request" not in request.headers:
            session.used = self._clock.ticks()
        return self._visitor(caller, session.csrf, session.digest, signed_in=True)

    def _visitor(self, caller: Caller, csrf: str, digest: str, *, signed_in: bool) -> Visitor:
        key = bytes.fromhex(digest)
        return Visitor(caller=caller, csrf=csrf, once=self._entropy.hex(), signed_in=signed_in, key=key)

    async def sign_in(self, key: str) -> str:
        """Begin a session and give its name. Raises ``Unauthorized``, whose words never say what is wrong."""
        digest = hash_of(key)
        if await self._callers.recall(digest) is None:
            raise Unauthorized(WRONG_KEY)
        now = self._clock.ticks()
        self._forget_old(digest)
        name = self._entropy.hex()
        self._sessions[name] = _Session(digest=digest, csrf=self._entropy.hex(), began=now, used=now)
        return name

    def sign_out(self, request: Request) -> None:
        """End a session; fine if there is none."""
        self._sessions.pop(request.cookies.get(COOKIE, ""), None)

    def _alive(self, name: str) -> _Session | None:
        session = self._sessions.get(name)
        return session if session is not None and self._fresh(session) else None

    def _fresh(self, session: _Session) -> bool:
        now = self._clock.ticks()
        return now < session.used + _IDLE and now < session.began + _LONGEST

    def _forget_old(self, digest: str) -> None:
        self._sessions = {name: session for name, session in self._sessions.items() if self._fresh(session)}
        own = [name for name, session in self._sessions.items() if session.digest == digest]
        if len(own) >= _MOST_OF_A_KEY:
            self._forget_longest_unused(own)
        elif len(self._sessions) >= _MOST:
            self._forget_longest_unused(self._sessions)

    def _forget_longest_unused(self, names: Iterable[str]) -> None:
        del self._sessions[min(names, key=lambda name: self._sessions[name].used)]


def _host(address: str) -> str:
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        # No address at all, so none of this machine.
        return ""


def set_cookie(response: Response, request: Request, name: str, path: str) -> None:
    """Let the browser keep a session; no script can read it, and no other site can send it."""
    secure = request.url.scheme == "https"
    response.set_cookie(COOKIE, name, path=path, httponly=True, samesite="strict", secure=secure)


def check_origin(request: Request) -> None:
    """Refuse what another site sends in a visitor's name. Raises ``Forbidden``."""
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    if site is not None:
        own = site == "same-origin"
    else:
        # Programs send neither; they have to know the token all the same.
        own = origin is None or origin.partition("://")[2] == request.headers.get("host")
    if not own:
        raise Forbidden("This was sent from another page. Open the Studio itself and try again.", code="forbidden")


def check_token(given: str, expected: str) -> None:
    """Refuse a form that was not made for this visitor. Raises ``Forbidden``."""
    if not hmac.compare_digest(given.encode(), expected.encode()):
        raise Forbidden("This form is from another sign-in. Load the page again and repeat it.", code="forbidden")
