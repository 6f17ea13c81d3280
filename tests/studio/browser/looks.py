"""How a page is looked at: light and dark, wide and narrow; with axe, and for what sticks out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from axe_playwright_python.sync_playwright import Axe

if TYPE_CHECKING:
    from typing import Literal

    from playwright.sync_api import Page

    Theme = Literal["light", "dark"]

WIDE, NARROW = 1280, 390
LOOKS: tuple[tuple[Theme, int], ...] = (("light", WIDE), ("dark", WIDE), ("dark", NARROW), ("light", NARROW))

_STICKING_OUT = """() => {
  const width = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth <= width) return [];
  return [...document.querySelectorAll("body *")]
    .filter((each) => each.getBoundingClientRect().right > width + 1)
    .map((each) => `${each.tagName} ${each.id} ${each.className}`).slice(0, 5).concat(["something"]);
}"""


def problems(page: Page) -> list[str]:
    """Look at a page in each theme and width, without loading it again; say what is wrong with it."""
    found: list[str] = []
    for theme, width in LOOKS:
        page.emulate_media(color_scheme=theme, reduced_motion="reduce")
        page.set_viewport_size({"width": width, "height": 800})
        where = f"{theme}, {width} px"
        found += [f"{where}: {each} sticks out" for each in page.evaluate(_STICKING_OUT)]
        found += [f"{where}: {each}" for each in _violations(page)]
    return found


def _violations(page: Page) -> list[str]:
    violations = Axe().run(page).response["violations"]
    return [
        f"{each['id']} at {node['target']}: {node.get('failureSummary', '')[:300]}"
        for each in violations
        for node in each["nodes"][:3]
    ]
