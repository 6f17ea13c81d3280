"""The wire types of the admin API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, Field

from overnight.api.schemas import Taken
from overnight.domain.key import Key, Scope
from overnight.domain.limits import LONGEST_LIFE
from overnight.domain.quota import Offer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from overnight.services.keys import CreatedKey, ListedResource


class CreateResourceBody(Taken):
    """``POST /admin/resources``."""

    name: str = Field(description="Up to 80 letters, digits, `.`, `_` and `-`, a letter or digit first.")
    offer: str | None = Field(
        default=None,
        description="The offer by which presets of quotas apply: `enterprise`, `default`, `credit-card`, `msdn` or"
        " `free`; none if left out.",
    )


class UpdateResourceBody(Taken):
    """``POST /admin/resources/{resource_id}``."""

    offer: str | None = Field(description="The offer by which presets of quotas apply; null: none.")


class CreateKeyBody(Taken):
    """``POST /admin/keys``."""

    resource: str | None = Field(
        default=None, description="The resource that it opens; `default` if left out, none for an admin key."
    )
    scope: str = Field(default=Scope.SUBMIT, description="What it may do: `read`, `submit` or `admin`.")
    expires_in: int | None = Field(
        default=None,
        ge=1,
        le=LONGEST_LIFE,
        description="Seconds until it expires, about 100 years at most; never if left out.",
    )


class ResourceObject(BaseModel):
    """A resource. Its id is its name; ``in_key_file`` says whether the key file names it.

    By its ``offer`` the presets of quotas apply.
    """

    id: str
    object: Literal["resource"] = "resource"
    created_at: int | None
    in_key_file: bool
    offer: Offer | None

    @classmethod
    def of(cls, resource: ListedResource) -> ResourceObject:
        """Put a resource into its wire shape."""
        return cls(id=resource.name, created_at=resource.created_at, in_key_file=resource.in_file, offer=resource.offer)


class KeyObject(BaseModel):
    """A key, without its text: ``prefix`` is how that begins. Admin keys belong to the resource ``_admin``."""

    id: str
    object: Literal["api_key"] = "api_key"
    resource: str
    prefix: str
    scopes: list[str]
    created_at: int
    expires_at: int | None
    last_used_at: int | None
    revoked_at: int | None

    @classmethod
    def of(cls, key: Key) -> KeyObject:
        """Put a key into its wire shape."""
        return cls(
            id=key.id,
            resource=key.resource,
            prefix=key.prefix,
            scopes=[str(scope) for scope in key.scopes],
            created_at=key.created_at,
            expires_at=key.expires_at,
            last_used_at=key.last_used_at,
            revoked_at=key.revoked_at,
        )


class CreatedKeyObject(KeyObject):
    """A new key with its text, which is shown this once."""

    key: str

    @classmethod
    def created(cls, created: CreatedKey) -> CreatedKeyObject:
        """Put a new key into its wire shape."""
        return cls(**KeyObject.of(created.key).model_dump(), key=created.secret)


class ResourcePage(BaseModel):
    """A page of resources, oldest first."""

    object: Literal["list"] = "list"
    data: list[ResourceObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class KeyPage(BaseModel):
    """A page of keys, oldest first."""

    object: Literal["list"] = "list"
    data: list[KeyObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


def resource_page(resources: Sequence[ListedResource], *, has_more: bool) -> ResourcePage:
    """Put resources into their wire shape."""
    data = [ResourceObject.of(each) for each in resources]
    first, last = _ends(data)
    return ResourcePage(data=data, first_id=first, last_id=last, has_more=has_more)


def key_page(keys: Sequence[Key], *, has_more: bool) -> KeyPage:
    """Put keys into their wire shape."""
    data = [KeyObject.of(each) for each in keys]
    first, last = _ends(data)
    return KeyPage(data=data, first_id=first, last_id=last, has_more=has_more)


def _ends(data: Sequence[ResourceObject | KeyObject]) -> tuple[str, str] | tuple[None, None]:
    return (data[0].id, data[-1].id) if data else (None, None)
