"""Which tokenizer counts for which model: by settings, else by the model's name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from overnight.adapters.tokens.estimate import BytesEstimate
from overnight.adapters.tokens.huggingface import open_file
from overnight.adapters.tokens.openai_bpe import OpenAiBpe
from overnight.domain.tokens import CL100K, O200K, encoding_of

if TYPE_CHECKING:
    from overnight.ports.tokens import TokenCounter

AUTO = "auto"
_NAMED: Mapping[str, TokenCounter] = {
    "estimate": BytesEstimate(),
    "o200k": OpenAiBpe(O200K),
    "cl100k": OpenAiBpe(CL100K),
}


class ChosenCounters(msgspec.Struct, frozen=True):
    """The tokenizers that the settings name for some models, and one rule for all others."""

    chosen: Mapping[str, TokenCounter]
    otherwise: TokenCounter | None = None

    def of(self, model: str) -> TokenCounter:
        return self.chosen.get(model) or self.otherwise or by_name(model)


def by_name(model: str) -> TokenCounter:
    """Give the tokenizer that the name of a model tells, or the estimate."""
    encoding = encoding_of(model)
    return OpenAiBpe(encoding) if encoding else BytesEstimate()


def by_setting(setting: str, model: str) -> TokenCounter:
    """Give what a setting asks for: ``auto``, a name or the path of a tokenizer file. Raises ``TokenizerUnusable``."""
    if setting == AUTO:
        return by_name(model)
    return _NAMED.get(setting) or open_file(Path(setting))
