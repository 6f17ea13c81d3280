"""What a request's ``model`` names: a deployment, served by upstreams under a model name of their own."""

from __future__ import annotations

from typing import NewType

import msgspec

from overnight.domain.batch import Expiry

UpstreamName = NewType("UpstreamName", str)


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """A name that callers use as ``model``.

    ``model`` is what the upstreams are asked for; ``expiry`` overrides the flavour's rule for closing windows.
    """

    name: str
    model: str
    upstreams: tuple[UpstreamName, ...]
    created_at: int = 0
    expiry: Expiry | None = None
