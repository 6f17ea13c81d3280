"""A file of 200 MB through the page: the bar moves, and neither side holds the file in memory."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from tests.studio.browser.states import CHAT, Stage, chat
from tests.support.api import request
from tests.support.watched import Troubles

SIZE = 200_000_000
MB = 1_000_000
_NOTE_THE_BAR = """() => new MutationObserver(() => {
  const bar = document.getElementById("upload-bar");
  sessionStorage.setItem("seen", `${sessionStorage.getItem("seen") ?? ""} ${bar.value}`);
}).observe(document.getElementById("upload-bar"), { attributes: true })"""


def write_large(path: Path) -> int:
    """Write a file of about ``SIZE`` bytes and give its size."""
    with path.open("wb") as file:
        number = 0
        while file.tell() < SIZE - 110_000:
            line = request(f"r-{number}", CHAT, chat("x" * 100_000))
            file.write(json.dumps(line).encode() + b"\n")
            number += 1
    return path.stat().st_size


def peak_memory(pid: int) -> int:
    """Give the most bytes that a process ever held in memory."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024


@pytest.mark.long
def test_large_file_is_uploaded_with_its_progress_shown(page: Page, busy: Stage, tmp_path: Path):
    size = write_large(tmp_path / "large.jsonl")
    before = peak_memory(busy.service.pid)
    page.goto(f"{busy.service.url}/studio/new")
    page.evaluate(_NOTE_THE_BAR)
    page.locator("#upload").set_input_files(tmp_path / "large.jsonl")
    expect(page).to_have_url(re.compile("file=file"), timeout=90_000)
    shown = [float(each) for each in page.evaluate("sessionStorage.getItem('seen')").split()]
    heap = page.evaluate("performance.memory.usedJSHeapSize")
    (tmp_path / "large.jsonl").unlink()

    assert size > 199 * MB
    assert shown == sorted(shown)
    assert len({each for each in shown if 0 < each < 100}) >= 2
    assert heap < 50 * MB
    assert peak_memory(busy.service.pid) - before < 100 * MB
    expect(page.get_by_role("button", name="Create batch")).to_be_enabled()


def test_upload_that_is_refused_says_why_and_can_be_tried_again(
    page: Page, busy: Stage, tmp_path: Path, troubles: Troubles
):
    troubles.expected = [" 400", "status of 400"]
    (tmp_path / "notes.txt").write_bytes(b"hello")
    (tmp_path / "empty.jsonl").write_bytes(b"")
    (tmp_path / "good.jsonl").write_bytes(json.dumps(request("a", CHAT)).encode())
    page.goto(f"{busy.service.url}/studio/new")
    page.locator("#upload").set_input_files(tmp_path / "notes.txt")
    expect(page.locator("#upload-error")).to_contain_text("Invalid file format")
    page.locator("#upload").set_input_files(tmp_path / "empty.jsonl")
    expect(page.locator("#upload-error")).to_contain_text("empty.jsonl is empty")
    page.locator("#upload").set_input_files(tmp_path / "good.jsonl")

    expect(page).to_have_url(re.compile("file=file"))
