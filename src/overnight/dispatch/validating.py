"""The first state of a batch: its input is checked and its deployment found."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from overnight.dispatch.keys import index_key
from overnight.domain.batch import BatchStatus, Problem
from overnight.domain.file import Purpose
from overnight.domain.validation import Rules
from overnight.services.validate import Report, check_file

if TYPE_CHECKING:
    from overnight.dispatch.owned import Owned
    from overnight.domain.deployment import Deployment
    from overnight.domain.file import File
    from overnight.ports.upstream import Known

log = structlog.get_logger()

# How often to ask again for a deployment that is not there yet, in seconds.
_ASK_AGAIN = 2.0


async def validate(owned: Owned) -> None:
    """Take a batch from ``validating`` to its next status; returns early if the batch is stopped."""
    parts, batch = owned.parts, owned.batch
    if batch.overdue(parts.clock.now()):
        await owned.save(batch.to(BatchStatus.EXPIRED, parts.clock.now()))
        return
    file = await parts.files.get(batch.resource, batch.input_file_id, now=parts.clock.now())
    problem = _unusable(file, batch.input_file_id)
    if file is None or problem is not None:
        await _fail(owned, (problem,) if problem else ())
        return
    known = await parts.deployments.refreshed()
    report = await _check(owned, file, known)
    if report.problems:
        await _fail(owned, report.problems)
        return
    deployment = await _find(owned, str(report.model), known)
    if deployment is not None:
        await _accept(owned, file, report, deployment)


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
        endpoint=batch.endpoint,
        models=frozenset(deployment.name for deployment in known.deployments) if known.complete else None,
    )
    async with parts.blobs.local(file.blob) as path, parts.blobs.placing(index_key(batch)) as index:
        return await parts.offload.run(check_file, path, rules, index)


async def _find(owned: Owned, model: str, known: Known) -> Deployment | None:
    """Wait for the deployment while an upstream that may serve it does not answer; ``None`` ends this attempt."""
    waiting = False
    while (deployment := known.find(model)) is None and not known.complete:
        if not waiting:
            log.warning("batch.waits", batch_id=owned.batch.id, deployment=model, problem="an upstream does not answer")
            waiting = True
        if await owned.parts.clock.wait(owned.stopping, _ASK_AGAIN):
            await owned.reload()
            return None
        if owned.batch.overdue(owned.parts.clock.now()):
            return None
        known = await owned.parts.deployments.refreshed()
    return deployment


async def _accept(owned: Owned, file: File, report: Report, deployment: Deployment) -> None:
    batch = owned.batch
    now = owned.parts.clock.now()
    accepted = batch.to(
        BatchStatus.IN_PROGRESS,
        now,
        total=report.requests,
        model=deployment.model,
        deployment=deployment.name,
        input_blob=file.blob,
        expiry=deployment.expiry or batch.expiry,
    )
    await owned.save(accepted)


async def _fail(owned: Owned, problems: tuple[Problem, ...]) -> None:
    batch = owned.batch
    if await owned.save(batch.to(BatchStatus.FAILED, owned.parts.clock.now(), errors=problems)):
        await owned.parts.blobs.delete(index_key(batch))
