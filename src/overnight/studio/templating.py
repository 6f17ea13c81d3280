"""Turns view models into HTML."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import TYPE_CHECKING

import msgspec
from jinja2 import Environment, PackageLoader, StrictUndefined

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.resources.abc import Traversable

_TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml", "txt": "text/plain"}


class Asset(msgspec.Struct, frozen=True, kw_only=True):
    """A static file; ``version`` changes with its bytes."""

    body: bytes
    media_type: str
    version: str


class Templates:
    """The templates, and the static files that they name."""

    def __init__(self, root: str) -> None:
        self.assets = dict(_assets(files("overnight.studio") / "static", ""))
        self._root = root
        self._environment = Environment(
            loader=PackageLoader("overnight.studio"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.globals["root"] = root
        self._environment.globals["static"] = self._static

    @property
    def names(self) -> Sequence[str]:
        """All templates."""
        return self._environment.list_templates(extensions=["html"])

    def prepare(self, template: str) -> None:
        """Compile a template, for which its first page would have to wait."""
        self._environment.get_template(template)

    def render(self, template: str, **values: object) -> str:
        """Fill a template."""
        return self._environment.get_template(template).render(**values)

    def _static(self, name: str) -> str:
        return f"{self._root}/studio/static/{name}?v={self.assets[name].version}"


def _assets(folder: Traversable, prefix: str) -> list[tuple[str, Asset]]:
    found: list[tuple[str, Asset]] = []
    for entry in folder.iterdir():
        name = f"{prefix}{entry.name}"
        if entry.is_dir():
            found.extend(_assets(entry, f"{name}/"))
            continue
        kind = _TYPES.get(name.rpartition(".")[2])
        if kind is not None:
            body = entry.read_bytes()
            version = hashlib.sha256(body).hexdigest()[:12]
            found.append((name, Asset(body=body, media_type=kind, version=version)))
    return found
