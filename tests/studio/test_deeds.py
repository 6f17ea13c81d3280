"""Deeds of the Studio count as the same requests to the API do, and what they need is asked for while they go on."""

from __future__ import annotations

import re
from pathlib import Path
from typing import cast

import pytest
from starlette.responses import Response
from starlette.types import Message, Receive
from tests.studio.in_process import KEY, TEAM, House
from tests.support.api import chats

from overnight.api.context import RESOURCE
from overnight.api.limits import Paced
from overnight.domain.flavour import Flavour
from overnight.domain.key import hash_of
from overnight.services.rates import Known
from overnight.studio.context import Caller

CHAT = "/v1/chat/completions"
MIB = 1024 * 1024


async def signed_in(folder: Path, *, requests: int | None = None, files: int | None = None) -> House:
    house = House(folder, requests=requests, files=files)
    await house.sign_in()
    return house


async def test_every_deed_takes_from_the_requests_of_the_key_and_pages_take_none(tmp_path: Path):
    house = await signed_in(tmp_path, requests=5)
    for path in ("/studio/upstreams", "/studio/files", "/studio/batches", "/studio/parts?topics=upstreams") * 3:
        assert (await house.get(path)).status == 200
    uploaded = await house.upload(chats(1, CHAT))
    file_id = re.findall(r"file-\w+", uploaded.body)[0]
    created = await house.submit("/studio/new", file_id=file_id, endpoint=CHAT)
    batch = created.headers["location"]
    cancelled = await house.submit(f"{batch}/cancel")
    retried = await house.submit(f"{batch}/retry?which=failed")
    deleted = await house.submit(f"/studio/files/{file_id}/delete")

    refused = await house.submit(f"{batch}/cancel")

    assert [each.status for each in (uploaded, created, cancelled, deleted)] == [201, 303, 303, 303]
    assert retried.status == 409
    assert (refused.status, refused.headers["retry-after"]) == (429, "12")
    assert "This key made more than 5 requests within a minute. Try again in 12 s." in refused.body
    assert (await house.upload(b"{}")).status == 429
    assert (await house.get("/studio/batches")).status == 200


async def test_requests_to_the_api_with_the_same_key_are_the_same_allowance(tmp_path: Path):
    house = await signed_in(tmp_path, requests=3)
    api = Paced(Response("{}"), house.allowances, Known())
    left: list[str] = []

    async def send(message: Message) -> None:
        left.extend(
            value.decode() for name, value in message.get("headers", ()) if name.endswith(b"remaining-requests")
        )

    headers = [(b"authorization", f"Bearer {KEY}".encode())]
    for _ in range(2):
        scope = {"type": "http", "method": "GET", "path": "/v1/batches", "headers": headers, "client": None}
        await api({**scope, RESOURCE: TEAM}, cast("Receive", None), send)
    answers = [await house.upload(b"{}") for _ in range(2)]

    assert left == ["2", "1"]
    assert [answer.status for answer in answers] == [201, 429]


async def test_deed_for_many_takes_one_for_each_and_can_go_on_later(tmp_path: Path):
    house = await signed_in(tmp_path, requests=4)
    ids = [re.findall(r"file-\w+", (await house.upload(b"{}")).body)[0] for _ in range(3)]
    token = re.findall(r'name="csrf" content="(\w+)"', (await house.get("/studio/upstreams")).body)[0]
    body = "&".join([f"csrf={token}", *(f"id={each}" for each in ids)]).encode()

    outcome = await house.call("POST", "/studio/files/delete", [body])

    assert "Deleted 1 file" in outcome.body
    assert "This key made more than 4 requests within a minute. Try again in 15 s." in outcome.body
    assert "Delete the other 2" in outcome.body


async def test_uploads_are_bounded_as_those_of_the_api(tmp_path: Path):
    house = await signed_in(tmp_path, files=1)
    with house.allowances.uploading(TEAM):
        beside_another = await house.upload(b"{}")
    house.clock.jump(60)
    first = await house.upload(b"{}")
    one_too_many = await house.upload(b"{}")

    assert "as may be at the same time" in beside_another.body
    assert [each.status for each in (beside_another, first, one_too_many)] == [429, 201, 429]
    assert "More than 1 files and uploads were begun within a minute" in one_too_many.body


@pytest.mark.parametrize(("revoked", "read"), [(2, 4), (5, 6)])
async def test_key_that_is_revoked_while_its_file_arrives_ends_the_upload(tmp_path: Path, revoked: int, read: int):
    """Asked for after each 16 MiB, and before the file counts."""
    house = await signed_in(tmp_path)
    key, arrived = house.callers[hash_of(KEY)], list[int]()

    def before(number: int) -> None:
        arrived.append(number)
        if number == revoked:
            house.callers.clear()

    reply = await house.upload(*[b"x" * (9 * MIB)] * 6, before=before)

    assert (reply.status, len(arrived)) == (401, read)
    house.callers[hash_of(KEY)] = key
    await house.sign_in()
    assert "No files yet" in (await house.get("/studio/files")).body


async def test_key_that_may_only_read_by_now_ends_the_upload(tmp_path: Path):
    house = await signed_in(tmp_path)

    def before(number: int) -> None:
        if number == 1:
            house.callers[hash_of(KEY)] = Caller(resource=TEAM, may_submit=False, may_operate=False)

    reply = await house.upload(b"{", b"}", before=before)

    assert reply.status == 403
    assert "No files yet" in (await house.get("/studio/files")).body


async def test_file_of_the_studio_counts_by_the_rules_of_openai(tmp_path: Path):
    house = await signed_in(tmp_path, files=1)
    house.allowances.count_file(TEAM, Flavour.OPENAI)

    assert (await house.upload(b"{}")).status == 429
