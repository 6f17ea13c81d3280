"""Sections 1.5, 1.7, 5.4 and 6.2 of the contract: files as clients send them, show them, read and delete them."""

from __future__ import annotations

import os
import resource
from pathlib import Path
from urllib.parse import unquote

import pytest
from tests.support.api import AZURE, AZURE_V1, OPENAI, Api, Prefix, chats
from tests.support.http import Http, Part, Reply
from tests.support.service import Service

from overnight.testing.upstream import ScriptedUpstream

FIELDS = {
    "id",
    "object",
    "bytes",
    "created_at",
    "expires_at",
    "filename",
    "purpose",
    "status",
    "status_details",
}
CONTENT = chats(2, "/v1/chat/completions")
FILE = Part(name="file", data=CONTENT, filename="input.jsonl", kind="application/octet-stream")
BATCH = Part(name="purpose", data="batch")

ANCHOR, SECONDS = "created_at", "1209600"
EVALS = Part(name="purpose", data="evals")
BRACKETS = [Part(name="expires_after[seconds]", data=SECONDS), Part(name="expires_after[anchor]", data=ANCHOR)]
DOTS = [Part(name="expires_after.seconds", data=SECONDS), Part(name="expires_after.anchor", data=ANCHOR)]


def test_new_file_shows_every_field_and_can_be_used_at_once(each: Api):
    reply = each.post_form("/files", [BATCH, FILE])

    file = reply.json()
    assert reply.status == each.prefix.file_created
    assert set(file) >= FIELDS
    assert file["id"].startswith("file-")
    assert (file["object"], file["purpose"], file["status"]) == ("file", "batch", "processed")
    assert (file["bytes"], file["filename"], file["status_details"]) == (len(CONTENT), "input.jsonl", None)
    assert isinstance(file["created_at"], int)
    assert each.get(f"/files/{file['id']}").json() == file


def test_dated_azure_prefix_says_where_the_file_is(http: Http):
    api = Api(http, AZURE)

    reply = api.post_form("/files", [BATCH, FILE])

    place = reply.headers["location"]
    assert place.partition("://")[2].partition("/")[2].startswith(f"openai/files/{reply.json()['id']}")


@pytest.mark.parametrize("prefix", [OPENAI, AZURE_V1], ids=lambda prefix: prefix.name)
def test_other_prefixes_send_no_location(http: Http, prefix: Prefix):
    assert "location" not in Api(http, prefix).post_form("/files", [BATCH, FILE]).headers


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param([BATCH, FILE], id="purpose-first"),
        pytest.param([FILE, BATCH], id="file-first"),
        pytest.param([FILE, *BRACKETS, BATCH], id="file-then-brackets"),
        pytest.param([Part(name="colour", data="red"), BATCH, FILE], id="unknown-field"),
    ],
)
def test_parts_may_come_in_any_order(each: Api, parts: list[Part]):
    reply = each.post_form("/files", parts)

    assert reply.status == each.prefix.file_created
    assert each.content(reply.json()["id"]) == CONTENT


@pytest.mark.parametrize("wish", [BRACKETS, DOTS, BRACKETS[::-1], DOTS[::-1]])
def test_expiry_is_read_in_both_encodings(each: Api, wish: list[Part]):
    file = each.post_form("/files", [*wish, BATCH, FILE]).json()

    assert file["expires_at"] == file["created_at"] + int(SECONDS)


def test_batch_file_expires_after_30_days_on_openai_unless_asked(api: Api):
    batch, evals = (api.post_form("/files", [purpose, FILE]).json() for purpose in (BATCH, EVALS))

    assert batch["expires_at"] == batch["created_at"] + 2_592_000
    assert evals["expires_at"] is None


@pytest.mark.parametrize("prefix", [AZURE, AZURE_V1], ids=lambda prefix: prefix.name)
def test_file_never_expires_on_azure_unless_asked(http: Http, prefix: Prefix):
    assert Api(http, prefix).post_form("/files", [BATCH, FILE]).json()["expires_at"] is None


@pytest.mark.parametrize(
    ("prefix", "seconds", "taken"),
    [
        (OPENAI, 3_599, False),
        (OPENAI, 3_600, True),
        (OPENAI, 2_592_000, True),
        (OPENAI, 2_592_001, False),
        (AZURE, 1_209_599, False),
        (AZURE, 1_209_600, True),
        (AZURE, 2_592_000, True),
        (AZURE, 2_592_001, False),
        (AZURE_V1, 1_209_599, False),
        (AZURE_V1, 1_209_600, True),
        (OPENAI, "soon", False),
        (OPENAI, -1, False),
        (OPENAI, "", False),
        (OPENAI, "3600.5", False),
        (OPENAI, "9" * 5_000, False),
    ],
)
def test_expiry_has_the_range_of_its_flavour(http: Http, prefix: Prefix, seconds: object, taken: bool):
    wish = [Part(name="expires_after[seconds]", data=str(seconds)), BRACKETS[1]]

    reply = Api(http, prefix).post_form("/files", [*wish, BATCH, FILE])

    assert reply.status == (prefix.file_created if taken else 400)
    if not taken:
        assert reply.json()["error"]["param"] == "expires_after.seconds"


def test_foreign_anchor_is_refused(each: Api):
    wish = [BRACKETS[0], Part(name="expires_after[anchor]", data="last_active_at")]

    reply = each.post_form("/files", [*wish, BATCH, FILE])

    assert (reply.status, reply.json()["error"]["param"]) == (400, "expires_after.anchor")


@pytest.mark.parametrize(
    "name",
    [
        "input.jsonl",
        "INPUT.JSONL",
        "Prüfung – 試験.jsonl",
        "with space.jsonl",
        "a;b=c.jsonl",
        "two.dots.jsonl",
        "upload",
    ],
)
def test_names_come_back_as_they_went_out(each: Api, name: str):
    """SDKs send them as plain UTF-8, and call raw bytes just `upload`."""
    file = each.post_form("/files", [BATCH, Part(name="file", data=CONTENT, filename=name)]).json()

    assert file["filename"] == name
    shown = each.get(f"/files/{file['id']}/content").headers["content-disposition"]
    assert shown.startswith("attachment;")
    assert name in unquote(shown)


@pytest.mark.parametrize(
    "kind", ["application/octet-stream", "application/json", "text/plain", "application/jsonl", None]
)
def test_content_type_of_the_part_does_not_matter(each: Api, kind: str | None):
    reply = each.post_form("/files", [BATCH, Part(name="file", data=CONTENT, filename="a.jsonl", kind=kind)])

    assert reply.status == each.prefix.file_created


def test_wrong_suffix_is_no_jsonl_on_openai(api: Api):
    reply = api.post_form("/files", [BATCH, Part(name="file", data=CONTENT, filename="a.csv")])

    assert (reply.status, reply.json()["error"]["message"]) == (
        400,
        "Invalid file format for Batch API. Must be .jsonl",
    )
    assert reply.json()["error"]["param"] is None
    assert reply.json()["error"]["code"] is None


def test_other_purposes_take_any_name_and_any_bytes(each: Api):
    data = os.urandom(100_000) + b"\r\n--" + b"\r\n------overnight-test\r\n"
    purpose = Part(name="purpose", data="assistants")

    reply = each.post_form("/files", [purpose, Part(name="file", data=data, filename="a.bin")])

    assert reply.status == each.prefix.file_created
    assert each.content(reply.json()["id"]) == data


@pytest.mark.parametrize("missing", ["purpose", "file"])
def test_missing_part_is_named(each: Api, missing: str):
    parts = [part for part in (BATCH, FILE) if part.name != missing]

    error = each.post_form("/files", parts).json()["error"]

    assert (error["param"], error["code"]) == (missing, "missing_required_parameter")
    assert missing in error["message"]


@pytest.mark.parametrize("purpose", ["nonsense", "batch_output", ""])
def test_purpose_that_callers_may_not_use_is_refused(each: Api, purpose: str):
    reply = each.post_form("/files", [Part(name="purpose", data=purpose), FILE])

    assert (reply.status, reply.json()["error"]["param"]) == (400, "purpose")


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", "multipart/form-data"),
        (b"", "multipart/form-data; boundary=x"),
        (b"--x\r\n", "multipart/form-data; boundary=x"),
        (b"nonsense", "multipart/form-data; boundary=x"),
        (b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\nabc', "multipart/form-data; boundary=x"),
        (b"{}", "application/json"),
        (b"", ""),
    ],
)
def test_body_that_is_no_form_is_a_mistake_of_the_client(each: Api, body: bytes, kind: str):
    reply = each.http.call("POST", each.prefix.url("/files"), body, {"content-type": kind})

    assert reply.status == 400
    assert reply.json()["error"]["message"]
    assert each.get("/files").json()["data"] == []


def test_content_is_raw_bytes_with_their_length(each: Api):
    file_id = each.upload(CONTENT)

    reply = each.get(f"/files/{file_id}/content")

    assert (reply.status, reply.body) == (200, CONTENT)
    assert reply.headers["content-type"] == "application/octet-stream"
    assert reply.headers["content-length"] == str(len(CONTENT))


def test_deleted_file_is_gone(each: Api):
    file_id = each.upload(CONTENT)

    reply = each.delete(f"/files/{file_id}")

    assert (reply.status, reply.json()) == (200, {"id": file_id, "object": "file", "deleted": True})
    gone = [each.get(f"/files/{file_id}"), each.get(f"/files/{file_id}/content"), each.delete(f"/files/{file_id}")]
    assert [reply.status for reply in gone] == [404, 404, 404]
    assert each.get("/files").json()["data"] == []


def test_deleting_the_input_does_not_hurt_the_batch(each: Api):
    """A peer's results broke (contract section 7, row 25)."""
    batch = each.run(chats(2, each.prefix.endpoint))

    each.delete(f"/files/{batch['input_file_id']}")

    output, _ = each.results(each.batch(batch["id"]))
    assert [line["custom_id"] for line in output] == ["r-0", "r-1"]


def test_result_files_can_be_deleted(each: Api):
    batch = each.run(chats(1, each.prefix.endpoint))

    assert each.delete(f"/files/{batch['output_file_id']}").json()["deleted"] is True
    assert each.get(f"/files/{batch['output_file_id']}/content").status == 404


def test_every_reply_has_a_request_id_of_its_own(each: Api):
    file_id = each.upload(CONTENT)
    replies: list[Reply] = [
        each.get("/files"),
        each.get(f"/files/{file_id}"),
        each.get(f"/files/{file_id}/content"),
        each.get("/files/nothing"),
        each.get("/batches"),
        each.get("/nothing"),
        each.post("/batches", {}),
        each.delete(f"/files/{file_id}"),
    ]

    ids = [reply.headers["x-request-id"] for reply in replies]

    assert all(ids)
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize(
    "path",
    [
        "//v1/files",
        "/v1//files",
        "//openai//files?api-version=2024-10-21",
        "///openai/deployments/d//files?api-version=2024-10-21",
        "/openai//v1/files",
        "/openai/files",
        "/openai/files?api-version=preview",
        "/openai/files?api-version=1999-01-01",
        "/openai/v1/files",
        "/openai/v1/files?api-version=preview",
        "/openai/v1/files?api-version=v1",
        "/openai/deployments/a-name/files?api-version=2024-07-01-preview",
    ],
)
def test_paths_that_clients_really_send_are_understood(http: Http, path: str):
    """Double slashes come from 1.40.0 behind an endpoint that ends in a slash; any api-version is taken."""
    reply = http.get(path)

    assert reply.status == 200, reply
    assert reply.json()["object"] == "list"


def test_a_large_file_may_have_a_slash_too_many_in_its_path(http: Http):
    """Bodies that are read whole may have 1 MiB at most, and what is one is told by the path."""
    file = Part(name="file", data=b"x" * 2 * 1024 * 1024, filename="large.txt", kind="application/octet-stream")
    reply = http.post_form("/v1//files", [Part(name="purpose", data="user_data"), file])

    assert reply.status == 200, reply


@pytest.mark.parametrize(
    "headers",
    [
        lambda key: {"api-key": key},
        lambda key: {"authorization": f"Bearer {key}"},
        lambda key: {"authorization": f"bearer {key}"},
        lambda key: {"api-key": key, "authorization": f"Bearer {key}"},
        lambda key: {"api-key": key, "authorization": "Bearer something-else"},
    ],
    ids=["api-key", "bearer", "lower-case", "both", "api-key-wins"],
)
def test_both_kinds_of_key_are_taken_on_every_prefix(each: Api, new_key, headers):
    stranger = Api(each.http.with_headers(headers(next(new_key))), each.prefix)

    assert stranger.get("/files").status == 200


def test_get_with_a_content_type_is_fine(each: Api):
    """1.40.0 sends one with every request."""
    reply = each.http.get(each.prefix.url("/batches"), {"content-type": "application/json"})

    assert reply.status == 200


def test_file_without_room_is_refused_and_smaller_ones_still_work(upstream: ScriptedUpstream, tmp_path: Path):
    """Whether its bytes run out of room on their way, or only when the last of them are stored."""
    room = 3_500_000
    with Service(tmp_path, upstreams=[upstream.url]) as service:
        api = Api(Http(service.url), OPENAI)
        # No file may grow beyond the limit, as on a disk that is full.
        resource.prlimit(service.pid, resource.RLIMIT_FSIZE, (room, room))
        replies = [
            api.post_form("/files", [BATCH, Part(name="file", data=CONTENT.ljust(size), filename="input.jsonl")])
            for size in (4 * room, room + 1, room)
        ]

        assert [reply.status for reply in replies] == [503, 503, 200]
        assert "no room left" in replies[0].json()["error"]["message"]
        assert replies[0].json() == replies[1].json()
        assert len(list((service.data_dir / "blobs" / "files").iterdir())) == 1
