"""A guess by size, for models whose tokenizer is not at hand."""

from __future__ import annotations

import msgspec

from overnight.domain.tokens import BYTES_A_TOKEN, size_of


class BytesEstimate(msgspec.Struct, frozen=True):
    """A token for every four bytes, as English has it; other languages and code have more or fewer."""

    name: str = f"bytes/{BYTES_A_TOKEN}"
    exact: bool = False

    def count(self, text: str) -> int:
        return -(-size_of(text) // BYTES_A_TOKEN)
