"""The gallery has every part in every state, each of which renders alone, and nothing in it runs."""

from __future__ import annotations

from typing import Any

import pytest
from tests.studio.test_pages import Outline

from overnight.studio import specimens
from overnight.studio.templating import Templates

NOW = 1_800_000_000.0
TEMPLATES = Templates("")

PARTS: list[tuple[str, str, specimens.Specimen[Any]]] = [
    *(("request", "one", each) for each in specimens.requests(NOW)),
    *(("failures", "inside", each) for each in specimens.insides()),
    *(("tail", "inside", each) for each in specimens.insides()),
    *(("strip", "overview", each) for each in specimens.strips()),
    *(("allowance", "allowance", each) for each in specimens.allowances()),
    *(("traffic", "traffic", each) for each in specimens.traffics("")),
]
FOUND = {
    "request": {
        "conversation": "Is this review positive?",
        "tool call": "calls find",
        "refusal": "I cannot help with that.",
        "image": '<img src="data:image/png;base64,',
        "embedding": "5 numbers: 0.12",
        "hostile text": "⟨U+202E⟩",
        "JSON only": "no form that can be shown as messages",
        "too long to be shown whole": "more characters",
        "failed": "At most 4,096 tokens.",
        "waiting": "There is no response yet.",
        "files missing": "was deleted or has expired",
    },
    "failures": {
        "results and failures": "rate_limit_exceeded",
        "none yet": "None so far.",
        "being read": "Reading what has come so far",
        "not to be read": "is not known any more",
        "none at all": "None.",
    },
    "tail": {
        "results and failures": "1,234 tokens",
        "none yet": "Nothing has come yet.",
        "not to be read": "cannot be read",
    },
    "strip": {"every state": "Left alone", "none is set up": "No upstream is set up."},
    "allowance": {
        "quotas, caps and use": 'class="bar danger"',
        "use without limits": "12.40 EUR",
        "nothing used, nothing limited": "Nothing was used this month",
    },
    "traffic": {"nothing yet": "/studio/_gallery/traffic/0", "an hour": "/studio/_gallery/traffic/2"},
}


@pytest.mark.parametrize(("part", "takes", "each"), PARTS, ids=[f"{part}: {each.name}" for part, _, each in PARTS])
def test_part_renders_alone_in_each_state(part: str, takes: str, each: specimens.Specimen[Any]):
    html = TEMPLATES.render(f"parts/{part}.html", **{takes: each.model})
    outline = Outline(html)

    assert (outline.open, outline.strays, outline.dangerous) == ([], [], [])
    assert FOUND[part].get(each.name, "") in html
    assert "\u202e" not in html


@pytest.mark.parametrize(("name", "count"), [("0", 0), ("1", 12), ("2", 360), ("none", 0)])
def test_made_up_charts_have_little_and_much_to_draw(name: str, count: int):
    assert len(specimens.chart(name, NOW).times) == count
