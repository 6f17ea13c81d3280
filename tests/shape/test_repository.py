"""The repository works anywhere: it names no machine, no folder of a developer and no package index."""

import re
from pathlib import Path

import pytest

ELSEWHERE = re.compile(r"(^|\s)(-i|-f|--index-url|--extra-index-url|--find-links|--trusted-host)\b|://|file:|\s@\s")
INDEX_SETTING = re.compile(r"--(extra-)?index-url|--find-links|\b(PIP|UV)_(\w*INDEX\w*|FIND_LINKS)\b|\[\[?tool\.uv")
PINNED = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)(\[[\w,]+\])?==\S+", re.MULTILINE)
FENCE = re.compile(r"^ *(?P<ticks>```+)(?P<language>[^\n`]*)\n.*?^ *(?P=ticks) *$", re.MULTILINE | re.DOTALL)
LANGUAGES = {
    "bash",
    "console",
    "css",
    "diff",
    "dockerfile",
    "dotenv",
    "html",
    "http",
    "ini",
    "javascript",
    "json",
    "jsonl",
    "make",
    "mermaid",
    "python",
    "sql",
    "text",
    "toml",
    "yaml",
}


@pytest.fixture(scope="module")
def texts(tracked_files: list[Path]) -> dict[Path, str]:
    """Every tracked file that is text."""
    contents = ((path, path.read_bytes()) for path in tracked_files)
    return {path: content.decode(errors="replace") for path, content in contents if b"\0" not in content[:8192]}


@pytest.fixture(scope="module")
def requirements(root: Path) -> list[Path]:
    """The requirement files, written and locked."""
    return sorted(path for path in (root / "requirements").iterdir() if path.suffix in {".in", ".txt"})


def test_requirements_say_what_and_never_from_where(requirements: list[Path]) -> None:
    """Which index serves the packages is the business of whoever installs."""
    found = [
        f"{path.name}:{number}: {line}"
        for path in requirements
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if ELSEWHERE.search(line.partition("#")[0] if path.suffix == ".in" else line)
    ]

    assert found == []


@pytest.mark.parametrize("name", ["Makefile", "pyproject.toml", ".ci/run"])
def test_the_tooling_configures_no_index(root: Path, name: str) -> None:
    """The same, for what calls pip."""
    text = (root / name).read_text().replace("--no-emit-index-url", "")

    assert INDEX_SETTING.search(text) is None


def test_each_locked_requirement_has_a_hash(requirements: list[Path]) -> None:
    """A lock without hashes trusts whatever the index serves."""
    locks = {path.name: path.read_text() for path in requirements if path.suffix == ".txt"}
    bare = [
        f"{name}: {pin['name']}"
        for name, text in locks.items()
        for pin in PINNED.finditer(text)
        if not text[pin.end() :].partition("\n")[2].lstrip().startswith("--hash=sha256:")
    ]

    assert all(PINNED.search(text) for text in locks.values())
    assert bare == []


def test_each_written_requirement_file_is_locked(requirements: list[Path]) -> None:
    """A change to one without `make lock` would go unnoticed."""
    written = {path.stem for path in requirements if path.suffix == ".in"}
    locked = {path.stem for path in requirements if path.suffix == ".txt"}

    assert written == locked


def test_no_file_names_a_folder_of_this_machine(texts: dict[Path, str], root: Path) -> None:
    """A path that is right on one machine is wrong on all others."""
    here = [str(place) for place in (root, Path.home()) if len(place.parts) > 2]
    found = [f"{path.relative_to(root)}: {place}" for path, text in texts.items() for place in here if place in text]

    assert found == []


def test_each_code_block_of_the_docs_names_its_language(texts: dict[Path, str], root: Path) -> None:
    """Readers get colours, and tests know what to run."""
    found = [
        f"{path.relative_to(root)}: {fence['language'].strip() or 'no language'}"
        for path, text in texts.items()
        if path.suffix == ".md"
        for fence in FENCE.finditer(text)
        if (fence["language"].split() or [""])[0] not in LANGUAGES
    ]

    assert found == []
