"""Puts the parts of webhooks together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overnight.adapters.webhooks.lookups import Resolver
from overnight.adapters.webhooks.sender import HttpSender
from overnight.dispatch.webhooks import WebhookDispatcher
from overnight.services.webhooks import WebhookService

if TYPE_CHECKING:
    from contextlib import AsyncExitStack

    from overnight.config import Settings
    from overnight.ports.clock import Clock, Entropy
    from overnight.ports.webhooks import Webhooks


def open_webhooks(
    settings: Settings, webhooks: Webhooks, clock: Clock, entropy: Entropy, stack: AsyncExitStack
) -> tuple[WebhookService, WebhookDispatcher]:
    """Give what manages receivers, and what sends to them."""
    policy = settings.webhooks.policy()
    resolver = Resolver()
    stack.callback(resolver.close)
    sender = HttpSender(policy, resolver)
    service = WebhookService(webhooks, sender, policy, clock, entropy)
    return service, WebhookDispatcher(webhooks, sender, clock, entropy)
