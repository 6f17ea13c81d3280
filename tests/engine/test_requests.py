"""Looking into a batch while it runs, after a restart, after its end, and after its files are gone."""

import json
from typing import Any

import pytest
from tests.engine.house import House, Memory, line, number_of

from overnight.domain.batch import Batch
from overnight.domain.errors import Conflict
from overnight.domain.ids import DEFAULT_RESOURCE
from overnight.domain.places import State
from overnight.domain.result import Answer
from overnight.domain.retry import Failure, Fault
from overnight.domain.trail import NO_TRAIL, Trail
from overnight.services.requests import RequestService
from overnight.services.retention import Sweeper
from overnight.services.retry import NewRetry, RetryService, Which
from overnight.services.sheets import RequestQuery, RequestRow
from overnight.testing.in_process import Reply, Sent, always, answer

W, OK, BAD, UNRUN = State.WAITING, State.SUCCEEDED, State.FAILED, State.NOT_RUN
ME = DEFAULT_RESOURCE
# In seconds: what was read of a log is fresh for less.
STALE = 1.0
MONTH = 2_592_000


def requests_of(house: House) -> RequestService:
    """Give the service as a process does that has just started."""
    stores = house.stores
    return RequestService(stores.batches, stores.files, stores.blobs, stores.logs, house.clock)


async def rows(house: House, batch: Batch, **query: Any) -> list[RequestRow]:
    page = await requests_of(house).page(ME, batch.id, RequestQuery(**query))
    return list(page.rows)


async def states(house: House, batch: Batch) -> list[State]:
    return [row.state for row in await rows(house, batch)]


async def sweep(house: House) -> None:
    """Remove whatever may go two hours from now."""
    await house.stop()
    house.clock.jump(7_200)
    stores = house.stores
    sweeper = Sweeper(stores.files, stores.uploads, stores.batches, stores.blobs, stores.logs, house.clock)
    await sweeper.sweep()
    await sweeper.sweep_orphans()


def odd_ones_fail(sent: Sent) -> Reply:
    """Refuse every other request."""
    return Reply(outcome=answer(400) if number_of(sent.body) % 2 else answer())


async def test_only_what_is_durable_is_shown_of_a_running_batch(house: House) -> None:
    """A request is waiting until its result is in the log."""
    house.upstream.script = lambda sent: Reply(outcome=answer(), delay=10 * (1 + number_of(sent.body)))
    batch = await house.submit(3)
    house.start()
    service = requests_of(house)
    await house.clock.run_until(lambda: len(house.upstream.sent) == 3)

    async def shown() -> list[State]:
        await house.clock.advance(STALE)
        return [row.state for row in (await service.page(ME, batch.id, RequestQuery())).rows]

    assert await shown() == [W, W, W]
    await house.clock.advance(10)
    assert await shown() == [OK, W, W]
    await house.clock.advance(10)
    assert await shown() == [OK, OK, W]
    assert [row.line for row in await service.newest(ME, batch.id, 5)] == [1, 0]


async def test_a_result_that_waits_for_its_commit_is_not_shown(house: House) -> None:
    """It may still be lost."""
    if not hasattr(house.stores.logs, "hold"):
        pytest.skip("only the commits in memory can be held back")
    house.stores.logs.hold()
    batch = await house.submit(2)
    house.start()
    await house.sent(2)
    await house.clock.advance(STALE)
    before = await states(house, batch)
    house.stores.logs.go_on()

    await house.reach(batch)

    assert before == [W, W]
    assert await states(house, batch) == [OK, OK]


async def test_an_ended_batch_shows_what_became_of_each_request(house: House) -> None:
    """In the order of the input, with codes and tokens."""
    house.upstream.script = odd_ones_fail
    batch = await house.submit(4)
    house.start()
    done = await house.reach(batch)

    found = await rows(house, batch)

    assert [(row.line, row.custom_id, row.state, row.status_code) for row in found] == [
        (0, "r0", OK, 200),
        (1, "r1", BAD, 400),
        (2, "r2", OK, 200),
        (3, "r3", BAD, 400),
    ]
    assert sum(row.output_tokens for row in found) == done.usage.output_tokens
    assert [row.custom_id for row in await rows(house, batch, state=BAD)] == ["r1", "r3"]
    assert list(await requests_of(house).newest(ME, batch.id, 5)) == []


async def test_a_killed_service_shows_the_same_results_after_its_restart(house: House) -> None:
    """Before it is at work again, while it is, and after the end; another process may have appended before."""
    house.upstream.script = lambda sent: Reply(outcome=answer(), delay=20.0 * (number_of(sent.body) % 2))
    batch = await house.submit(6)
    house.start()
    await house.clock.advance(10)
    before = await states(house, batch)
    await house.kill()
    await house.reopen()
    between = await states(house, batch)
    house.start()
    await house.clock.advance(5)
    again = await states(house, batch)

    await house.reach(batch)

    assert before == between == again == [OK, W, OK, W, OK, W]
    assert await states(house, batch) == [OK] * 6


async def test_a_reader_goes_on_where_a_new_owner_does(house: House) -> None:
    """One view, over two epochs."""
    service = requests_of(house)
    house.upstream.script = lambda sent: Reply(outcome=answer(), delay=20.0 * (number_of(sent.body) % 2))
    batch = await house.submit(4)
    house.start()
    await house.clock.advance(10)
    first = [row.state for row in (await service.page(ME, batch.id, RequestQuery())).rows]
    await house.kill()
    house.start()
    await house.clock.advance(30)

    await house.reach(batch)

    assert first == [OK, W, OK, W]
    assert [row.state for row in (await service.page(ME, batch.id, RequestQuery())).rows] == [OK] * 4


async def test_requests_that_never_ran_say_so(house: House) -> None:
    """With the code of the error file."""
    house.upstream.script = always(answer(), delay=100)
    batch = await house.submit(3)
    house.start()
    await house.sent(1)
    await house.cancel(batch)

    await house.reach(batch)

    assert await states(house, batch) == [UNRUN] * 3
    groups = await requests_of(house).failures(ME, batch.id)
    assert [(group.state, group.code, group.count, group.first_custom_id) for group in groups] == [
        (UNRUN, "batch_cancelled", 3, "r0")
    ]


async def test_a_deleted_input_leaves_the_rows_and_their_ids(house: House) -> None:
    """The results name them too; the line itself is gone."""
    house.upstream.script = odd_ones_fail
    batch = await house.submit(2)
    house.start()
    await house.reach(batch)
    await house.files.delete(ME, batch.input_file_id)
    await sweep(house)

    detail = await requests_of(house).one(ME, batch.id, "r1")

    assert await house.stores.blobs.size(f"files/{batch.input_file_id}") is None
    assert [row.custom_id for row in await rows(house, batch)] == ["r0", "r1"]
    assert detail.asked is None
    assert detail.got is not None
    with pytest.raises(Conflict, match="was deleted or has expired"):
        await retries_of(house).retry(ME, batch.id, NewRetry())


async def test_a_deleted_output_leaves_the_rows(house: House) -> None:
    """They say how each request ended, though not with which words."""
    batch = await house.submit(2)
    house.start()
    done = await house.reach(batch)
    assert done.output_file_id is not None
    await house.files.delete(ME, done.output_file_id)
    await sweep(house)

    detail = await requests_of(house).one(ME, batch.id, "r1")

    assert (detail.row.state, detail.row.status_code) == (OK, 200)
    assert detail.got is None
    assert detail.asked is not None
    with pytest.raises(Conflict, match="was deleted or has expired"):
        await requests_of(house).results(ME, batch.id)


async def test_the_places_go_with_the_last_file(house: House) -> None:
    """Nothing of a batch stays in the store for ever."""
    if not isinstance(house.kind, Memory):
        pytest.skip("how old a blob on a disk is tells the clock of the machine")
    batch = await house.submit(2)
    house.start()
    await house.reach(batch)
    house.clock.jump(MONTH)
    await sweep(house)

    with pytest.raises(Conflict, match="not known any more"):
        await rows(house, batch)

    assert await house.stores.blobs.keys_before(house.clock.now() + 1) == []


async def test_both_files_are_merged_in_the_order_of_the_input(house: House) -> None:
    """Whatever file a line is in."""
    house.upstream.script = odd_ones_fail
    batch = await house.submit(7)
    house.start()
    with pytest.raises(Conflict, match="has not ended"):
        await requests_of(house).results(ME, batch.id)
    await house.reach(batch)

    pieces = [piece async for piece in await requests_of(house).results(ME, batch.id)]

    merged = [json.loads(raw) for raw in b"".join(pieces).splitlines()]
    assert [entry["custom_id"] for entry in merged] == [f"r{number}" for number in range(7)]


def retries_of(house: House) -> RetryService:
    return RetryService(requests_of(house), house.batches, house.files)


async def test_a_retry_runs_the_failed_requests_again_byte_for_byte(house: House) -> None:
    """As a new batch that names the old one."""
    house.upstream.script = odd_ones_fail
    lines = [line(number, odd=f"ü{number}") for number in range(4)]
    batch = await house.submit(lines, metadata={"team": "search"})
    house.start()
    await house.reach(batch)
    house.upstream.script = always(answer())

    again = await retries_of(house).retry(ME, batch.id, NewRetry())

    assert again.metadata == {"team": "search", "retry_of": batch.id}
    assert await house.content(again.input_file_id) == lines[1] + b"\n" + lines[3] + b"\n"
    done = await house.reach(again)
    assert (done.completed, done.failed) == (2, 0)
    with pytest.raises(Conflict, match="nothing to run again"):
        await retries_of(house).retry(ME, again.id, NewRetry(which=Which.ALL_UNFINISHED))


async def test_a_retry_sent_again_makes_one_batch_and_one_file(house: House) -> None:
    """By its key."""
    house.upstream.script = odd_ones_fail
    batch = await house.submit(4)
    house.start()
    await house.reach(batch)
    first = await retries_of(house).retry(ME, batch.id, NewRetry(idempotency_key="k"))

    second = await retries_of(house).retry(ME, batch.id, NewRetry(idempotency_key="k"))

    assert second.id == first.id
    assert await house.stores.files.count(ME, expiring=True, now=house.clock.now()) == 2
    with pytest.raises(Conflict, match="was used within"):
        await retries_of(house).retry(ME, batch.id, NewRetry(which=Which.ALL_UNFINISHED, idempotency_key="k"))
    assert await house.stores.files.count(ME, expiring=True, now=house.clock.now()) == 2


async def test_a_batch_that_runs_cannot_be_retried(house: House) -> None:
    """Its requests may still succeed."""
    batch = await house.submit(1)

    with pytest.raises(Conflict, match="has not ended yet"):
        await retries_of(house).retry(ME, batch.id, NewRetry())


async def test_what_was_tried_of_a_request_stays_known(house: House) -> None:
    """Also after the owner of the batch died between its attempts and its end, and after the end of the batch."""

    def script(sent: Sent) -> Reply:
        if number_of(sent.body) == 0 and sent.attempt < 3:
            outcome = answer(503) if sent.attempt == 1 else Failure(fault=Fault.BROKEN_OFF, detail="cut off")
            return Reply(outcome=outcome, delay=2.0)
        return Reply(outcome=answer(), delay=5.0 if number_of(sent.body) == 0 else 1_000.0)

    house.upstream.script = script
    batch = await house.submit(2)
    house.start()

    async def tried() -> Trail:
        await house.clock.advance(STALE)
        return (await requests_of(house).one(ME, batch.id, "r0")).trail

    before = await tried()
    await house.clock.run_until(lambda: len(house.upstream.sent) == 4)
    await house.clock.advance(6.0)
    running = await tried()
    await house.kill()
    await house.reopen()
    house.start()
    await house.reach(batch)
    ended = await tried()

    assert (before, running) == (NO_TRAIL, ended)
    first, second, third = ended.attempts
    assert [(each.status, each.fault, each.seconds) for each in ended.attempts] == [
        (503, "", 2.0),
        (0, Fault.BROKEN_OFF, 2.0),
        (200, "", 5.0),
    ]
    assert second.at == pytest.approx(first.at + 2.0 + first.wait, abs=0.1)
    assert third.at == pytest.approx(second.at + 2.0 + second.wait, abs=0.1)
    assert (first.wait > 0, second.wait > 0, third.wait) == (True, True, 0.0)
    assert {each.upstream for each in ended.attempts} == {house.upstream.name}


async def test_an_attempt_has_no_status_that_the_upstream_did_not_send(house: House) -> None:
    """The line of the request says 502 for want of a usable answer; that is a word of ours."""
    house.upstream.script = always(Answer(status=200, body=b"<html>"))
    batch = await house.submit(1)
    house.start()
    await house.reach(batch)

    detail = await requests_of(house).one(ME, batch.id, "r0")

    assert detail.row.status_code == 502
    assert {(each.status, each.fault) for each in detail.trail.attempts} == {(0, Fault.UNREADABLE)}
