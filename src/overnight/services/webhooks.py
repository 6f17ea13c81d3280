"""Receivers of webhooks: create, look at, change, rotate the secret, test, and what they were told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from overnight.domain import ids
from overnight.domain.addresses import Policy, parse_url
from overnight.domain.errors import Conflict, InvalidRequest, NotFound, QuotaExceeded, Unavailable
from overnight.domain.ids import EndpointId, ResourceId
from overnight.domain.webhook import (
    ENDPOINTS_PER_RESOURCE,
    ERROR_CHARS,
    NAME_CHARS,
    Attempt,
    Endpoint,
    Event,
    EventType,
    headers,
    new_secret,
    sample_event,
)
from overnight.services.files import unknown_cursor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from overnight.domain.webhook import Logged
    from overnight.ports.batches import Page
    from overnight.ports.clock import Clock, Entropy
    from overnight.ports.webhooks import Sender, Webhooks


class NewEndpoint(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for; of a change, ``None`` leaves as it is."""

    name: str | None = None
    url: str | None = None
    event_types: Sequence[str] | None = None


class WebhookService:
    """The use cases of receivers; ``policy`` says which addresses they may have."""

    def __init__(self, webhooks: Webhooks, sender: Sender, policy: Policy, clock: Clock, entropy: Entropy) -> None:
        self._webhooks = webhooks
        self._sender = sender
        self._policy = policy
        self._clock = clock
        self._entropy = entropy
        self._testing: set[EndpointId] = set()

    async def create(self, resource: ResourceId, new: NewEndpoint) -> Endpoint:
        """Create a receiver. Raises ``InvalidRequest``, and ``QuotaExceeded`` if there are too many."""
        now = int(self._clock.now())
        endpoint = Endpoint(
            id=ids.endpoint_id(self._entropy.hex()),
            resource=resource,
            name=_name(new.name or ""),
            url=self._url(new.url or ""),
            event_types=_event_types(new.event_types or ()),
            secret=self._new_secret(),
            created_at=now,
            updated_at=now,
        )
        if not await self._webhooks.add(endpoint, most=ENDPOINTS_PER_RESOURCE):
            message = f"There are {ENDPOINTS_PER_RESOURCE} webhook endpoints already. Delete one to make room."
            raise QuotaExceeded(message, code="quotaExceeded")
        return endpoint

    async def get(self, resource: ResourceId, endpoint_id: EndpointId) -> Endpoint:
        """Give a receiver. Raises ``NotFound``."""
        endpoint = await self._webhooks.get(resource, endpoint_id)
        if endpoint is None:
            raise _not_found(endpoint_id)
        return endpoint

    async def page(self, resource: ResourceId, *, after: EndpointId | None, limit: int) -> Page[Endpoint]:
        """List receivers, newest first. Raises ``InvalidRequest`` for an unknown cursor."""
        page = await self._webhooks.page(resource, after=after, limit=limit)
        if page is None:
            raise unknown_cursor("webhook endpoint", str(after))
        return page

    async def update(self, resource: ResourceId, endpoint_id: EndpointId, change: NewEndpoint) -> Endpoint:
        """Change what is given. Raises ``NotFound``, ``InvalidRequest``, and ``Conflict`` if it changes meanwhile."""
        endpoint = await self.get(resource, endpoint_id)
        changed = msgspec.structs.replace(
            endpoint,
            name=endpoint.name if change.name is None else _name(change.name),
            url=endpoint.url if change.url is None else self._url(change.url),
            event_types=endpoint.event_types if change.event_types is None else _event_types(change.event_types),
        )
        if changed == endpoint:
            return endpoint
        now = int(self._clock.now())
        new = msgspec.structs.replace(changed, updated_at=now, revision=endpoint.revision + 1)
        return await self._save(new, endpoint)

    async def rotate(self, resource: ResourceId, endpoint_id: EndpointId, *, keep_old: bool) -> Endpoint:
        """Replace the secret; the old one signs for a day more if it is kept. Raises ``NotFound`` and ``Conflict``."""
        endpoint = await self.get(resource, endpoint_id)
        rotated = endpoint.rotated(self._new_secret(), self._clock.now(), keep_old=keep_old)
        return await self._save(rotated, endpoint)

    async def delete(self, resource: ResourceId, endpoint_id: EndpointId) -> None:
        """Remove a receiver; it is told nothing any more. Raises ``NotFound``."""
        if not await self._webhooks.delete(resource, endpoint_id):
            raise _not_found(endpoint_id)

    async def test(self, resource: ResourceId, endpoint_id: EndpointId, event_type: str) -> int:
        """Send a sample event at once and give the status of the answer.

        Raises:
            NotFound: there is no such receiver.
            InvalidRequest: there is no such type of event, or no answer came.
            Unavailable: another test of this receiver is under way.
        """
        endpoint = await self.get(resource, endpoint_id)
        (type_,) = _event_types([event_type], param="event_type")
        if endpoint_id in self._testing:
            message = "A test of this webhook endpoint is under way. Try again when it has ended."
            raise Unavailable(message)
        self._testing.add(endpoint_id)
        try:
            event = sample_event(type_, self._entropy.hex(), self._clock.now())
            attempt = await attempt_once(self._sender, self._clock, endpoint, event)
        finally:
            self._testing.discard(endpoint_id)
        if attempt.status_code is None:
            message = f"The test brought no answer: {attempt.error}. Check the URL, and that its server runs."
            raise InvalidRequest(message, code="webhook_unreachable")
        return attempt.status_code

    async def deliveries(
        self, resource: ResourceId, endpoint_id: EndpointId, *, after: str | None, limit: int
    ) -> Page[Logged]:
        """List what a receiver was told, newest first. Raises ``NotFound``, and ``InvalidRequest`` for the cursor."""
        await self.get(resource, endpoint_id)
        page = await self._webhooks.deliveries(endpoint_id, after=after, limit=limit)
        if page is None:
            raise unknown_cursor("delivery", str(after))
        return page

    async def _save(self, new: Endpoint, expected: Endpoint) -> Endpoint:
        if not await self._webhooks.save(new, expected=expected):
            message = "This webhook endpoint was changed or deleted meanwhile. Get it, and try again."
            raise Conflict(message)
        return new

    def _new_secret(self) -> str:
        return new_secret(self._entropy.hex() + self._entropy.hex())

    def _url(self, url: str) -> str:
        try:
            problem = self._policy.problem_of_host(parse_url(url).host)
        except ValueError as error:
            message = f"Invalid 'url': {error}. Give the whole URL of your receiver."
            raise InvalidRequest(message, param="url", code="invalid_value") from error
        if problem is not None:
            message = (
                f"Invalid 'url': its host is {problem}, which webhooks may not reach. Use a public address, or ask the"
                " operator to allow it (the setting 'webhooks.allow')."
            )
            raise InvalidRequest(message, param="url", code="webhook_address_refused")
        return url


async def attempt_once(sender: Sender, clock: Clock, endpoint: Endpoint, event: Event) -> Attempt:
    """Send an event once, signed for this moment, and give what came of it."""
    now, began = clock.now(), clock.ticks()
    body = event.body()
    signed = headers(event, body, endpoint.secrets(now), now)
    sent = await sender.send(endpoint.url, signed, body, resource=endpoint.resource)
    return Attempt(
        at=now,
        seconds=clock.ticks() - began,
        status_code=sent.status_code,
        error=None if sent.error is None else sent.error[:ERROR_CHARS],
    )


def _not_found(endpoint_id: EndpointId) -> NotFound:
    return NotFound(f"No webhook endpoint found with id '{endpoint_id}'.")


def _name(name: str) -> str:
    if not name.strip():
        message = "Invalid 'name': it is empty. Give the webhook endpoint a name that you will know it by."
        raise InvalidRequest(message, param="name", code="invalid_value")
    if len(name) > NAME_CHARS:
        message = (
            f"Invalid 'name': string too long. Expected a string with maximum length {NAME_CHARS},"
            f" but got a string with length {len(name)} instead."
        )
        raise InvalidRequest(message, param="name", code="string_above_max_length")
    return name


def _event_types(names: Sequence[str], param: str = "event_types") -> tuple[EventType, ...]:
    choices = ", ".join(f"'{each}'" for each in EventType)
    if not names:
        message = f"Invalid '{param}': it is empty. Supported values are: {choices}."
        raise InvalidRequest(message, param=param, code="invalid_value")
    unknown = [name for name in names if name not in set(EventType)]
    if unknown:
        message = f"Invalid value: '{unknown[0][:NAME_CHARS]}'. Supported values are: {choices}."
        raise InvalidRequest(message, param=param, code="invalid_value")
    return tuple(dict.fromkeys(map(EventType, names)))
