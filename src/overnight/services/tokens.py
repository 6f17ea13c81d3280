"""The prompt tokens of one request, and of all requests of a file in one streaming pass.

Runs in a worker process (``ports/offload.py``), so everything here is synchronous and can be pickled.
"""

from __future__ import annotations

import math
from pathlib import Path

import msgspec

from overnight.domain.limits import MIB
from overnight.domain.prompt import Prompt, prompt_of_body, prompt_of_line
from overnight.domain.tokens import Accuracy, PromptCount, Sample, pieces, size_of
from overnight.ports.tokens import TokenCounter, TokenCounters
from overnight.services.validate import lines

EXACT_BYTES = 16_000_000
"""Up to this size all of a file is counted; of larger ones half as much."""

_READ_BUFFER = 1024 * 1024
_LONGEST_LINE = 64 * MIB
_MOST_MODELS = 256
# In characters: a line may be one long name, and what was found is kept.
_LONGEST_NAME = 256
OTHER_MODELS = "(others)"


class ModelTokens(msgspec.Struct, frozen=True, kw_only=True):
    """The requests of a file that name one model.

    The true number of tokens is within ``error`` of ``prompt_tokens`` in 95 of 100 cases, as far as sampling goes.
    ``max_output_tokens`` sums the bounds that ``bounded`` requests give for their answers.
    """

    model: str
    requests: int
    prompt_tokens: int
    error: int
    accuracy: Accuracy
    tokenizer: str
    images: int
    max_output_tokens: int
    bounded: int


class FileTokens(msgspec.Struct, frozen=True, kw_only=True):
    """What a pass found. Lines that are no requests count as ``unreadable`` only; line numbers start at 1."""

    requests: int
    unreadable: int
    bytes: int
    largest_line: int
    largest_bytes: int
    models: tuple[ModelTokens, ...]

    @property
    def at_most(self) -> int:
        """The prompt tokens of all models together, with the error of the sample on top."""
        return sum(model.prompt_tokens + model.error for model in self.models)


def count_request(body: bytes, endpoint: str, counters: TokenCounters) -> PromptCount | None:
    """Count the prompt tokens of one request; ``None`` if the body is no JSON object."""
    prompt = prompt_of_body(body, endpoint)
    if prompt is None:
        return None
    counter = counters.of(prompt.model)
    return PromptCount(
        tokens=prompt.known_tokens + sum(map(counter.count, prompt.texts)),
        exact=counter.exact and not prompt.guessed,
        tokenizer=counter.name,
    )


def count_file(path: Path, counters: TokenCounters, exact_bytes: int = EXACT_BYTES, seed: int = 0) -> FileTokens:
    """Count the requests, prompt tokens and images of a file, by model. Raises ``OSError``.

    Only texts are sampled, and only in files of more than ``exact_bytes``; all else is counted. Memory stays constant:
    no more than one line is held. Where it matters that nobody can write a file around the sample, ``seed`` has to be
    unpredictable.
    """
    size = path.stat().st_size
    one_in = -(-2 * size // exact_bytes) if size > exact_bytes else 1
    tallies: dict[str, _Tally] = {}
    requests = unreadable = 0
    largest = (0, 0)
    with path.open("rb", buffering=_READ_BUFFER) as source:
        for number, _, length, raw in lines(source, _LONGEST_LINE):
            prompt = prompt_of_line(raw) if raw is not None else None
            if prompt is None:
                unreadable += 1
                continue
            requests += 1
            largest = max(largest, (length, -number))
            _tally(tallies, prompt.model, counters, one_in, seed).add(prompt)
    return FileTokens(
        requests=requests,
        unreadable=unreadable,
        bytes=size,
        largest_line=-largest[1],
        largest_bytes=largest[0],
        models=tuple(tally.result() for tally in tallies.values()),
    )


def _tally(tallies: dict[str, _Tally], model: str, counters: TokenCounters, one_in: int, seed: int) -> _Tally:
    if model not in tallies:
        model = model if len(tallies) < _MOST_MODELS and len(model) <= _LONGEST_NAME else OTHER_MODELS
    if model not in tallies:
        tallies[model] = _Tally(model, counters.of(model), one_in, seed)
    return tallies[model]


class _Tally:
    """Sums over the requests of one model."""

    def __init__(self, model: str, counter: TokenCounter, one_in: int, seed: int) -> None:
        self._model = model
        self._counter = counter
        self._sampling = one_in > 1 and counter.exact
        self._sample = Sample(one_in, seed)
        self._requests = self._tokens = self._images = self._output = self._bounded = 0
        self._guessed = False

    def add(self, prompt: Prompt) -> None:
        self._requests += 1
        self._images += prompt.images
        self._tokens += prompt.known_tokens
        self._guessed |= prompt.guessed
        if prompt.output_bound is not None:
            self._bounded += 1
            self._output += prompt.output_bound
        for text in prompt.texts:
            if self._sampling:
                self._draw(text)
            else:
                self._tokens += self._counter.count(text)

    def _draw(self, text: str) -> None:
        for piece in pieces(text):
            size = size_of(piece)
            weight = self._sample.draw(size)
            if weight:
                self._sample.add(size, self._counter.count(piece), weight)

    def result(self) -> ModelTokens:
        estimate = self._sample.estimate()
        return ModelTokens(
            model=self._model,
            requests=self._requests,
            prompt_tokens=self._tokens + round(estimate.tokens),
            error=math.ceil(estimate.error),
            accuracy=self._accuracy(),
            tokenizer=self._counter.name,
            images=self._images,
            max_output_tokens=self._output,
            bounded=self._bounded,
        )

    def _accuracy(self) -> Accuracy:
        if self._guessed or not self._counter.exact:
            return Accuracy.ESTIMATE
        return Accuracy.SAMPLED if self._sampling else Accuracy.EXACT
