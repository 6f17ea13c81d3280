"""The encodings of OpenAI's models, whose ranks come with the package: nothing is fetched."""

from __future__ import annotations

import warnings
from functools import cache
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable


class OpenAiBpe(msgspec.Struct, frozen=True):
    """One encoding, such as ``o200k_base``. It is loaded at the first count, and once for each process."""

    name: str
    exact: bool = True

    def count(self, text: str) -> int:
        return _counter(self.name)(text)


@cache
def _counter(name: str) -> Callable[[str], int]:
    with warnings.catch_warnings():
        # The package reads its data by a function that Python 3.11 and 3.12 call deprecated.
        warnings.simplefilter("ignore", DeprecationWarning)
        # The binding below the public wrapper: only it counts without making a list of the tokens, twice as fast.
        from bpe_openai._bindings import tokenizer_for_encoding  # noqa: PLC0415 - 70 MB that only counting needs

    count: Callable[[str], int] = tokenizer_for_encoding(name).count
    return count
