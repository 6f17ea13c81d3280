"""Counting tokens: which encoding a model has, and an estimate from a sample with a bound of its error."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterator
from enum import StrEnum

import msgspec

O200K = "o200k_base"
CL100K = "cl100k_base"

BYTES_A_TOKEN = 4
"""What is taken where no tokenizer is known."""

_O200K_MODELS = re.compile(r"(chatgpt-4o|gpt-4o|gpt-4\.[15]|gpt-5|gpt-oss|o[134])(?![a-z0-9])")
_CL100K_MODELS = re.compile(r"(gpt-4|gpt-3\.5|gpt-35|text-embedding-3|text-embedding-ada)(?![a-z0-9])")

_PIECE = 16_384
_ALL_AT_FIRST = 64
# 1.96 is enough where the error is normal. Texts that differ much make it skewed, and need this for the same 95 %.
_DEVIATIONS = 2.5
_FEW = 10


class Accuracy(StrEnum):
    """How far a count can be trusted."""

    EXACT = "exact"
    SAMPLED = "sampled"
    ESTIMATE = "estimate"


class PromptCount(msgspec.Struct, frozen=True, kw_only=True):
    """The prompt tokens of one request, and the tokenizer that counted its texts."""

    tokens: int
    exact: bool
    tokenizer: str


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """A number of tokens; it is off by no more than ``error`` in 95 of 100 cases."""

    tokens: float
    error: float


def encoding_of(model: str) -> str | None:
    """Give the encoding of a model of OpenAI by its name, also behind a provider's or as a fine-tune, or ``None``."""
    name = model.removeprefix("ft:").rpartition("/")[2].lower()
    if _O200K_MODELS.match(name):
        return O200K
    return CL100K if _CL100K_MODELS.match(name) else None


def size_of(text: str) -> int:
    """Give the bytes of a text in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())


def pieces(text: str) -> Iterator[str]:
    """Cut a long text, before a space where there is one, so that the cut itself hardly changes the count."""
    start = 0
    while len(text) - start > _PIECE:
        end = text.rfind(" ", start + 1, start + _PIECE)
        end = end if end > start else start + _PIECE
        yield text[start:end]
        start = end
    yield text[start:] if start else text


class Sample:
    """Estimates the tokens of many texts from some of them, in constant memory, and the same each time.

    Texts are sorted into strata by their length. Each stratum is cut into blocks of texts that follow each other, and
    one text of each block, drawn at random, is counted. The first blocks hold one text, later ones at most ``one_in``.
    """

    def __init__(self, one_in: int, seed: int = 0) -> None:
        self._one_in = one_in
        self._random = random.Random(seed)  # noqa: S311 - a spread that is the same each time is wanted
        self._strata: dict[int, _Stratum] = {}

    def draw(self, size: int) -> int:
        """Say how many texts this one of ``size`` bytes stands for; 0 means that it need not be counted."""
        stratum = self._stratum(size)
        stratum.see(size)
        if stratum.left == 0:
            stratum.left = min(max(stratum.texts // _ALL_AT_FIRST, 1), self._one_in)
            stratum.block = stratum.left
            stratum.drawn = self._random.randint(1, stratum.left) if stratum.left > 1 else 1
        stratum.left -= 1
        return stratum.block if stratum.left + 1 == stratum.drawn else 0

    def add(self, size: int, tokens: int, weight: int) -> None:
        """Take in the count of a text that was drawn with this weight."""
        self._stratum(size).add(size, tokens, weight)

    def estimate(self) -> Estimate:
        """Give the tokens of all texts that were seen."""
        parts = [stratum.estimate() for stratum in self._strata.values()]
        return Estimate(
            tokens=math.fsum(tokens for tokens, _ in parts),
            error=_DEVIATIONS * math.sqrt(math.fsum(variance for _, variance in parts)),
        )

    def _stratum(self, size: int) -> _Stratum:
        length = size.bit_length()
        stratum = self._strata.get(length)
        if stratum is None:
            stratum = self._strata[length] = _Stratum()
        return stratum


class _Stratum(msgspec.Struct):
    """Sums over the texts of about one length, from which a ratio of tokens to bytes and its variance follow."""

    texts: int = 0
    bytes: int = 0
    left: int = 0
    block: int = 1
    drawn: int = 1
    drawings: int = 0
    counted: int = 0
    counted_bytes: int = 0
    counted_tokens: int = 0
    weighted_bytes: int = 0
    weighted_tokens: int = 0
    plain: tuple[int, int, int] = (0, 0, 0)
    spread: tuple[int, int, int] = (0, 0, 0)

    def see(self, size: int) -> None:
        self.texts += 1
        self.bytes += size

    def add(self, size: int, tokens: int, weight: int) -> None:
        self.drawings += weight > 1
        self.counted += 1
        self.counted_bytes += size
        self.counted_tokens += tokens
        self.weighted_bytes += weight * size
        self.weighted_tokens += weight * tokens
        self.plain = _more(self.plain, size, tokens, 1)
        self.spread = _more(self.spread, size, tokens, weight * (weight - 1))

    def estimate(self) -> tuple[float, float]:
        """Give the tokens and their variance: the greater of what the drawing and what a regression say.

        The second is for a last block of which nothing was drawn.
        """
        missing = self.texts - self.counted
        if not missing or not self.weighted_bytes:
            return self.counted_tokens, 0.0
        ratio = self.weighted_tokens / self.weighted_bytes
        by_drawing = _residuals(self.spread, ratio) * (self.bytes / self.weighted_bytes) ** 2
        by_model = _residuals(self.plain, ratio) / (self.counted - 1) * missing * (1 + missing / self.counted)
        # Few draws may have missed the texts that matter: the error of their variance counts, too.
        doubt = 1 + _FEW / max(self.drawings, 1)
        return ratio * self.bytes, max(by_drawing, by_model) * doubt * doubt


def _more(sums: tuple[int, int, int], size: int, tokens: int, weight: int) -> tuple[int, int, int]:
    return (
        sums[0] + weight * tokens * tokens,
        sums[1] + weight * tokens * size,
        sums[2] + weight * size * size,
    )


def _residuals(sums: tuple[int, int, int], ratio: float) -> float:
    """Sum the squares of what the ratio does not explain."""
    return max(sums[0] - 2 * ratio * sums[1] + ratio * ratio * sums[2], 0.0)
