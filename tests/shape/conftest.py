"""The repository as the shape tests see it."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def root() -> Path:
    """The root of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def tracked_files(root: Path) -> list[Path]:
    """Every file that is in git, or would be after `git add`."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout
    return sorted(root / name for name in listing.split("\0") if name and (root / name).is_file())


@pytest.fixture(scope="session")
def modules(root: Path) -> list[Path]:
    """Every Python module of the package."""
    return sorted((root / "src" / "overnight").rglob("*.py"))
