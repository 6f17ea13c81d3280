"""Every page with a lot on it, and while the upstream is away: it loads, is accessible, and fits."""

from __future__ import annotations

import re
import time

import pytest
from playwright.sync_api import Page, expect
from tests.studio.browser.looks import problems
from tests.studio.browser.states import Stage

PATHS = ("", "/batches", "/files", "/upstreams", "/system?checks", "/new")


@pytest.mark.parametrize("path", PATHS)
def test_pages_with_a_lot_on_them_are_accessible_and_fit(page: Page, large: Stage, path: str):
    page.goto(f"{large.service.url}/studio{path}")

    assert problems(page) == []


def test_batch_of_many_requests_opens_at_once(page: Page, large: Stage):
    began = time.monotonic()
    page.goto(f"{large.service.url}/studio/batches/{large.batches['many requests']}")
    expect(page.get_by_text("19,980 succeeded, 20 failed").first).to_be_visible()

    assert time.monotonic() - began < 5
    assert problems(page) == []


def test_file_of_many_lines_is_read_piece_by_piece(page: Page, large: Stage):
    page.goto(f"{large.service.url}/studio/files/{large.files['many requests']}")
    first = page.locator(".lines li").first.inner_text()
    page.get_by_role("link", name="Next lines").click()
    expect(page).to_have_url(re.compile("offset="))

    assert page.locator(".lines li").first.inner_text() != first
    assert problems(page) == []


def test_older_batches_are_a_page_away(page: Page, large: Stage):
    page.goto(f"{large.service.url}/studio/batches")
    page.get_by_role("link", name="Older").click()
    expect(page).to_have_url(re.compile("after="))
    expect(page.locator("table.batches tbody tr").first).to_be_visible()

    assert problems(page) == []


@pytest.mark.parametrize("path", PATHS)
def test_pages_are_accessible_and_fit_while_the_upstream_is_away(page: Page, troubled: Stage, path: str):
    page.goto(f"{troubled.service.url}/studio{path}")

    assert problems(page) == []


def test_batch_says_that_nobody_serves_its_model(page: Page, troubled: Stage):
    page.goto(f"{troubled.service.url}/studio/batches/{troubled.batches['stalled']}")
    expect(page.locator("#batch-state")).to_contain_text("Stalled")

    assert problems(page) == []


def test_upstreams_say_what_is_wrong(page: Page, troubled: Stage):
    page.goto(f"{troubled.service.url}/studio/upstreams")

    expect(page.locator("main")).to_contain_text(re.compile("refused|does not answer", re.IGNORECASE))
