"""Why a line of an input file is refused, in the codes of each flavour (CONTRACT sections 3.1 and 3.4)."""

from __future__ import annotations

import json
import re
from hashlib import blake2b
from typing import TYPE_CHECKING, cast

import msgspec
from msgspec import UNSET, Raw

from overnight.domain.batch import Problem
from overnight.domain.embedding import count_inputs
from overnight.domain.endpoints import EMBEDDINGS, REQUIRED_FIELD, canonical, same_endpoint
from overnight.domain.flavour import Flavour
from overnight.domain.limits import PROBLEMS_KEPT
from overnight.domain.request import HEAD_BYTES, RequestHead, decode_head, early_custom_id

if TYPE_CHECKING:
    from collections.abc import Mapping


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """What a file is checked against; ``models`` is ``None`` while it is unknown which ones can be used.

    ``endpoint`` is ``None`` for a file that is not yet tied to a batch: the first line's url then counts.
    ``embedding_inputs`` bounds the inputs of all requests for embeddings together; ``None`` is no bound.
    """

    flavour: Flavour
    requests_per_file: int
    line_bytes: int
    embedding_inputs: int | None = None
    endpoint: str | None = None
    models: frozenset[str] | None = None


# (OpenAI, Azure) where the vendors differ; Azure's documented list is closed, so the rest is `invalid_request` there.
_CODES: Mapping[str, tuple[str, str]] = {
    "missing": ("missing_required_parameter", "invalid_request"),
    "streaming": ("streaming_unsupported", "invalid_request"),
    "url": ("invalid_url", "url_mismatch"),
    "model": ("mismatched_model", "model_mismatch"),
}

# How msgspec words what is wrong with a line, and how we do.
_MISSING = re.compile(r"missing required field `(\w+)`")
_WRONG_TYPE = re.compile(r"Expected `([^`]+)`, got `([^`]+)` - at `\$\.([\w.]+)`")
_TYPES = {
    "str": "a string",
    "object": "an object",
    "array": "an array",
    "bool": "a boolean",
    "bool | null": "a boolean",
    "int": "an integer",
    "float": "a number",
}
_any_decoder = msgspec.json.Decoder(Raw)

# Longer ids are remembered by their digest, so that 100,000 ids of any length fit in a few megabytes.
_LONG_ID = 64


class Checker:
    """Looks at the lines of one file, in order, and collects what is wrong.

    One problem is reported for each bad line, as the vendors do; the first ``PROBLEMS_KEPT`` are kept.
    """

    def __init__(self, rules: Rules) -> None:
        self.problems: list[Problem] = []
        self.problem_count = 0
        self.requests = 0
        self.model: str | None = None
        self.endpoint = rules.endpoint
        self._rules = rules
        self._inputs = 0
        self._first_use: dict[str | bytes, int] = {}
        self._required = REQUIRED_FIELD.get(canonical(rules.endpoint or ""))
        # How the last line that passed spelled the endpoint.
        self._url = rules.endpoint

    def check(self, number: int, raw: bytes) -> None:
        """Check one line that is not blank; ``number`` is its place in the file, from 1."""
        self.requests += 1
        try:
            head = decode_head(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self._add(self._malformed(number, raw) or self._explain(number, raw))
            return
        if len(raw) > HEAD_BYTES and early_custom_id(raw) not in {None, head.custom_id}:
            self._add(_named_twice(number))
            return
        if not self._like_the_last(number, head, raw):
            problem = self._malformed(number, raw) or self._wrong(number, head, raw)
            if problem is not None:
                self._add(problem)
                return
        if self._rules.embedding_inputs is not None and canonical(self.endpoint or "") == EMBEDDINGS:
            # What passed has an `input`.
            self._inputs += count_inputs(cast("Raw", head.body.input))

    def too_long(self, number: int, size: int) -> None:
        """Report a line that is longer than the service reads into memory."""
        self.requests += 1
        message = (
            f"Line {number} is {size:,} bytes long; a line may have {self._rules.line_bytes:,} bytes at most."
            " Split the request, or refer to large images by URL."
        )
        self._add(Problem(code="invalid_request", message=message, line=number))

    def too_many(self) -> None:
        """Report that the file goes on past the largest number of requests."""
        message = (
            f"The input file has more than {self._rules.requests_per_file:,} requests."
            " Split it and create one batch for each part."
        )
        self._add(Problem(code="too_many_tasks", message=message))

    def verdict(self) -> tuple[Problem, ...]:
        """Give the problems after the last line, with a summary when not all of them were kept."""
        if self.requests == 0:
            message = "The input file is empty. Please ensure that the batch contains at least one request."
            return (Problem(code="empty_file", message=message),)
        self._check_inputs()
        if self.problem_count <= PROBLEMS_KEPT:
            return tuple(self.problems)
        message = f"The input file has {self.problem_count:,} problems; the first {PROBLEMS_KEPT} are listed."
        return (*self.problems, Problem(code="invalid_request", message=message))

    def _like_the_last(self, number: int, head: RequestHead, raw: bytes) -> bool:
        """Pass a line that differs from one that passed only in its id and content: nearly all do, so this is fast."""
        body = head.body
        return (
            body.model == self.model
            and head.url == self._url
            and head.method == "POST"
            and body.stream is UNSET
            and (self._required is None or getattr(body, self._required) is not UNSET)
            and raw.isascii()
            and 0 < len(head.custom_id) <= _LONG_ID
            and self._first_use.setdefault(head.custom_id, number) == number
        )

    def _check_inputs(self) -> None:
        most = self._rules.embedding_inputs
        if most is not None and self._inputs > most:
            message = (
                f"The requests of the input file have {self._inputs:,} embedding inputs together, and a batch may have"
                f" {most:,}. Split the file and create one batch for each part."
            )
            self._add(Problem(code="too_many_tasks", message=message))

    def _add(self, problem: Problem) -> None:
        self.problem_count += 1
        if self.problem_count <= PROBLEMS_KEPT:
            self.problems.append(problem)

    def _code(self, kind: str) -> str:
        openai, azure = _CODES[kind]
        return azure if self._rules.flavour is Flavour.AZURE else openai

    def _malformed(self, number: int, raw: bytes) -> Problem | None:
        # msgspec does not look into strings that it skips, and upstreams may choke on what is not UTF-8.
        if raw.isascii():
            return None
        try:
            raw.decode()
        except UnicodeDecodeError as error:
            message = f"This line is not parseable as valid JSON. Byte {error.start + 1} of the line is not UTF-8."
            return Problem(code="invalid_json_line", message=message, line=number)
        return None

    def _wrong(self, number: int, head: RequestHead, raw: bytes) -> Problem | None:
        return (
            self._wrong_custom_id(number, head.custom_id)
            or self._wrong_target(number, head)
            or self._wrong_body(number, head, raw)
            or self._wrong_model(number, head)
        )

    def _wrong_custom_id(self, number: int, custom_id: str) -> Problem | None:
        if not custom_id:
            return Problem(
                code=self._code("missing"),
                message="Invalid 'custom_id': empty string. Give each request its own custom_id.",
                param="custom_id",
                line=number,
            )
        first = self._first_use.setdefault(_id_key(custom_id), number)
        if first == number:
            return None
        message = (
            f"The custom_id '{custom_id[:_LONG_ID]}' for this request is a duplicate of another request (line {first})."
            " The custom_id parameter must be unique for each request in a batch."
        )
        return Problem(code="duplicate_custom_id", message=message, param="custom_id", line=number)

    def _wrong_target(self, number: int, head: RequestHead) -> Problem | None:
        if head.method != "POST":
            message = f"Invalid value for 'method': '{head.method[:16]}'. The method must be 'POST'."
            return Problem(code="invalid_request", message=message, param="method", line=number)
        if self.endpoint is None:
            self.endpoint = head.url
            self._required = REQUIRED_FIELD.get(canonical(head.url))
        if same_endpoint(head.url, self.endpoint, self._rules.flavour):
            self._url = head.url
            return None
        message = "The URL provided for this request does not match the batch endpoint."
        return Problem(code=self._code("url"), message=message, param="url", line=number)

    def _wrong_body(self, number: int, head: RequestHead, raw: bytes) -> Problem | None:
        body = head.body
        if body.model is UNSET or not body.model:
            return _required("model", number)
        if body.stream is not UNSET and (body.stream or _streams_twice(raw)):
            return self._streaming(number)
        if self._required is not None and getattr(body, self._required) is UNSET:
            return _required(self._required, number)
        return None

    def _streaming(self, number: int) -> Problem:
        message = "Chat Completions: Streaming is not supported in the Batch API."
        return Problem(code=self._code("streaming"), message=message, param="body.stream", line=number)

    def _wrong_model(self, number: int, head: RequestHead) -> Problem | None:
        model = str(head.body.model)
        if self._rules.models is not None and model not in self._rules.models:
            return Problem(code="model_not_found", message=self._not_found(model), param="body.model", line=number)
        if self.model is None:
            self.model = model
        if model == self.model:
            return None
        message = (
            f"The model '{model[:_LONG_ID]}' for this request does not match the rest of the batch."
            " Each batch must contain requests for a single model."
        )
        return Problem(code=self._code("model"), message=message, param="body.model", line=number)

    def _not_found(self, model: str) -> str:
        if self._rules.flavour is Flavour.AZURE:
            return f"The deployment '{model[:_LONG_ID]}' named in the model property of this request does not exist."
        return f"The provided model '{model[:_LONG_ID]}' is not supported by the Batch API."

    def _explain(self, number: int, raw: bytes) -> Problem:
        """Say what the typed decoder stumbled over; slow, and only for lines that are refused."""
        try:
            _any_decoder.decode(raw)
            decode_head(raw)
        except msgspec.ValidationError as error:
            return self._explain_types(number, str(error))
        except (msgspec.DecodeError, UnicodeDecodeError):
            message = "This line is not parseable as valid JSON."
            return Problem(code="invalid_json_line", message=message, line=number)
        except RecursionError:
            pass
        return _too_deep(number)

    def _explain_types(self, number: int, error: str) -> Problem:
        missing = _MISSING.search(error)
        if missing is not None:
            message = f"Missing required parameter: '{missing[1]}'."
            return Problem(code=self._code("missing"), message=message, param=missing[1], line=number)
        wrong = _WRONG_TYPE.search(error)
        if wrong is None:
            return Problem(code="invalid_request", message="This line is not a JSON object.", line=number)
        expected, got, field = (_TYPES.get(wrong[1], wrong[1]), _TYPES.get(wrong[2], wrong[2]), wrong[3])
        message = f"Invalid type for '{field}': expected {expected}, but got {got} instead."
        return Problem(code="invalid_request", message=message, param=field, line=number)


def _id_key(custom_id: str) -> str | bytes:
    return custom_id if len(custom_id) <= _LONG_ID else blake2b(custom_id.encode(), digest_size=16).digest()


def _required(field: str, number: int) -> Problem:
    message = f"{field.capitalize()} parameter is required."
    return Problem(code="invalid_request", message=message, param=f"body.{field}", line=number)


def _named_twice(number: int) -> Problem:
    # Lists read the first one of a long line, and results have the last one, as readers of JSON do.
    message = "This line has the member 'custom_id' twice, with different values. Give each request one custom_id."
    return Problem(code="invalid_request", message=message, param="custom_id", line=number)


def _too_deep(number: int) -> Problem:
    message = "This line is not parseable as valid JSON: it is nested too deeply."
    return Problem(code="invalid_json_line", message=message, line=number)


def _streams_twice(raw: bytes) -> bool:
    """Find a ``stream: true`` that a later duplicate of the key hides from readers that let the last one win."""
    if raw.count(b'"stream"') == 1 and b"\\u" not in raw:
        return False
    try:
        pairs = json.loads(raw, object_pairs_hook=list, parse_int=str, parse_float=str)
    except RecursionError:
        return True
    bodies = [value for key, value in pairs if key == "body" and isinstance(value, list)]
    return any(member in (["stream", True], ("stream", True)) for body in bodies for member in body)
