"""Commands that work on a data folder itself."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from overnight.config import Settings

R = TypeVar("R")


def data_folder(function: Callable[..., R]) -> Callable[..., R]:
    """Give a command the settings that say where the data folder is, as `settings`."""

    @click.option("--data-dir", metavar="DIR", type=click.Path(path_type=Path), help="Folder of the data")
    @click.option("--config", metavar="FILE", type=click.Path(path_type=Path), help="Settings file (TOML)")
    @wraps(function)
    def command(*args: Any, data_dir: Path | None, config: Path | None, **kwargs: Any) -> R:  # noqa: ANN401 - handed on
        return function(*args, settings=settings_of(data_dir, config), **kwargs)

    return command


def settings_of(data_dir: Path | None, config: Path | None) -> Settings:
    """Load the settings with the flags that say where the data folder is."""
    from overnight.config import load

    flags = {name: value for name, value in (("data_dir", data_dir), ("config", config)) if value is not None}
    return load(flags).settings
