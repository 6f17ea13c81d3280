"""Every operation that the service says it has, called with what belongs to another resource.

The answers are compared byte for byte with those for ids that there never were. The operations come from the OpenAPI
document, so a new one is looked at without anybody thinking of it, and one with a new kind of id fails here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest
from tests.support.api import AZURE, AZURE_V1, DEPLOYMENTS, OPENAI, Api, Prefix, chats
from tests.support.http import Http, Part, Reply
from tests.support.service import Service

from overnight.bootstrap.keys import with_keys
from overnight.config import Settings
from overnight.domain.key import Scope
from overnight.services.keys import KeyService, NewKey

TAGS: Mapping[str, Prefix] = {"OpenAI": OPENAI, "Azure v1": AZURE_V1, "Azure": AZURE}
ADMIN = "Admin"
# Its routes are those of Azure's (dated) files, uploads and batches, and stand in no document.
ALIAS = "Azure deployments"
WALKED: Mapping[str, Prefix] = {**TAGS, ALIAS: DEPLOYMENTS}
# Nobody owns these: every resource sees the same models, `/ready` names the upstreams to all, and a custom_id means
# something within its batch only.
SHARED = {"model", "deployment", "upstream_id", "custom_id", "period", "measure"}
CURSORS = {
    "/batches": "batch_id",
    "/files": "file_id",
    "/webhook_endpoints": "webhook_endpoint_id",
    "/deliveries": "webhook_endpoint_id",
    "/resources": "resource_id",
    "/keys": "key_id",
    # Their cursors begin with a resource.
    "/quotas": "resource_id",
    "/caps": "resource_id",
    "/usage": "resource_id",
}
MASKS = (
    (re.compile(rb'("(?:created|expires|cancelling)_at"): ?\d+'), rb"\1:TIME"),
    (re.compile(rb'"id": ?"[^"]+"'), b'"id":"OWN"'),
)
# What operations cannot do without.
BODIES: Mapping[str, object] = {"/complete": {"part_ids": []}, "/test": {"event_type": "batch.failed"}}
VARYING = {"date", "x-request-id", "location"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A path, a method, and the kinds of the ids that it takes: in its path, as a cursor, in its body."""

    method: str
    path: str
    tag: str
    kinds: tuple[str, ...]
    cursor: str | None

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


def operations(document: Mapping[str, Any]) -> Iterator[Operation]:
    """Read the operations of a document, and add those of the alias."""
    for operation in documented(document):
        yield operation
        rest = operation.path.removeprefix(AZURE.path)
        if operation.tag == "Azure" and rest.startswith(("/files", "/uploads", "/batches")):
            yield replace(operation, path=DEPLOYMENTS.path + rest, tag=ALIAS)


def documented(document: Mapping[str, Any]) -> Iterator[Operation]:
    """Read the operations of a document."""
    for path, methods in document["paths"].items():
        for method, about in methods.items():
            parameters = about.get("parameters", [])
            taken = [each["name"] for each in parameters if each["in"] == "path"]
            has_cursor = any(each["name"] == "after" for each in parameters)
            cursor = next(kind for end, kind in CURSORS.items() if path.endswith(end)) if has_cursor else None
            kinds = tuple(name for name in taken if name not in SHARED)
            yield Operation(method=method.upper(), path=path, tag=about["tags"][0], kinds=kinds, cursor=cursor)


@pytest.fixture
def foreign(http: Http, shared_service: Service) -> dict[str, list[str]]:
    """What another resource has, by the name of the parameter that takes it."""
    api = Api(http, AZURE_V1)
    ended = api.run(chats(2, api.prefix.endpoint))
    wish = {"bytes": 3, "filename": "a.jsonl", "mime_type": "application/jsonl", "purpose": "batch"}
    upload = api.post("/uploads", wish).json()["id"]
    hook = {"name": "mine", "url": "https://example.com/hook", "event_types": ["batch.failed"]}
    part = api.post_form(f"/uploads/{upload}/parts", [Part(name="data", data="{}\n", filename="upload")])
    return {
        "file_id": [api.upload(b"{}\n"), ended["output_file_id"]],
        "batch_id": [ended["id"], api.create("file-1")],
        "upload_id": [upload],
        "part_id": [part.json()["id"]],
        **managed(shared_service),
        "webhook_endpoint_id": [api.post("/dashboard/webhook_endpoints", hook).json()["id"]],
    }


def managed(service: Service) -> dict[str, list[str]]:
    """What only an admin may see: a resource, and a key that opens it and one that manages it."""
    settings = Settings(data_dir=service.data_dir)

    async def make(keys: KeyService) -> list[str]:
        wanted = (NewKey(), NewKey(scopes=(Scope.ADMIN,)))
        return [(await keys.create(new)).key.id for new in wanted]

    return {"resource_id": ["resource-1"], "key_id": with_keys(settings, make)}


@pytest.fixture
def stranger(http: Http, new_key: Iterator[str]) -> Http:
    """Somebody with another key."""
    return http.with_headers({"api-key": next(new_key)})


@pytest.fixture(scope="module")
def document(shared_service: Service) -> dict[str, Any]:
    found: dict[str, Any] = Http(shared_service.url).get("/openapi.json").json()
    return found


def unknown(name: str) -> str:
    """Give an id that there never was, of the same form."""
    return name[:-4] + ("0000" if name[-4:] != "0000" else "1111")


def call(http: Http, operation: Operation, name: str) -> Reply:
    """Make one call with an id wherever the operation takes one."""
    query = WALKED[operation.tag].query if operation.tag in WALKED else ""
    path = operation.path
    for kind in operation.kinds:
        path = path.replace(f"{{{kind}}}", name)
    if operation.cursor:
        path += f"?after={name}"
    if query:
        path += ("&" if "?" in path else "?") + query
    if path.partition("?")[0].endswith("/parts"):
        return http.post_form(path, [Part(name="data", data="{}\n", filename="upload")])
    body = next((body for end, body in BODIES.items() if path.partition("?")[0].endswith(end)), {})
    return http.call(operation.method, path, json.dumps(body).encode() if operation.method == "POST" else None)


def masked(reply: Reply, name: str) -> tuple[int, bytes, dict[str, str]]:
    """Give all that an answer says but for ids, request ids and dates."""
    body = reply.body.replace(name.encode(), b"GIVEN")
    for found, shown in MASKS:
        body = found.sub(shown, body)
    headers = {key: "" if key in VARYING else value for key, value in reply.headers.items()}
    return reply.status, body, headers


def test_each_operation_answers_a_foreign_id_like_an_unknown_one(
    document: dict[str, Any], foreign: dict[str, list[str]], stranger: Http
):
    """Neither status nor body nor headers tell that it is there."""
    looked_at = 0
    for operation in operations(document):
        kinds = operation.kinds or ((operation.cursor,) if operation.cursor else ())
        for name in (name for kind in kinds for name in foreign[kind]):
            given, expected = (masked(call(stranger, operation, each), each) for each in (name, unknown(name)))
            looked_at += 1

            assert given == expected, operation
            assert given[0] in ({403} if operation.tag == ADMIN else {400, 404}), operation

    assert looked_at >= len(WALKED) * 16


def test_no_operation_without_an_id_shows_anything_of_another(
    document: dict[str, Any], foreign: dict[str, list[str]], stranger: Http
):
    """Lists, and whatever else there is to get."""
    names = [name.encode() for kind in foreign.values() for name in kind]
    for operation in operations(document):
        if operation.method == "GET" and not operation.kinds and "{" not in operation.path:
            prefix = WALKED.get(operation.tag)
            reply = stranger.get(operation.path + (f"?{prefix.query}" if prefix and prefix.query else ""))

            assert not any(name in reply.body for name in names), operation


@pytest.mark.parametrize("prefix", WALKED.values(), ids=lambda prefix: prefix.name)
def test_foreign_ids_in_bodies_are_answered_like_unknown_ones(
    foreign: dict[str, list[str]], stranger: Http, prefix: Prefix
):
    """The file of a batch, at once and after validation, and the parts of an upload."""
    api = Api(stranger, prefix)
    for file_id in foreign["file_id"]:
        ended = []
        for name in (file_id, unknown(file_id)):
            batch_id = api.create(name)
            api.end(batch_id)
            ended.append(masked(api.get(f"/batches/{batch_id}"), name))

        given, expected = (re.sub(rb'"(failed_at|in_progress_at)": ?\d+', b"", body) for _, body, _ in ended)

        assert given == expected

    wish = {"bytes": 3, "filename": "a.jsonl", "mime_type": "application/jsonl", "purpose": "batch"}
    upload = api.post("/uploads", wish).json()["id"]
    (part,) = foreign["part_id"]
    given_part, expected_part = (
        masked(api.post(f"/uploads/{upload}/complete", {"part_ids": [name]}), name) for name in (part, unknown(part))
    )

    assert given_part == expected_part
    assert given_part[0] == 400


def test_the_walk_knows_every_kind_of_id(document: dict[str, Any], foreign: dict[str, list[str]]):
    """A new kind has to be given an example that belongs to another."""
    kinds = {kind for operation in operations(document) for kind in operation.kinds}

    assert kinds == set(foreign) - {"part_id"}
    assert {operation.tag for operation in operations(document)} == {*WALKED, ADMIN, "Health"}


@pytest.mark.parametrize("prefix", WALKED.values(), ids=lambda prefix: prefix.name)
def test_pages_lead_through_ones_own_only(foreign: dict[str, list[str]], stranger: Http, prefix: Prefix):
    """However small they are, in whichever order, and though those of another were made in between."""
    api = Api(stranger, prefix)
    files = [api.upload(b"{}\n") for _ in range(3)]
    batches = [api.create(name) for name in files]
    found: dict[str, list[str]] = {}
    for kind, order in (("files", "order=asc"), ("files", "order=desc"), ("batches", "$orderby=created_at%20desc")):
        after: str | None = ""
        while after is not None:
            page = api.get(f"/{kind}?limit=1&{order}{after and '&after=' + after}").json()
            found.setdefault(f"{kind} {order}", []).extend(each["id"] for each in page["data"])
            after = page["last_id"] if page["has_more"] else None

    assert [files, files[::-1], batches[::-1]] == list(found.values())


def test_the_admin_api_answers_every_other_key_with_the_same_words(document: dict[str, Any], stranger: Http):
    """Whatever is asked for, there or not, and whatever is wrong with the call."""
    admin = [operation for operation in operations(document) if operation.tag == ADMIN]
    replies = [call(stranger, operation, "x") for operation in admin]
    replies += [stranger.get("/admin/nowhere"), stranger.delete("/admin/keys"), stranger.post("/admin/keys", [])]

    assert len(admin) >= 7
    assert {reply.status for reply in replies} == {403}
    assert len({reply.body for reply in replies}) == 1
