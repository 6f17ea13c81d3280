"""Looking into batches: their requests, failures, newest results, the merged results; retries and checks of files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from tests.support.api import Api, chat_body, chats, jsonl, request
from tests.support.http import Http, Reply
from tests.support.service import Service

MISSING = "no-such-batch"


def mixed(url: str) -> bytes:
    """Give a file with requests that succeed and one that the upstream refuses."""
    refused = chat_body("status:400")
    return jsonl(request("a/1", url), request("b?2", url, refused), request("c 3", url))


@pytest.fixture
def ended(each: Api) -> dict[str, Any]:
    return each.run(mixed(each.prefix.endpoint))


def listed(api: Api, batch: dict[str, Any], query: str = "") -> dict[str, Any]:
    reply = api.get(f"/batches/{batch['id']}/requests{query}")
    assert reply.status == 200, reply
    found: dict[str, Any] = reply.json()
    return found


def test_requests_are_listed_in_the_order_of_the_input(each: Api, ended: dict[str, Any]) -> None:
    """With what became of each."""
    page = listed(each, ended)

    assert [row["custom_id"] for row in page["data"]] == ["a/1", "b?2", "c 3"]
    assert (page["total"], page["next_offset"], page["has_more"]) == (3, None, False)
