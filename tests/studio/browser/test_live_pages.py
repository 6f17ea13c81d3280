"""Pages change while one works on them, and come back by themselves after the service was away."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, Route, expect
from tests.studio.browser import states
from tests.studio.browser.states import Stage, said
from tests.support.api import Api
from tests.support.http import Http
from tests.support.watched import Troubles

from overnight.testing.upstream import Gate, answer, by_text, held

KEY = "key-of-the-blue-team"
AWAY = ["ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE_CHUNKED_ENCODING", "ERR_EMPTY_RESPONSE", "ERR_CONNECTION_RESET"]
# htmx says on the console what it could not fetch.
AWAY_IN_WORDS = ["Failed to fetch", "network error", "htmx"]

_UNTIL_HTMX_IS_THERE = """new Promise((there) => {
  const look = () => setTimeout(window.htmx && document.readyState !== "loading" ? there : look);
  look();
})"""

# The stream of a page rests while its tab is hidden.
_BREAK_OFF = """
Object.defineProperty(document, "hidden", { configurable: true, get: () => true });
document.dispatchEvent(new Event("visibilitychange"));
delete document.hidden;
document.dispatchEvent(new Event("visibilitychange"));
"""
_SELECT_WITHIN = "each => getSelection().selectAllChildren(each)"
_SELECT_NOTHING = """new Promise((done) => {
  document.addEventListener("selectionchange", () => setTimeout(done), { once: true });
  getSelection().removeAllRanges();
})"""
# As often as a text came for a page, also if it was put nowhere.
_COUNT = """text => {
  window.brought = 0;
  document.addEventListener("htmx:before:swap", (event) => { window.brought += event.detail.ctx.text.includes(text); });
}"""
_WAIT_FOR_IT = """new Promise((there) => {
  const look = () => setTimeout(window.brought ? there : look);
  look();
})"""


@pytest.fixture
def anchored(tmp_path: Path) -> Iterator[Stage]:
    """A service that has the same port after each start."""
    with states.stage(tmp_path, "--port", str(states.free_port())) as there:
        yield there


def test_numbers_change_while_focus_and_open_details_stay(page: Page, busy: Stage, gates: tuple[Gate, Gate]):
    busy.start("watched", said(*["hello"] * 3, *["first"] * 4, *["second"] * 5))
    page.goto(f"{busy.service.url}/studio/batches/{busy.batches['watched']}")
    done = page.locator("#batch-state .counts .done b")
    expect(done).to_have_text("3")
    page.locator("#throughput summary").click()
    link = page.get_by_role("link", name="Duplicate")
    link.focus()
    page.evaluate("document.querySelector('#batch-state').dataset.mine = 'same'")
    gates[0].open()

    expect(done).to_have_text("7")
    expect(link).to_be_focused()
    expect(page.locator("#throughput details")).to_have_attribute("open", "")
    gates[1].open()
    expect(page.locator("#batch-state")).to_contain_text("Completed")
    expect(page).to_have_title("Completed · watched · overnight")
    expect(page.get_by_role("link", name="Download Output")).to_be_visible()
    expect(page.get_by_role("button", name="Cancel batch")).to_have_count(0)
    expect(link).to_be_focused()


@pytest.fixture
def limited(tmp_path: Path) -> Iterator[Stage]:
    """A service where one batch at a time has room in the quota, so that the next is being validated for as long."""
    settings = tmp_path / "limited.toml"
    settings.write_text(
        '[[deployments]]\nname = "test-model"\ntokenizer = "o200k"\nenqueued_tokens = 20\nover_quota = "queue"\n'
    )
    with states.stage(tmp_path, "--config", str(settings)) as there:
        gate = Gate()
        there.upstream.script = by_text({"first": held(gate), "wait": held(there.gate)}, answer())
        yield there
        gate.open()


def test_page_of_a_batch_that_is_being_validated_goes_on_by_itself(limited: Stage, page: Page):
    limited.start("first", said("hello", "wait"))
    limited.done("first", 1)
    limited.start("second", said("hello", "first"))
    page.goto(f"{limited.service.url}/studio/batches/{limited.batches['second']}")
    expect(page.locator("#requests")).to_contain_text("Waiting for room in the quota. The requests are listed here")
    expect(page.locator("#batch-state")).to_contain_text("Validating")
    limited.gate.open()

    expect(page.locator("#request-1")).to_contain_text("r-1")
    expect(page.locator("#batch-state")).to_contain_text("In progress")


def test_rows_change_in_place_while_one_is_focused(page: Page, busy: Stage, gates: tuple[Gate, Gate]):
    busy.start("row", said("hello", "first", "second"))
    page.goto(f"{busy.service.url}/studio/batches")
    row = page.locator(f"#row-{busy.batches['row']}")
    expect(row).to_contain_text("1 of 3")
    row.locator("a").first.focus()
    row.evaluate("each => { each.mine = true; }")
    gates[0].open()

    expect(row).to_contain_text("2 of 3")
    expect(row.locator("a").first).to_be_focused()
    assert row.evaluate("each => each.mine") is True


def test_what_was_held_of_a_row_never_replaces_what_came_later(page: Page, busy: Stage, gates: tuple[Gate, Gate]):
    busy.start("held", said("hello", "first", "second"))
    page.goto(f"{busy.service.url}/studio/batches")
    row = page.locator(f"#row-{busy.batches['held']}")
    expect(row).to_contain_text("1 of 3")
    row.locator(".sentence").evaluate(_SELECT_WITHIN)
    page.evaluate(_COUNT, "2 of 3")
    gates[0].open()
    page.evaluate(_WAIT_FOR_IT)
    expect(row).to_contain_text("1 of 3")
    page.locator("h1").evaluate(_SELECT_WITHIN)
    gates[1].open()
    expect(row).to_contain_text("Completed")
    page.evaluate(_SELECT_NOTHING)

    expect(row).to_contain_text("Completed")


def test_what_an_ended_batch_left_is_shown_once_its_dialog_is_closed(page: Page, busy: Stage, gates: tuple[Gate, Gate]):
    busy.start("asked", said("hello", "first"))
    page.goto(f"{busy.service.url}/studio/batches/{busy.batches['asked']}")
    page.get_by_role("button", name="Cancel batch").click()
    gates[0].open()
    expect(page.locator("#batch-state")).to_contain_text("2 succeeded")
    expect(page.locator("#batch-state")).to_have_attribute("data-ended", "")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.get_by_role("button", name="Keep it running").click()

    expect(page.get_by_role("link", name="Download Output")).to_be_visible()
    expect(page.get_by_role("button", name="Cancel batch")).to_have_count(0)
    # What had the focus before the dialog is gone.
    expect(page.locator("h1")).to_be_focused()


def test_page_stays_where_it_was_scrolled_to_when_its_batch_ends(page: Page, busy: Stage, gates: tuple[Gate, Gate]):
    busy.start("long page", said(*["hello"] * 30, "first"))
    busy.done("long page", 30)
    page.goto(f"{busy.service.url}/studio/batches/{busy.batches['long page']}")
    expect(page.locator("#request-30")).to_be_attached()
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    gates[0].open()
    expect(page.get_by_role("link", name="Download Output")).to_be_attached()

    assert page.evaluate("[scrollY > 300, document.activeElement.tagName]") == [True, "BODY"]


def test_duration_goes_on_while_nothing_else_changes(page: Page, busy: Stage, gates: tuple[Gate, Gate]):
    busy.start("long", said("hello", "first"))
    busy.done("long", 1)
    page.clock.install()
    page.goto(f"{busy.service.url}/studio/batches")
    # Nothing comes from the service meanwhile.
    page.get_by_role("button", name="Live").click()
    duration = page.locator(f"#row-{busy.batches['long']} .duration")
    expect(duration).to_have_text(re.compile(r"^(under 1|\d+) s$"))
    for after, shown in (("04:00", r"^4 min \d\d s$"), ("03:00:00", r"^3 h 0\d min$"), ("48:00:00", r"^2 d 03 h$")):
        page.clock.fast_forward(after)
        expect(duration).to_have_text(re.compile(shown))
    gates[0].open()


def test_ticks_stay_while_their_rows_change(page: Page, busy: Stage, gates: tuple[Gate, Gate]):
    busy.run("ticked first", said("hello"))
    busy.start("ticked", said("hello", "first", "second"))
    page.goto(f"{busy.service.url}/studio/batches")
    row = page.locator(f"#row-{busy.batches['ticked']}")
    other = page.locator(f"#row-{busy.batches['ticked first']}")
    expect(row).to_contain_text("1 of 3")
    row.get_by_role("checkbox").check()
    other.locator("a").first.focus()
    page.keyboard.press("x")
    gates[0].open()

    expect(row).to_contain_text("2 of 3")
    expect(row.get_by_role("checkbox")).to_be_checked()
    gates[1].open()
    expect(row).to_contain_text("Completed")
    expect(row.get_by_role("checkbox")).to_be_checked()
    expect(other.get_by_role("checkbox")).to_be_checked()
    expect(page.locator("[data-chosen]")).to_have_text("2 chosen")
    page.get_by_role("button", name="Cancel what is chosen").click()
    expect(page).to_have_url(re.compile(f"id={busy.batches['ticked']}&id={busy.batches['ticked first']}"))


def test_new_batches_wait_behind_a_button(page: Page, busy: Stage):
    busy.run("before", said("hello"))
    page.goto(f"{busy.service.url}/studio/batches")
    first = page.locator("table.batches tbody tr").first
    expect(first).to_contain_text("before")
    busy.run("after", said("hello"))

    expect(page.locator("#fresh")).to_have_text("+1 new")
    expect(first).to_contain_text("before")
    page.locator("#fresh").click()
    expect(first).to_contain_text("after")
    expect(page.locator("#fresh")).to_be_hidden()


def test_page_is_live_also_if_a_script_comes_late(page: Page, busy: Stage):
    late: list[Route] = []

    def keep(route: Route) -> None:
        late.append(route)

    page.route(re.compile("/hx-sse"), keep)
    with page.expect_request(re.compile("/hx-sse")):
        page.goto(f"{busy.service.url}/studio/batches", wait_until="commit")
    page.evaluate(_UNTIL_HTMX_IS_THERE)
    with page.expect_response(lambda response: "/studio/events" in response.url) as stream:
        late[0].continue_()

    assert stream.value.status == 200


def test_stream_rests_while_the_tab_is_hidden(page: Page, busy: Stage):
    page.goto(f"{busy.service.url}/studio/batches")
    expect(page.locator("#pulse-text")).to_contain_text("Live")
    with page.expect_event("requestfailed", lambda request: "/studio/events" in request.url):
        page.evaluate(
            "Object.defineProperty(document, 'hidden', { configurable: true, get: () => true });"
            "document.dispatchEvent(new Event('visibilitychange'));"
        )
    with page.expect_request(lambda request: "/studio/events" in request.url):
        page.evaluate("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'));")

    expect(page.locator("#disconnected")).to_be_hidden()


def test_banner_says_whether_the_service_answers_meanwhile(page: Page, busy: Stage, troubles: Troubles):
    troubles.expected = [*AWAY_IN_WORDS, "ERR_FAILED"]
    text = page.locator("#disconnected-text")
    page.clock.install()
    page.goto(f"{busy.service.url}/studio/upstreams")
    expect(page.locator("#pulse-text")).to_contain_text("Live")
    page.route("**/studio/events?*", lambda route: route.abort())
    page.route("**/studio/parts?*", lambda route: route.abort())
    page.evaluate(_BREAK_OFF)
    expect(text).to_contain_text("Meanwhile this page asks every 5 seconds")
    page.clock.fast_forward(5_000)
    expect(text).to_contain_text("The service does not answer")
    page.unroute("**/studio/parts?*")
    page.clock.fast_forward(5_000)
    expect(text).to_contain_text("Meanwhile this page asks every 5 seconds")
    page.unroute("**/studio/events?*")
    page.clock.fast_forward(60_000)

    expect(page.locator("#disconnected")).to_be_hidden()


def test_late_answer_is_not_put_over_what_the_stream_brought(page: Page, busy: Stage, troubles: Troubles):
    troubles.expected = [*AWAY_IN_WORDS, "ERR_FAILED"]
    late: list[Route] = []

    def keep(route: Route) -> None:
        late.append(route)

    page.clock.install()
    page.goto(f"{busy.service.url}/studio/upstreams")
    expect(page.locator("#pulse-text")).to_contain_text("Live")
    page.route("**/studio/events?*", lambda route: route.abort())
    page.route("**/studio/parts?*", keep)
    page.evaluate(_BREAK_OFF)
    expect(page.locator("#disconnected")).to_be_visible()
    with page.expect_request("**/studio/parts?*"):
        page.clock.fast_forward(5_000)
    page.unroute("**/studio/events?*")
    # Less than after which an answer is given up.
    page.clock.fast_forward(20_000)
    expect(page.locator("#disconnected")).to_be_hidden()
    with page.expect_response("**/studio/parts?*"):
        late[0].fulfill(
            content_type="text/html", body='<hx-partial hx-target="h1" hx-swap="outerMorph"><h1>Old</h1></hx-partial>'
        )
    page.evaluate("new Promise((done) => setTimeout(done))")

    expect(page.locator("h1")).to_have_text("Upstreams")
    expect(page.locator("#disconnected")).to_be_hidden()


def test_page_goes_on_after_the_service_was_killed(page: Page, anchored: Stage, troubles: Troubles):
    troubles.expected = AWAY + AWAY_IN_WORDS
    anchored.start("survivor", said(*["hello"] * 3, "wait", "wait"))
    page.goto(f"{anchored.service.url}/studio/batches/{anchored.batches['survivor']}")
    done = page.locator("#batch-state .counts .done b")
    expect(done).to_have_text("3")
    anchored.service.kill()
    expect(page.locator("#disconnected")).to_be_visible()
    expect(done).to_have_text("3")
    anchored.service.start()
    expect(page.locator("#disconnected")).to_be_hidden(timeout=60_000)
    anchored.gate.open()

    expect(page.locator("#batch-state")).to_contain_text("5 succeeded", timeout=60_000)


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A service that asks for a key, and has the same port after each start."""
    folder = tmp_path_factory.mktemp("keyed")
    (folder / "keys.txt").write_text(f"{KEY} blue\n")
    with states.stage(folder, "--port", str(states.free_port()), "--keys-file", str(folder / "keys.txt")) as there:
        yield there


def test_first_batch_of_all_is_told_of_at_once(page: Page, keyed: Stage):
    page.goto(f"{keyed.service.url}/studio/batches")
    sign_in(page)
    expect(page.locator("main h2")).to_have_text("No batches yet")
    expect(page.locator("#pulse-text")).to_contain_text("Live")
    api = Api(Http(keyed.service.url, {"authorization": f"Bearer {KEY}"}))
    batch_id = api.create(api.upload(said("hello")))

    expect(page.locator("#fresh")).to_have_text("+1 new")
    expect(page.locator("#announcer")).to_have_text("1 new batch")
    page.locator("#fresh").click()
    expect(page.locator(f"#row-{batch_id}")).to_be_visible()


def test_sign_in_in_another_tab_brings_the_page_back(page: Page, keyed: Stage, troubles: Troubles):
    troubles.expected = [*AWAY_IN_WORDS, " 401", "status of 401"]
    page.goto(f"{keyed.service.url}/studio/upstreams")
    sign_in(page)
    expect(page.locator("#pulse-text")).to_contain_text("Live")
    other = page.context.new_page()
    other.goto(f"{keyed.service.url}/studio/upstreams")
    other.get_by_role("button", name="Sign out").click()
    expect(other.locator("input[name=key]")).to_be_visible()
    page.evaluate(_BREAK_OFF)
    expect(page.locator("#disconnected-text")).to_contain_text("signed out")
    expect(page.locator("#pulse-text")).to_have_text("Signed out")
    other.goto(f"{keyed.service.url}/studio/upstreams")
    sign_in(other)
    expect(other.locator("h1")).to_have_text("Upstreams")

    expect(page.locator("#disconnected")).to_be_hidden()
    expect(page.locator("#pulse-text")).to_contain_text("Live")
    token = other.locator("meta[name=csrf]").get_attribute("content")
    expect(page.locator("meta[name=csrf]")).to_have_attribute("content", token or "")


def test_sign_in_after_a_restart_leads_back_to_the_page(page: Page, keyed: Stage, troubles: Troubles):
    troubles.expected = [*AWAY, *AWAY_IN_WORDS, " 401", "status of 401"]
    page.goto(f"{keyed.service.url}/studio/upstreams")
    sign_in(page)
    expect(page.locator("h1")).to_have_text("Upstreams")
    keyed.service.stop()
    keyed.service.start()
    expect(page.locator("#disconnected-text")).to_contain_text("signed out", timeout=60_000)
    page.reload()
    sign_in(page)

    expect(page).to_have_url(f"{keyed.service.url}/studio/upstreams")
    expect(page.locator("#disconnected")).to_be_hidden()


def test_part_that_is_refused_leaves_the_page_as_it_is_and_says_why(page: Page, tmp_path: Path, troubles: Troubles):
    troubles.expected = [" 401", "status of 401"]
    (tmp_path / "keys.txt").write_text("key-of-the-blue-team blue\n")
    with states.stage(tmp_path, "--keys-file", str(tmp_path / "keys.txt")) as there:
        page.goto(f"{there.service.url}/studio/new")
        sign_in(page)
        expect(page.locator("#recipes summary")).to_have_text(["Command line", "curl", "Python, OpenAI"])
        page.context.clear_cookies()
        page.locator("input[name=meta_value]").first.fill("nightly")

        expect(page.locator("#disconnected-text")).to_have_text("Not brought up to date: Sign in again.")
        expect(page.locator("h1")).to_have_text("New batch")
        expect(page.locator("#recipes summary")).to_have_text(["Command line", "curl", "Python, OpenAI"])


def sign_in(page: Page) -> None:
    page.locator("input[name=key]").fill(KEY)
    page.get_by_role("button", name="Sign in").click()


def test_page_of_a_batch_that_ended_is_loaded_once(page: Page, busy: Stage):
    busy.run("ended", said("hello"))
    loaded: list[str] = []
    page.on("framenavigated", lambda frame: loaded.append(frame.url))
    page.goto(f"{busy.service.url}/studio/batches/{busy.batches['ended']}")
    expect(page.locator("#batch-state")).to_contain_text("1 succeeded")
    page.evaluate("document.dispatchEvent(new Event('htmx:after:swap'))")
    page.wait_for_load_state("networkidle")

    assert len(loaded) == 1


def test_chart_goes_on_when_its_batch_ends(page: Page, busy: Stage, gates: tuple[Gate, Gate]):
    first, second = gates
    busy.start("charted", said("hello", "first", "second"))
    busy.done("charted", 1)
    first.open()
    busy.done("charted", 2)
    page.goto(f"{busy.service.url}/studio/batches/{busy.batches['charted']}")
    drawn = page.get_by_role("img", name="Requests a second")
    expect(drawn).to_have_count(1)

    second.open()

    expect(page.locator("#batch-state")).to_contain_text("3 succeeded")
    expect(page.locator("#throughput[data-once] [data-summary]")).to_contain_text("At most")
    expect(drawn).to_have_count(1)
    expect(page.get_by_role("img", name="Seconds for an answer")).to_have_count(1)
