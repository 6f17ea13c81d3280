"""A page of a real browser that fails the test on anything that goes wrong behind it: scripts, policy, requests."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, ConsoleMessage, Page, Request, Response

# The stream of a page that is left, and a download, are broken off by the browser itself.
_BROKEN_OFF = "net::ERR_ABORTED"
_TELL_VIOLATIONS = """
document.addEventListener("securitypolicyviolation", (event) =>
  console.error(`policy: ${event.violatedDirective} refused ${event.blockedURI} (${event.sample})`));
"""


class Troubles:
    """What went wrong so far. ``expected`` are patterns of what a test brings about on purpose."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self.expected: list[str] = []

    def unexpected(self) -> list[str]:
        """Give what no pattern of ``expected`` is found in."""
        return [each for each in self.found if not any(re.search(pattern, each) for pattern in self.expected)]

    def check(self) -> None:
        """Fail if anything unexpected went wrong."""
        unexpected = self.unexpected()

        assert unexpected == [], "\n".join(unexpected)

    def watch(self, page: Page) -> None:
        """Take down what goes wrong in a page from now on."""
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.found.append(f"page error: {error}"))
        page.on("requestfailed", self._failed)
        page.on("response", self._answered)

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.found.append(f"console {message.type}: {message.text}")

    def _failed(self, request: Request) -> None:
        if request.failure != _BROKEN_OFF:
            self.found.append(f"request failed: {request.method} {request.url}: {request.failure}")

    def _answered(self, response: Response) -> None:
        if response.status >= 400:
            self.found.append(f"answered {response.status}: {response.url}")


@contextmanager
def watched(context: BrowserContext, troubles: Troubles) -> Iterator[Page]:
    """Lend a page of a context, and fail at the end if anything unexpected went wrong."""
    context.add_init_script(_TELL_VIOLATIONS)
    page = context.new_page()
    troubles.watch(page)
    try:
        yield page
    finally:
        page.close()
    troubles.check()
