"""Every page while no upstream answers and a batch waits for one: it says so, is accessible, and fits."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect
from tests.studio.browser.looks import arrive, problems
from tests.studio.browser.states import PAGES, Stage


@pytest.mark.parametrize(("path", "title"), [*PAGES, ("/studio/system?checks", "System")])
def test_pages_are_accessible_and_fit_while_the_upstream_is_away(seen: Page, troubled: Stage, path: str, title: str):
    arrive(seen, troubled.service.url + path, title)

    assert problems(seen) == []


def test_batch_says_that_nobody_serves_its_model(seen: Page, troubled: Stage):
    arrive(seen, f"{troubled.service.url}/studio/batches/{troubled.batches['stalled']}", "stalled")
    expect(seen.locator("#batch-state")).to_contain_text("Stalled")

    assert problems(seen) == []


def test_upstreams_say_what_is_wrong(seen: Page, troubled: Stage):
    arrive(seen, f"{troubled.service.url}/studio/upstreams", "Upstreams")
    expect(seen.locator("main")).to_contain_text(re.compile("refused|does not answer", re.IGNORECASE))
    seen.get_by_role("button", name=re.compile("^Test ")).click()
    expect(seen.locator("main")).to_contain_text("failed after")

    assert problems(seen) == []
