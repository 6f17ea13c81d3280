"""What is said of quotas while a batch is being created; validation has the last word."""

from __future__ import annotations

from concurrent.futures import BrokenExecutor
from typing import TYPE_CHECKING

from overnight.domain.errors import TokenLimitExceeded
from overnight.domain.file import Purpose
from overnight.domain.limits import MIB
from overnight.domain.quota import OverQuota, Refusal, refusal_message

if TYPE_CHECKING:
    from overnight.domain.batch import Batch
    from overnight.domain.file import File
    from overnight.ports.clock import Clock
    from overnight.ports.files import Files
    from overnight.ports.upstream import Deployments
    from overnight.services.quotas import Inputs, QuotaService, QuotaState

COUNTED_AT_ONCE = 4 * MIB
"""Larger files are counted in validation only: creating a batch has to answer soon."""


class Gate:
    """Finds the quota that a new batch will count against, and refuses early where the deployment wants that."""

    def __init__(
        self,
        quotas: QuotaService,
        files: Files,
        inputs: Inputs,
        deployments: Deployments,
        clock: Clock,
    ) -> None:
        self._quotas = quotas
        self._files = files
        self._inputs = inputs
        self._deployments = deployments
        self._clock = clock

    async def check(self, batch: Batch) -> None:
        """Refuse a new batch that cannot fit now, if its deployment is set to ``fail_fast``.

        What cannot be told at once is left to validation. Raises ``TokenLimitExceeded``.
        """
        file, state = await self._bounded(batch)
        if file is None or state is None or state.available is None:
            return
        tokens = await self._tokens(file) if state.available else None
        if tokens is None and state.available:
            return
        if tokens is None or tokens > state.available:
            raise _refused(batch, state, tokens)

    async def require_any(self, batch: Batch) -> None:
        """Refuse as ``check`` does where no token at all fits; the input may be a part of the file that is named."""
        _, state = await self._bounded(batch)
        if state is not None and state.available == 0:
            raise _refused(batch, state, None)

    async def _bounded(self, batch: Batch) -> tuple[File | None, QuotaState | None]:
        """Give the input of a batch, and its quota if its deployment refuses early."""
        if not any(each.over_quota is OverQuota.FAIL_FAST for each in self._deployments.known().deployments):
            return None, None
        file = await self._input(batch)
        state = await self._state(batch, file)
        return file, state if state is not None and state.over_quota is OverQuota.FAIL_FAST else None

    async def state(self, batch: Batch) -> QuotaState | None:
        """Give the quota that a batch counts against, if there is a limit and the deployment can be told."""
        state = await self._state(batch, await self._input(batch))
        return state if state is not None and state.limit.tokens is not None else None

    async def _input(self, batch: Batch) -> File | None:
        file = await self._files.get(batch.resource, batch.input_file_id, now=self._clock.now())
        return file if file is not None and file.purpose is Purpose.BATCH else None

    async def _state(self, batch: Batch, file: File | None) -> QuotaState | None:
        if file is None or not await self._quotas.limited(batch.resource):
            return None
        try:
            model = await self._inputs.model(file)
        except (OSError, BrokenExecutor):
            return None
        if model is None or self._deployments.known().find(model) is None:
            return None
        return await self._quotas.state(batch.resource, model)

    async def _tokens(self, file: File) -> int | None:
        if file.bytes > COUNTED_AT_ONCE:
            return None
        try:
            return await self._inputs.tokens(file)
        except (OSError, BrokenExecutor):
            return None


def _refused(batch: Batch, state: QuotaState, tokens: int | None) -> TokenLimitExceeded:
    refusal = Refusal(
        deployment=state.deployment,
        model=state.model,
        resource=batch.resource,
        limit=state.limit,
        enqueued=state.enqueued,
        tokens=tokens,
    )
    return TokenLimitExceeded(refusal_message(refusal, batch.flavour), code="token_limit_exceeded")
