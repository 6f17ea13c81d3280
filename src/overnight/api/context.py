"""What the routes work with, and how the same routes differ from prefix to prefix."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from fastapi.responses import Response

from overnight.domain.flavour import Flavour

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pydantic import BaseModel
    from starlette.requests import Request

    from overnight.domain.ids import ResourceId
    from overnight.domain.limits import Limits
    from overnight.ports.troubles import Trouble
    from overnight.ports.upstream import Deployments
    from overnight.services.batches import BatchService
    from overnight.services.check import CheckService
    from overnight.services.estimates import EstimateService
    from overnight.services.files import FileService
    from overnight.services.gate import Gate
    from overnight.services.keys import KeyService
    from overnight.services.quotas import QuotaAdmin, QuotaService
    from overnight.services.rates import Allowances
    from overnight.services.requests import RequestService
    from overnight.services.retry import RetryService
    from overnight.services.uploads import UploadService
    from overnight.services.upstreams import UpstreamService
    from overnight.services.usage import UsageService
    from overnight.services.webhooks import WebhookService


RESOURCE = "overnight.resource"
"""The member of a request's scope that says who calls."""

MANAGES = "overnight.manages"
"""The member of a request's scope that says that an admin calls."""

OPERATES = "overnight.operates"
"""The member of a request's scope that says that the caller may see and switch upstreams."""


API = r"(?:/v1|/openai(?:/deployments/[^/]+)?)"
"""How a prefix of the API ends, as a regular expression: below it, `files` is no id of something else."""


class Services(msgspec.Struct, frozen=True, kw_only=True):
    """The use cases behind the routes; ``troubles`` says what waits for the disk."""

    files: FileService
    uploads: UploadService
    batches: BatchService
    keys: KeyService
    usage: UsageService
    estimates: EstimateService
    webhooks: WebhookService
    requests: RequestService
    retries: RetryService
    checks: CheckService
    deployments: Deployments
    upstreams: UpstreamService
    troubles: Callable[[], Sequence[Trouble]]
    quotas: QuotaService
    quota_admin: QuotaAdmin
    gate: Gate
    allowances: Allowances


class Prefix(msgspec.Struct, frozen=True, kw_only=True):
    """One prefix of the API (CONTRACT section 1.1) with its status codes for what was created."""

    path: str
    flavour: Flavour
    tag: str
    batch_created: int = 200
    file_created: int = 200
    location: bool = False
    documented: bool = True
    webhooks: str | None = None
    """Where the receivers of webhooks are managed, if they are."""


PREFIXES = (
    Prefix(path="/v1", flavour=Flavour.OPENAI, tag="OpenAI", webhooks="/v1"),
    Prefix(
        path="/openai/v1",
        flavour=Flavour.AZURE,
        tag="Azure v1",
        batch_created=201,
        webhooks="/openai/v1/dashboard",
    ),
    Prefix(
        path="/openai",
        flavour=Flavour.AZURE,
        tag="Azure",
        batch_created=201,
        file_created=201,
        location=True,
    ),
    # Where SDKs before 1.65.2 send everything once they are told of a deployment (CONTRACT section 1.2).
    Prefix(
        path="/openai/deployments/{deployment}",
        flavour=Flavour.AZURE,
        tag="Azure deployments",
        batch_created=201,
        file_created=201,
        location=True,
        documented=False,
    ),
)


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """What one set of routes is made with."""

    services: Services
    prefix: Prefix
    limits: Limits

    def resource(self, request: Request) -> ResourceId:
        """Say who calls, as the entrance found out (``api/middleware.py``)."""
        resource: ResourceId = request.scope[RESOURCE]
        return resource

    def located(self, request: Request, kind: str, object_id: str) -> dict[str, str]:
        """Give the ``Location`` header that Azure adds to what was created."""
        if not self.prefix.location:
            return {}
        url = request.url.replace(path=f"{request.scope.get('root_path', '')}/openai/{kind}/{object_id}")
        return {"location": str(url)}


def reply(model: BaseModel, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Send an object; it is valid by its making, so it is not validated again."""
    return Response(model.model_dump_json(), status_code=status, headers=headers, media_type="application/json")
