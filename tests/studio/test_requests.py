"""Looking into a batch through HTTP: its requests, one of them, running them again, and what is checked before."""

from __future__ import annotations

import json
import re
from urllib.parse import quote

import pytest
from tests.studio.conftest import Visitor, counted, validating
from tests.studio.test_pages import CHAT, HOSTILE, Outline
from tests.support.api import Api, chats, jsonl, request
from tests.support.service import Service, eventually

from overnight.testing.upstream import Gate, ScriptedUpstream, answer, by_text, error, held, huge, in_turn


@pytest.fixture
def mixed(api: Api, upstream: ScriptedUpstream) -> str:
    """A batch of 60 requests, of which two failed."""
    upstream.script = by_text({"r-58": error(400, HOSTILE, code="bad_word"), "r-59": error(400, "no")}, answer())
    try:
        batch = api.run(chats(60, CHAT), metadata={"name": "mixed"})
    finally:
        upstream.script = answer()
    return str(batch["id"])


def names(page: str) -> list[str]:
    return re.findall(r'<tr role="row" id="request-\d+"><th[^>]*><a[^>]*><bdi>([^<]*)</bdi>', page)


def link(page: str, rel: str) -> str:
    found = re.search(rf'rel="{rel}"[^>]* href="([^"]+)"', page)
    assert found is not None
    return found[1].replace("&amp;", "&").partition("#")[0]


def test_requests_are_paged_without_gaps(visitor: Visitor, mixed: str):
    first = visitor.page(f"/studio/batches/{mixed}")
    second = visitor.page(link(first, "next"))

    assert names(first) + names(second) == [f"r-{number}" for number in range(60)]
    assert "1 to 50 of 60 requests" in first


def test_requests_are_filtered_by_status_code_and_id(visitor: Visitor, mixed: str):
    failed = visitor.page(f"/studio/batches/{mixed}?status=failed")
    coded = visitor.page(f"/studio/batches/{mixed}?status=failed&code=bad_word")
    searched = visitor.page(f"/studio/batches/{mixed}?custom_id=r-5")

    assert names(failed) == ["r-58", "r-59"]
    assert names(coded) == ["r-58"]
    assert names(searched) == ["r-5", *(f"r-{number}" for number in range(50, 60))]


def test_group_of_failures_leads_to_its_requests(visitor: Visitor, mixed: str):
    page = visitor.page(f"/studio/batches/{mixed}")

    groups = dict(re.findall(r'<a href="([^"]*)"><code>(bad_word)</code>', page))

    assert len(groups) == 1
    (path,) = groups
    assert names(visitor.page(path.replace("&amp;", "&").partition("#")[0])) == ["r-58"]


def test_nothing_hostile_of_a_batch_runs(visitor: Visitor, mixed: str):
    for path in ("", "?custom_id=%3Cscript%3E&status=x&offset=-1&limit=7", "/requests/r-58", "/requests/?line=2"):
        outline = Outline(visitor.page(f"/studio/batches/{mixed}{path}"))

        assert (outline.open, outline.strays, outline.dangerous) == ([], [], []), path


def test_request_is_shown_with_its_response(visitor: Visitor, mixed: str):
    page = visitor.page(f"/studio/batches/{mixed}/requests/r-58")

    assert "bad_word" in page
    assert "&lt;script&gt;alert(1)" in page
    assert "\x1b" not in page
    assert "\u202e" not in page
    assert '"panelhead"><h2 id="request-got"' in page
    assert link(page, "prev").endswith("line=57")
    assert link(page, "next").endswith("line=59")


def test_request_comes_alone_for_the_panel_beside_the_list(visitor: Visitor, mixed: str):
    part = visitor.page(f"/studio/batches/{mixed}/requests/r-58?line=58&panel")

    assert part.startswith('<div class="openedrequest" id="opened-request" data-line="58">')
    assert "<html" not in part
    assert "bad_word" in part
    assert link(part, "prev").endswith("line=57")
    assert link(part, "next").endswith("line=59")


def test_first_and_last_request_lead_no_further(visitor: Visitor, mixed: str):
    first, last = (visitor.page(f"/studio/batches/{mixed}/requests/?line={line}&panel") for line in (0, 59))

    assert ('rel="prev"' in first, 'rel="next"' in first) == (False, True)
    assert ('rel="prev"' in last, 'rel="next"' in last) == (True, False)


def test_address_of_the_upstream_is_for_those_who_may_see_it(
    visitor: Visitor, mixed: str, blue_api: Api, blue: Visitor, upstream: ScriptedUpstream
):
    batch = blue_api.run(chats(1, CHAT))

    open_page = visitor.page(f"/studio/batches/{mixed}/requests/r-1")
    keyed_page = blue.page(f"/studio/batches/{batch['id']}/requests/r-0")

    assert f"curl {upstream.url}/chat/completions" in open_page
    assert upstream.url not in keyed_page
    assert "curl &#34;$UPSTREAM_URL&#34;/v1/chat/completions" in keyed_page
    assert "Authorization: Bearer $KEY" in open_page


@pytest.mark.parametrize("name", ["a/b", "..", "%2e", "a?b#c", "<b>"])
def test_any_custom_id_can_be_opened_from_the_list(visitor: Visitor, api: Api, name: str):
    batch = api.run(jsonl(request(name, CHAT)))
    page = visitor.page(f"/studio/batches/{batch['id']}")

    found = re.search(r'<a href="([^"]*/requests/[^"]*)"', page)

    assert found is not None
    assert "Response" in visitor.page(found[1].replace("&amp;", "&"))


@pytest.mark.parametrize("path", ["nobody", "r-1?line=5", "?line=99", "r-1?line=x"])
def test_request_that_is_not_there_is_told(visitor: Visitor, mixed: str, path: str):
    assert visitor.get(f"/studio/batches/{mixed}/requests/{path}").status in {400, 404}


def test_pictures_in_a_request_are_shown_and_none_is_loaded(visitor: Visitor, api: Api):
    here, elsewhere = "data:image/png;base64,iVBORw0KGgo=", "https://example.com/spy.png"
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in (here, elsewhere, "data:image/svg+xml,<svg>")]
    line = request("a", CHAT)
    line["body"]["messages"] = [{"role": "user", "content": parts}]  # type: ignore[index]
    batch = api.run(jsonl(line))

    page = visitor.page(f"/studio/batches/{batch['id']}/requests/a")

    assert re.findall(r'<img src="([^"]*)"', page) == [here]
    assert f">{elsewhere}</p>" in page
    assert f'"{elsewhere}"' not in page


def test_long_answer_is_cut_until_all_of_it_is_asked_for(visitor: Visitor, api: Api, upstream: ScriptedUpstream):
    upstream.script = huge(5_000_000)
    try:
        batch = api.run(chats(1, CHAT))
    finally:
        upstream.script = answer()
    short = visitor.page(f"/studio/batches/{batch['id']}/requests/r-0")
    whole = visitor.page(f"/studio/batches/{batch['id']}/requests/r-0?line=0&full=1")

    assert "more bytes" in short
    assert len(short) < 500_000
    assert len(whole) > 5_000_000


def test_failed_requests_run_again_as_a_new_batch(visitor: Visitor, api: Api, mixed: str):
    page = visitor.page(f"/studio/batches/{mixed}")
    created = visitor.submit(f"/studio/batches/{mixed}/retry?which=failed")
    batch = api.end(created.headers["location"].rpartition("/")[2])

    assert "Run 2 requests again?" in page
    assert batch["request_counts"]["completed"] == 2
    assert batch["metadata"]["retry_of"] == mixed


def test_only_known_requests_run_again(visitor: Visitor, mixed: str):
    assert visitor.submit(f"/studio/batches/{mixed}/retry?which=none").status == 400
    assert visitor.submit(f"/studio/batches/{mixed}/retry?which=not_run").status == 409
    assert visitor.post(f"/studio/batches/{mixed}/retry?which=failed", csrf="0" * 64).status == 403


def test_results_come_in_the_order_of_the_input(visitor: Visitor, mixed: str):
    reply = visitor.get(f"/studio/batches/{mixed}/results")

    assert [json.loads(line)["custom_id"] for line in reply.body.splitlines()] == [f"r-{n}" for n in range(60)]
    assert "attachment" in reply.headers["content-disposition"]


def test_nobody_looks_into_the_batches_of_others(blue_api: Api, blue: Visitor, green: Visitor):
    batch = blue_api.run(chats(1, CHAT))
    for path in ("", "/requests", "/requests/r-0", "/requests/?line=0", "/results"):
        assert blue.get(f"/studio/batches/{batch['id']}{path}").status == 200, path
        assert green.get(f"/studio/batches/{batch['id']}{path}").status == 404, path
    topics = quote(f"inside:{batch['id']}")
    assert b"hx-partial" in blue.get(f"/studio/parts?topics={topics}").body
    assert green.get(f"/studio/parts?topics={topics}").status == 404


def test_running_batch_shows_its_newest_results(visitor: Visitor, api: Api, upstream: ScriptedUpstream):
    gate = Gate()
    upstream.script = by_text({"r-9": held(gate)}, answer())
    try:
        batch_id = api.create(api.upload(chats(10, CHAT)))
        eventually(lambda: api.batch(batch_id)["request_counts"]["completed"] == 9)
        page = visitor.page(f"/studio/batches/{batch_id}")
        later = visitor.page(f"/studio/batches/{batch_id}/requests")
        parts = visitor.page(f"/studio/parts?topics=inside:{batch_id}")
    finally:
        gate.open()
        upstream.script = answer()
    api.end(batch_id)

    assert f'hx-get="/studio/batches/{batch_id}/requests"' in page
    assert len(names(later)) == 10
    assert re.findall(r'hx-target="#([\w-]+)"', parts) == ["failures", "tail"]


def test_file_is_checked_before_there_is_a_batch(visitor: Visitor, api: Api):
    good = api.upload(chats(5, CHAT))
    bad = api.upload(jsonl(request("a", CHAT), b"no json", request("a", CHAT)))

    fine, refused = (visitor.page(f"/studio/files/{file_id}/check") for file_id in (good, bad))

    assert "5 requests, no problems" in fine
    assert "Prompt tokens" in fine
    assert "found" in fine
    assert "disabled" not in fine
    assert "invalid_json_line" in refused
    assert "disabled" in refused
    assert "repair it and upload it again" in refused


def test_form_of_a_new_batch_takes_the_endpoint_of_the_file(visitor: Visitor, api: Api):
    line = request("a", "/v1/embeddings")
    line["body"] = {"model": "test-model", "input": "embed me"}
    page = visitor.page(f"/studio/new?file={api.upload(jsonl(line))}&check=1")

    assert "<option selected>/v1/embeddings</option>" in page
    assert '<p dir="auto">embed me</p>' in page
    assert "1 request, no problems" in page


def test_code_follows_the_form(visitor: Visitor):
    reply = visitor.submit("/studio/recipes", file_id="file-1", endpoint="/v1/embeddings", meta_key="a", meta_value="b")

    assert reply.status == 200
    assert b"--endpoint /v1/embeddings" in reply.body
    assert b"a=b" in reply.body


def test_file_says_which_batches_use_it_and_is_checked_on_demand(visitor: Visitor, api: Api):
    file_id = api.upload(chats(1, CHAT))
    batch = api.end(api.create(file_id))

    page = visitor.page(f"/studio/files/{file_id}")

    assert f'href="/studio/batches/{batch["id"]}"' in page
    assert "Check this file" in page
    assert "no problems" in visitor.page(f"/studio/files/{file_id}?check=1")


def test_attempts_of_a_request_are_listed(visitor: Visitor, api: Api, upstream: ScriptedUpstream):
    upstream.script = in_turn(error(503), answer())
    try:
        batch = api.run(chats(1, CHAT))
    finally:
        upstream.script = answer()

    page = visitor.page(f"/studio/batches/{batch['id']}/requests/r-0")

    listed = page.partition('<ol class="attempts">')[2].partition("</ol>")[0]
    first, second = listed.split("</li>")[:2]
    assert "HTTP 503" in first
    assert "tried again after" in first
    assert "HTTP 200" in second
    assert "2 attempts" in visitor.page(f"/studio/batches/{batch['id']}")


def test_failures_name_their_upstream_and_lead_to_its_requests(visitor: Visitor, mixed: str):
    page = visitor.page(f"/studio/batches/{mixed}")

    (url, upstream) = re.findall(
        r'<a href="([^"]*)"><code>bad_word</code></a> <span class="sub">at</span> <code><bdi>([^<]+)', page
    )[0]

    assert f"upstream={quote(upstream, safe='')}" in url
    assert names(visitor.page(f"/studio/batches/{mixed}?upstream={quote(upstream)}&status=failed")) == ["r-58", "r-59"]
    assert names(visitor.page(f"/studio/batches/{mixed}?upstream=nobody")) == []


def test_chart_of_a_batch_that_ended_is_drawn_from_its_results(visitor: Visitor, mixed: str):
    drawn = visitor.http.get(f"/studio/batches/{mixed}/throughput").json()

    assert len(drawn["times"]) == len(drawn["done"]) == len(drawn["p50"]) > 1
    assert drawn["summary"].startswith("At most")
    assert "data-once" in visitor.page(f"/studio/batches/{mixed}")


def test_next_and_previous_follow_the_filter_beyond_a_page_and_end_with_it(visitor: Visitor, mixed: str):
    home = f"/studio/batches/{mixed}"
    first = visitor.page(f"{home}?status=succeeded&custom_id=r-")
    last_of_page = re.findall(r'<th[^>]*><a href="([^"]+line=49[^"]*)"', first)[0].replace("&amp;", "&")
    at_49 = visitor.page(last_of_page)
    at_50 = visitor.page(link(at_49, "next"))
    at_57 = visitor.page(f"{home}/requests/?line=57&status=succeeded")
    at_59 = visitor.page(f"{home}/requests/?line=59&status=failed")
    at_58 = visitor.page(link(at_59, "prev"))

    assert '<h1 tabindex="-1"><bdi>r-50</bdi></h1>' in at_50
    assert "line=49&amp;status=succeeded&amp;custom_id=r-" in at_50
    assert f'href="{home}?status=succeeded&amp;custom_id=r-#requests"' in at_50
    assert 'rel="next"' not in at_57
    assert '<h1 tabindex="-1"><bdi>r-58</bdi></h1>' in at_58
    assert 'rel="prev"' not in at_58
    assert link(at_58, "next").endswith("line=59&status=failed")


def test_without_a_filter_next_and_previous_are_those_of_the_input(visitor: Visitor, mixed: str):
    page = visitor.page(f"/studio/batches/{mixed}/requests/r-7")

    assert link(page, "prev").endswith("/requests/?line=6")
    assert link(page, "next").endswith("/requests/?line=8")


def test_batch_that_is_being_validated_says_so_until_its_requests_are_there(
    visitor: Visitor, mixed: str, open_service: Service
):
    home = f"/studio/batches/{mixed}"
    with validating(open_service, mixed):
        part = visitor.page(f"{home}/requests")
        filtered = visitor.page(f"{home}?status=failed")
        asked = re.findall(r'hx-get="([^"]+)" hx-trigger="every 2s"', part + filtered)
        meanwhile = [visitor.get(path.replace("&amp;", "&")).status for path in asked]
        counted(open_service, mixed, 12)
        goes_on = visitor.page(asked[0])
        counted(open_service, mixed, None)

    assert "Checking the lines of the input. The requests are listed here once" in part
    assert "No request was let in" not in part + filtered
    assert meanwhile == [204, 204]
    assert "Waiting for room in the quota. The requests are listed here once" in goes_on
    assert "every 2s" in goes_on
    later, later_filtered = (visitor.page(path.replace("&amp;", "&")) for path in asked)
    assert len(names(later)) == 50
    assert names(later_filtered) == ["r-58", "r-59"]
    assert "every 2s" not in later
