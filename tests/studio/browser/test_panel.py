"""A request beside the list that it was opened from: keys, focus, and what happens to the page meanwhile."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect
from tests.studio.browser.looks import problems
from tests.studio.browser.states import Stage, said

from overnight.testing.upstream import Gate


def test_request_stays_open_beside_the_list_while_the_page_changes(page: Page, busy: Stage, gates: tuple[Gate, Gate]):
    busy.start("beside", said("hello", "hello", "first", "second"))
    busy.done("beside", 2)
    url = f"{busy.service.url}/studio/batches/{busy.batches['beside']}"
    page.goto(url)
    done = page.locator("#batch-state .counts .done b")
    title, link = page.locator("#opened-title"), page.locator("#request-1 a")
    expect(done).to_have_text("2")
    link.click()
    expect(title).to_have_text("r-1")
    expect(title).to_be_focused()
    expect(page.locator("#opened #request-got")).to_be_visible()
    page.keyboard.press("j")
    expect(title).to_have_text("r-2")
    expect(title).to_be_focused()
    expect(page.locator("#request-2")).to_have_attribute("data-selected", "")
    page.evaluate("document.querySelector('#opened').dataset.mine = 'same'")
    gates[0].open()
    expect(done).to_have_text("3")
    expect(title).to_be_focused()
    page.keyboard.press("k")
    expect(title).to_have_text("r-1")
    gates[1].open()
    expect(page.locator("#batch-state")).to_contain_text("Completed")

    expect(title).to_have_text("r-1")
    expect(page.locator("#opened")).to_have_attribute("data-mine", "same")
    page.keyboard.press("Escape")
    expect(page.locator("#opened")).to_be_hidden()
    # What had waited for the panel comes now.
    expect(page.get_by_role("link", name="Download Output")).to_be_visible()


def test_newest_result_opens_beside_the_list_too(page: Page, busy: Stage, gates: tuple[Gate, Gate]):
    busy.start("newest", said("hello", "first", "second"))
    busy.done("newest", 1)
    page.goto(f"{busy.service.url}/studio/batches/{busy.batches['newest']}")
    expect(page.locator("#request-0")).to_be_visible()
    page.locator("#tail a").click()
    expect(page.locator("#opened-title")).to_have_text("r-0")
    expect(page.locator("#request-0")).to_have_attribute("data-selected", "")
    page.keyboard.press("j")
    expect(page.locator("#opened-title")).to_have_text("r-1")
    page.keyboard.press("Escape")
    for gate in gates:
        gate.open()

    expect(page.locator("#request-1 a")).to_be_focused()


def test_focus_returns_to_the_link_and_the_address_keeps_what_is_open(page: Page, busy: Stage):
    busy.run("focus", said(*["hello"] * 3))
    page.goto(f"{busy.service.url}/studio/batches/{busy.batches['focus']}")
    link, title = page.locator("#request-2 a"), page.locator("#opened-title")
    link.focus()
    page.keyboard.press("Enter")
    expect(title).to_be_focused()
    page.keyboard.press("j")
    expect(title).to_be_focused()
    page.keyboard.press("Escape")
    expect(link).to_be_focused()
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("#request-2$"))
    page.reload()
    expect(title).to_have_text("r-2")
    expect(title).to_be_focused()
    page.get_by_role("button", name="Close").click()

    expect(page.locator("#opened")).to_be_hidden()
    expect(link).to_be_focused()


def test_open_request_follows_the_filtered_list_is_accessible_and_fits(seen: Page, busy: Stage):
    busy.run("fits", said("refuse", "hello", "refuse"))
    seen.goto(f"{busy.service.url}/studio/batches/{busy.batches['fits']}?status=failed")
    seen.locator("#request-0 a").click()
    expect(seen.locator("#opened")).to_contain_text("context_length_exceeded")
    seen.keyboard.press("j")
    expect(seen.locator("#opened-title")).to_have_text("r-2")
    # Its end is the end of the filter.
    expect(seen.locator("#opened a[rel=next]")).to_have_count(0)
    seen.reload()
    expect(seen.locator("#opened-title")).to_have_text("r-2")
    seen.keyboard.press("k")
    expect(seen.locator("#opened-title")).to_have_text("r-0")
    seen.keyboard.press("j")
    expect(seen.locator("#opened-title")).to_have_text("r-2")

    assert problems(seen) == []


def test_narrow_window_has_the_page_of_the_request(page: Page, busy: Stage):
    busy.run("narrow", said("hello"))
    page.set_viewport_size({"width": 1100, "height": 800})
    page.goto(f"{busy.service.url}/studio/batches/{busy.batches['narrow']}")
    page.locator("#request-0 a").click()

    expect(page.locator("h1")).to_have_text("r-0")
    expect(page).to_have_url(re.compile("/requests/r-0"))
