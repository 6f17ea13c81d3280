"""Pages through HTTP: what they show in each state, what they escape, and what they refuse."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from tests.studio.conftest import BLUE, Visitor
from tests.support.api import Api, chats, jsonl, request
from tests.support.service import Service

from overnight.testing.upstream import ScriptedUpstream, answer, by_text, error

CHAT = "/v1/chat/completions"
PAGES = ("/studio", "/studio/batches", "/studio/files", "/studio/upstreams", "/studio/system", "/studio/new")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
    " font-src 'none'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)> \x1b[31mred\u202egnp.exe"
VOID = {"area", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "wbr", "rect", "path", "circle"}


class Outline(HTMLParser):
    """The tags of a page: whether each closes, which ids there are, and what would run."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.strays: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.dangerous: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        self._look_at(tag, attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._look_at(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        if self.open and self.open[-1] == tag:
            self.open.pop()
        else:
            self.strays.append(tag)

    def _look_at(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = dict(attrs)
        self.ids += [value for name, value in attrs if name == "id" and value]
        inline = tag == "style" or (tag == "script" and "src" not in names)
        if inline or any(name == "style" or name.startswith("on") for name in names):
            self.dangerous.append(tag)


@pytest.mark.parametrize("path", PAGES)
def test_every_page_is_well_formed_and_holds_nothing_inline(visitor: Visitor, path: str):
    outline = Outline(visitor.page(path))

    assert (outline.open, outline.strays, outline.dangerous) == ([], [], [])
    assert sorted(outline.ids) == sorted(set(outline.ids))
    assert outline.tags.count("h1") == 1


@pytest.mark.parametrize("path", [*PAGES, "/studio/nothing", "/studio/static/studio.css", "/"])
def test_every_answer_carries_the_policy(visitor: Visitor, path: str):
    headers = visitor.get(path).headers

    assert headers["content-security-policy"] == POLICY
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"


def test_the_root_leads_to_the_studio(visitor: Visitor):
    reply = visitor.get("/")

    assert (reply.status, reply.headers["location"]) == (307, "/studio")


def test_static_files_are_kept_for_ever_under_their_own_hash(visitor: Visitor):
    versioned = re.findall(r'(?:src|href)="(/studio/static/[^"]+)"', visitor.page("/studio"))
    replies = [visitor.get(path) for path in versioned]

    assert len(versioned) >= 6
    assert {reply.status for reply in replies} == {200}
    assert {reply.headers["cache-control"] for reply in replies} == {"public, max-age=31536000, immutable"}
    assert visitor.get("/studio/static/studio.css").headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("name", ["../app.py", "%2e%2e/app.py", "nothing.css", "vendor/../../app.py", ""])
def test_no_other_file_is_given_out(visitor: Visitor, name: str):
    assert visitor.get(f"/studio/static/{name}").status == 404


def test_pages_are_not_kept(visitor: Visitor):
    assert visitor.get("/studio/batches").headers["cache-control"] == "no-store"


def test_first_run_shows_what_to_do_with_this_servers_url(newcomer: Visitor):
    page = newcomer.page("/studio/batches")

    assert "No batches yet" in page
    assert re.search(r"overnight --url http://127\.0\.0\.1:\d+/v1 run requests\.jsonl", page)
    assert "No files yet" in newcomer.page("/studio/files")
    assert "No batches yet" in newcomer.page("/studio")


def test_nothing_that_matches_is_told_apart_from_nothing_at_all(visitor: Visitor, api: Api):
    api.run(chats(1, CHAT))

    page = visitor.page("/studio/batches?q=model%3Aelsewhere")

    assert "Nothing matches" in page
    assert "Clear filters" in page


def test_batch_with_failures_never_looks_like_a_success(visitor: Visitor, api: Api, upstream: ScriptedUpstream):
    upstream.script = by_text({"r-1": error(400, "no")}, answer())
    try:
        batch = api.run(chats(3, CHAT), metadata={"name": "with failures"})
    finally:
        upstream.script = answer()

    for page in (visitor.page("/studio/batches"), visitor.page(f"/studio/batches/{batch['id']}")):
        assert "Completed with failures" in page
        assert "2 succeeded, 1 failed" in page
    assert f'href="/studio/files/{batch["error_file_id"]}"' in visitor.page(f"/studio/batches/{batch['id']}")


def test_refused_input_shows_every_problem_with_its_line(visitor: Visitor, api: Api):
    batch = api.run(jsonl(request("a", CHAT), b"no json", request("a", CHAT)))

    page = visitor.page(f"/studio/batches/{batch['id']}")

    assert "Failed validation" in page
    assert "invalid_json_line" in page
    assert "duplicate_custom_id" in page


def test_hostile_names_are_text(visitor: Visitor, api: Api):
    file_id = api.upload(chats(1, CHAT), filename="a<script>b.jsonl")
    batch = api.end(api.create(file_id, metadata={"name": HOSTILE, "<b>": "</dl>"}))

    for path in (
        "/studio",
        "/studio/batches",
        f"/studio/batches/{batch['id']}",
        "/studio/files",
        f"/studio/files/{file_id}",
        f"/studio/new?from={batch['id']}",
        f"/studio/parts?topics=overview,batches,batch:{batch['id']}",
    ):
        page = visitor.page(path)
        outline = Outline(page)

        assert (outline.open, outline.strays, outline.dangerous) == ([], [], []), path
        assert "img" not in outline.tags, path
    shown = visitor.page(f"/studio/batches/{batch['id']}")
    assert "\x1b" not in shown
    assert "\u202e" not in shown


def test_prompts_are_text_and_steer_nothing(visitor: Visitor, api: Api):
    line = json.dumps(request("a", CHAT), ensure_ascii=False).replace("hello", "x").encode()
    file_id = api.upload(line + b"\n" + HOSTILE.encode() + b"\n")

    page = visitor.page(f"/studio/files/{file_id}")

    assert "&lt;script&gt;alert(1)" in page
    assert "␛[31mred⟨U+202E⟩gnp.exe" in page
    assert Outline(page).dangerous == []


def test_files_are_paged_by_byte_offsets(visitor: Visitor, api: Api):
    file_id = api.upload(chats(250, CHAT))
    seen: list[str] = []
    path: str | None = f"/studio/files/{file_id}"
    while path is not None:
        page = visitor.page(path)
        seen += re.findall(r"&#34;custom_id&#34;: &#34;(r-\d+)&#34;", page)
        following = re.search(r'rel="next" href="([^"]+)"', page)
        path = following[1] if following else None

    assert seen == [f"r-{number}" for number in range(250)]


def test_files_are_stored_never_shown(visitor: Visitor, api: Api):
    reply = visitor.get(f"/studio/files/{api.upload(chats(1, CHAT), filename='a b.jsonl')}/content")

    assert reply.headers["content-disposition"] == "attachment; filename*=UTF-8''a%20b.jsonl"
    assert reply.headers["content-type"] == "application/octet-stream"
    assert reply.body == chats(1, CHAT)


def test_batches_are_paged_without_gaps(visitor: Visitor, api: Api):
    made = [api.create(api.upload(chats(1, CHAT)), metadata={"paging": "yes"}) for _ in range(53)]
    seen: list[str] = []
    path: str | None = "/studio/batches?q=meta.paging%3Ayes&first=active"
    while path is not None:
        page = visitor.page(path)
        tabs = re.findall(r'<a href="/studio/batches\?([^"]+)"', page)
        assert [("paging" in tab, "first=active" in tab) for tab in tabs] == [(True, True)] * 3
        seen += re.findall(r'<tr role="row" id="row-(batch_\w+)"', page)
        following = re.search(r'rel="next" href="([^"]+)"', page)
        path = following[1].replace("&amp;", "&") if following else None

    assert seen == list(reversed(made))


def test_filter_that_is_not_understood_is_told(visitor: Visitor, api: Api):
    api.run(chats(1, CHAT))

    page = visitor.page("/studio/batches?q=colour%3Ared")

    assert "Not understood, so left out: colour:red" in page


@pytest.mark.parametrize(
    "path",
    [
        "/studio/batches/batch_none",
        "/studio/files/file-none",
        "/studio/files/file-none/content",
        "/studio/new?from=batch_none",
        "/studio/nothing",
    ],
)
def test_what_is_not_there_has_a_page_that_says_so(visitor: Visitor, path: str):
    reply = visitor.get(path)

    assert reply.status == 404
    assert b"<h1" in reply.body


def test_cursor_of_nobody_is_refused_on_a_page(visitor: Visitor):
    assert visitor.get("/studio/batches?after=batch_none").status == 400


def test_file_is_uploaded_used_and_deleted(visitor: Visitor):
    upload = visitor.http.call(
        "POST", "/studio/upload?name=mine.jsonl", chats(2, CHAT), {"x-csrf-token": visitor.token()}
    )
    file_id = upload.json()["id"]
    form = visitor.page(upload.json()["next"])
    created = visitor.submit(
        "/studio/new",
        file_id=file_id,
        endpoint=CHAT,
        window="24h",
        flavour="openai",
        meta_key="name",
        meta_value="mine",
    )
    deleted = visitor.submit(f"/studio/files/{file_id}/delete")

    assert (upload.status, created.status, deleted.status) == (201, 303, 303)
    assert "mine.jsonl" in form
    assert "mine" in visitor.page(created.headers["location"])
    assert visitor.get(f"/studio/files/{file_id}").status == 404


def test_upload_that_is_no_jsonl_is_refused_in_words(visitor: Visitor):
    reply = visitor.http.call("POST", "/studio/upload?name=a.txt", b"hello", {"x-csrf-token": visitor.token()})

    assert reply.status == 400
    assert reply.json() == {"error": "Invalid file format for Batch API. Must be .jsonl"}


def test_a_batch_is_made_once_more_with_its_metadata(visitor: Visitor, api: Api):
    """Also if the file is checked with the page, without scripts."""
    batch = api.run(chats(1, CHAT), metadata={"team": "night shift"})

    form = visitor.page(f"/studio/new?from={batch['id']}")
    (query,) = re.findall(r'href="/studio/new\?([^"]*check=1[^"]*)"', form)
    checked = visitor.page(f"/studio/new?{query.replace('&amp;', '&')}")

    assert ("night shift" in form, "night shift" in checked) == (True, True)
    assert "1 request, no problems" in checked


def test_empty_form_and_the_same_as_code_name_one_endpoint(visitor: Visitor):
    page = visitor.page("/studio/new")

    assert "<option selected>/v1/chat/completions</option>" in page
    assert "--endpoint /v1/chat/completions" in page


def test_form_without_a_file_says_so_and_keeps_what_was_filled_in(visitor: Visitor):
    reply = visitor.submit("/studio/new", endpoint="/v1/embeddings", meta_key="team", meta_value="kept")

    assert reply.status == 400
    assert b"Choose an input file first" in reply.body
    assert b'value="kept"' in reply.body
    assert b"<option selected>/v1/embeddings</option>" in reply.body


def test_batch_is_cancelled_once_and_then_not_again(visitor: Visitor, api: Api):
    batch = api.run(chats(1, CHAT))

    reply = visitor.submit(f"/studio/batches/{batch['id']}/cancel")

    assert reply.status == 409
    assert "Cannot cancel a batch" in reply.body.decode()


def test_parts_of_a_page_come_one_by_one(visitor: Visitor, api: Api):
    batch = api.run(chats(1, CHAT))

    parts = visitor.page(f"/studio/parts?topics=batch:{batch['id']},upstreams")

    assert re.findall(r'hx-target="#([\w-]+)"', parts) == ["batch-state", "batch-numbers", "upstream-list"]


@pytest.mark.parametrize("topics", ["", "secrets", "batch:x,nothing", ",".join(["batches"] * 20)])
def test_only_known_parts_are_given(visitor: Visitor, topics: str):
    assert visitor.get(f"/studio/parts?topics={topics}").status == 400
    assert visitor.get(f"/studio/events?topics={topics}").status == 400


def test_operators_see_where_each_setting_comes_from(visitor: Visitor):
    page = visitor.page("/studio/system?checks")

    assert re.search(r"<code>port</code></th><td [^>]+><code>0</code></td><td [^>]+>flag</td>", page)
    assert "Schema" in page
    assert "data folder" in page


def test_key_of_a_resource_does_not_see_how_the_service_is_set_up(blue: Visitor):
    page = blue.page("/studio/system?checks")

    assert "admin" in page
    assert "data_dir" not in page
    assert BLUE not in page


def test_upstreams_are_shown_with_their_models(visitor: Visitor, blue: Visitor, upstream: ScriptedUpstream):
    assert upstream.url in visitor.page("/studio/upstreams")
    assert "test-model" in blue.page("/studio/upstreams")
    assert upstream.url not in blue.page("/studio/upstreams")


def test_gallery_is_for_development_only(visitor: Visitor):
    assert visitor.get("/studio/_gallery").status == 404


def test_gallery_shows_every_state(upstream: ScriptedUpstream, tmp_path: Path):
    settings = tmp_path / "overnight.toml"
    settings.write_text('dev = true\nroot_path = "/gate"\n')
    with Service(tmp_path, upstreams=[upstream.url], arguments=["--config", str(settings)]) as service:
        visitor = Visitor(service.url.removesuffix("/gate"))
        page = visitor.page("/studio/_gallery")
        kept = visitor.page("/gate/studio/_gallery")
        home = visitor.get("/gate/")

    words = ["Validating", "Queued", "In progress", "Stalled", "Finalizing", "Completed", "Completed with failures"]
    words += ["All requests failed", "Failed validation", "Expired", "Cancelling", "Cancelled"]
    assert [word for word in words if f"</span> {word}</span>" not in page] == []
    assert Outline(page).dangerous == []
    assert home.headers["location"] == "/gate/studio"
    for shown in (page, kept):
        links = re.findall(r'(?:href|src|action|hx-sse:connect)="(/[^"]*)"', shown)
        assert [link for link in links if not link.startswith("/gate/studio")] == []
