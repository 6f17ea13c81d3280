"""Which columns each kind of object has, on a terminal and in a pipe."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from overnight import human
from overnight.cli.console import Column, Shape
from overnight.cli.progress import outcome
from overnight.cli.views import spoken
from overnight.cli.waiting import snapshot

if TYPE_CHECKING:
    from overnight.cli.results import ErrorGroup, Written
    from overnight.client import Batch, BatchProblem, Deleted, File
    from overnight.services.tokens import ModelTokens


def _done(batch: Batch) -> str:
    counts = batch.counts
    return f"{(counts.completed or 0) + (counts.failed or 0)}/{counts.total or 0}"


def _done_pleasant(batch: Batch) -> str:
    counts = batch.counts
    return f"{(counts.completed or 0) + (counts.failed or 0):,}/{counts.total or 0:,}"


def _problems(batch: Batch) -> str:
    return "\n".join(problem_text(each) for each in batch.problems)


def _metadata(batch: Batch) -> str:
    return " ".join(f"{key}={value}" for key, value in (batch.metadata or {}).items())


def _requests_pleasant(batch: Batch) -> str:
    seen = snapshot(batch)
    return outcome(seen) if seen.ended and seen.accepted else _done_pleasant(batch)


def _tokens(batch: Batch) -> str:
    return f"{batch.usage.input_tokens} in, {batch.usage.output_tokens} out" if batch.usage else ""


def _accuracy(tokens: ModelTokens) -> str:
    return f"±{tokens.error} {tokens.accuracy}" if tokens.error else tokens.accuracy


def _accuracy_pleasant(tokens: ModelTokens) -> str:
    if not tokens.error:
        return tokens.accuracy
    return f"± {100 * tokens.error / max(tokens.prompt_tokens, 1):.2f} % {tokens.accuracy}"


def _max_output(tokens: ModelTokens) -> str:
    return f"{tokens.max_output_tokens:,}"


def _ago(timestamp: int | None) -> str:
    return human.ago(timestamp, time.time())


def _local(timestamp: int | None) -> str:
    return f"{human.moment(timestamp)} ({_ago(timestamp)})" if timestamp else ""


def problem_text(problem: BatchProblem) -> str:
    """`line 17: The URL … (invalid_url)`."""
    where = f"line {problem.line}: " if problem.line else ""
    return f"{where}{problem.message or ''} ({problem.code})"


def _raw(thing: Batch | File | Deleted) -> bytes:
    return thing.raw


def _encoded(thing: object) -> bytes:
    import msgspec

    return msgspec.json.encode(thing)


BATCHES: Shape[Batch] = Shape(
    (
        Column("id", lambda each: each.id),
        Column("status", lambda each: each.status, lambda each: spoken(each.status)),
        Column("done", _done, _done_pleasant, right=True),
        Column("failed", lambda each: str(each.counts.failed or 0), right=True),
        Column("model", lambda each: each.model or ""),
        Column("endpoint", lambda each: each.endpoint or ""),
        Column("created", lambda each: human.moment(each.created_at), lambda each: _ago(each.created_at)),
    ),
    _raw,
)

BATCH: Shape[Batch] = Shape(
    (
        Column("id", lambda each: each.id),
        Column("status", lambda each: each.status, lambda each: spoken(each.status)),
        Column("requests", _done, _requests_pleasant),
        Column("failed", lambda each: str(each.counts.failed or 0)),
        Column("model", lambda each: each.model or ""),
        Column("endpoint", lambda each: each.endpoint or ""),
        Column("window", lambda each: each.completion_window or ""),
        Column("tokens", _tokens),
        Column("input file", lambda each: each.input_file_id or ""),
        Column("output file", lambda each: each.output_file_id or ""),
        Column("error file", lambda each: each.error_file_id or ""),
        Column("created", lambda each: human.moment(each.created_at), lambda each: _local(each.created_at)),
        Column("ended", lambda each: human.moment(each.ended_at), lambda each: _local(each.ended_at)),
        Column("metadata", _metadata),
        Column("problems", _problems),
    ),
    _raw,
)

FILES: Shape[File] = Shape(
    (
        Column("id", lambda each: each.id),
        Column("name", lambda each: each.filename),
        Column("purpose", lambda each: each.purpose),
        Column("status", lambda each: each.status or ""),
        Column(
            "size",
            lambda each: "" if each.bytes is None else str(each.bytes),
            lambda each: human.size(each.bytes),
            right=True,
        ),
        Column("created", lambda each: human.moment(each.created_at), lambda each: _ago(each.created_at)),
        Column("expires", lambda each: human.moment(each.expires_at), lambda each: human.moment(each.expires_at)[:10]),
    ),
    _raw,
)

TOKENS: Shape[ModelTokens] = Shape(
    (
        Column("model", lambda each: each.model),
        Column("requests", lambda each: str(each.requests), lambda each: f"{each.requests:,}", right=True),
        Column(
            "prompt tokens", lambda each: str(each.prompt_tokens), lambda each: f"{each.prompt_tokens:,}", right=True
        ),
        Column("accuracy", _accuracy, _accuracy_pleasant),
        Column("tokenizer", lambda each: each.tokenizer),
        Column("images", lambda each: str(each.images), lambda each: f"{each.images:,}", right=True),
        Column("max output", lambda each: str(each.max_output_tokens), _max_output, right=True),
    ),
    _encoded,
)

DELETED: Shape[Deleted] = Shape(
    (Column("id", lambda each: each.id), Column("status", lambda each: "deleted" if each.deleted else "kept")), _raw
)

PROBLEMS: Shape[BatchProblem] = Shape(
    (
        Column("line", lambda each: str(each.line or "")),
        Column("code", lambda each: each.code or ""),
        Column("param", lambda each: each.param or ""),
        Column("message", lambda each: each.message or "", wraps=True),
    ),
    _encoded,
)

GROUPS: Shape[ErrorGroup] = Shape(
    (
        Column("code", lambda each: each.code),
        Column("count", lambda each: str(each.count), lambda each: f"{each.count:,}", right=True),
        Column("first custom_id", lambda each: each.first_custom_id),
        Column("message", lambda each: each.message, wraps=True),
    ),
    _encoded,
)

WRITTEN: Shape[Written] = Shape(
    (
        Column("file", lambda each: each.path),
        Column("lines", lambda each: str(each.lines), lambda each: human.plural(each.lines, "line"), right=True),
        Column(
            "codes",
            lambda each: each.codes,
            lambda each: each.codes.replace(" × ", "\N{NO-BREAK SPACE}×\N{NO-BREAK SPACE}"),
            wraps=True,
        ),
    ),
    _encoded,
)
