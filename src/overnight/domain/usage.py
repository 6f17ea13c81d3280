"""Token counts of a response and their sum over a batch (CONTRACT section 1.7)."""

from __future__ import annotations

import msgspec


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens that requests used."""

    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Input and output together; cached and reasoning tokens are parts of these."""
        return self.input_tokens + self.output_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
        )


NO_USAGE = Usage()


class _Details(msgspec.Struct):
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


_NO_DETAILS = _Details()


class ReportedUsage(msgspec.Struct):
    """The ``usage`` member of a response, in the words of chat completions or of responses."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None
    input_tokens_details: _Details | None = None
    output_tokens_details: _Details | None = None

    def to_usage(self) -> Usage:
        """Put both vocabularies into one; a negative count is taken as none."""
        of_input = self.input_tokens_details or self.prompt_tokens_details or _NO_DETAILS
        of_output = self.output_tokens_details or self.completion_tokens_details or _NO_DETAILS
        return Usage(
            input_tokens=_count(self.input_tokens, self.prompt_tokens),
            cached_tokens=_count(of_input.cached_tokens),
            output_tokens=_count(self.output_tokens, self.completion_tokens),
            reasoning_tokens=_count(of_output.reasoning_tokens),
        )


# The result log keeps each count in 32 bits.
_LARGEST_COUNT = 2**32 - 1


def _count(count: int | None, otherwise: int | None = None) -> int:
    known = otherwise if count is None else count
    return 0 if known is None or known < 0 else min(known, _LARGEST_COUNT)
