"""What a batch would say of a file, found out before there is one; nothing is changed by it."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING

import msgspec

from overnight.domain.errors import InvalidRequest
from overnight.domain.file import Purpose
from overnight.domain.request import decode_head
from overnight.domain.validation import Rules
from overnight.services.files import no_such_file
from overnight.services.validate import Report, check_file, lines

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from overnight.domain.flavour import Flavour
    from overnight.domain.ids import FileId, ResourceId
    from overnight.domain.limits import Limits
    from overnight.ports.blobs import Blobs
    from overnight.ports.upstream import Deployments
    from overnight.services.files import FileService
    from overnight.services.turns import Turns

FIRST_REQUESTS = 3
"""So many requests are shown."""
FIRST_BYTES = 64 * 1024
"""So much of each of them."""

_READ_BUFFER = 1024 * 1024
_NAMES_KEPT = 50
_LONGEST_NAME = 256


class First(msgspec.Struct, frozen=True, kw_only=True):
    """One of the first lines, or its beginning; ``line`` counts from 1, ``bytes`` is how long it is in all."""

    line: int
    data: bytes
    bytes: int


class Counted(msgspec.Struct, frozen=True, kw_only=True):
    """How many lines name something."""

    name: str
    requests: int


class Survey(msgspec.Struct, frozen=True, kw_only=True):
    """What is in a file: its first lines, and the models and endpoints that are named most."""

    first: tuple[First, ...]
    models: tuple[Counted, ...]
    endpoints: tuple[Counted, ...]


class OfferedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model that lines name; ``offered`` is ``None`` while an upstream has not told its models."""

    name: str
    requests: int
    offered: bool | None


class FileCheck(msgspec.Struct, frozen=True, kw_only=True):
    """All that is said of a file."""

    report: Report
    first: tuple[First, ...]
    models: tuple[OfferedModel, ...]
    endpoints: tuple[Counted, ...]


class CheckService:
    """The use case of checking a file that is stored; one at a time, for batches need the processes too."""

    def __init__(
        self,
        files: FileService,
        blobs: Blobs,
        deployments: Deployments,
        turns: Turns,
        limits: Mapping[Flavour, Limits],
    ) -> None:
        self._files = files
        self._blobs = blobs
        self._deployments = deployments
        self._turns = turns
        self._limits = limits

    async def check(self, resource: ResourceId, flavour: Flavour, file_id: FileId) -> FileCheck:
        """Check a file as a batch of this flavour would.

        Raises ``NotFound``, and ``InvalidRequest`` for a file that is not for batches.
        """
        file = await self._files.get(resource, file_id)
        if file.purpose is not Purpose.BATCH:
            message = (
                f"The file {file_id} has the purpose '{file.purpose}'. Only files with the purpose 'batch' are checked."
            )
            raise InvalidRequest(message, param="file_id", code="invalid_value")
        known = self._deployments.known()
        names = frozenset(deployment.name for deployment in known.deployments)
        limits = self._limits[flavour]
        rules = Rules(
            flavour=flavour,
            requests_per_file=limits.requests_per_file,
            line_bytes=limits.line_bytes,
            models=names if known.complete else None,
        )
        try:
            async with self._turns.turn(resource) as offload, self._blobs.local(file.blob) as path:
                report = await offload.run(check_file, path, rules)
                survey = await offload.run(survey_file, path, limits.requests_per_file, limits.line_bytes)
        except FileNotFoundError as error:
            raise no_such_file(file_id) from error
        models = tuple(
            OfferedModel(name=each.name, requests=each.requests, offered=_offered(each.name, names, known.complete))
            for each in survey.models
        )
        return FileCheck(report=report, first=survey.first, models=models, endpoints=survey.endpoints)


def survey_file(path: Path, most: int, longest: int) -> Survey:
    """Look what is in the first ``most`` lines, skipping what is no request; runs in a worker process.

    Raises ``OSError``.
    """
    models, endpoints = Counter[str](), Counter[str]()
    first: list[First] = []
    with path.open("rb", buffering=_READ_BUFFER) as source:
        for number, _, size, raw in islice(lines(source, longest), most):
            if len(first) < FIRST_REQUESTS:
                data = (raw or b"").rstrip(b"\r\n")
                first.append(First(line=number, data=data[:FIRST_BYTES], bytes=len(data) or size))
            _count(raw, models, endpoints)
    return Survey(first=tuple(first), models=_most(models), endpoints=_most(endpoints))


def _count(raw: bytes | None, models: Counter[str], endpoints: Counter[str]) -> None:
    try:
        head = decode_head(raw or b"")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return
    _add(endpoints, head.url)
    if isinstance(head.body.model, str):
        _add(models, head.body.model)


def _add(counts: Counter[str], name: str) -> None:
    # A file may name a new one in each line, and a line may be one name; what is not among the first ones is not told.
    if len(name) > _LONGEST_NAME:
        name = f"{name[:_LONGEST_NAME]}…"
    if name in counts or len(counts) < _NAMES_KEPT:
        counts[name] += 1


def _most(counts: Counter[str]) -> tuple[Counted, ...]:
    return tuple(Counted(name=name, requests=count) for name, count in counts.most_common())


def _offered(name: str, names: frozenset[str], complete: bool) -> bool | None:  # noqa: FBT001 - as it is known
    return True if name in names else (False if complete else None)
