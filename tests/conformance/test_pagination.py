"""Section 1.8 of the contract: lists, in pages that end."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from tests.support.api import AZURE, Api, chats
from tests.support.http import Http

EMPTY: dict[str, object] = {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}


def page(api: Api, rest: str) -> dict[str, Any]:
    """Get a page and check what is true of every page."""
    reply = api.get(rest)
    assert reply.status == 200, reply
    content: dict[str, Any] = reply.json()
    assert set(content) == {"object", "data", "first_id", "last_id", "has_more"}
    assert content["object"] == "list"
    ids = ids_of(content)
    assert (content["first_id"], content["last_id"]) == ((ids[0], ids[-1]) if ids else (None, None))
    return content


def ids_of(content: dict[str, Any]) -> list[str]:
    """Give the ids on a page."""
    return [row["id"] for row in content["data"]]


def walk(api: Api, rest: str) -> list[str]:
    """List as SDKs before 1.62 do: until a page is empty, whatever ``has_more`` says."""
    found: list[str] = []
    after = ""
    for _ in range(100):
        content = page(api, f"{rest}{after}")
        if not content["data"]:
            return found
        found += ids_of(content)
        after = f"&after={found[-1]}"
    raise AssertionError(f"the list does not end: {found}")


@pytest.fixture
def files(each: Api) -> list[str]:
    """Five files, oldest first; two are not for batches."""
    purposes = ("batch", "batch", "assistants", "batch", "user_data")
    return [each.upload(chats(1, each.prefix.endpoint), f"{place}.jsonl", kind) for place, kind in enumerate(purposes)]


@pytest.fixture
def batches(each: Api) -> list[str]:
    """Five batches, oldest first, made within the same second or two."""
    return [each.create(f"file-{number}") for number in range(5)]


@pytest.mark.parametrize("kind", ["batches", "files"])
def test_empty_list_has_no_first_and_no_last(each: Api, kind: str):
    assert page(each, f"/{kind}") == EMPTY


def test_batches_are_listed_newest_first(each: Api, batches: list[str]):
    content = page(each, "/batches")

    assert ids_of(content) == batches[::-1]
    assert content["has_more"] is False


def test_files_are_listed_newest_first(each: Api, files: list[str]):
    content = page(each, "/files")

    assert ids_of(content) == files[::-1]
    assert content["has_more"] is False


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 6])
def test_every_batch_is_on_one_page(each: Api, batches: list[str], limit: int):
    assert walk(each, f"/batches?limit={limit}") == batches[::-1]


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 6])
def test_every_file_is_on_one_page(each: Api, files: list[str], limit: int):
    assert walk(each, f"/files?limit={limit}") == files[::-1]


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_files_are_listed_oldest_first_when_asked(each: Api, files: list[str], limit: int):
    assert walk(each, f"/files?limit={limit}&order=asc") == files


def test_order_may_be_named(each: Api, files: list[str]):
    assert ids_of(page(each, "/files?order=desc")) == files[::-1]


def test_unknown_order_is_refused(each: Api):
    assert each.get("/files?order=sideways").status == 400


@pytest.mark.parametrize("kind", ["batches", "files"])
def test_page_says_whether_more_follow(each: Api, kind: str, batches: list[str], files: list[str]):
    newest_first = {"batches": batches, "files": files}[kind][::-1]

    def more(limit: int, after: str = "") -> bool:
        return bool(page(each, f"/{kind}?limit={limit}{after}")["has_more"])

    assert [more(limit) for limit in (1, 4, 5, 6)] == [True, True, False, False]
    assert more(2, f"&after={newest_first[1]}") is True
    assert more(2, f"&after={newest_first[2]}") is False


@pytest.mark.parametrize("kind", ["batches", "files"])
def test_page_after_the_last_object_is_empty(each: Api, kind: str, batches: list[str], files: list[str]):
    oldest = {"batches": batches, "files": files}[kind][0]

    assert page(each, f"/{kind}?after={oldest}") == EMPTY


def test_limit_of_zero_gives_an_empty_page_of_batches(each: Api, batches: list[str]):
    content = page(each, "/batches?limit=0")

    assert content["data"] == []


def test_files_are_filtered_by_purpose(each: Api, files: list[str]):
    assert walk(each, "/files?limit=1&purpose=batch") == [files[3], files[1], files[0]]
    assert ids_of(page(each, "/files?purpose=assistants")) == [files[2]]
    assert page(each, "/files?purpose=vision") == EMPTY


def test_result_files_can_be_told_from_inputs(each: Api):
    batch = each.run(chats(1, each.prefix.endpoint))

    assert batch["output_file_id"] in ids_of(page(each, "/files?purpose=batch_output"))
    assert ids_of(page(each, "/files?purpose=batch")) == [batch["input_file_id"]]


def test_batches_come_twenty_at_a_time(api: Api):
    made = [api.create("file-1") for _ in range(21)]

    content = page(api, "/batches")

    assert ids_of(content) == made[:0:-1]
    assert content["has_more"] is True


def test_list_goes_on_after_a_file_that_was_deleted_meanwhile(each: Api, files: list[str]):
    """A client that deletes while it lists, page by page, must see every file."""
    first = page(each, "/files?limit=2")
    each.delete(f"/files/{first['last_id']}")

    reply = each.get(f"/files?limit=2&after={first['last_id']}")

    assert reply.status in {200, 400}
    if reply.status == 200:
        assert ids_of(reply.json()) == files[2:0:-1]


def test_rows_on_a_page_are_the_objects_themselves(each: Api, files: list[str]):
    batch = each.end(each.create("file-1"))

    assert page(each, "/batches")["data"] == [batch]
    assert page(each, f"/files?limit=1&after={files[1]}")["data"] == [each.get(f"/files/{files[0]}").json()]


@pytest.fixture
def azure(http: Http) -> Api:
    return Api(http, AZURE)


@pytest.mark.parametrize(
    ("condition", "matches"),
    [
        ("status eq 'Completed'", [True, False]),
        ("status eq 'completed'", [True, False]),
        ("status ne 'Failed'", [True, False]),
        ("created_at gt 1728860560", [True, True]),
        ("created_at lt 1728860560", [False, False]),
        ("created_at gt 1728860560 and status eq 'Failed'", [False, True]),
    ],
)
def test_azure_filters_batches(azure: Api, condition: str, matches: list[bool]):
    """An option of Azure's preview; the status is capitalised there."""
    batches = [azure.run(chats(1, "/chat/completions")), azure.end(azure.create("file-1"))]

    content = page(azure, f"/batches?$filter={quote(condition)}")

    assert ids_of(content) == [batch["id"] for batch, matched in zip(batches, matches, strict=True) if matched][::-1]


def test_azure_lists_batches_oldest_first_when_asked(azure: Api):
    made = [azure.create(f"file-{number}") for number in range(3)]

    assert walk(azure, f"/batches?limit=2&$orderby={quote('created_at asc')}") == made
