"""Delivers webhooks: claims what is due, sends a bounded number at once, and notes what came of each attempt."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

import structlog

from overnight.crash_points import reached
from overnight.dispatch.dispatcher import safely
from overnight.domain.webhook import LOG_SECONDS, SEND_SECONDS, DeliveryStatus, settled
from overnight.services.webhooks import attempt_once

if TYPE_CHECKING:
    from overnight.domain.ids import EndpointId
    from overnight.domain.webhook import Claimed
    from overnight.ports.clock import Clock, Entropy
    from overnight.ports.webhooks import Sender, Webhooks

log = structlog.get_logger()

AT_ONCE = 64
AT_ONCE_EACH = 2
"""How many attempts are under way at once, in all and for one receiver, so that a slow one holds up no other."""

# All in seconds. A claim outlasts an attempt and a slow disk, so that no other process sends the same meanwhile.
LEASE = 3 * SEND_SECONDS
_LOOK_EVERY = 1.0
_SWEEP_EVERY = 600.0
_AFTER_TROUBLE = 5.0

_FORGOTTEN_AT_ONCE = 200


class WebhookDispatcher:
    """One task that claims, and one for each attempt that is under way."""

    def __init__(self, webhooks: Webhooks, sender: Sender, clock: Clock, entropy: Entropy) -> None:
        self._webhooks = webhooks
        self._sender = sender
        self._clock = clock
        self._entropy = entropy
        self._busy: Counter[EndpointId] = Counter()
        self._wake = asyncio.Event()
        self._stopping = False

    async def run(self) -> None:
        """Work until ``stop`` is called; returns when no attempt is under way any more."""
        async with asyncio.TaskGroup() as group:
            sweeping = group.create_task(self._sweep(), name="sweep webhooks")
            while not self._stopping:
                self._wake.clear()
                went_well = await safely("claim webhooks", self._claim(group))
                await self._clock.wait(self._wake, _LOOK_EVERY if went_well else _AFTER_TROUBLE)
            sweeping.cancel()

    def stop(self) -> None:
        """Claim nothing more; what is under way ends within the time of an attempt."""
        self._stopping = True
        self._wake.set()

    async def _claim(self, group: asyncio.TaskGroup) -> None:
        free = AT_ONCE - self._busy.total()
        if free <= 0:
            return
        now = self._clock.now()
        found = await self._webhooks.claim(
            now=now, until=now + LEASE, limit=free, each=AT_ONCE_EACH, busy=dict(self._busy)
        )
        for claimed in found:
            self._busy[claimed.endpoint.id] += 1
            group.create_task(self._deliver(claimed), name=f"webhook {claimed.delivery.event_id}")

    async def _deliver(self, claimed: Claimed) -> None:
        endpoint_id = claimed.endpoint.id
        try:
            await safely("deliver a webhook", self._attempt(claimed), endpoint_id=endpoint_id)
        finally:
            self._busy[endpoint_id] -= 1
            if not self._busy[endpoint_id]:
                del self._busy[endpoint_id]
            self._wake.set()

    async def _attempt(self, claimed: Claimed) -> None:
        delivery, endpoint = claimed.delivery, claimed.endpoint
        attempt = await attempt_once(self._sender, self._clock, endpoint, delivery.event)
        reached("webhook.sent")
        new = settled(delivery, attempt, self._clock.now(), self._entropy.fraction())
        if not await self._webhooks.record(new, attempt):
            return
        if new.status is DeliveryStatus.FAILED:
            log.warning("webhook.given_up", endpoint_id=endpoint.id, event_id=new.event_id, attempts=new.attempts)
        elif not attempt.ok:
            outcome = attempt.status_code or attempt.error
            log.info("webhook.not_taken", endpoint_id=endpoint.id, event_id=new.event_id, outcome=outcome)

    async def _sweep(self) -> None:
        while True:
            await safely("sweep webhooks", self._forget())
            await self._clock.sleep(_SWEEP_EVERY)

    async def _forget(self) -> None:
        before = int(self._clock.now() - LOG_SECONDS)
        while await self._webhooks.forget(before=before, limit=_FORGOTTEN_AT_ONCE) == _FORGOTTEN_AT_ONCE:
            pass
