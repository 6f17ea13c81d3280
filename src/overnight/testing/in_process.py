"""Upstreams in the process of the test: they answer what a script says, after a time on the test's clock."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from overnight.domain.deployment import Capacity, Deployment, UpstreamName
from overnight.domain.result import Answer
from overnight.domain.retry import Failure, Fault, Outcome
from overnight.ports.upstream import Known

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from overnight.ports.clock import Clock


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """A request as it arrived; ``at`` is the time on the clock, ``attempt`` counts equal bodies from 1."""

    endpoint: str
    body: bytes
    at: float
    attempt: int


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """What is answered: after ``delay`` seconds, and not before ``held`` is set."""

    outcome: Outcome | Exception
    delay: float = 0.0
    held: asyncio.Event | None = None


def answer(status: int = 200, *, text: str = "ok", retry_after: float | None = None) -> Answer:
    """Make a small answer of a model: one token in, two out; or an error of this status."""
    if status < 400:  # noqa: PLR2004 - where errors begin
        body = b'{"choices":[{"message":{"content":"%s"}}],"usage":{"prompt_tokens":1,"completion_tokens":2}}'
        return Answer(status=status, body=body % text.encode(), request_id="req-1", retry_after=retry_after)
    error = b'{"error":{"message":"%s","type":"server_error","param":null,"code":null}}' % text.encode()
    return Answer(status=status, body=error, request_id="req-1", retry_after=retry_after)


def unreachable() -> Failure:
    """Say that nobody listens."""
    return Failure(fault=Fault.UNREACHABLE, detail="connection refused")


def always(outcome: Outcome | Exception, *, delay: float = 0.0) -> Callable[[Sent], Reply]:
    """Make a script that knows one reply."""
    return lambda _: Reply(outcome=outcome, delay=delay)


class InProcessUpstream:
    """Keeps the promise of ``ports/upstream.py``; ``script`` may be changed at any time."""

    def __init__(
        self,
        clock: Clock,
        script: Callable[[Sent], Reply] | None = None,
        *,
        name: str = "scripted",
        capacity: Capacity | None = None,
    ) -> None:
        self.name = UpstreamName(name)
        self.capacity = capacity or Capacity(max_concurrency=4, start_concurrency=4)
        self.script = script or always(answer())
        self.sent: list[Sent] = []
        self.in_flight = 0
        self.most_in_flight = 0
        self._clock = clock
        self._tries: dict[bytes, int] = {}

    async def send(self, endpoint: str, body: bytes) -> Outcome:
        attempt = self._tries[body] = self._tries.get(body, 0) + 1
        sent = Sent(endpoint=endpoint, body=body, at=self._clock.now(), attempt=attempt)
        self.sent.append(sent)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            return await self._reply(self.script(sent))
        finally:
            self.in_flight -= 1

    async def _reply(self, reply: Reply) -> Outcome:
        if reply.delay > 0:
            await self._clock.sleep(reply.delay)
        if reply.held is not None:
            await reply.held.wait()
        if isinstance(reply.outcome, Exception):
            raise reply.outcome
        return reply.outcome


class ScriptedDeployments:
    """Keeps the promises of ``ports/upstream.py``; what ``now`` says is found out at the next refresh."""

    def __init__(self, deployments: Sequence[Deployment], *, complete: bool = True) -> None:
        self.now = Known(deployments=tuple(deployments), complete=complete)

    def known(self) -> Known:
        return self.now


def deployment(name: str, *upstreams: InProcessUpstream, model: str | None = None) -> Deployment:
    """Make a deployment that some upstreams serve."""
    return Deployment(name=name, model=model or name, upstreams=tuple(upstream.name for upstream in upstreams))
