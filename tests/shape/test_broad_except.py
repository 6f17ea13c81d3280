"""An error is caught by its name, except at four boundaries that nothing may cross."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

BOUNDARIES = {
    "api/app.py": "HTTP error handler",
    "api/errors.py": "HTTP error handler",
    "dispatch/attempt.py": "attempt",
    "dispatch/dispatcher.py": "supervisor",
    "cli/main.py": "command line",
}
BROAD = {"Exception", "BaseException"}


class BroadExcept(NamedTuple):
    """One place that catches whatever comes."""

    module: str
    line: int
    text: str


@pytest.fixture(scope="module")
def broad_excepts(modules: list[Path], root: Path) -> list[BroadExcept]:
    """Every broad `except` and `suppress` of the package."""
    package = root / "src" / "overnight"
    return [found for module in modules for found in _broad_excepts_of(module, package)]


def test_only_the_boundaries_catch_everything(broad_excepts: list[BroadExcept]) -> None:
    """Anywhere else a broad `except` hides a bug."""
    strays = [found for found in broad_excepts if found.module not in BOUNDARIES]

    assert strays == []


def test_each_boundary_catches_in_one_place(broad_excepts: list[BroadExcept]) -> None:
    """Four boundaries, so at most four places."""
    used = [BOUNDARIES[found.module] for found in broad_excepts if found.module in BOUNDARIES]

    assert sorted(set(used)) == sorted(used), broad_excepts


def test_each_boundary_says_why(broad_excepts: list[BroadExcept]) -> None:
    """A reason stands on the line, for the second reader."""
    silent = [found for found in broad_excepts if not _reason(found.text)]

    assert silent == []


@pytest.mark.parametrize(
    ("code", "count"),
    [
        ("try: ...\nexcept Exception: ...", 1),
        ("try: ...\nexcept BaseException: ...", 1),
        ("try: ...\nexcept (ValueError, Exception): ...", 1),
        ("try: ...\nexcept: ...", 1),
        ("try: ...\nexcept* Exception: ...", 1),
        ("with contextlib.suppress(Exception): ...", 1),
        ("try: ...\nexcept ValueError: ...", 0),
        ("with suppress(OSError): ...", 0),
    ],
)
def test_a_broad_except_is_recognised_in_every_spelling(tmp_path: Path, code: str, count: int) -> None:
    """A budget that misses a spelling is no budget."""
    module = tmp_path / "module.py"
    module.write_text(code)

    assert len(list(_broad_excepts_of(module, tmp_path))) == count


def _broad_excepts_of(module: Path, package: Path) -> Iterator[BroadExcept]:
    source = module.read_text()
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ExceptHandler | ast.Call) and _is_broad(node):
            yield BroadExcept(module.relative_to(package).as_posix(), node.lineno, lines[node.lineno - 1].strip())


def _is_broad(node: ast.ExceptHandler | ast.Call) -> bool:
    match node:
        case ast.ExceptHandler(type=None):
            return True
        case ast.ExceptHandler(type=ast.Tuple(elts=caught)):
            return any(_name(each) in BROAD for each in caught)
        case ast.ExceptHandler(type=caught):
            return _name(caught) in BROAD
        case ast.Call(func=function, args=caught) if _name(function) == "suppress":
            return any(_name(each) in BROAD for each in caught)
    return False


def _name(node: ast.AST | None) -> str:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""


def _reason(line: str) -> str:
    comment = line.partition("#")[2]
    return re.sub(r"noqa(: *[A-Z0-9, ]+\b)?", "", comment).strip(" #-:")
