"""What a request's ``model`` names: a deployment, served by upstreams under a model name of their own."""

from __future__ import annotations

from typing import NewType

import msgspec

from overnight.domain.batch import Expiry
from overnight.domain.content_filter import ContentFilter
from overnight.domain.quota import OverQuota

UpstreamName = NewType("UpstreamName", str)


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """A name that callers use as ``model``.

    ``model`` is what the upstreams are asked for; ``expiry`` overrides the flavour's rule for closing windows.
    ``enqueued_tokens`` is the quota of each resource for which nothing else was set; ``None`` means no limit.
    ``filter_upstreams`` work for its filter. ``says_unfiltered`` adds to answers that none has judged them.
    """

    name: str
    model: str
    upstreams: tuple[UpstreamName, ...]
    created_at: int = 0
    expiry: Expiry | None = None
    enqueued_tokens: int | None = None
    over_quota: OverQuota = OverQuota.FAIL
    content_filter: ContentFilter | None = None
    filter_upstreams: tuple[UpstreamName, ...] = ()
    says_unfiltered: bool = False


class Capacity(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator says that an upstream may be asked for; how much it bears within that is found by trying.

    ``start_concurrency`` is where the search begins; ``None`` means no bound. An upstream of twice the ``weight`` gets
    twice the requests while there are fewer of them than all upstreams could take.
    """

    max_concurrency: int
    start_concurrency: int
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    weight: float = 1.0
