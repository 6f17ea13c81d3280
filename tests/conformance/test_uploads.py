"""Section 1.6 of the contract: files that arrive in parts."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from tests.support.api import AZURE, Api, chats
from tests.support.http import Http, Part, Reply

FIELDS = {"id", "object", "bytes", "created_at", "expires_at", "filename", "purpose", "status", "file"}
CONTENT = chats(4, "/v1/chat/completions")
# Cut in the middle of a line, as the SDK's helper does.
PIECES = (CONTENT[:101], CONTENT[101:202], CONTENT[202:])


def new_upload(**changes: object) -> dict[str, object]:
    """Give the body that announces the content."""
    body = {"bytes": len(CONTENT), "filename": "input.jsonl", "mime_type": "application/jsonl", "purpose": "batch"}
    return {name: value for name, value in {**body, **changes}.items() if value is not None}


def announce(api: Api, **changes: object) -> str:
    """Create an upload and give its id."""
    reply = api.post("/uploads", new_upload(**changes))
    assert reply.status == 200, reply
    return str(reply.json()["id"])


def send(api: Api, upload_id: str, data: bytes) -> Reply:
    """Add a part, with the name that SDKs give it."""
    part = Part(name="data", data=data, filename="upload", kind="application/octet-stream")
    return api.post_form(f"/uploads/{upload_id}/parts", [part])


def send_all(api: Api, upload_id: str) -> list[str]:
    """Add all parts, the last one first, and give their ids in the order of the content."""
    ids = [send(api, upload_id, piece).json()["id"] for piece in reversed(PIECES)]
    return ids[::-1]


def complete(api: Api, upload_id: str, part_ids: list[str], **more: object) -> Reply:
    """Complete an upload."""
    return api.post(f"/uploads/{upload_id}/complete", {"part_ids": part_ids, **more})


def test_new_upload_shows_every_field(each: Api):
    reply = each.post("/uploads", new_upload())

    upload = reply.json()
    assert reply.status == 200
    assert set(upload) >= FIELDS
    assert upload["id"].startswith("upload_")
    assert (upload["object"], upload["status"], upload["file"]) == ("upload", "pending", None)
    assert (upload["bytes"], upload["filename"], upload["purpose"]) == (len(CONTENT), "input.jsonl", "batch")
    life = 7_200 if each.prefix.azure else 3_600
    assert upload["expires_at"] == upload["created_at"] + life


def test_dated_azure_prefix_says_where_the_upload_is(http: Http):
    reply = Api(http, AZURE).post("/uploads", new_upload())

    assert f"/openai/uploads/{reply.json()['id']}" in reply.headers["location"]


def test_part_shows_every_field(each: Api):
    upload_id = announce(each)

    reply = send(each, upload_id, PIECES[0])

    part = reply.json()
    assert reply.status == 200
    assert set(part) >= {"id", "object", "created_at", "upload_id"}
    assert (part["object"], part["upload_id"]) == ("upload.part", upload_id)
    assert isinstance(part["created_at"], int)


@pytest.mark.parametrize("md5", [None, hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()], ids=["plain", "md5"])
def test_parts_are_put_together_in_the_order_named(each: Api, md5: str | None):
    upload_id = announce(each)
    part_ids = send_all(each, upload_id)

    reply = complete(each, upload_id, part_ids, **({} if md5 is None else {"md5": md5}))

    upload: dict[str, Any] = reply.json()
    assert (reply.status, upload["status"]) == (200, "completed")
    file = upload["file"]
    assert each.get(f"/files/{file['id']}").json() == file
    assert (file["status"], file["bytes"], file["filename"]) == ("processed", len(CONTENT), "input.jsonl")
    assert each.content(file["id"]) == CONTENT


def test_uploaded_parts_run_as_a_batch(each: Api):
    content = chats(3, each.prefix.endpoint)
    upload_id = announce(each, bytes=len(content))
    part_ids = [send(each, upload_id, piece).json()["id"] for piece in (content[:50], content[50:])]

    batch = each.end(each.create(complete(each, upload_id, part_ids).json()["file"]["id"]))

    assert batch["request_counts"] == {"total": 3, "completed": 3, "failed": 0}


def test_expiry_of_an_upload_is_that_of_its_file(each: Api):
    upload_id = announce(each, expires_after={"anchor": "created_at", "seconds": 1_209_600})

    file = complete(each, upload_id, send_all(each, upload_id)).json()["file"]

    assert file["expires_at"] == file["created_at"] + 1_209_600


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"bytes": None}, "bytes"),
        ({"filename": None}, "filename"),
        ({"mime_type": None}, "mime_type"),
        ({"purpose": None}, "purpose"),
        ({"purpose": "user_data"}, "purpose"),
        ({"bytes": -1}, "bytes"),
        ({"bytes": "many"}, "bytes"),
        ({"expires_after": {"anchor": "created_at", "seconds": 1}}, "expires_after.seconds"),
    ],
)
def test_wrong_announcement_is_refused(each: Api, change: dict[str, object], param: str):
    reply = each.post("/uploads", new_upload(**change))

    assert (reply.status, reply.json()["error"]["param"]) == (400, param)


def test_announcement_over_the_limit_is_refused(each: Api):
    reply = each.post("/uploads", new_upload(bytes=10 * 1024**3))

    assert reply.status in {400, 413}
    assert reply.json()["error"]["param"] == "bytes"


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda ids: ids[:-1], id="part-left-out"),
        pytest.param(lambda ids: [*ids, ids[0]], id="part-twice"),
        pytest.param(lambda ids: [*ids, "part_unknown"], id="unknown-part"),
        pytest.param(lambda ids: [], id="no-part"),
    ],
)
def test_upload_that_does_not_add_up_stays_open(each: Api, spoil):
    upload_id = announce(each)
    part_ids = send_all(each, upload_id)

    reply = complete(each, upload_id, spoil(part_ids))

    assert (reply.status, reply.json()["error"]["param"]) == (400, "part_ids")
    assert complete(each, upload_id, part_ids).json()["status"] == "completed"


def test_wrong_checksum_is_refused(each: Api):
    upload_id = announce(each)

    reply = complete(each, upload_id, send_all(each, upload_id), md5="0" * 32)

    assert (reply.status, reply.json()["error"]["param"]) == (400, "md5")
    assert each.get("/files").json()["data"] == []


@pytest.mark.parametrize("end", ["complete", "cancel"])
def test_nothing_can_be_done_with_an_upload_that_has_ended(each: Api, end: str):
    upload_id = announce(each)
    part_ids = send_all(each, upload_id)
    ended = complete(each, upload_id, part_ids) if end == "complete" else each.post(f"/uploads/{upload_id}/cancel")
    assert ended.json()["status"] == ("completed" if end == "complete" else "cancelled")

    refusals = [send(each, upload_id, b"x"), complete(each, upload_id, part_ids)]

    assert [400 <= reply.status < 500 for reply in refusals] == [True, True]
    # SDKs repeat a 409 unless they are told not to.
    assert all(reply.status != 409 or reply.headers["x-should-retry"] == "false" for reply in refusals)


def test_cancelled_upload_shows_every_field(each: Api):
    upload = each.post(f"/uploads/{announce(each)}/cancel").json()

    assert set(upload) >= FIELDS
    assert (upload["status"], upload["file"]) == ("cancelled", None)


def test_form_without_data_is_refused(each: Api):
    reply = each.post_form(f"/uploads/{announce(each)}/parts", [Part(name="other", data="x", filename="upload")])

    assert (reply.status, reply.json()["error"]["param"]) == (400, "data")


def test_empty_upload_is_judged_like_an_empty_file(http: Http):
    """Azure takes it and fails the batch."""
    api = Api(http, AZURE)
    upload_id = announce(api, bytes=0)

    reply = complete(api, upload_id, [])

    assert reply.status == 200
    assert reply.json()["file"]["bytes"] == 0
