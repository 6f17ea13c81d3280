"""Every page with a lot on it: it is accessible, it fits, and what is not on it is a page away."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect
from tests.studio.browser.looks import arrive, problems
from tests.studio.browser.states import MANY, PAGES, Stage


@pytest.mark.parametrize(("path", "title"), PAGES)
def test_pages_with_a_lot_on_them_are_accessible_and_fit(seen: Page, large: Stage, path: str, title: str):
    arrive(seen, large.service.url + path, title)

    assert problems(seen) == []


def test_batch_of_many_requests_shows_some_of_them(seen: Page, large: Stage):
    arrive(seen, f"{large.service.url}/studio/batches/{large.batches['many requests']}", "many requests")
    expect(seen.locator("#batch-state")).to_contain_text(f"{MANY - MANY // 100:,} succeeded, {MANY // 100} failed")
    seen.locator("#requests").get_by_role("link", name="Next").click()
    expect(seen.locator("#requests")).to_contain_text(f"51 to 100 of {MANY:,} requests")

    assert problems(seen) == []


def test_file_of_many_lines_is_read_piece_by_piece(seen: Page, large: Stage):
    arrive(seen, f"{large.service.url}/studio/files/{large.files['many requests']}", "requests.jsonl")
    first = seen.locator(".lines li").first.inner_text()
    seen.get_by_role("link", name="Next lines").click()
    expect(seen).to_have_url(re.compile("offset="))

    assert seen.locator(".lines li").first.inner_text() != first
    assert problems(seen) == []


def test_older_batches_are_a_page_away(seen: Page, large: Stage):
    arrive(seen, f"{large.service.url}/studio/batches", "Batches")
    seen.get_by_role("link", name="Older").click()
    expect(seen).to_have_url(re.compile("after="))
    expect(seen.locator("table.batches tbody tr")).to_have_count(50)
    expect(seen.get_by_role("link", name="Newest")).to_be_visible()
