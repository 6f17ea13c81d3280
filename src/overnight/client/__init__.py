"""A small typed client for any server that speaks the OpenAI or Azure OpenAI Batch API.

It stands on its own: it imports nothing else of `overnight`, holds no global state, and keeps
whole files out of memory. The command line is its first user.
"""

from overnight.client.api import BatchesApi, Client, FilesApi, NewBatch, WebhooksApi
from overnight.client.errors import (
    ApiError,
    ClientError,
    InvalidUrl,
    NotAuthorised,
    NotFound,
    RetryAdvice,
    UnexpectedAnswer,
    Unreachable,
)
from overnight.client.models import (
    Batch,
    BatchErrors,
    BatchProblem,
    CapState,
    Deleted,
    File,
    Model,
    Quota,
    Readiness,
    RequestCounts,
    Usage,
    UsageDay,
    UsageReport,
    Waiting,
    WebhookAttempt,
    WebhookDelivery,
    WebhookEndpoint,
    WebhookTest,
)
from overnight.client.transport import Exchange, Patience

__all__ = [
    "ApiError",
    "Batch",
    "BatchErrors",
    "BatchProblem",
    "BatchesApi",
    "CapState",
    "Client",
    "ClientError",
    "Deleted",
    "Exchange",
    "File",
    "FilesApi",
    "InvalidUrl",
    "Model",
    "NewBatch",
    "NotAuthorised",
    "NotFound",
    "Patience",
    "Quota",
    "Readiness",
    "RequestCounts",
    "RetryAdvice",
    "UnexpectedAnswer",
    "Unreachable",
    "Usage",
    "UsageDay",
    "UsageReport",
    "Waiting",
    "WebhookAttempt",
    "WebhookDelivery",
    "WebhookEndpoint",
    "WebhookTest",
    "WebhooksApi",
]
