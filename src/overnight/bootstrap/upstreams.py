"""Makes the upstreams and deployments that the settings name."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import msgspec

from overnight.adapters.system import SystemClock
from overnight.adapters.upstreams.embedded import (
    MODEL_NAME,
    EmbeddedFailed,
    EmbeddedMissing,
    EmbeddedServer,
    find_model,
)
from overnight.adapters.upstreams.http import HttpSettings, HttpUpstream
from overnight.bootstrap.errors import StartupError
from overnight.config import Settings, UpstreamSettings
from overnight.config_deployments import ContentFilterSettings, DeploymentSettings
from overnight.domain.deployment import Capacity, Deployment, UpstreamName

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_EMBEDDED_TIMEOUT = 600.0
_EMBEDDED = UpstreamName("embedded")


def open_upstreams(settings: Settings, embedded: EmbeddedServer | None, stack: AsyncExitStack) -> list[HttpUpstream]:
    upstreams = [http_upstream(settings, upstream) for upstream in settings.upstreams]
    if embedded is not None:
        upstreams.append(_embedded_upstream(settings, embedded))
    for upstream in upstreams:
        stack.push_async_callback(upstream.close)
    return upstreams


def http_upstream(settings: Settings, upstream: UpstreamSettings) -> HttpUpstream:
    http = HttpSettings(
        name=UpstreamName(upstream.label),
        timeout=upstream.timeout,
        answer_bytes=settings.answer_bytes,
        api_key=upstream.api_key(),
    )
    return HttpUpstream(http, upstream.capacity(), lambda: upstream.url)


async def start_embedded(settings: Settings, stack: AsyncExitStack) -> EmbeddedServer:
    try:
        server = EmbeddedServer(find_model(), MODEL_NAME, settings.embedded_slots)
        stack.push_async_callback(server.stop)
        await server.start()
    except (EmbeddedMissing, EmbeddedFailed) as error:
        hint = "name a model server with `--upstream http://localhost:8000/v1`, or run `make install`"
        raise StartupError(str(error), hint) from error
    return server


def _embedded_upstream(settings: Settings, server: EmbeddedServer) -> HttpUpstream:
    http = HttpSettings(
        name=_EMBEDDED,
        timeout=_EMBEDDED_TIMEOUT,
        answer_bytes=settings.answer_bytes,
    )
    slots = settings.embedded_slots
    return HttpUpstream(http, Capacity(max_concurrency=slots, start_concurrency=slots), server.base_url)


def configured(settings: Settings, upstreams: Sequence[HttpUpstream], clock: SystemClock) -> list[Deployment]:
    everyone = tuple(upstream.name for upstream in upstreams)
    plain = {each.name: _deployment(each, everyone, int(clock.now())) for each in settings.deployments}
    filters = {each.name: each for each in settings.content_filters}
    return [
        _filtered(plain[each.name], filters[each.content_filter], plain) if each.content_filter else plain[each.name]
        for each in settings.deployments
    ]


def _deployment(deployment: DeploymentSettings, everyone: tuple[UpstreamName, ...], now: int) -> Deployment:
    return Deployment(
        name=deployment.name,
        model=deployment.model or deployment.name,
        upstreams=tuple(UpstreamName(name) for name in deployment.upstreams) or everyone,
        created_at=now,
        expiry=deployment.expiry,
        enqueued_tokens=deployment.enqueued_tokens,
        over_quota=deployment.over_quota,
        says_unfiltered=deployment.annotate == "unfiltered",
    )


def _filtered(deployment: Deployment, rules: ContentFilterSettings, known: Mapping[str, Deployment]) -> Deployment:
    asked = known.get(rules.deployment)
    upstreams = asked.upstreams if asked else (UpstreamName(rules.upstream),)
    model = rules.model or (asked.model if asked else "")
    return msgspec.structs.replace(deployment, content_filter=rules.rules(model), filter_upstreams=upstreams)
