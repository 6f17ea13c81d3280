"""Debian's headless Chromium, driven by Playwright; installed if it is missing and we may."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from playwright.sync_api import sync_playwright

if TYPE_CHECKING:
    from playwright.sync_api import Browser

_LONGEST_INSTALLATION = 300
_NAMES = ("chromium", "chromium-browser", "google-chrome")


def program() -> str:
    """Give the path of the browser. Raises ``RuntimeError`` if there is none and it cannot be installed."""
    found = _installed()
    if found is None:
        _install()
        found = _installed()
    if found is None:
        message = "the tests of the Studio need Chromium: `apt-get install chromium`, or have it on the PATH"
        raise RuntimeError(message)
    return found


def _installed() -> str | None:
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


def _install() -> None:
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return
    noninteractive = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update"], ["install", "--yes", "--no-install-recommends", "chromium", "fonts-dejavu-core"]):
        subprocess.run(
            ["apt-get", "-qq", *command],
            check=False,
            env=noninteractive,
            stdout=subprocess.DEVNULL,
            timeout=_LONGEST_INSTALLATION,
        )


@contextmanager
def running() -> Iterator[Browser]:
    """Lend a browser. Its sandbox needs rights that root in a container does not have; it sees only our own pages."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program(), args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()
