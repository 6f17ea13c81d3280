"""What belongs to another resource does not exist: neither its content nor the fact that it is there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from tests.support.api import Api, chats
from tests.support.http import Http, Part, Reply
from tests.support.service import Service


@dataclass(frozen=True, slots=True, kw_only=True)
class Owned:
    """What the other resource has."""

    file: str
    batch: str
    ended: str
    output: str
    upload: str


@pytest.fixture
def owned(each: Api) -> Owned:
    ended = each.run(chats(1, each.prefix.endpoint))
    wish = {"bytes": 3, "filename": "a.jsonl", "mime_type": "application/jsonl", "purpose": "batch"}
    return Owned(
        file=each.upload(b"{}\n"),
        batch=each.create("file-1"),
        ended=ended["id"],
        output=ended["output_file_id"],
        upload=each.post("/uploads", wish).json()["id"],
    )


@pytest.fixture
def stranger(each: Api, new_key: Iterator[str]) -> Api:
    """Somebody with another key."""
    return Api(each.http.with_headers({"api-key": next(new_key)}), each.prefix)


Call = Callable[[Api, str], Reply]
PART = [Part(name="data", data="{}\n", filename="upload")]
CALLS: dict[str, tuple[str, Call]] = {
    "get file": ("file", lambda api, name: api.get(f"/files/{name}")),
    "read file": ("file", lambda api, name: api.get(f"/files/{name}/content")),
    "read output": ("output", lambda api, name: api.get(f"/files/{name}/content")),
    "delete file": ("file", lambda api, name: api.delete(f"/files/{name}")),
    "get batch": ("batch", lambda api, name: api.get(f"/batches/{name}")),
    "cancel batch": ("batch", lambda api, name: api.cancel(name)),
    "cancel ended batch": ("ended", lambda api, name: api.cancel(name)),
    "add part": ("upload", lambda api, name: api.post_form(f"/uploads/{name}/parts", PART)),
    "complete upload": ("upload", lambda api, name: api.post(f"/uploads/{name}/complete", {"part_ids": []})),
    "cancel upload": ("upload", lambda api, name: api.post(f"/uploads/{name}/cancel")),
    "files after": ("file", lambda api, name: api.get(f"/files?after={name}")),
    "batches after": ("batch", lambda api, name: api.get(f"/batches?after={name}")),
}


@pytest.mark.parametrize("name", CALLS, ids=lambda name: name.replace(" ", "-"))
def test_foreign_id_is_answered_like_one_that_there_never_was(each: Api, stranger: Api, owned: Owned, name: str):
    kind, call = CALLS[name]
    foreign = getattr(owned, kind)
    unknown = foreign[:-4] + ("0000" if foreign[-4:] != "0000" else "1111")

    given, expected = call(stranger, foreign), call(stranger, unknown)

    assert given.status == expected.status
    assert given.status in {400, 404}
    assert given.body.replace(foreign.encode(), unknown.encode()) == expected.body
    assert set(given.headers) == set(expected.headers)


def test_lists_show_only_what_is_ones_own(each: Api, stranger: Api, owned: Owned):
    assert stranger.get("/files").json()["data"] == []
    assert stranger.get("/batches").json()["data"] == []
    mine = stranger.upload(b"{}\n")
    assert [file["id"] for file in stranger.get("/files").json()["data"]] == [mine]


def test_batch_cannot_read_a_foreign_file(each: Api, stranger: Api, owned: Owned):
    batch = stranger.end(stranger.create(owned.file))

    (problem,) = batch["errors"]["data"]
    assert (problem["code"], problem["param"]) == ("invalid_request", "file_id")
    assert problem["message"].startswith(f"Cannot find file {owned.file}, or ")


def test_nothing_a_stranger_did_reached_the_owner(each: Api, stranger: Api, owned: Owned):
    for kind, call in CALLS.values():
        call(stranger, getattr(owned, kind))

    assert each.batch(owned.ended)["status"] == "completed"
    assert each.content(owned.file) == b"{}\n"
    assert each.end(owned.batch)["status"] == "failed"
    assert {owned.file, owned.output} <= {file["id"] for file in each.get("/files").json()["data"]}


def test_two_keys_of_one_resource_see_the_same(tmp_path, upstream):
    """A key is a way in, not an owner; a key without a resource opens the default one."""
    keys = tmp_path / "keys.txt"
    keys.write_text("# ours\nfirst-key team\nsecond-key team   # new\n\nlonely-key\n")
    with Service(tmp_path, upstreams=[upstream.url], arguments=["--keys-file", str(keys)]) as service:
        first, second, lonely = (
            Api(Http(service.url, {"api-key": key})) for key in ("first-key", "second-key", "lonely-key")
        )

        file_id = first.upload(b"{}\n")

        assert second.content(file_id) == b"{}\n"
        assert lonely.get(f"/files/{file_id}").status == 404


def test_any_key_is_taken_where_none_are_configured(tmp_path, upstream):
    with Service(tmp_path, upstreams=[upstream.url]) as service:
        http = Http(service.url)

        assert http.get("/v1/files").status == 200
        assert http.with_headers({"authorization": "Bearer anything"}).get("/v1/files").status == 200
        assert http.with_headers({"api-key": "anything"}).get("/openai/files?api-version=1").status == 200
