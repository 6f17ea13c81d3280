"""The wheel is complete: templates, migrations and samples that stay behind are the classic failure."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def wheel_names(root: Path, tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The names of the files in a wheel built from this tree, without any network."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(root)]
    built = subprocess.run(command, check=False, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = folder.glob("*.whl")
    return set(zipfile.ZipFile(wheel).namelist())


def test_the_wheel_holds_every_tracked_file_of_the_package(
    wheel_names: set[str], tracked_files: list[Path], root: Path
) -> None:
    """Code and data alike: what runs from the tree runs from the wheel."""
    package = root / "src"
    expected = {path.relative_to(package).as_posix() for path in tracked_files if path.is_relative_to(package)}

    assert expected - wheel_names == set()


def test_the_wheel_holds_nothing_but_the_package(wheel_names: set[str]) -> None:
    """Tests, docs and what lies about in a checkout stay at home."""
    top = {name.partition("/")[0] for name in wheel_names}

    assert {name for name in top if name != "overnight" and not name.endswith(".dist-info")} == set()


def test_the_wheel_offers_the_command(wheel_names: set[str]) -> None:
    """`overnight` is there after `pip install`."""
    assert any(name.endswith(".dist-info/entry_points.txt") for name in wheel_names)
