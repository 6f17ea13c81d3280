"""Every error code that the service can emit, read from its source."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from tests.docs.pages import ROOT

from overnight.domain.retry import Fault

LAYERS = ("domain", "services", "dispatch", "api")

# Where codes stand in a table of their own: name of the table, and whether an entry looks like one of its codes.
_TABLES = ("_CODES", "_TABLE", "_BOUNDS")
# The code and the message of an error line.
_PAIR = re.compile(r"[A-Z]+(_[A-Z]+)+")
_CODE = re.compile(r"[a-z]+[A-Z][A-Za-z]+|[a-z]+(_[a-z]+)+|[45]\d\d|conflict")
# These stand in the same tables and name Python's or pydantic's own things.
_FOREIGN = frozenset({"greater_than_equal", "less_than_equal"})


def emitted_codes() -> set[str]:
    """Give all codes, on every prefix and in every file."""
    found = {f"upstream_{fault}" for fault in Fault}
    for layer in LAYERS:
        for module in (ROOT / "src" / "overnight" / layer).rglob("*.py"):
            found |= set(_codes_in(ast.parse(module.read_text())))
    # A timeout has a code of its own.
    return found - {f"upstream_{Fault.TIMEOUT}"} - _FOREIGN


def _codes_in(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.keyword(arg="code", value=value) | ast.Assign(targets=[ast.Name(id="code")], value=value):
                yield from _choices(value)
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=value)
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
            ) if name in _TABLES:
                yield from filter(_CODE.fullmatch, _texts(value))
            case ast.Assign(
                targets=[ast.Name(id=name)], value=ast.Tuple(elts=[ast.Constant(value=str(code)), ast.Constant()])
            ) if _PAIR.fullmatch(name):
                yield code


def _choices(value: ast.expr) -> Iterator[str]:
    """Give the texts that an expression may come to; what it asks a function for is found in that function."""
    match value:
        case ast.Constant(value=str(text)):
            yield text
        case ast.IfExp(body=first, orelse=second):
            yield from _choices(first)
            yield from _choices(second)
        case ast.BoolOp(values=values):
            for each in values:
                yield from _choices(each)


def _texts(value: ast.expr) -> Iterator[str]:
    for node in ast.walk(value):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
