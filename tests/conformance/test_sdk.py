"""Section 8 of the contract: unmodified official SDKs, of four versions, against the service as a process.

The probe runs once for each version, with every way to make a client, sync and async; each test asserts on one point.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, TypeGuard

import pytest
from tests.conformance.conftest import SDK_KEYS, key_of
from tests.support import sdk
from tests.support.service import Service

VERSIONS = sdk.VERSIONS
MODES = ("sync", "async")
# As in the probe, which this process cannot import: it lives in the SDK's environment.
CLIENTS = (
    "openai",
    "azure",
    "azure-slash",
    "azure-deployment",
    "azure-token",
    "azure-token-provider",
    "openai-on-azure-v1",
    "azure-on-azure-v1",
)
MANY = ("openai", "azure", "azure-deployment", "openai-on-azure-v1", "azure-on-azure-v1")
AT_ONCE = 2

# The first test waits for the whole look of its version, and a busy machine takes its time.
pytestmark = pytest.mark.timeout(300)

Look = Callable[[str], Any]


@pytest.fixture(scope="session")
def probes(request: pytest.FixtureRequest, shared_service: Service) -> Iterator[dict[str, Future[dict[str, Any]]]]:
    """The findings of each version that is wanted; two versions look at a time."""
    wanted = {item.callspec.params["version"] for item in request.session.items if _is_parametrised(item)}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {
            version: pool.submit(sdk.probe, version, {"url": shared_service.url, "keys": _keys(place)})
            for place, version in enumerate(VERSIONS)
            if version in wanted
        }


def _is_parametrised(item: pytest.Item) -> TypeGuard[pytest.Function]:
    return isinstance(item, pytest.Function) and "probes" in item.fixturenames


def _keys(place: int) -> list[str]:
    """Each version works with keys of its own."""
    return [key_of(number) for number in range(SDK_KEYS)[place :: len(VERSIONS)]]


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _look(points: dict[str, Any], client: str, mode: str, point: str) -> Any:
    result = points[f"{point} {client} {mode}"]
    assert "broke" not in result, result["broke"]
    return result["found"]


@pytest.fixture
def look(probes: dict[str, Future[dict[str, Any]]], version: str, mode: str, client: str) -> Look:
    """What the probe found at a point, with this version and this way to make a client."""
    found = probes[version].result()
    assert found["version"] == version
    return partial(_look, found["points"], client, mode)


every_client = pytest.mark.parametrize("client", CLIENTS)
many_clients = pytest.mark.parametrize("client", MANY)
both_clients = pytest.mark.parametrize("client", ["openai", "azure"])
openai_only = pytest.mark.parametrize("client", ["openai"])
azure_only = pytest.mark.parametrize("client", ["azure"])


# --- points 1 and 2: the seed's flow, with every client -------------------------------------------------------------


@every_client
def test_seed_flow_runs_to_its_end(look: Look, client: str):
    found = look("seed_flow")

    assert (found["first_status"], found["status"]) == ("validating", "completed")
    assert [line["custom_id"] for line in found["lines"]] == ["task-0", "task-1", "task-2"]
    assert {line["response"]["status_code"] for line in found["lines"]} == {200}
    assert found["endpoint"].removeprefix("/v1") == "/chat/completions"


@every_client
def test_list_has_real_rows(look: Look):
    """The api-version of the seed sent its rows in another member, and printed none."""
    found = look("seed_flow")

    assert found["listed"] == [found["batch"]]


@every_client
def test_calls_go_where_this_client_sends_them(look: Look, client: str, version: str):
    paths = look("seed_flow")["paths"]

    prefix = {
        "openai": "/v1/",
        "openai-on-azure-v1": "/openai/v1/",
        "azure-on-azure-v1": "/openai/v1/",
        "azure-slash": "//openai/" if version == "1.40.0" else "/openai/",
        "azure-deployment": "/openai/deployments/test-model/" if version == "1.40.0" else "/openai/",
    }.get(client, "/openai/")
    assert all(path.split(" ")[1].startswith((f"{prefix}files", f"{prefix}batches")) for path in paths), paths
    assert all(("api-version=" in path) == client.startswith("azure") for path in paths)


# --- point 3: lists end ---------------------------------------------------------------------------------------------


@many_clients
@pytest.mark.parametrize("kind", ["batches", "files"])
def test_list_of_three_in_pages_of_one_gives_three_and_ends(look: Look, kind: str):
    found = look("pages")[kind]

    assert found["listed"] == found["made"]
    assert found["requests"] <= 4


# --- point 4: keys --------------------------------------------------------------------------------------------------


@every_client
def test_every_kind_of_key_is_accepted(look: Look, client: str, version: str):
    """Old versions send an Azure key in both headers."""
    auth = look("seed_flow")["auth"]

    if client in {"azure", "azure-slash", "azure-deployment", "azure-on-azure-v1"}:
        assert auth == (["api-key"] if version == "3.54.0" else ["api-key", "authorization"])
    else:
        assert "authorization" in auth


# --- point 6: a conflict is not repeated ----------------------------------------------------------------------------


@every_client
def test_cancel_of_an_ended_batch_is_one_request(look: Look, client: str):
    cancel = look("seed_flow")["cancel"]

    assert (cancel["type"], cancel["status"], cancel["requests"]) == ("ConflictError", 409, 1)
    assert "Cannot cancel a batch with status 'completed'." in cancel["text"]
    assert cancel["code"] == ("conflict" if client != "openai" else None)


# --- point 9: the SDK's own validation ------------------------------------------------------------------------------

STRICT = (
    "files.create",
    "files.retrieve",
    "files.list",
    "files.delete",
    "batches.create",
    "batches.retrieve",
    "batches.retrieve completed",
    "batches.retrieve failed",
    "batches.retrieve cancelled",
    "batches.list",
    "uploads.create",
    "uploads.parts.create",
    "uploads.complete",
    "uploads.cancel",
    "models.list",
    "models.retrieve",
)


@openai_only
@pytest.mark.parametrize("name", STRICT)
def test_strict_client_takes_every_object(look: Look, name: str):
    found = look("strict")[name]

    assert found == "ok" or (isinstance(found, list) and found[0] > 0), found


# --- point 10: deletion ---------------------------------------------------------------------------------------------


@every_client
def test_deleted_file_is_gone(look: Look):
    found = look("seed_flow")

    assert found["deleted"] == [True, "file", True]
    assert (found["gone"]["type"], found["gone"]["status"], found["gone"]["requests"]) == ("NotFoundError", 404, 1)


# --- what else the SDK offers ---------------------------------------------------------------------------------------


@many_clients
def test_file_arrives_in_parts(look: Look):
    found = look("parts")

    assert found["new"] == ["pending", "upload", True]
    assert found["part"] == ["upload.part", True]
    assert found["ready"] == ["completed", "processed", True, "parts.jsonl"]
    assert found["same"] is True
    assert found["batch"] == ["completed", 3]


@both_clients
def test_helper_for_large_files_works(look: Look, version: str):
    found = look("chunked")

    if version == "1.40.0":
        assert found is None, "this version has no such helper"
    else:
        assert found == [["completed", "memory.jsonl", True], ["completed", "chunked.jsonl", True]]


@both_clients
def test_expiry_of_files_is_kept(look: Look):
    assert look("expiry") == [1_209_600, 1_209_600]


@both_clients
def test_metadata_comes_back_unchanged(look: Look):
    for given, shown in look("metadata"):
        assert shown == given


@pytest.mark.parametrize("client", ["openai", "azure", "azure-deployment"])
@pytest.mark.parametrize("name", ["with_options", "copy", "twice"])
def test_copy_of_a_client_works_too(look: Look, name: str):
    """On 1.109.1 a copy forgets that its deployment is not for files."""
    assert look("copies")[name] == [[True], True, "completed"]


@both_clients
def test_content_can_be_read_in_every_way(look: Look):
    assert look("download") == {"whole": True, "stream": True, "lines": 2_000, "written": True}


@azure_only
def test_error_file_of_a_clean_batch_is_empty_on_azure(look: Look):
    assert look("empty_content") == ""


@openai_only
def test_clean_batch_has_no_error_file_on_openai(look: Look):
    assert look("empty_content") is None


@both_clients
def test_every_kind_of_file_is_taken(look: Look):
    names = {"bytes": "upload", "tuple": "named.jsonl", "path": "Prüfung – 試験.jsonl", "open": "Prüfung – 試験.jsonl"}

    assert look("names") == {kind: [name, True, "processed"] for kind, name in names.items()}


@both_clients
def test_wait_for_processing_returns_at_once(look: Look):
    assert look("waiting") == [True, "processed"]


@both_clients
def test_problems_of_a_file_can_be_read(look: Look):
    assert look("failed_batch") == [
        "failed",
        [["duplicate_custom_id", 2, "custom_id"], ["invalid_json_line", 3, None]],
    ]


@both_clients
def test_request_id_is_told(look: Look, version: str):
    found = look("request_id")

    assert found or version == "1.40.0"


ERRORS = {
    "file": ("NotFoundError", 404, "No such File object: file-none"),
    "batch": ("NotFoundError", 404, "No batch found"),
    "delete": ("NotFoundError", 404, "No such File object: file-none"),
    "endpoint": ("BadRequestError", 400, "Invalid value: '/v1/none'. Supported values are: "),
    "window": ("BadRequestError", 400, "Invalid value: '1h'. Value must be '24h'"),
    "limit": ("BadRequestError", 400, "Invalid 'limit': integer above maximum value."),
    "purpose": ("BadRequestError", 400, "Invalid value for purpose"),
}


@both_clients
@pytest.mark.parametrize("name", ERRORS)
def test_mistake_raises_the_right_error_after_one_request(look: Look, name: str):
    """A status that SDKs repeat, as 500, would show here as three requests."""
    found = look("errors")[name]

    kind, status, text = ERRORS[name]
    assert (found["type"], found["status"], found["requests"]) == (kind, status, 1)
    assert text in found["text"]
    assert found["request_id"] is not None


@openai_only
def test_wrong_key_is_an_authentication_error(look: Look):
    found = look("errors")["key"]

    assert (found["type"], found["status"], found["requests"]) == ("AuthenticationError", 401, 1)
    assert "Incorrect API key provided" in found["text"]


@openai_only
@pytest.mark.parametrize(
    ("name", "param", "code"),
    [
        ("file", "id", None),
        ("endpoint", "endpoint", "invalid_value"),
        ("window", "completion_window", "invalid_value"),
        ("limit", "limit", "integer_above_max_value"),
        ("purpose", "purpose", "invalid_value"),
        ("key", None, "invalid_api_key"),
    ],
)
def test_error_carries_param_code_and_type(look: Look, name: str, param: str | None, code: str | None):
    found = look("errors")[name]

    assert (found["param"], found["code"], found["kind"]) == (param, code, "invalid_request_error")
