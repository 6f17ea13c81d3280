"""The end of ``validating``: the tokens of a good input are reserved, and only then its requests may run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from overnight.dispatch.owned import NotYet
from overnight.domain.batch import Batch, BatchStatus, Problem
from overnight.domain.quota import Limit, OverQuota, Refusal, alone_too_large, refusal_message
from overnight.ports.batches import Verdict

if TYPE_CHECKING:
    from overnight.dispatch.owned import Owned, QuotaParts
    from overnight.domain.deployment import Deployment
    from overnight.domain.file import File
    from overnight.ports.batches import Admission

# In seconds. The further behind a batch waits, the more seldom it asks.
_ASK_AGAIN = 2.0
_PLACE_BEHIND = 0.2
_LONGEST_PAUSE = 60.0


async def admit(owned: Owned, file: File, requests: int, deployment: Deployment) -> tuple[Problem, ...]:
    """Take a checked batch to ``in_progress``, or say why it has to fail. Raises ``NotYet`` while it has to wait."""
    quotas = owned.parts.quotas
    limit = None if quotas is None else await quotas.service.limit(owned.batch.resource, deployment)
    if quotas is None or limit is None or limit.tokens is None:
        await owned.save(_accepted(owned, file, requests, deployment))
        return ()
    tokens = await _tokens(owned, quotas, file)
    if alone_too_large(limit, tokens):
        return (_problem(owned.batch, deployment, limit, 0, tokens),)
    queues = deployment.over_quota is OverQuota.QUEUE
    accepted = _accepted(owned, file, requests, deployment)
    reserving = msgspec.structs.replace(accepted, prompt_tokens=tokens, reserved_tokens=tokens)
    admission = await owned.admit(reserving, limit=limit.tokens, in_turn=queues)
    if admission.verdict is not Verdict.FULL:
        return ()
    if not queues:
        return (_problem(owned.batch, deployment, limit, admission.enqueued, tokens),)
    await _wait(owned, deployment, tokens, admission)
    return ()


def _accepted(owned: Owned, file: File, requests: int, deployment: Deployment) -> Batch:
    batch = owned.batch
    return batch.to(
        BatchStatus.IN_PROGRESS,
        owned.parts.clock.now(),
        total=requests,
        model=deployment.model,
        deployment=deployment.name,
        input_blob=file.blob,
        expiry=deployment.expiry or batch.expiry,
    )


async def _tokens(owned: Owned, quotas: QuotaParts, file: File) -> int:
    known = owned.batch.prompt_tokens
    return await quotas.inputs.tokens(file) if known is None else known


async def _wait(owned: Owned, deployment: Deployment, tokens: int, admission: Admission) -> None:
    """Take a place in the queue, which is that of the batch's creation. Raises ``NotYet``, unless it changed."""
    batch = owned.batch
    if batch.prompt_tokens is None:
        waiting = msgspec.structs.replace(
            batch,
            prompt_tokens=tokens,
            deployment=deployment.name,
            expiry=deployment.expiry or batch.expiry,
        )
        if not await owned.note(waiting):
            return
    pause = min(_ASK_AGAIN + _PLACE_BEHIND * admission.ahead, _LONGEST_PAUSE)
    raise NotYet(f"it has to wait for room in the quota of {deployment.name}", pause=pause)


def _problem(batch: Batch, deployment: Deployment, limit: Limit, enqueued: int, tokens: int) -> Problem:
    refusal = Refusal(
        deployment=deployment.name,
        model=deployment.model,
        resource=batch.resource,
        limit=limit,
        enqueued=enqueued,
        tokens=tokens,
    )
    return Problem(code="token_limit_exceeded", message=refusal_message(refusal, batch.flavour))
