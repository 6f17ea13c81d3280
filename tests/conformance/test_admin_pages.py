"""Lists of the admin API that have several pages, and usage after batches have run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.conformance.test_admin import an_admin_key, error
from tests.support.api import OPENAI, Api, jsonl, request
from tests.support.http import Http
from tests.support.service import Service

if TYPE_CHECKING:
    from collections.abc import Iterator

    from overnight.testing.upstream import ScriptedUpstream

RESOURCES = ("a", "b", "c")
MODELS = ("other-model", "test-model")
LINES = {"other-model": 1, "test-model": 2}
# As in every list, it begins with the resource, then comes the deployment.
USED = [f"{resource}/{model}" for resource in RESOURCES for model in MODELS]
CONFIG = """
currency = "EUR"
[[deployments]]
name = "test-model"
price = { input = 2, output = 8 }
"""


@pytest.fixture(scope="module")
def used(upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service on which three resources have each run a batch of both models."""
    folder = tmp_path_factory.mktemp("used")
    keys, config = folder / "keys.txt", folder / "overnight.toml"
    keys.write_text("".join(f"sk-{name} {name}\n" for name in RESOURCES))
    config.write_text(CONFIG)
    arguments = ("--keys-file", str(keys), "--config", str(config))
    with Service(folder, upstreams=[upstream.url], arguments=arguments) as service:
        apis = [Api(Http(service.url, {"api-key": f"sk-{name}"})) for name in RESOURCES]
        batches = [(api, api.create(api.upload(lines_of(model)))) for api in apis for model in MODELS]
        for api, batch_id in batches:
            api.reach(batch_id, "completed")
        yield service


@pytest.fixture(scope="module")
def admin(used: Service) -> Http:
    return Http(used.url, {"authorization": f"Bearer {an_admin_key(used.data_dir)}"})


def lines_of(model: str) -> bytes:
    body = {"model": model, "messages": [{"role": "user", "content": "hello"}]}
    return jsonl(*(request(f"r{number}", OPENAI.endpoint, body) for number in range(LINES[model])))


def walk(admin: Http, path: str, limit: int) -> list[list[str]]:
    """Follow the cursors of a list, and give the ids of each page."""
    joined = "&" if "?" in path else "?"
    page = admin.get(f"{path}{joined}limit={limit}").json()
    pages = [page]
    while page["has_more"]:
        page = admin.get(f"{path}{joined}limit={limit}&after={page['last_id']}").json()
        pages.append(page)
    for each in pages:
        ids = [item["id"] for item in each["data"]]
        assert (ids[0], ids[-1]) == (each["first_id"], each["last_id"])
    return [[item["id"] for item in each["data"]] for each in pages]


@pytest.mark.parametrize(
    ("query", "limit", "expected"),
    [
        ("", 2, [USED[:2], USED[2:4], USED[4:]]),
        ("", 4, [USED[:4], USED[4:]]),
        ("", 6, [USED]),
        ("?deployment=test-model", 2, [["a/test-model", "b/test-model"], ["c/test-model"]]),
        ("?resource=b", 1, [["b/other-model"], ["b/test-model"]]),
    ],
)
def test_what_all_used_is_told_page_by_page(admin: Http, query: str, limit: int, expected: list[list[str]]):
    """Each sum once, of all, of one deployment or of one resource."""
    assert expected == walk(admin, f"/admin/usage{query}", limit)


def test_sums_have_their_counts_tokens_and_cost(admin: Http):
    """And are those of the resource's own report."""
    total = admin.get("/admin/usage").json()
    own = admin.get("/admin/resources/b/usage").json()
    sums = {item["id"]: item for item in total["data"]}
    priced, free = sums["b/test-model"], sums["b/other-model"]
    tokens: dict[str, Any] = priced["usage"]

    assert total["currency"] == own["currency"] == "EUR"
    assert (priced["request_counts"], free["request_counts"]) == (
        {"completed": 2, "failed": 0},
        {"completed": 1, "failed": 0},
    )
    assert tokens["input_tokens"] > 0
    assert float(priced["cost"]) == pytest.approx(tokens["input_tokens"] * 2e-6 + tokens["output_tokens"] * 8e-6)
    assert free["cost"] is None
    assert [day["deployment"] for day in own["data"]] == list(MODELS)
    assert [day["usage"] for day in own["data"]] == [free["usage"], priced["usage"]]
    assert own["cost"] == priced["cost"]


@pytest.mark.parametrize("path", ["/admin/usage", "/admin/resources/a/usage"])
def test_days_on_which_nothing_ran_have_no_entries(admin: Http, path: str):
    found = admin.get(f"{path}?from=2020-01-01&to=2020-01-31").json()

    assert found["data"] == []


def test_quotas_and_caps_are_listed_page_by_page(admin: Http):
    """Quotas in the order in which they were set, caps by resource."""
    for name in reversed(RESOURCES):
        for model in MODELS:
            admin.post(f"/admin/resources/{name}/quotas", {"deployment": model, "enqueued_tokens": 1_000_000})
        for period in ("day", "month"):
            admin.post(f"/admin/resources/{name}/caps", {"period": period, "measure": "tokens", "limit": "1000000"})
    quotas, caps = walk(admin, "/admin/quotas", 4), walk(admin, "/admin/caps", 4)
    of_one = walk(admin, "/admin/caps?resource=b", 1)
    listed = [cap for page in caps for cap in page]

    assert [len(page) for page in quotas] == [len(page) for page in caps] == [4, 2]
    assert sorted(quota for page in quotas for quota in page) == USED
    assert listed == [f"{name}/{period}/tokens" for name in RESOURCES for period in ("day", "month")]
    assert of_one == [["b/day/tokens"], ["b/month/tokens"]]


@pytest.mark.parametrize("path", ["/admin/usage", "/admin/quotas", "/admin/caps"])
def test_a_cursor_that_is_on_no_page_is_refused(admin: Http, path: str):
    status, _, param = error(admin.get(f"{path}?after=nobody/nothing"))

    assert (status, param) == (400, "after")
