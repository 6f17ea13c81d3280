"""The charts of rates without a mouse: the arrow keys move the cursor, and what it stands on is read out."""

from __future__ import annotations

import json

from playwright.sync_api import Page, Route, expect
from tests.studio.browser.states import Stage, said

# Half past one of some night, in steps of five seconds.
_BEGAN = 1_790_000_000
_TRAFFIC = {
    "length": 3600,
    "times": [_BEGAN + 5 * step for step in range(4)],
    "done": [1, 2, 3, 4],
    "failed": [0, 0, 1, 0],
    "tokens_in": [10, 20, 30, 40],
    "tokens_out": [5, 6, 7, 8],
    "end": _BEGAN + 15,
    "summary": "4 requests a second at most.",
}


def show_known_traffic(page: Page) -> None:
    """Have the chart show the same numbers at any time."""

    def answer(route: Route) -> None:
        route.fulfill(content_type="application/json", body=json.dumps(_TRAFFIC))

    page.route("**/studio/traffic?*", answer)


def test_arrow_keys_walk_through_both_charts_and_read_out_the_point(page: Page, busy: Stage):
    show_known_traffic(page)
    page.goto(f"{busy.service.url}/studio")
    requests = page.get_by_role("img", name="Requests a second")
    heard = page.locator("#announcer")
    requests.focus()
    page.keyboard.press("ArrowLeft")
    expect(heard).to_contain_text(": 4 done, 0 failed a second")
    page.keyboard.press("ArrowLeft")
    expect(heard).to_contain_text(": 3 done, 1 failed a second")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")

    expect(heard).to_contain_text(": 4 done, 0 failed a second")
    page.get_by_role("img", name="Tokens a second").focus()
    page.keyboard.press("ArrowLeft")
    # The cursor of both charts is one: this step goes on from where the other chart's cursor stood.
    expect(heard).to_contain_text(": 30 tokens in, 7 tokens out a second")
    page.keyboard.press("Home")
    expect(heard).to_contain_text(": 30 tokens in, 7 tokens out a second")


def test_table_says_what_the_chart_shows(page: Page, busy: Stage):
    show_known_traffic(page)
    page.goto(f"{busy.service.url}/studio")
    figure = page.locator("#throughput")
    figure.get_by_text("Show as table").click()

    expect(figure.locator("[data-summary]")).to_have_text("4 requests a second at most.")
    expect(figure.locator("tbody tr")).to_have_count(4)
    expect(figure.locator("tbody tr").first.locator("td.num")).to_have_text(["4", "0", "40", "8"])


def test_chart_of_a_batch_is_walked_with_its_own_numbers(page: Page, busy: Stage):
    busy.start("charted", said("hello", "hello", "wait"))
    page.goto(f"{busy.service.url}/studio/batches/{busy.batches['charted']}")
    chart = page.locator("#throughput").get_by_role("img", name="Requests a second")
    expect(chart).to_be_visible()
    chart.focus()
    page.keyboard.press("ArrowLeft")

    expect(page.locator("#announcer")).to_contain_text("failed a second")
    busy.gate.open()
    expect(page.locator("#batch-state")).to_contain_text("3 succeeded")
