"""The first state of a batch: its input is checked and its deployment found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overnight.crash_points import reached
from overnight.dispatch.admitting import admit
from overnight.dispatch.owned import NotYet
from overnight.domain.batch import BatchStatus, Problem
from overnight.domain.blob_keys import index_key
from overnight.domain.file import Purpose
from overnight.domain.index import ENTRY_BYTES
from overnight.domain.validation import Rules
from overnight.services.validate import Report, check_file, first_model

if TYPE_CHECKING:
    from overnight.dispatch.owned import Owned
    from overnight.domain.deployment import Deployment
    from overnight.domain.file import File
    from overnight.ports.upstream import Known


async def validate(owned: Owned) -> None:
    """Take a batch from ``validating`` to its next status; raises ``NotYet``."""
    parts, batch = owned.parts, owned.batch
    if batch.overdue(parts.clock.now()):
        await owned.end_early(batch.to(BatchStatus.EXPIRED, parts.clock.now()))
        return
    capped = await parts.usage.why_stopped(batch.resource)
    if capped is not None:
        await _fail(owned, (capped,))
        return
    # A file that expired while its batch waited is still there: its bytes stay as long as the batch is active.
    file = await parts.files.get(batch.resource, batch.input_file_id, now=batch.created_at)
    problem = _unusable(file, batch.input_file_id)
    if file is None or problem is not None:
        await _fail(owned, (problem,) if problem else ())
        return
    problems = await _let_in(owned, file)
    if problems:
        await _fail(owned, problems)


async def _let_in(owned: Owned, file: File) -> tuple[Problem, ...]:
    """Take a good batch to its next status; give what is wrong with a bad one. Raises ``NotYet``."""
    known = owned.parts.deployments.known()
    deployment, requests = await _checked_before(owned, known)
    if deployment is not None and requests:
        return await admit(owned, file, requests, deployment)
    if not known.complete:
        await _require(owned, file, known)
    report = await _check(owned, file, known)
    if report.problems:
        return report.problems
    deployment = known.find(str(report.model))
    if deployment is None:
        raise _waits_for(report.model)
    return await admit(owned, file, report.requests, deployment)


async def _checked_before(owned: Owned, known: Known) -> tuple[Deployment | None, int]:
    """Give what was found out of a batch that waits for room: a large file is not checked again and again."""
    batch = owned.batch
    if batch.prompt_tokens is None:
        return None, 0
    size = await owned.parts.blobs.size(index_key(batch))
    return known.find(str(batch.deployment)), (size or 0) // ENTRY_BYTES


def _unusable(file: File | None, file_id: str) -> Problem | None:
    if file is None:
        message = f"Cannot find file {file_id}, or this resource does not have access to it."
        return Problem(code="invalid_request", message=message, param="file_id")
    if file.purpose is not Purpose.BATCH:
        message = f"The file {file_id} has the purpose '{file.purpose}'. Upload the input with the purpose 'batch'."
        return Problem(code="invalid_request", message=message, param="file_id")
    return None


async def _check(owned: Owned, file: File, known: Known) -> Report:
    parts, batch = owned.parts, owned.batch
    limits = parts.limits[batch.flavour]
    rules = Rules(
        flavour=batch.flavour,
        requests_per_file=limits.requests_per_file,
        line_bytes=limits.line_bytes,
        embedding_inputs=limits.embedding_inputs,
        endpoint=batch.endpoint,
        models=frozenset(deployment.name for deployment in known.deployments) if known.complete else None,
    )
    async with parts.blobs.local(file.blob) as path, parts.blobs.placing(index_key(batch)) as index:
        report = await parts.offload.run(check_file, path, rules, index)
    reached("index.placed")
    return report


async def _require(owned: Owned, file: File, known: Known) -> None:
    """Look for the model of the first request, so that a large file is not checked again and again while it waits.

    Raises:
        NotYet: nobody offers it now, and an upstream that may do so does not answer.
    """
    longest = owned.parts.limits[owned.batch.flavour].line_bytes
    async with owned.parts.blobs.local(file.blob) as path:
        model = await owned.parts.offload.run(first_model, path, longest)
    if model is not None and known.find(model) is None:
        raise _waits_for(model)


def _waits_for(model: str | None) -> NotYet:
    return NotYet(f"no upstream offers {model}, and one does not answer")


async def _fail(owned: Owned, problems: tuple[Problem, ...]) -> None:
    await owned.end_early(owned.batch.to(BatchStatus.FAILED, owned.parts.clock.now(), errors=problems))
