"""The life of a batch, from its creation to its files."""

import asyncio

import pytest
from msgspec.structs import replace
from tests.engine.house import STOP_GRACE, House, line, number_of

from overnight.domain.batch import Batch, BatchStatus, Expiry
from overnight.domain.flavour import Flavour
from overnight.domain.ids import DEFAULT_RESOURCE
from overnight.domain.result import Answer
from overnight.domain.retry import Failure, Fault
from overnight.testing.in_process import InProcessUpstream, Reply, ScriptedDeployments, always, answer, deployment

S = BatchStatus


async def test_a_batch_passes_through_every_status_and_stamps_each(house: House) -> None:
    """The timestamps are what a client plots."""
    house.upstream.script = always(answer(), delay=100)
    batch = await house.submit(5)
    created = house.clock.now()
    house.start()

    assert (await house.reach(batch, S.IN_PROGRESS)).in_progress_at == int(created)

    done = await house.reach(batch)

    assert done.status is S.COMPLETED
    assert done.created_at == done.in_progress_at == int(created)
    assert done.finalizing_at is not None
    assert created + 200 <= done.finalizing_at <= created + 210
    assert done.completed_at == done.finalizing_at
    assert (done.failed_at, done.expired_at, done.cancelling_at, done.cancelled_at) == (None,) * 4
    assert (done.model, done.deployment) == ("m", "m")
    output, errors = await house.check(done)
    assert (len(output), errors) == (5, [])


async def test_openai_shows_no_id_for_an_empty_file(house: House) -> None:
    """CONTRACT 4.3."""
    batch = await house.submit(2)
    house.start()

    done = await house.reach(batch)

    assert done.output_file_id is not None
    assert done.error_file_id is None


async def test_openai_shows_no_output_id_when_every_request_failed(house: House) -> None:
    """CONTRACT 4.3."""
    house.upstream.script = always(answer(400))
    batch = await house.submit(2)
    house.start()

    done = await house.reach(batch)

    assert done.output_file_id is None
    assert (done.completed, done.failed) == (0, 2)
    assert [entry["response"]["status_code"] for entry in (await house.check(done))[1]] == [400, 400]


async def test_azure_shows_both_ids_even_for_an_empty_file(house: House) -> None:
    """CONTRACT 4.3."""
    batch = await house.submit(2, Flavour.AZURE)
    house.start()

    done = await house.reach(batch)

    assert done.output_file_id is not None
    assert done.error_file_id is not None
    assert await house.content(done.error_file_id) == b""
    await house.check(done)


async def test_ids_are_not_shown_before_the_end(house: House) -> None:
    """A file id that is shown must be readable."""
    house.upstream.script = always(answer(), delay=10)
    batch = await house.submit(9)
    house.start()
    seen = set()
    while not (now := await house.look(batch)).ended:
        seen.add((now.status, now.output_file_id, now.error_file_id))
        await house.clock.advance(1)

    assert {(status, None, None) for status, _, _ in seen} == seen


async def test_bad_input_fails_with_its_problems_and_without_counts(house: House) -> None:
    """CONTRACT 3.4."""
    batch = await house.submit([line(0), line(1, url="/v1/embeddings")])
    house.start()

    failed = await house.reach(batch)

    assert failed.status is S.FAILED
    assert [(problem.code, problem.line, problem.param) for problem in failed.errors] == [("invalid_url", 2, "url")]
    assert failed.failed_at is not None
    assert (failed.in_progress_at, failed.total, failed.completed, failed.failed) == (None, 0, 0, 0)
    assert (failed.output_file_id, failed.error_file_id) == (None, None)
    assert house.upstream.sent == []


async def test_a_missing_file_fails_the_batch(house: House) -> None:
    """CONTRACT 3.3: creating it still works."""
    batch = await house.submit(1)
    await house.files.delete(DEFAULT_RESOURCE, batch.input_file_id)
    house.start()

    failed = await house.reach(batch)

    assert failed.status is S.FAILED
    assert [(problem.code, problem.param, problem.line) for problem in failed.errors] == [
        ("invalid_request", "file_id", None)
    ]


async def test_an_input_deleted_after_validation_does_no_harm(house: House) -> None:
    """Its bytes stay until the batch has ended, and only until then."""
    house.upstream.script = always(answer(), delay=100)
    batch = await house.submit(9)
    house.start()
    started = await house.reach(batch, S.IN_PROGRESS)
    await house.files.delete(DEFAULT_RESOURCE, batch.input_file_id)

    done = await house.reach(batch)

    assert done.status is S.COMPLETED
    await house.check(done)
    await house.clock.advance(120)
    assert await house.stores.blobs.size(started.input_blob) is None


async def test_a_body_arrives_byte_for_byte_but_for_a_mapped_model(house: House) -> None:
    """Fidelity: numbers, unknown fields and the order of members are the caller's."""
    house.deployments = ScriptedDeployments([deployment("m", house.upstream, model="real/model")])
    body = b'{ "x":1.000000000000000000001, "model" : "m","messages":[{"model":"m"}],"u":"\\u00e9\xc3\xa9" }'
    raw = b'{"custom_id":"r0","method":"POST","url":"/v1/chat/completions","body":%s}' % body
    batch = await house.submit([raw])
    house.start()

    done = await house.reach(batch)

    assert [sent.body for sent in house.upstream.sent] == [body.replace(b'"model" : "m"', b'"model" : "real/model"')]
    assert (done.model, done.deployment) == ("real/model", "m")


async def test_results_stand_in_the_order_of_the_input(house: House) -> None:
    """Whatever the order of the answers."""
    house.upstream.script = lambda sent: Reply(outcome=answer(), delay=100 - 10 * (number_of(sent.body) % 7))
    batch = await house.submit(20)
    house.start()

    output, _ = await house.check(await house.reach(batch))

    assert [entry["custom_id"] for entry in output] == [f"r{number}" for number in range(20)]


async def test_no_more_requests_are_in_flight_than_the_upstream_may_have(house: House) -> None:
    """And as many as it may have."""
    house.upstream.script = always(answer(), delay=5)
    batch = await house.submit(40)
    house.start()

    await house.check(await house.reach(batch))

    assert house.upstream.most_in_flight == 4
    assert len(house.upstream.sent) == 40


async def test_two_batches_share_an_upstream_in_turn(house: House) -> None:
    """A small batch does not wait for the end of a large one."""
    house.upstream.script = always(answer(), delay=10)
    large = await house.submit(60)
    small = await house.submit(4)
    house.start()

    done = await house.reach(small)

    assert done.status is S.COMPLETED
    assert (await house.look(large)).status is S.IN_PROGRESS
    await house.check(await house.reach(large))


async def test_progress_is_shown_while_the_batch_runs(house: House) -> None:
    """Counts never run ahead of what is durable and never go back."""
    house.upstream.script = always(answer(), delay=10)
    batch = await house.submit(16)
    house.start()
    seen = []
    while not (now := await house.look(batch)).ended:
        seen.append(now.completed)
        await house.clock.advance(5)

    assert sorted(seen) == seen
    assert {4, 8, 12} <= set(seen)


class TestRetries:
    """What is tried again, and when."""

    async def test_a_failed_try_is_put_back_and_counts_once(self, house: House) -> None:
        """The error of the first try leaves no trace."""
        house.upstream.script = lambda sent: Reply(outcome=answer(500 if sent.attempt == 1 else 200))
        batch = await house.submit(3)
        house.start()

        output, errors = await house.check(await house.reach(batch))

        assert (len(output), errors) == (3, [])
        assert len(house.upstream.sent) == 6

    async def test_retry_after_is_honoured(self, house: House) -> None:
        """To the second: not before, and not much later."""
        house.upstream.script = lambda sent: Reply(
            outcome=answer(429, retry_after=77.0) if sent.attempt == 1 else answer()
        )
        batch = await house.submit(1)
        house.start()

        await house.check(await house.reach(batch))

        first, second = house.upstream.sent
        assert second.at - first.at == pytest.approx(77.0, abs=0.001)

    async def test_others_go_on_while_one_waits_for_its_retry(self, house: House) -> None:
        """A waiting request holds no slot."""
        house.upstream.script = lambda sent: Reply(
            outcome=answer(429, retry_after=500.0) if number_of(sent.body) == 0 and sent.attempt == 1 else answer(),
            delay=1,
        )
        batch = await house.submit(12)
        begun = house.clock.now()
        house.start()

        await house.clock.run_until(lambda: len(house.upstream.sent) == 12)

        assert house.clock.now() - begun < 10
        await house.check(await house.reach(batch))

    async def test_a_request_that_fails_every_time_ends_as_its_last_answer(self, house: House) -> None:
        """CONTRACT 4.2: response with the status, error null."""
        house.upstream.script = always(answer(500, text="boom"))
        batch = await house.submit(1)
        house.start()

        done = await house.reach(batch)

        assert done.status is S.COMPLETED
        assert len(house.upstream.sent) == 4
        _, [entry] = await house.check(done)
        assert entry["error"] is None
        assert entry["response"]["status_code"] == 500
        assert entry["response"]["body"]["error"]["message"] == "boom"

    async def test_a_model_that_never_answers_in_time_ends_as_request_timeout(self, house: House) -> None:
        """CONTRACT 4.2."""
        house.upstream.script = always(Failure(fault=Fault.TIMEOUT))
        batch = await house.submit(1)
        house.start()

        _, [entry] = await house.check(await house.reach(batch))

        assert entry["response"] is None
        assert entry["error"]["code"] == "request_timeout"

    async def test_a_client_error_is_not_tried_again(self, house: House) -> None:
        """It would fail again."""
        house.upstream.script = always(answer(404))
        batch = await house.submit(2)
        house.start()

        await house.check(await house.reach(batch))

        assert len(house.upstream.sent) == 2

    async def test_an_upstream_that_raises_costs_only_its_request(self, house: House) -> None:
        """The attempt is the boundary."""
        house.upstream.script = lambda sent: Reply(
            outcome=RuntimeError("defect") if number_of(sent.body) == 1 else answer()
        )
        batch = await house.submit(3)
        house.start()

        output, [entry] = await house.check(await house.reach(batch))

        assert len(output) == 2
        assert entry["response"]["status_code"] == 502

    async def test_an_answer_that_is_not_json_never_reaches_the_files(self, house: House) -> None:
        """Each line of the files is JSON."""
        house.upstream.script = always(Answer(status=200, body=b"<html>"))
        batch = await house.submit(1)
        house.start()

        _, [entry] = await house.check(await house.reach(batch))

        assert entry["response"]["body"]["error"]["code"] == "upstream_unreadable"

    async def test_an_overdue_retry_does_not_keep_the_loop_busy(self, quick: House) -> None:
        """When every slot is taken there is nothing to be woken: the engine must wait, not spin."""
        held = asyncio.Event()
        quick.upstream.script = lambda sent: (
            Reply(outcome=answer(500))
            if number_of(sent.body) == 0 and sent.attempt == 1
            else Reply(outcome=answer(), held=held)
        )
        batch = await quick.submit(12)
        quick.start()
        await quick.clock.advance(60)
        before = quick.clock.waits
        await quick.clock.settle()

        assert quick.clock.waits - before <= 2
        held.set()
        await quick.check(await quick.reach(batch))


class TestUnreachable:
    """An upstream that is not there says nothing about the requests."""

    async def test_a_batch_waits_for_a_dead_upstream_and_goes_on(self, house: House) -> None:
        """Hours later too."""
        dead = True
        house.upstream.script = lambda _: (
            Reply(outcome=Failure(fault=Fault.UNREACHABLE, detail="refused")) if dead else Reply(outcome=answer())
        )
        batch = await house.submit(8)
        house.start()
        await house.clock.advance(600)

        waiting = await house.look(batch)

        assert (waiting.status, waiting.completed, waiting.failed) == (S.IN_PROGRESS, 0, 0)
        assert house.pools[house.upstream.name].problem == "refused"
        dead = False
        output, _ = await house.check(await house.reach(batch, within=120))
        assert len(output) == 8
        assert house.pools[house.upstream.name].problem is None

    async def test_a_dead_upstream_is_not_hammered(self, house: House) -> None:
        """At most a round of its slots for every pause."""
        house.upstream.script = always(Failure(fault=Fault.UNREACHABLE))
        await house.submit(50)
        house.start()

        await house.clock.advance(600)

        assert 10 <= len(house.upstream.sent) <= 4 * 60

    async def test_a_healthy_upstream_takes_over_what_a_dead_one_could_not_do(self, quick: House) -> None:
        """The last request of a batch must not go to the dead one for ever while the healthy one idles."""
        dead = InProcessUpstream(quick.clock, always(Failure(fault=Fault.UNREACHABLE), delay=1), name="dead")
        well = InProcessUpstream(quick.clock, name="well")
        quick.upstreams = [dead, well]
        quick.deployments = ScriptedDeployments([deployment("m", dead, well)])
        batch = await quick.submit(1)
        quick.start()

        done = await quick.reach(batch, within=600)

        assert done.status is S.COMPLETED
        assert len(well.sent) == 1

    async def test_validation_waits_for_an_upstream_that_may_know_the_model(self, house: House) -> None:
        """A model server that starts later than the service is ordinary."""
        house.deployments.now = ScriptedDeployments([], complete=False).now
        batch = await house.submit(2)
        house.start()
        await house.clock.advance(60)

        assert (await house.look(batch)).status is S.VALIDATING

        house.deployments.now = ScriptedDeployments([deployment("m", house.upstream)]).now
        await house.check(await house.reach(batch, within=10))

    async def test_a_model_that_nobody_knows_fails_once_all_have_answered(self, house: House) -> None:
        """The last to answer decides."""
        house.deployments.now = ScriptedDeployments([], complete=False).now
        batch = await house.submit(2)
        house.start()
        await house.clock.advance(60)
        house.deployments.now = ScriptedDeployments([deployment("other", house.upstream)]).now

        failed = await house.reach(batch, within=10)

        assert failed.status is S.FAILED
        assert {problem.code for problem in failed.errors} == {"model_not_found"}


class TestExpiry:
    """What the end of the completion window does."""

    async def _nearly_over(
        self, house: House, flavour: Flavour = Flavour.OPENAI, requests: int = 12
    ) -> tuple[Batch, int]:
        batch = await house.submit(requests, flavour)
        await house.clock.advance(batch.expires_at - house.clock.now() - 25)
        house.start()
        return batch, batch.expires_at

    async def test_a_batch_expires_with_its_partial_results(self, house: House) -> None:
        """CONTRACT 5.3."""
        house.upstream.script = always(answer(), delay=10)
        batch, expires_at = await self._nearly_over(house, requests=20)

        done = await house.reach(batch)

        assert done.status is S.EXPIRED
        assert done.expired_at is not None
        assert expires_at <= done.expired_at <= expires_at + STOP_GRACE
        output, errors = await house.check(done)
        assert len(output) == 12
        assert {entry["error"]["code"] for entry in errors} == {"batch_expired"}
        assert done.completed_at is None

    async def test_no_request_starts_after_the_deadline(self, house: House) -> None:
        """DESIGN section 6: no attempt past the deadline."""
        house.upstream.script = always(answer(), delay=10)
        batch, expires_at = await self._nearly_over(house)

        await house.reach(batch)

        assert max(sent.at for sent in house.upstream.sent) < expires_at

    async def test_no_request_starts_when_a_restart_comes_after_the_deadline(self, house: House) -> None:
        """Whatever was not run before the process died is not run late."""
        house.upstream.script = always(answer(), delay=10)
        batch, _ = await self._nearly_over(house)
        await house.sent(4)
        await house.kill()
        await house.clock.advance(100)
        before = len(house.upstream.sent)
        await house.reopen()
        house.start()

        done = await house.reach(batch)

        assert done.status is S.EXPIRED
        assert house.upstream.sent[before:] == []
        await house.check(done)

    async def test_a_batch_that_may_go_on_does_not_expire(self, house: House) -> None:
        """Azure's rule."""
        house.upstream.script = always(answer(), delay=40)
        batch, expires_at = await self._nearly_over(house, Flavour.AZURE)

        done = await house.reach(batch)

        assert done.status is S.COMPLETED
        assert done.completed_at is not None
        assert done.completed_at > expires_at
        assert done.expires_at == expires_at
        await house.check(done)

    async def test_a_deployment_overrides_the_rule_of_the_flavour(self, house: House) -> None:
        """CONTRACT 5.3 makes it a switch."""
        house.deployments = ScriptedDeployments([replace(deployment("m", house.upstream), expiry=Expiry.EXPIRE)])
        house.upstream.script = always(answer(), delay=20)
        batch, _ = await self._nearly_over(house, Flavour.AZURE)

        done = await house.reach(batch)

        assert done.status is S.EXPIRED
        await house.check(done)

    async def test_requests_in_flight_at_the_deadline_are_given_their_grace(self, house: House) -> None:
        """What they bring is kept."""
        house.upstream.script = always(answer(), delay=24 + STOP_GRACE / 2)
        batch, _ = await self._nearly_over(house)

        done = await house.reach(batch)

        assert (done.status, done.completed) == (S.EXPIRED, 4)
        await house.check(done)

    async def test_a_batch_expires_while_it_waits_for_its_deployment(self, house: House) -> None:
        """In validating there is nothing to keep."""
        house.deployments.now = ScriptedDeployments([], complete=False).now
        batch, _ = await self._nearly_over(house)

        done = await house.reach(batch)

        assert done.status is S.EXPIRED
        assert (done.total, done.output_file_id, done.error_file_id) == (0, None, None)

    async def test_a_batch_expires_while_its_upstream_is_dead(self, house: House) -> None:
        """Every request ends as not executed."""
        house.upstream.script = always(Failure(fault=Fault.UNREACHABLE))
        batch, _ = await self._nearly_over(house)

        done = await house.reach(batch)

        assert (done.status, done.failed) == (S.EXPIRED, 0)
        _, errors = await house.check(done)
        assert {entry["error"]["code"] for entry in errors} == {"batch_expired"}

    async def test_a_running_batch_expires_after_its_deployment_went_away(self, house: House) -> None:
        """Found out at a restart."""
        house.upstream.script = always(answer(), delay=10)
        batch, _ = await self._nearly_over(house)
        await house.sent(5)
        await house.kill()
        house.deployments = ScriptedDeployments([])
        await house.reopen()
        house.start()

        done = await house.reach(batch)

        assert done.status is S.EXPIRED
        assert done.completed == 4
        await house.check(done)

    async def test_a_machine_that_slept_through_the_window_wakes_and_ends_the_batch(self, house: House) -> None:
        """A closed laptop: every lease has run out, and the engine takes its own batches up again."""
        house.upstream.script = always(answer(), delay=10)
        batch = await house.submit(12)
        house.start()
        await house.sent(8)
        house.clock.jump(90_000)

        done = await house.reach(batch)

        assert done.status is S.EXPIRED
        await house.check(done)
        await house.clock.advance(60)
        assert house.working
        await house.stop(within=120)
