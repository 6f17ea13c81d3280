"""A real browser that looks at a real service; nothing may go wrong behind a page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, ViewportSize, expect
from tests.studio.browser import states
from tests.studio.browser.states import Stage
from tests.support.browser import prepare, running
from tests.support.watched import Troubles, watched

from overnight.testing.upstream import Gate, answer, by_text, held

# In milliseconds: only a test that fails waits as long.
LONGEST = 20_000

SIZE: ViewportSize = {"width": 1280, "height": 800}

expect.set_options(timeout=LONGEST)

_HERE = Path(__file__).parent


def pytest_collection_finish(session: pytest.Session) -> None:
    """Install the browser before the first test, whose time is limited."""
    if not session.config.option.collectonly and any(item.path.is_relative_to(_HERE) for item in session.items):
        prepare()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One for each module, since its event loop must be gone before a test brings its own."""
    with running() as browser:
        yield browser


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = new_context(browser)
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
def window(browser: Browser) -> Iterator[tuple[Page, Troubles]]:
    """One page for all tests of a module."""
    context, troubles = new_context(browser), Troubles()
    with watched(context, troubles) as page:
        yield page, troubles
        troubles.found.clear()
    context.close()


@pytest.fixture
def seen(window: tuple[Page, Troubles]) -> Iterator[Page]:
    """The page of the module, for tests that only look: opening a new one takes longer than most of them."""
    page, troubles = window
    page.set_viewport_size(SIZE)
    troubles.found.clear()
    yield page
    # Leaving ends the stream of the page, which would be broken off with the service otherwise.
    page.goto("about:blank")
    troubles.check()


def new_context(browser: Browser) -> BrowserContext:
    """Begin anew, with nothing stored."""
    context = browser.new_context(viewport=SIZE, reduced_motion="reduce")
    context.set_default_timeout(LONGEST)
    return context


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


@pytest.fixture
def gates(busy: Stage) -> Iterator[tuple[Gate, Gate]]:
    """What says ``first`` and what says ``second`` waits for these."""
    before, first, second = busy.upstream.script, Gate(), Gate()
    busy.upstream.script = by_text({"first": held(first), "second": held(second)}, answer())
    yield first, second
    first.open()
    second.open()
    busy.upstream.script = before
