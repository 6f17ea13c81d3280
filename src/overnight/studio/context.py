"""What the Studio works with: use cases, and a few things to read that the bootstrap hands in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from overnight.domain.ids import ResourceId
    from overnight.ports.clock import Clock, Entropy
    from overnight.ports.troubles import Trouble
    from overnight.ports.upstream import Deployments
    from overnight.services.batches import BatchService
    from overnight.services.check import CheckService
    from overnight.services.estimates import EstimateService
    from overnight.services.files import FileService
    from overnight.services.quotas import QuotaService
    from overnight.services.rates import Allowances
    from overnight.services.requests import RequestService
    from overnight.services.retry import RetryService
    from overnight.services.traffic import Traffic
    from overnight.services.upstreams import UpstreamService
    from overnight.services.usage import UsageService


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Who looks at the Studio; ``may_operate`` lets see how the service itself is set up."""

    resource: ResourceId
    may_submit: bool
    may_operate: bool


class Callers(Protocol):
    """Who may come in. Every method raises ``Unavailable`` while the keys cannot be read.

    ``bearers`` says whether tokens of an issuer open the API; the Studio takes keys only.
    """

    bearers: bool

    async def open_to(self, host: str) -> Caller | None:
        """Give who calls where no key is asked for; ``None`` where one is.

        Raises:
            Forbidden: no key is asked for, but the ``host`` that was called is not this machine.
        """

    async def recall(self, digest: str) -> Caller | None:
        """Give whom the key with this SHA-256 lets in; ``None`` for a key that is unknown, revoked or expired."""


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """A setting, its value as text, and where the value comes from."""

    name: str
    value: str
    source: str


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What a look at one part of the service found."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""


class Operations(Protocol):
    """How the service is set up and how it does."""

    def settings(self) -> Sequence[Setting]:
        """Give every setting; no secret is among the values."""

    def facts(self) -> Sequence[tuple[str, str]]:
        """Give names and values of what is worth knowing: versions, storage, room on the disk."""

    async def checks(self) -> Sequence[Finding]:
        """Look at every part, as ``overnight doctor`` does."""


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """What the Studio is made of. ``root`` is the path prefix that a gateway in front strips off.

    ``neighbourhood`` says whom an address stands for when attempts to sign in are counted; ``allowances`` are those of
    the API. ``gallery`` shows every part in every state, for those who work on it.
    """

    files: FileService
    batches: BatchService
    requests: RequestService
    retries: RetryService
    checks: CheckService
    estimates: EstimateService
    quotas: QuotaService
    deployments: Deployments
    troubles: Callable[[], Sequence[Trouble]]
    problem: Callable[[], Awaitable[str | None]]
    callers: Callers
    operations: Operations
    upstreams: UpstreamService
    traffic: Traffic
    usage: UsageService
    allowances: Allowances
    neighbourhood: Callable[[str], str]
    clock: Clock
    entropy: Entropy
    root: str = ""
    gallery: bool = False
