"""Functions and modules stay small: quality shows in the tail, so the tail has a budget."""

import ast
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest

MEDIAN_FUNCTION = 10
P95_FUNCTION = 40
LONGEST_FUNCTION = 80
LONGEST_MODULE = 600


@pytest.fixture(scope="module")
def functions(modules: list[Path], root: Path) -> dict[str, int]:
    """The length in lines of each function of the package, by its place."""
    return dict(measured for module in modules for measured in _functions_of(module, root))


def test_no_function_is_over_the_limit(functions: dict[str, int]) -> None:
    """What does not fit on a screen is not read as a whole."""
    too_long = {place: lines for place, lines in functions.items() if lines > LONGEST_FUNCTION}

    assert too_long == {}


def test_functions_are_short_as_a_whole(functions: dict[str, int]) -> None:
    """A few long functions are fine, many are a habit."""
    lengths = sorted(functions.values())
    p95 = lengths[int(0.95 * (len(lengths) - 1))]
    longest = sorted(functions.items(), key=lambda measured: -measured[1])[:10]

    assert statistics.median(lengths) <= MEDIAN_FUNCTION
    assert p95 <= P95_FUNCTION, f"the longest are {longest}"


def test_no_module_is_over_the_limit(modules: list[Path], root: Path) -> None:
    """A module that has outgrown its one subject is split."""
    lengths = {str(module.relative_to(root)): len(module.read_text().splitlines()) for module in modules}
    too_long = {place: lines for place, lines in lengths.items() if lines > LONGEST_MODULE}

    assert too_long == {}


def _functions_of(module: Path, root: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            yield f"{module.relative_to(root)}:{node.lineno} {node.name}", lines
