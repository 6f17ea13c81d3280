"""Forms that are sent twice, as by a double click or by loading the answer again: one batch comes of them."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.studio.conftest import Visitor
from tests.support.api import Api, chats
from tests.support.http import Reply

from overnight.testing.upstream import ScriptedUpstream, answer, by_text, error

CHAT = "/v1/chat/completions"


def hidden(html: str, name: str) -> list[str]:
    return re.findall(rf'<input type="hidden" name="{name}" value="([^"]*)"', html)


@pytest.fixture
def file_id(api: Api) -> str:
    return api.upload(chats(1, CHAT))


def create(visitor: Visitor, file_id: str, once: str, **changes: str) -> Reply:
    fields = {"file_id": file_id, "endpoint": CHAT, "window": "24h", "once": once, **changes}
    return visitor.submit("/studio/new", **fields)


def test_new_batch_that_is_sent_twice_is_made_once(visitor: Visitor, file_id: str):
    (once,) = hidden(visitor.page(f"/studio/new?file={file_id}"), "once")

    with ThreadPoolExecutor(2) as both:
        made = list(both.map(lambda _: create(visitor, file_id, once), range(2)))

    assert [reply.status for reply in made] == [303, 303]
    assert len({reply.headers["location"] for reply in made}) == 1


def test_each_form_makes_a_batch_of_its_own(visitor: Visitor, file_id: str):
    pages = [visitor.page(f"/studio/new?file={file_id}") for _ in range(2)]

    made = {create(visitor, file_id, *hidden(page, "once")).headers["location"] for page in pages}

    assert len(made) == 2


def test_form_that_was_refused_works_once_it_is_corrected(visitor: Visitor, file_id: str):
    (once,) = hidden(visitor.page(f"/studio/new?file={file_id}"), "once")
    refused = create(visitor, file_id, once, endpoint="/v1/nothing")
    assert refused.status == 400
    (shown_again,) = hidden(refused.body.decode(), "once")

    made = {create(visitor, file_id, token).headers.get("location", "") for token in (shown_again, shown_again)}

    assert len(made) == 1
    assert made.pop().startswith("/studio/batches/batch_")


def test_form_that_is_gone_back_to_and_changed_makes_another_batch(visitor: Visitor, file_id: str):
    (once,) = hidden(visitor.page(f"/studio/new?file={file_id}"), "once")

    made = [create(visitor, file_id, once, meta_key="name", meta_value=name) for name in ("one", "two", "one")]

    places = [reply.headers["location"] for reply in made]
    assert places[0] == places[2] != places[1]


def test_retry_that_is_sent_twice_is_made_once(visitor: Visitor, api: Api, upstream: ScriptedUpstream):
    upstream.script = by_text({"r-1": error(400, "no")}, answer())
    try:
        batch = str(api.run(chats(3, CHAT))["id"])
    finally:
        upstream.script = answer()
    page = visitor.page(f"/studio/batches/{batch}")
    (once,) = set(hidden(page, "once"))

    def retry(_: int) -> Reply:
        return visitor.submit(f"/studio/batches/{batch}/retry?which=failed", once=once)

    with ThreadPoolExecutor(2) as both:
        made = list(both.map(retry, range(2)))

    assert [reply.status for reply in made] == [303, 303]
    assert len({reply.headers["location"] for reply in made}) == 1


def test_two_kinds_of_retry_of_one_page_make_a_batch_each(visitor: Visitor, api: Api, upstream: ScriptedUpstream):
    upstream.script = by_text({"r-1": error(400, "no")}, answer())
    try:
        batch = str(api.run(chats(3, CHAT))["id"])
    finally:
        upstream.script = answer()
    (once,) = set(hidden(visitor.page(f"/studio/batches/{batch}"), "once"))

    paths = [f"/studio/batches/{batch}/retry?which={which}" for which in ("failed", "all_unfinished")]
    made = {visitor.submit(path, once=once).headers["location"] for path in paths}

    assert len(made) == 2
