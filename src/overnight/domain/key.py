"""Resources and the keys that open them: what a key looks like, how it is kept, and what it may do."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from enum import StrEnum

import msgspec

from overnight.domain.ids import KeyId, ResourceId
from overnight.domain.quota import Offer

_MARK = "ovn_"
_PREFIX_CHARS = 8
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")


class Scope(StrEnum):
    """What a key may do. ``submit`` includes ``read``.

    ``admin`` manages resources and keys, operates the upstreams, and stands apart: whoever does that needs nobody's
    files and batches.
    """

    READ = "read"
    SUBMIT = "submit"
    ADMIN = "admin"


_INCLUDED = {
    Scope.READ: frozenset({Scope.READ}),
    Scope.SUBMIT: frozenset({Scope.READ, Scope.SUBMIT}),
    Scope.ADMIN: frozenset({Scope.ADMIN}),
}


class Resource(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant; ``created_at`` is unix seconds. By its ``offer`` the presets of quotas apply (``domain/quota.py``)."""

    name: ResourceId
    created_at: int
    offer: Offer | None = None


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of a key: never the key itself. Times are unix seconds.

    ``prefix`` is how the key begins, so that its owner recognises it; ``last_used_at`` is right to about a minute.
    """

    id: KeyId
    resource: ResourceId
    prefix: str
    hash: str
    scopes: tuple[Scope, ...]
    created_at: int
    expires_at: int | None = None
    last_used_at: int | None = None
    revoked_at: int | None = None

    def __repr__(self) -> str:
        """Leave the hash out: a record may end up in a log."""
        return f"Key(id={self.id!r}, resource={self.resource!r})"

    def valid(self, now: float) -> bool:
        """Whether the key opens anything at this moment."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)

    def may(self, wanted: Scope) -> bool:
        """Whether one of its scopes is, or includes, the one that is wanted."""
        return includes(self.scopes, wanted)


def includes(scopes: Iterable[Scope], wanted: Scope) -> bool:
    """Say whether one of the scopes is, or includes, the one that is wanted."""
    return any(wanted in _INCLUDED[scope] for scope in scopes)


def is_resource_name(text: str) -> bool:
    """Say whether a resource can be created with this name."""
    return _NAME.fullmatch(text) is not None


def new_secret(entropy: str) -> str:
    """Make the text of a key; ``entropy`` is 32 hexadecimal digits."""
    return f"{_MARK}{entropy}"


def is_secret(text: str) -> bool:
    """Say whether a text can be a key of ours: nobody else's needs to be looked up."""
    return text.startswith(_MARK)


def prefix_of(secret: str) -> str:
    """Give what may be shown of a key: 16 of its 128 random bits."""
    return secret[:_PREFIX_CHARS]


def hash_of(secret: str) -> str:
    """Give the form in which a key is kept and looked up.

    A plain SHA-256 is right here. Salt and slow hashes protect passwords, which can be guessed; a key has 128 random
    bits, so guessing is hopeless at any speed, and a fast hash can be looked up at every request.
    """
    return hashlib.sha256(secret.encode()).hexdigest()
