"""Takes the pictures of the Studio for the documentation, from a real service with made-up content.

`python docs/pictures.py` writes them to `docs/pictures/`. It needs Chromium and the packages of `requirements/dev.txt`.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from tests.support.api import OPENAI, Api  # noqa: E402 - the tests are no package
from tests.support.browser import running  # noqa: E402 - the same
from tests.support.http import Http  # noqa: E402 - the same
from tests.support.service import Service  # noqa: E402 - the same

from overnight.testing.upstream import Gate, ScriptedUpstream, answer, by_text, error, held  # noqa: E402 - the same

if TYPE_CHECKING:
    from playwright.sync_api import Browser

CHAT = "/v1/chat/completions"
MODELS = ("qwen3-32b", "llama-3.3-70b")
REVIEWS = (
    "The delivery came two days early and everything was intact.",
    "The lid broke after a week. I would like a replacement.",
    "Good value, but the manual is only in French.",
)


def requests(name: str, count: int, model: str, *, endings: tuple[tuple[str, int], ...] = ()) -> bytes:
    """Write an input; so many of its last requests carry each ending, by which the upstream knows them."""
    marks = [""] * (count - sum(number for _, number in endings)) + [
        mark for mark, each in endings for _ in range(each)
    ]
    return b"".join(
        json.dumps(
            {
                "custom_id": f"{name}-{place:05d}",
                "method": "POST",
                "url": CHAT,
                "body": {
                    "model": model,
                    "messages": [
                        {"role": "system", "content": "Say in one word whether the review is positive."},
                        {"role": "user", "content": f"{REVIEWS[place % 3]}{mark}"},
                    ],
                },
            }
        ).encode()
        + b"\n"
        for place, mark in enumerate(marks)
    )


def fill(api: Api) -> dict[str, str]:
    """Have batches that ended well, less well, not at all, and one under way. Gives their ids by their names."""
    too_long = (" (too long)", 9)
    contents = {
        "invoices-october": requests("invoice", 1_200, MODELS[0]),
        "support-tickets": requests("ticket", 640, MODELS[1], endings=(too_long,)),
        "catalogue-draft": requests("item", 3, MODELS[0]) + b"{not json}\n" + requests("item", 1, MODELS[0]),
        "reviews-november": requests("review", 2_400, MODELS[0], endings=(too_long, (" (later)", 900))),
    }
    ids = {}
    for name, content in contents.items():
        file_id = api.upload(content, f"{name}.jsonl")
        ids[name] = api.create(file_id, metadata={"name": name, "team": "insight"})
        if name != "reviews-november":
            api.end(ids[name], timeout=60)
    return ids


def take(browser: Browser, url: str, ids: dict[str, str]) -> None:
    """Take each picture as somebody would see it."""
    running_batch = f"/studio/batches/{ids['reviews-november']}"
    for name, path, theme in (
        ("overview", "/studio", "light"),
        ("batches", "/studio/batches", "light"),
        ("batch", running_batch, "light"),
        ("batch-dark", running_batch, "dark"),
        ("upstreams", "/studio/upstreams", "light"),
    ):
        context = browser.new_context(
            viewport={"width": 1280, "height": 860},
            color_scheme="dark" if theme == "dark" else "light",
            reduced_motion="reduce",
        )
        page = context.new_page()
        page.goto(url + path)
        if path == running_batch:
            page.locator("#batch-state .counts .failed", has_text="9").wait_for()
        target = HERE / "pictures" / f"{name}.png"
        page.screenshot(path=target)
        print(f"{target.relative_to(HERE.parent)}  {target.stat().st_size / 1000:.0f} kB")
        context.close()


def main() -> None:
    """Start everything, take the pictures, and leave nothing behind."""
    gate = Gate()
    full = error(400, "This model's maximum context length is 32768 tokens.", code="context_length_exceeded")
    script = by_text({"(too long)": full, "(later)": held(gate)}, answer())
    (HERE / "pictures").mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        ScriptedUpstream(models=MODELS, script=script) as upstream,
        Service(Path(folder), upstreams=[upstream.url]) as service,
        running() as browser,
    ):
        try:
            take(browser, service.url, fill(Api(Http(service.url), OPENAI)))
        finally:
            gate.open()


if __name__ == "__main__":
    main()
