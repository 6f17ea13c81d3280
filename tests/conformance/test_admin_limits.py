"""Offers, quotas, caps and usage over the admin API, with the real service."""

from __future__ import annotations

import pytest
from tests.conformance.test_admin import admin, error, managed
from tests.support.http import Http

__all__ = ["admin", "managed"]


def test_limits_of_a_resource_of_the_key_file_are_set_listed_and_removed(admin: Http):
    """Nobody had to create it."""
    at = "/admin/resources/filed"
    offers = [admin.post(at, {"offer": offer}).json()["offer"] for offer in ("msdn", None)]
    own = admin.post(f"{at}/quotas", {"deployment": "test-model", "enqueued_tokens": 7}).json()
    state = admin.get(f"{at}/quotas/test-model").json()
    cap = admin.post(f"{at}/caps", {"period": "day", "measure": "tokens", "limit": "5"}).json()
    listed = [admin.get(path).json()["data"] for path in ("/admin/quotas", "/admin/caps", f"{at}/caps")]
    gone = [admin.delete(f"{at}{rest}").status for rest in ("/quotas/test-model", "/caps/day/tokens") for _ in range(2)]

    assert offers == ["msdn", None]
    assert (state["maximum_enqueued_tokens"], state["basis"], state["enqueued_tokens"]) == (7, "resource", 0)
    assert (cap["id"], cap["limit"], cap["used"]) == ("filed/day/tokens", "5", "0")
    assert listed == [[own], [cap], [cap]]
    assert gone == [200, 404, 200, 404]


def test_usage_is_told_of_one_resource_or_of_all(admin: Http):
    """Empty before anything ran."""
    every, one = (admin.get(path).json() for path in ("/admin/usage", "/admin/resources/filed/usage"))

    assert (every["data"], every["has_more"], one["object"], one["data"]) == ([], False, "usage", [])


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("", {"offer": "gold"}, (400, "invalid_value", "offer")),
        ("", {}, (400, "missing_required_parameter", "offer")),
        ("/quotas", {"deployment": "a", "enqueued_tokens": -1}, (400, "integer_below_min_value", "enqueued_tokens")),
        ("/caps", {"period": "week", "measure": "tokens", "limit": 1}, (400, "invalid_value", "period")),
        ("/caps", {"period": "day", "measure": "spend", "limit": "1e999999"}, (400, "invalid_value", "limit")),
    ],
)
def test_a_limit_that_is_wrong_is_refused(
    admin: Http,
    path: str,
    body: object,
    expected: tuple[int, str, str],
):
    """With the member that is wrong."""
    assert error(admin.post(f"/admin/resources/filed{path}", body)) == expected
