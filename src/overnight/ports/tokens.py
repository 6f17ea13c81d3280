"""Counting tokens as a model counts them, or about so."""

from typing import Protocol


class TokenCounter(Protocol):
    """One tokenizer. Counting is processor-bound, so long texts belong off the event loop; instances can be pickled."""

    @property
    def name(self) -> str:
        """The name of the tokenizer, as people know it."""

    @property
    def exact(self) -> bool:
        """Whether it counts as the model does; if not, counts are estimates that may be far off."""

    def count(self, text: str) -> int:
        """Give the tokens of a text on its own. What looks like a special token is plain text; never raises."""


class TokenCounters(Protocol):
    """The tokenizers of all models; instances can be pickled."""

    def of(self, model: str) -> TokenCounter:
        """Give the tokenizer for what callers write as ``model``; an estimate where none is known."""
