"""The design holds what it promises: contrast, sizes of scripts, nothing inline, vendored files as published."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

import overnight.studio

STUDIO = Path(overnight.studio.__file__).parent
STATIC, TEMPLATES = STUDIO / "static", STUDIO / "templates"
COLOUR = re.compile(r"--([\w-]+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\);")
TONES = ("neutral", "info", "progress", "success", "warning", "danger", "cancel")
SERIES = ("done", "failed", "running", "waiting", "tokens-in", "tokens-out")
GROUNDS = ("bg", "surface", "sunken")

VENDORED = {
    "htmx-4.0.1.min.js": "a0abb04f2f45a1f89d1d4844023245537e5e6014c87b144553e0607b4cc32130",
    "htmx.LICENSE.txt": "d3d2456f76414f2456104660ebd65aff1c04cd7966b942bdabd63f3cdb316a38",
    "hx-sse-4.0.1.min.js": "18ef2761356ec1fe0bb6d92612315b37517a7c1e9856b661c5ae81fef239d103",
    "uplot-1.6.32.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
    "uplot-1.6.32.min.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
    "uplot.LICENSE.txt": "8f989229699b4fe2f1a0432d0e9edc338a8a911e250e2d1b01ecd770a5f5b1bd",
}


def palettes() -> list[dict[str, str]]:
    found = COLOUR.findall((STATIC / "tokens.css").read_text())
    return [{name: light for name, light, _ in found}, {name: dark for name, _, dark in found}]


def luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.fixture(params=[0, 1], ids=["light", "dark"])
def palette(request: pytest.FixtureRequest) -> dict[str, str]:
    return palettes()[int(request.param)]


def test_contrast_of_black_and_white_is_known():
    assert round(contrast("#000000", "#ffffff"), 1) == 21.0


@pytest.mark.parametrize("text", ["text", "muted", "accent"])
@pytest.mark.parametrize("ground", GROUNDS)
def test_text_can_be_read_on_every_ground(palette: dict[str, str], text: str, ground: str):
    assert contrast(palette[text], palette[ground]) >= 4.5


@pytest.mark.parametrize("tone", TONES)
def test_badges_can_be_read(palette: dict[str, str], tone: str):
    assert contrast(palette[f"{tone}-text"], palette[f"{tone}-chip"]) >= 4.5


@pytest.mark.parametrize("ground", GROUNDS)
def test_edges_of_controls_can_be_seen(palette: dict[str, str], ground: str):
    assert contrast(palette["edge"], palette[ground]) >= 3


@pytest.mark.parametrize("tone", ["danger", "warning", "success", "info", "cancel"])
def test_toned_text_outside_of_badges_can_be_read(palette: dict[str, str], tone: str):
    assert min(contrast(palette[f"{tone}-text"], palette[ground]) for ground in GROUNDS) >= 4.5


@pytest.mark.parametrize("series", SERIES)
def test_series_can_be_told_from_the_ground(palette: dict[str, str], series: str):
    assert contrast(palette[f"series-{series}"], palette["bg"]) >= 3


def test_primary_buttons_can_be_read(palette: dict[str, str]):
    assert contrast(palette["on-accent"], palette["accent"]) >= 4.5


def test_colours_stand_in_the_tokens_only():
    text = (STATIC / "studio.css").read_text()

    assert re.findall(r"#[0-9a-fA-F]{3,8}\b(?=[^{]*;)", text) == []


def test_vendored_files_are_those_that_were_published():
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted((STATIC / "vendor").iterdir())}

    assert found == VENDORED


def test_there_are_few_scripts_of_our_own_and_each_is_short():
    lengths = {path.stem: len(path.read_text().splitlines()) for path in STATIC.glob("*.js")}

    assert lengths.keys() == {"live", "connection", "refused", "charts", "keys", "panel", "upload"}
    assert {name: length for name, length in lengths.items() if length > 150} == {}


@pytest.mark.parametrize("path", sorted(TEMPLATES.rglob("*.html")), ids=lambda path: path.name)
def test_templates_hold_no_script_no_style_and_no_arithmetic(path: Path):
    text = path.read_text()

    assert re.findall(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=|javascript:|hx-on", text) == []
    assert re.findall(r"\{\{[^}]*[^~{}\"'] [-+*/] [^}]*\}\}", text) == []
    assert "|safe" not in text.replace(" ", "")


@pytest.mark.parametrize("path", sorted(STATIC.glob("*.js")), ids=lambda path: path.name)
def test_scripts_make_no_html_of_their_own(path: Path):
    assert re.findall(r"innerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", path.read_text()) == []
