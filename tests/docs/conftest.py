"""A folder that looks like a clone of this repository, without being one."""

import sys
from pathlib import Path

import pytest
from tests.docs.pages import ROOT

LINKED = ("Makefile", "README.md", "docs", "examples", "pyproject.toml", "requirements", "src")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What is written here, such as results and data folders, stays out of the checkout."""
    folder = tmp_path / "overnight"
    folder.mkdir()
    for name in LINKED:
        (folder / name).symlink_to(ROOT / name)
    (folder / ".venv").symlink_to(sys.prefix)
    return folder
