"""The Studio by keyboard alone: from an upload to the downloaded errors, with the focus always to be seen."""

from __future__ import annotations

import re
from pathlib import Path

from playwright.sync_api import Locator, Page, expect
from tests.studio.browser.states import Stage, said

# More than any page has.
MOST_TABS = 120
_RING = """() => {
  for (let each = document.activeElement, up = 0; each && up < 5; each = each.parentElement, up += 1) {
    const style = getComputedStyle(each);
    if (style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2) return "";
    const next = each.nextElementSibling && getComputedStyle(each.nextElementSibling);
    if (next && next.outlineStyle !== "none" && parseFloat(next.outlineWidth) >= 2) return "";
  }
  return document.activeElement.outerHTML.slice(0, 200);
}"""


def tab_to(page: Page, wanted: Locator) -> None:
    """Press Tab until something is focused; each element on the way must show that it is."""
    expect(wanted).to_be_attached()
    for _ in range(MOST_TABS):
        page.keyboard.press("Tab")
        assert page.evaluate(_RING) == ""
        if wanted.evaluate("each => each === document.activeElement"):
            return
    raise AssertionError("the focus never came there")


def test_from_the_upload_to_the_errors_without_a_mouse(page: Page, busy: Stage, tmp_path: Path):
    path = tmp_path / "reviews.jsonl"
    path.write_bytes(said(*["hello"] * 5, "refuse", "refuse"))
    # The browser hands over its choosers only while somebody listens, and a key pressed right after may overtake that.
    page.on("filechooser", lambda _: None)
    page.goto(f"{busy.service.url}/studio")
    page.keyboard.press("n")
    expect(page.locator("h1")).to_have_text("New batch")

    tab_to(page, page.locator("#upload"))
    with page.expect_file_chooser() as chosen:
        page.keyboard.press("Space")
    chosen.value.set_files(path)
    expect(page).to_have_url(re.compile("file=file"))
    tab_to(page, page.get_by_role("button", name="Create batch"))
    page.keyboard.press("Enter")

    expect(page).to_have_url(re.compile("/batches/batch_"))
    expect(page.locator("#batch-state")).to_contain_text("5 succeeded, 2 failed")
    expect(page.get_by_role("link", name="Download Errors")).to_be_visible()
    tab_to(page, page.locator(".filelist li", has_text="Errors").locator("a").first)
    page.keyboard.press("Enter")
    expect(page.locator(".lines")).to_contain_text("context_length_exceeded")

    tab_to(page, page.get_by_role("link", name="Download", exact=True))
    with page.expect_download() as downloading:
        page.keyboard.press("Enter")
    lines = Path(downloading.value.path()).read_bytes().splitlines()

    assert len(lines) == 2


def test_first_tab_leads_past_the_navigation(page: Page, busy: Stage):
    page.goto(f"{busy.service.url}/studio/batches")
    page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="Skip to the content")
    expect(skip).to_be_focused()
    expect(skip).to_be_in_viewport()
    page.keyboard.press("Enter")

    expect(page.locator("#main")).to_be_focused()


def test_keys_lead_to_pages_and_rest_in_fields(page: Page, busy: Stage):
    busy.run("some batch", said("hello"))
    page.goto(f"{busy.service.url}/studio")
    for keys, title in (("gb", "Batches"), ("gf", "Files"), ("gu", "Upstreams"), ("gs", "System"), ("go", "Overview")):
        page.keyboard.type(keys)
        expect(page.locator("h1")).to_have_text(title)
    page.keyboard.type("gb")
    expect(page.locator("h1")).to_have_text("Batches")
    page.keyboard.press("j")
    expect(page.locator("tbody tr").first.locator("a").first).to_be_focused()
    page.keyboard.press("/")
    page.keyboard.type("n?t")

    expect(page.locator("[data-filter]")).to_have_value("n?t")
    expect(page.locator("h1")).to_have_text("Batches")


def test_keys_can_be_switched_off(page: Page, busy: Stage):
    page.goto(f"{busy.service.url}/studio/batches")
    page.keyboard.press("?")
    expect(page.locator("#shortcuts")).to_be_visible()
    page.locator("#keys-switch").uncheck()
    page.keyboard.press("Escape")
    expect(page.locator("#shortcuts")).to_be_hidden()
    page.keyboard.type("n")
    page.keyboard.press("?")
    page.reload()
    page.keyboard.type("n")
    page.keyboard.press("t")

    expect(page.locator("#shortcuts")).to_be_hidden()
    expect(page.locator("h1")).to_have_text("Batches")
    expect(page.locator("html")).to_have_attribute("data-theme", "system")
