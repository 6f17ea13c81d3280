"""Every page, empty, ordinary and with hostile content: it loads, is accessible, and fits, in each theme and width."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Dialog, Page, expect
from tests.studio.browser.looks import problems
from tests.studio.browser.states import Stage
from tests.support.watched import Troubles

PAGES = (
    ("/studio", "Overview"),
    ("/studio/batches", "Batches"),
    ("/studio/files", "Files"),
    ("/studio/upstreams", "Upstreams"),
    ("/studio/system", "System"),
    ("/studio/new", "New batch"),
)


def arrive(page: Page, url: str, title: str) -> None:
    page.goto(url)
    expect(page).to_have_title(re.compile(rf"\b{re.escape(title)}.* · overnight$"))
    expect(page.locator("h1")).to_have_text(re.compile(re.escape(title)))


@pytest.mark.parametrize(("path", "title"), PAGES)
def test_pages_of_a_new_service_are_accessible_and_fit(page: Page, bare: Stage, path: str, title: str):
    arrive(page, bare.service.url + path, title)

    assert problems(page) == []


@pytest.mark.parametrize(
    ("path", "title"),
    [
        *PAGES,
        ("/studio/batches?view=attention", "Batches"),
        ("/studio/batches?q=status%3Anothing", "Batches"),
        ("/studio/batches?q=model%3Aelsewhere", "Batches"),
        ("/studio/files?purpose=batch_output", "Files"),
        ("/studio/system?checks", "System"),
        ("/studio/_gallery", "Gallery"),
    ],
)
def test_pages_with_ordinary_content_are_accessible_and_fit(page: Page, normal: Stage, path: str, title: str):
    arrive(page, normal.service.url + path, title)

    assert problems(page) == []


@pytest.mark.parametrize("name", ["all well", "with failures", "all failed", "refused", "cancelled", "running"])
def test_batch_in_each_state_is_accessible_and_fits(page: Page, normal: Stage, name: str):
    arrive(page, f"{normal.service.url}/studio/batches/{normal.batches[name]}", name)

    assert problems(page) == []


@pytest.mark.parametrize("name", ["all well", "refused"])
def test_file_and_its_use_are_accessible_and_fit(page: Page, normal: Stage, name: str):
    arrive(page, f"{normal.service.url}/studio/files/{normal.files[name]}", "requests.jsonl")
    of_the_file = problems(page)
    arrive(page, f"{normal.service.url}/studio/new?file={normal.files[name]}", "New batch")

    assert of_the_file + problems(page) == []


def test_page_that_is_not_there_is_accessible_and_fits(page: Page, normal: Stage, troubles: Troubles):
    troubles.expected = ["404"]
    arrive(page, f"{normal.service.url}/studio/batches/batch_none", "Not found")

    assert problems(page) == []


def test_hostile_content_is_shown_as_it_is_and_does_nothing(page: Page, normal: Stage):
    opened: list[str] = []

    def close(dialog: Dialog) -> None:
        opened.append(dialog.message)
        dialog.dismiss()

    page.on("dialog", close)
    found: list[str] = []
    for path in (
        "",
        "/batches",
        f"/batches/{normal.batches['hostile']}",
        "/files",
        f"/files/{normal.files['hostile']}",
        f"/new?file={normal.files['hostile']}",
        f"/new?from={normal.batches['hostile']}",
    ):
        page.goto(f"{normal.service.url}/studio{path}")
        expect(page.locator("main script, main img, main b[onerror]")).to_have_count(0)
        found += problems(page)

    assert (opened, found) == ([], [])


def test_line_of_five_megabytes_is_cut_for_the_page(page: Page, normal: Stage):
    page.goto(f"{normal.service.url}/studio/files/{normal.files['long line']}")
    expect(page.locator("h1")).to_have_text("one long line.jsonl")

    assert problems(page) == []
    assert len(page.content()) < 200_000
