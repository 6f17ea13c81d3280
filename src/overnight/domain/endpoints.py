"""The endpoints that a batch may target (CONTRACT section 2.3)."""

from overnight.domain.flavour import Flavour

EMBEDDINGS = "/v1/embeddings"
ENDPOINTS = (
    "/v1/responses",
    "/v1/chat/completions",
    EMBEDDINGS,
    "/v1/completions",
    "/v1/moderations",
    "/v1/images/generations",
    "/v1/images/edits",
    "/v1/videos",
)

# The field besides `model` without which the endpoint cannot answer; `/v1/responses` takes a stored prompt instead.
REQUIRED_FIELD = {
    "/v1/chat/completions": "messages",
    EMBEDDINGS: "input",
    "/v1/completions": "prompt",
    "/v1/moderations": "input",
    "/v1/images/generations": "prompt",
}


def canonical(endpoint: str) -> str:
    """Give an endpoint its ``/v1`` prefix: Azure's pages write it with and without."""
    return endpoint if endpoint.startswith("/v1/") else f"/v1{endpoint}"


def is_supported(endpoint: str, flavour: Flavour) -> bool:
    """Say whether a batch may name this endpoint; OpenAI compares exactly."""
    return (canonical(endpoint) if flavour is Flavour.AZURE else endpoint) in ENDPOINTS


def same_endpoint(line_url: str, endpoint: str, flavour: Flavour) -> bool:
    """Say whether a line's url is the batch's endpoint; on Azure a leading ``/v1`` makes no difference."""
    if line_url == endpoint:
        return True
    return flavour is Flavour.AZURE and canonical(line_url) == canonical(endpoint)
