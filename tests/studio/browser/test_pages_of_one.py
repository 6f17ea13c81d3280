"""The pages of a batch in each state, of its requests and its files: accessible, and they fit; content does no harm."""

from __future__ import annotations

import pytest
from playwright.sync_api import Dialog, Page, expect
from tests.studio.browser.looks import arrive, problems
from tests.studio.browser.states import Stage


@pytest.mark.parametrize(
    "name",
    ["all well", "with failures", "all failed", "refused", "cancelled", "expired", "running", "files deleted"],
)
def test_batch_in_each_state_is_accessible_and_fits(seen: Page, normal: Stage, name: str):
    arrive(seen, f"{normal.service.url}/studio/batches/{normal.batches[name]}", name)

    assert problems(seen) == []


@pytest.mark.parametrize(
    ("name", "path", "title", "said"),
    [
        ("all well", "r-3", "r-3", "succeeded"),
        ("all failed", "r-0", "r-0", "context_length_exceeded"),
        ("expired", "r-7", "r-7", "expired"),
        ("running", "r-19", "r-19", "no response yet"),
        ("files deleted", "?line=0", "request 1", "deleted"),
    ],
)
def test_request_and_its_answer_are_accessible_and_fit(
    seen: Page, normal: Stage, name: str, path: str, title: str, said: str
):
    arrive(seen, f"{normal.service.url}/studio/batches/{normal.batches[name]}/requests/{path}", title)
    seen.evaluate("document.querySelectorAll('main details').forEach((each) => { each.open = true; })")

    expect(seen.locator("main")).to_contain_text(said, ignore_case=True)
    assert problems(seen) == []


@pytest.mark.parametrize("name", ["all well", "refused"])
def test_file_and_its_use_are_accessible_and_fit(seen: Page, normal: Stage, name: str):
    arrive(seen, f"{normal.service.url}/studio/files/{normal.files[name]}?check=1", "requests.jsonl")
    of_the_file = problems(seen)
    arrive(seen, f"{normal.service.url}/studio/new?file={normal.files[name]}", "New batch")

    assert of_the_file + problems(seen) == []


def test_hostile_content_is_shown_as_it_is_and_does_nothing(seen: Page, normal: Stage):
    opened: list[str] = []

    def close(dialog: Dialog) -> None:
        opened.append(dialog.message)
        dialog.dismiss()

    seen.on("dialog", close)
    found: list[str] = []
    for path, title in (
        ("", "Overview"),
        ("/batches", "Batches"),
        (f"/batches/{normal.batches['hostile']}", "alert"),
        (f"/batches/{normal.batches['hostile']}/requests/?line=1", "a<b>1"),
        ("/files", "Files"),
        (f"/files/{normal.files['hostile']}", "onerror"),
        (f"/new?file={normal.files['hostile']}", "New batch"),
        (f"/new?from={normal.batches['hostile']}", "New batch"),
    ):
        arrive(seen, f"{normal.service.url}/studio{path}", title)
        expect(seen.locator("main script, main img, main b[onerror]")).to_have_count(0)
        found += problems(seen)
    seen.remove_listener("dialog", close)

    assert (opened, found) == ([], [])


def test_line_of_five_megabytes_is_cut_for_the_page(seen: Page, normal: Stage):
    arrive(seen, f"{normal.service.url}/studio/files/{normal.files['long line']}", "one long line.jsonl")

    assert problems(seen) == []
    assert len(seen.content()) < 200_000
