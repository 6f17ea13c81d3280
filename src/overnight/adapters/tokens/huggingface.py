"""The tokenizer of an open model, from its ``tokenizer.json``. Needs the extra ``tokenizers``."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class TokenizerUnusable(Exception):
    """There is no such file, it is no tokenizer, or the package that reads it is missing; ``hint`` says what to do."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


class TokenizerFile(msgspec.Struct, frozen=True):
    """A tokenizer file. It is loaded at the first count, and once for each process."""

    path: Path
    exact: bool = True

    @property
    def name(self) -> str:
        return str(self.path)

    def count(self, text: str) -> int:
        return len(_tokenizer(self.path).encode(text, add_special_tokens=False).ids)


def open_file(path: Path) -> TokenizerFile:
    """Load a tokenizer file, so that it is known to be usable. Raises ``TokenizerUnusable``."""
    _tokenizer(path)
    return TokenizerFile(path)


@cache
def _tokenizer(path: Path) -> Tokenizer:
    try:
        from tokenizers import Tokenizer  # noqa: PLC0415 - an optional package
    except ImportError as error:
        message = "the package `tokenizers`, which reads tokenizer files, is not installed"
        raise TokenizerUnusable(message, "pip install 'overnight[tokenizers]', or set tokenizer to estimate") from error
    try:
        return Tokenizer.from_buffer(path.read_bytes())
    except (OSError, ValueError) as error:
        message = f"the tokenizer file `{path}` cannot be used: {error}"
        raise TokenizerUnusable(message, "name a tokenizer.json, or set tokenizer to estimate") from error
