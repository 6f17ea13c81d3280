"""A real browser that looks at a real service; nothing may go wrong behind a page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect
from tests.studio.browser import states
from tests.studio.browser.states import Stage
from tests.support.browser import running
from tests.support.watched import Troubles, watched

# In milliseconds: only a test that fails waits as long.
LONGEST = 20_000

expect.set_options(timeout=LONGEST)

_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave these to `make studio`: they take minutes, and a machine of their own."""
    for item in items:
        if item.path.is_relative_to(_HERE):
            item.add_marker(pytest.mark.long)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One for each module, since its event loop must be gone before a test brings its own."""
    with running() as browser:
        yield browser


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(viewport={"width": 1280, "height": 800}, reduced_motion="reduce")
    context.set_default_timeout(LONGEST)
    yield context
    context.close()


@pytest.fixture
def troubles() -> Troubles:
    return Troubles()


@pytest.fixture
def page(context: BrowserContext, troubles: Troubles) -> Iterator[Page]:
    with watched(context, troubles) as page:
        yield page


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Nothing was ever uploaded."""
    with states.stage(tmp_path_factory.mktemp("bare")) as there:
        yield there


@pytest.fixture(scope="module")
def normal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("normal")
    states.show_the_gallery(folder)
    with states.stage(folder) as there:
        states.fill_normal(there)
        states.fill_hostile(there)
        yield there


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with states.stage(tmp_path_factory.mktemp("large")) as there:
        states.fill_large(there)
        yield there


@pytest.fixture(scope="module")
def troubled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with states.stage(tmp_path_factory.mktemp("troubled")) as there:
        states.bring_trouble(there)
        yield there


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """For tests that run batches of their own."""
    with states.stage(tmp_path_factory.mktemp("busy")) as there:
        yield there
