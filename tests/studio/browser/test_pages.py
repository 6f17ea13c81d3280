"""Every page of a service that is new, and of one in ordinary use: accessible, and it fits, in each theme and width."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from tests.studio.browser import states
from tests.studio.browser.looks import arrive, problems
from tests.studio.browser.states import PAGES, Stage


@pytest.mark.parametrize(("path", "title"), PAGES)
def test_pages_of_a_new_service_are_accessible_and_fit(seen: Page, bare: Stage, path: str, title: str):
    arrive(seen, bare.service.url + path, title)

    assert problems(seen) == []


@pytest.mark.parametrize(
    ("path", "title"),
    [
        *PAGES,
        ("/studio?span=7d", "Overview"),
        ("/studio/batches?view=attention", "Batches"),
        ("/studio/batches?q=status%3Anothing", "Batches"),
        ("/studio/batches?q=model%3Aelsewhere", "Batches"),
        ("/studio/batches/cancel", "Cancel"),
        ("/studio/files?purpose=batch_output", "Files"),
        ("/studio/system?checks", "System"),
        ("/studio/_gallery", "Gallery"),
    ],
)
def test_pages_with_ordinary_content_are_accessible_and_fit(seen: Page, normal: Stage, path: str, title: str):
    arrive(seen, normal.service.url + path, title)

    assert problems(seen) == []


def test_questions_before_many_are_cancelled_or_deleted_are_accessible_and_fit(seen: Page, normal: Stage):
    ids = "&".join(f"id={batch_id}" for batch_id in normal.batches.values())
    arrive(seen, f"{normal.service.url}/studio/batches/cancel?{ids}", "Cancel")
    of_batches = problems(seen)
    ids = "&".join(f"id={file_id}" for file_id in normal.files.values())
    arrive(seen, f"{normal.service.url}/studio/files/delete?{ids}", "Delete")

    assert of_batches + problems(seen) == []


def test_dialogs_are_accessible_and_fit(seen: Page, normal: Stage):
    arrive(seen, f"{normal.service.url}/studio/batches/{normal.batches['running']}", "running")
    seen.keyboard.press("?")
    expect(seen.locator("#shortcuts")).to_be_visible()
    of_the_keys = problems(seen)
    seen.keyboard.press("Escape")
    seen.get_by_role("button", name="Cancel batch").click()
    expect(seen.locator("#cancel-dialog")).to_be_visible()

    assert of_the_keys + problems(seen) == []


def test_page_that_is_not_there_is_accessible_and_fits(page: Page, normal: Stage, troubles):
    troubles.expected = ["404"]
    arrive(page, f"{normal.service.url}/studio/batches/batch_none", "Not found")

    assert problems(page) == []


def test_signing_in_is_accessible_and_fits(page: Page, tmp_path: Path, troubles):
    troubles.expected = ["401", "403"]
    (tmp_path / "keys.txt").write_text("key-of-the-blue-team blue\n")
    with states.stage(tmp_path, "--keys-file", str(tmp_path / "keys.txt")) as there:
        arrive(page, f"{there.service.url}/studio", "Sign in")
        at_first = problems(page)
        page.locator("input[name=key]").fill("another key")
        page.get_by_role("button", name="Sign in").click()
        expect(page.locator("#key-error")).to_be_visible()

        assert at_first + problems(page) == []
