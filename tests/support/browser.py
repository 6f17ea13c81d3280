"""Headless Chromium, driven by Playwright. If there is none, Debian's is installed where we may, else Playwright's."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from playwright.sync_api import Error, sync_playwright

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Playwright

_LONGEST_INSTALLATION = 600
_NAMES = ("chromium", "chromium-browser", "chromium-headless-shell", "google-chrome", "google-chrome-stable")
# Playwright's driver is linked to libatomic, which a bare Debian lacks and Chromium does not ask for.
_PACKAGES = ("chromium", "fonts-dejavu-core", "libatomic1")
_PLAYWRIGHT = (sys.executable, "-m", "playwright")
_MISSING = "the tests of the Studio need Chromium: `apt-get install chromium`, or have it on the PATH. Tried in vain:\n"
# Root in a container lacks the rights that the sandbox needs, and the browser sees only pages of ours.
# Containers often have 64 MB of shared memory; a file takes its place.
_ARGUMENTS = ("--no-sandbox", "--disable-dev-shm-usage")


@cache
def prepare() -> str:
    """Install a browser if none starts. Gives what was tried in vain; nothing if there is one now."""
    with _alone():
        if _starts():
            return ""
        tried = "\n".join(_tried())
        return "" if _starts() else tried or "nothing failed, and none starts"


def _tried() -> Iterator[str]:
    for commands in _ways():
        for command in commands:
            said = _run(command)
            if said:
                yield f"{' '.join(command)}: {said}"
        if _starts():
            return


def _ways() -> Iterator[list[Sequence[str]]]:
    """Give the ways to install one, the best first; each is some commands."""
    with_rights = [] if os.geteuid() == 0 else ["sudo", "-n"]
    if shutil.which("apt-get") and (not with_rights or shutil.which("sudo")):
        apt = [*with_rights, "apt-get", "-qq", "-o", "DPkg::Lock::Timeout=120"]
        yield [[*apt, "update"], [*apt, "install", "--yes", "--no-install-recommends", *_PACKAGES]]
        yield [[*_PLAYWRIGHT, "install", "--with-deps", "--only-shell", "chromium"]]
    yield [[*_PLAYWRIGHT, "install", "--only-shell", "chromium"]]


def _run(command: Sequence[str]) -> str:
    """Run one step; give the end of what it said if it failed."""
    quietly = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, env=quietly, timeout=_LONGEST_INSTALLATION
        )
    except (OSError, subprocess.TimeoutExpired) as problem:
        return str(problem)
    return (done.stderr or done.stdout)[-1_000:] if done.returncode else ""


@contextmanager
def _alone() -> Iterator[None]:
    """Keep the other processes that test from installing at the same time."""
    with (Path(tempfile.gettempdir()) / "overnight-tests-browser.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _starts() -> bool:
    if _run([*_PLAYWRIGHT, "--version"]):
        return False
    with sync_playwright() as playwright:
        browser = _launch(playwright)
        if browser is not None:
            browser.close()
        return browser is not None


def _launch(playwright: Playwright) -> Browser | None:
    """Start the first that starts, of those on the PATH and Playwright's own: what is there may be a mere pointer."""
    for path in [*filter(None, map(shutil.which, _NAMES)), None]:
        with suppress(Error):
            return playwright.chromium.launch(executable_path=path, args=_ARGUMENTS)
    return None


@contextmanager
def running() -> Iterator[Browser]:
    """Lend a browser. Raises ``RuntimeError`` if there is none and none can be installed."""
    problems = prepare()
    if problems:
        raise RuntimeError(_MISSING + problems)
    with sync_playwright() as playwright:
        browser = _launch(playwright)
        if browser is None:
            raise RuntimeError(_MISSING + "it does not start any more")
        try:
            yield browser
        finally:
            browser.close()
