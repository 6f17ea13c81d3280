"""Whatever happens, in whatever order: each request ends exactly once, in exactly one file."""

import asyncio
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.engine.house import House, InlineExecutor, Memory, number_of

from overnight.domain.batch import ACTIVE, Batch
from overnight.domain.errors import Conflict
from overnight.domain.flavour import Flavour
from overnight.domain.retry import Failure, Fault, Outcome
from overnight.services.troubles import TroublesInMind
from overnight.testing.clock import ManualClock
from overnight.testing.in_process import Reply, Sent, answer

T = TypeVar("T")

OUTCOMES: dict[str, Outcome | Exception] = {
    "ok": answer(),
    "wrong": answer(400),
    "broken": answer(500),
    "busy": answer(429, retry_after=7.0),
    "dead": Failure(fault=Fault.UNREACHABLE, detail="refused"),
    "cut": Failure(fault=Fault.BROKEN_OFF, detail="connection reset"),
    "late": Failure(fault=Fault.TIMEOUT),
    "defect": RuntimeError("a defect of the adapter"),
}


class Life(RuleBasedStateMachine):
    """A service with a few batches, upstreams in every mood, and crashes at any moment."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.scratch = tempfile.TemporaryDirectory()
        self.mood = ["ok"]
        self.held = asyncio.Event()
        self.batches: list[Batch] = []
        self.ended: dict[str, Batch] = {}
        self.house = self.run(self._build())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Let the loop turn until some work is done; what else is on it goes on next time."""
        return self.runner.run(work)

    async def _build(self) -> House:
        asyncio.get_running_loop().set_default_executor(InlineExecutor())
        clock = ManualClock()
        house = House(Memory(Path(self.scratch.name), clock), clock, TroublesInMind(clock))
        house.upstream.script = self._reply
        await house.open()
        return house

    def _reply(self, sent: Sent) -> Reply:
        mood = self.mood[number_of(sent.body) % len(self.mood)]
        if mood == "held":
            return Reply(outcome=answer(), held=self.held)
        return Reply(outcome=OUTCOMES[mood], delay=1.5)

    async def _start(self) -> None:
        self.house.start()

    async def _jump(self, seconds: float) -> None:
        self.house.clock.jump(seconds)

    @initialize()
    def start(self) -> None:
        self.run(self._start())

    @rule(requests=st.integers(1, 9), flavour=st.sampled_from(Flavour))
    @precondition(lambda self: len(self.batches) < 4)
    def create(self, requests: int, flavour: Flavour) -> None:
        self.batches.append(self.run(self.house.submit(requests, flavour)))

    @rule(mood=st.lists(st.sampled_from(["held", *OUTCOMES]), min_size=1, max_size=3))
    def answer_otherwise(self, mood: list[str]) -> None:
        self.mood = mood

    @rule()
    def let_go(self) -> None:
        self.held.set()
        self.held = asyncio.Event()

    @rule(seconds=st.floats(0.1, 40))
    def let_time_pass(self, seconds: float) -> None:
        self.run(self.house.clock.advance(seconds))

    @rule(number=st.integers(0, 3))
    def cancel(self, number: int) -> None:
        if number < len(self.batches):
            self.run(self._cancel(self.batches[number]))

    async def _cancel(self, batch: Batch) -> None:
        before = await self.house.look(batch)
        try:
            after = await self.house.cancel(batch)
        except Conflict:
            assert before.ended
            return
        assert after.status in {"cancelling", "cancelled"}

    @rule()
    def crash_and_start_again(self) -> None:
        self.run(self.house.kill())
        self.run(self.house.reopen())
        self.run(self._start())

    @rule()
    def stop_and_start_again(self) -> None:
        self.run(self.house.stop(within=120))
        self.run(self._start())

    @rule(seconds=st.sampled_from([11.0, 3_600.0]))
    def sleep_with_the_lid_closed(self, seconds: float) -> None:
        self.run(self._jump(seconds))

    @rule(before=st.integers(-5, 20))
    @precondition(lambda self: any(batch.id not in self.ended for batch in self.batches))
    def come_back_when_the_window_closes(self, before: int) -> None:
        """A service that was down for a day: no timers but the clock's own hands."""
        self.run(self.house.kill())
        last = max(batch.expires_at for batch in self.batches if batch.id not in self.ended)
        self.run(self._jump(max(0.0, last - before - self.house.clock.now())))
        self.run(self.house.reopen())
        self.run(self._start())

    @rule()
    def the_disk_stalls(self) -> None:
        self._logs.hold()
        self.run(self.house.clock.advance(3))
        self._logs.go_on()

    @property
    def _logs(self) -> Any:
        assert isinstance(self.house.kind, Memory)
        return self.house.kind.logs

    @invariant()
    def the_engine_lives(self) -> None:
        self.house.complain()

    @invariant()
    def what_has_ended_stays_as_it_is(self) -> None:
        for batch in self.batches:
            now = self.run(self.house.look(batch))
            if batch.id in self.ended:
                assert now == self.ended[batch.id]
            elif now.ended:
                self.ended[batch.id] = now
                self.run(self._check(now))
            else:
                assert now.output_file_id is None
                assert now.completed + now.failed <= now.total

    async def _check(self, batch: Batch) -> None:
        if batch.accepted:
            await self.house.check(batch)
        else:
            assert (batch.total, batch.output_file_id, batch.error_file_id) == (0, None, None)

    def teardown(self) -> None:
        try:
            self.mood = ["ok"]
            self.held.set()
            self.run(self._finish())
            self.what_has_ended_stays_as_it_is()
            assert len(self.ended) == len(self.batches)
        finally:
            with self.scratch, self.runner:
                self.run(self.house.close())

    async def _finish(self) -> None:
        async def all_ended() -> bool:
            self.house.complain()
            return all([(await self.house.look(batch)).status not in ACTIVE for batch in self.batches])

        if self.house.working:
            await self.house.clock.run_until(all_ended, within=1_000)


Life.TestCase.settings = settings(max_examples=60, stateful_step_count=30, suppress_health_check=list(HealthCheck))
TestLife = Life.TestCase
