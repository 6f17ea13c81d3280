"""How a page is looked at: light and dark, wide and narrow; with axe, and for what sticks out."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from playwright.sync_api import expect

if TYPE_CHECKING:
    from typing import Literal

    from playwright.sync_api import Page

    Theme = Literal["light", "dark"]

WIDE, NARROW = 1280, 390

LOOKS: tuple[tuple[Theme, int], ...] = (("light", WIDE), ("dark", WIDE), ("dark", NARROW), ("light", NARROW))

# Looking at colours takes three quarters of the time, most of it for rows that are as those above them.
_ALIKE = "tbody tr:nth-child(n + 13), .lines li:nth-child(n + 13)"
_OF_COLOURS = ["color-contrast", "link-in-text-block"]
_COLOURS = {"context": {"exclude": [_ALIKE]}, "options": {"runOnly": _OF_COLOURS}}
# No other rule sees the theme.
_ALL_ELSE = {"context": {}, "options": {"rules": {rule: {"enabled": False} for rule in _OF_COLOURS}}}

_VIOLATIONS = """async ({ context, options }) =>
  (await axe.run({ include: [document], ...context }, { resultTypes: ["violations"], ...options })).violations.flatMap(
    ({ id, nodes }) => nodes.slice(0, 3).map(
      (node) => `${id} at ${node.target}: ${(node.failureSummary ?? "").slice(0, 300)}`))"""
_STICKING_OUT = """() => {
  const width = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth <= width) return [];
  return [...document.querySelectorAll("body *")]
    .filter((each) => each.getBoundingClientRect().right > width + 1)
    .map((each) => `${each.tagName} ${each.id} ${each.className}`).slice(0, 5).concat(["something"]);
}"""

# A chart takes its new width when the next frame is drawn.
_DRAWN = "() => new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))"


def arrive(page: Page, url: str, title: str) -> None:
    """Load a page and wait until all of it is there."""
    page.goto(url)
    expect(page.locator("h1")).to_contain_text(title)
    expect(page.locator("[aria-busy=true]")).to_have_count(0)


def problems(page: Page) -> list[str]:
    """Look at a page in both themes at both widths, without loading it again; say what is wrong with it."""
    page.evaluate(_axe())
    found: list[str] = []
    for theme, width in LOOKS:
        page.emulate_media(color_scheme=theme, reduced_motion="reduce")
        page.set_viewport_size({"width": width, "height": 800})
        page.evaluate(_DRAWN)
        where = f"{theme}, {width} px"
        found += [f"{where}: {each} sticks out" for each in page.evaluate(_STICKING_OUT)]
        found += [f"{where}: {each}" for each in page.evaluate(_VIOLATIONS, _COLOURS)]
        if (theme == "light") == (width == WIDE):
            found += [f"{where}: {each}" for each in page.evaluate(_VIOLATIONS, _ALL_ELSE)]
    return found


@cache
def _axe() -> str:
    return files("axe_playwright_python").joinpath("axe.min.js").read_text()
