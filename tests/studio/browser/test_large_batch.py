"""A batch of 100,000 requests in the browser: opened while it runs and after its end, and paged through."""

from __future__ import annotations

import sys

import pytest
from playwright.sync_api import Page, expect
from tests.studio.browser.looks import arrive
from tests.studio.browser.states import Stage, said
from tests.studio.browser.tracing import longest_tasks
from tests.support.api import AZURE_V1, Api
from tests.support.http import Http
from tests.support.service import eventually

pytestmark = pytest.mark.long

COUNT = 100_000
# These have answers; all others wait in vain, so that nobody has to wait for them.
ANSWERED = 200
# Longer than this, and a key or a click waits noticeably; in milliseconds.
LONGEST_SCRIPT = 50


@pytest.fixture(scope="module")
def hundred_thousand(busy: Stage) -> str:
    """Give the address of a batch of which a few requests were answered and all others wait."""
    # Batches of OpenAI's flavour may have half as many.
    api = Api(Http(busy.service.url), AZURE_V1)
    file_id = api.upload(said(*["hello", "refuse"] * (ANSWERED // 2), *["wait"] * (COUNT - ANSWERED)))
    batch_id = busy.batches["large"] = api.create(file_id, metadata={"name": "large"})
    api.reach(batch_id, "in_progress", timeout=60)
    eventually(lambda: api.batch(batch_id)["request_counts"]["failed"] > 0, timeout=60)
    return f"{busy.service.url}/studio/batches/{busy.batches['large']}"


@pytest.mark.parametrize("rows", [50, 100])
def test_no_script_keeps_a_page_of_100000_requests_from_answering(page: Page, hundred_thousand: str, rows: int):
    """`-s` shows the figures of docs/performance.md."""
    place, opened = page.locator("#requests .paging .num"), page.locator("#opened-title")
    with longest_tasks(page) as opening:
        arrive(page, f"{hundred_thousand}?limit={rows}", "large")
        expect(place).to_have_text(f"1 to {rows} of 100,000 requests")
    with longest_tasks(page) as paging:
        for first in (rows, 2 * rows, 3 * rows):
            page.locator("#requests").get_by_role("link", name="Next").click()
            expect(place).to_have_text(f"{first + 1} to {first + rows} of 100,000 requests")
    with longest_tasks(page) as filtering:
        page.locator("#requests").get_by_role("link", name="Failed").click()
        expect(place).to_contain_text("looked at")
    with longest_tasks(page) as reading:
        page.locator("#requests tbody a").first.click()
        expect(opened).to_have_text("r-1")
        for number in (3, 5, 7):
            page.keyboard.press("j")
            expect(opened).to_have_text(f"r-{number}")
    for what, longest in {"open": opening, "next": paging, "filter": filtering, "read": reading}.items():
        sys.stdout.write(f"{rows} rows, {what}: {longest}\n")

    assert max(each.script for each in (opening, paging, filtering, reading)) < LONGEST_SCRIPT


def test_batch_of_100000_requests_is_paged_through_while_it_runs_and_after_its_end(
    page: Page, busy: Stage, hundred_thousand: str
):
    arrive(page, hundred_thousand, "large")
    place = page.locator("#requests .paging .num")
    expect(place).to_have_text("1 to 50 of 100,000 requests")
    page.locator("#requests").get_by_role("link", name="100", exact=True).click()
    expect(place).to_have_text("1 to 100 of 100,000 requests")
    page.locator("#requests").get_by_role("link", name="Next").click()
    expect(place).to_have_text("101 to 200 of 100,000 requests")
    expect(page.locator("#requests tbody tr").first).to_contain_text("r-100")

    assert busy.api.cancel(busy.batches["large"]).status == 200
    busy.api.end(busy.batches["large"], timeout=60)
    arrive(page, f"{hundred_thousand}?offset=99900&limit=100", "large")
    expect(place).to_have_text("99,901 to 100,000 of 100,000 requests")
    expect(page.locator("#requests tbody tr")).to_have_count(100)
    expect(page.locator("#requests").get_by_role("link", name="Next")).to_have_count(0)
    page.locator("#requests").get_by_role("link", name="Back").click()
    expect(place).to_have_text("99,801 to 99,900 of 100,000 requests")
    page.locator("#requests tbody a").first.click()
    expect(page.locator("#opened-title")).to_contain_text("r-99800")


def test_search_in_100000_requests_goes_on_to_the_next_step(page: Page, hundred_thousand: str):
    arrive(page, f"{hundred_thousand}?custom_id=r-19999", "large")
    place = page.locator("#requests .paging .num")
    expect(place).to_contain_text("of 100,000; go on to search the rest")
    expect(page.locator("#requests tbody tr")).to_have_count(0)
    page.locator("#requests").get_by_role("link", name="Go on").click()

    expect(page.locator("#requests tbody tr")).to_have_count(1)
    expect(page.locator("#requests tbody tr").first).to_contain_text("r-19999")
