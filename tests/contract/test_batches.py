"""The promises of ``ports/batches.py``."""

from typing import Any

import pytest
from msgspec.structs import replace
from tests.contract.records import Records, together

from overnight.domain.batch import Batch, BatchStatus, Expiry, Problem
from overnight.domain.file import File, Purpose
from overnight.domain.flavour import Flavour
from overnight.domain.ids import BatchId, FileId, ResourceId, WorkerId
from overnight.domain.lanes import Lane
from overnight.domain.listing import BatchQuery, Condition
from overnight.domain.result import Tally
from overnight.domain.usage import Usage
from overnight.ports.batches import Batches

S = BatchStatus
MINE, OTHERS = ResourceId("mine"), ResourceId("others")
ANN, BOB = WorkerId("ann"), WorkerId("bob")
NOW = 1_700_000_000.0


def a_batch(name: str = "batch_1", resource: ResourceId = MINE) -> Batch:
    return Batch(
        id=BatchId(name),
        resource=resource,
        flavour=Flavour.AZURE,
        endpoint="/chat/completions",
        input_file_id=FileId("file-1"),
        completion_window="24h",
        created_at=int(NOW),
        expires_at=int(NOW) + 86_400,
        expiry=Expiry.CONTINUE,
        metadata={"who": "ä\u0000\U0001f600", "": ""},
    )


def a_file(name: str) -> File:
    return File(
        id=FileId(name),
        resource=MINE,
        purpose=Purpose.BATCH_OUTPUT,
        filename="out.jsonl",
        bytes=1,
        created_at=int(NOW),
        blob=f"files/{name}",
    )


async def _claim(batches: Batches, worker: WorkerId, now: float = NOW, limit: int = 10) -> list[Batch]:
    return list(await batches.claim(worker, now=now, until=now + 10, limit=limit))


async def test_a_batch_comes_back_as_it_was_stored(batches: Batches) -> None:
    """Every field, whatever is in it."""
    full = replace(
        a_batch(),
        status=S.COMPLETED,
        errors=(Problem(code="c", message="m"), Problem(code="d", message="ü", param="p", line=7)),
        usage=Usage(input_tokens=2**40, output_tokens=3),
        output_expires_after=3,
        in_progress_at=4,
        finalizing_at=5,
        completed_at=6,
        output_file_id=FileId("file-2"),
        error_file_id=FileId("file-3"),
        total=9,
        completed=8,
        failed=1,
        input_blob="b",
        model="m",
        deployment="d",
    )
    await batches.add(full)

    assert await batches.get(MINE, full.id) == full


async def test_unknown_and_foreign_ids_are_told_the_same(batches: Batches) -> None:
    """Not even existence crosses resources."""
    await batches.add(a_batch())

    assert await batches.get(OTHERS, BatchId("batch_1")) is None
    assert await batches.get(MINE, BatchId("batch_2")) is None
    assert await batches.page(OTHERS, BatchQuery(after=BatchId("batch_1"), limit=5)) is None


async def test_a_list_is_newest_first_and_goes_on_behind_the_cursor(batches: Batches) -> None:
    """Also for batches of the same second."""
    for number in range(5):
        await batches.add(a_batch(f"batch_{number}"))
        await batches.add(a_batch(f"other_{number}", OTHERS))
    seen: list[tuple[list[str], bool]] = []
    after = None
    while True:
        page = await batches.page(MINE, BatchQuery(after=after, limit=2))
        assert page is not None
        seen.append(([batch.id for batch in page.items], page.has_more))
        if not page.has_more:
            break
        after = page.items[-1].id

    assert seen == [(["batch_4", "batch_3"], True), (["batch_2", "batch_1"], True), (["batch_0"], False)]


async def test_a_list_behind_an_unknown_batch_is_no_list(batches: Batches) -> None:
    """Never the first page again."""
    assert await batches.page(MINE, BatchQuery(after=BatchId("batch_9"), limit=2)) is None


async def test_a_list_of_nothing_is_an_empty_page(batches: Batches) -> None:
    """And not None."""
    page = await batches.page(MINE, BatchQuery(limit=2))

    assert page is not None
    assert (list(page.items), page.has_more) == ([], False)


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ((Condition("created_at", "gt", 2),), ["batch_4", "batch_3"]),
        ((Condition("created_at", "ge", 2), Condition("created_at", "lt", 4)), ["batch_3", "batch_2"]),
        ((Condition("created_at", "le", 1), Condition("created_at", "ne", 0)), ["batch_1"]),
        ((Condition("created_at", "eq", 3),), ["batch_3"]),
        ((Condition("status", "eq", "failed"),), ["batch_4", "batch_2", "batch_0"]),
        ((Condition("status", "ne", "failed"), Condition("created_at", "gt", 1)), ["batch_3"]),
    ],
)
async def test_a_list_shows_what_meets_every_condition(
    batches: Batches, conditions: tuple[Condition, ...], expected: list[str]
) -> None:
    """In both orders, and behind a cursor that does not meet them."""
    for number in range(5):
        status = S.VALIDATING if number % 2 else S.FAILED
        await batches.add(replace(a_batch(f"batch_{number}"), created_at=number, status=status))

    newest = await batches.page(MINE, BatchQuery(limit=9, conditions=conditions))
    oldest = await batches.page(MINE, BatchQuery(limit=9, conditions=conditions, oldest_first=True))
    behind = await batches.page(MINE, BatchQuery(limit=9, conditions=conditions, after=BatchId("batch_2")))

    assert newest is not None
    assert oldest is not None
    assert behind is not None
    assert [batch.id for batch in newest.items] == expected
    assert [batch.id for batch in oldest.items] == expected[::-1]
    assert [batch.id for batch in behind.items] == [name for name in expected if name < "batch_2"]


async def test_known_batches_are_given_whatever_their_resource_and_status(batches: Batches) -> None:
    """For those that clean up."""
    mine, ended = a_batch(), replace(a_batch("batch_2", OTHERS), status=S.COMPLETED, epoch=3)
    await batches.add(mine)
    await batches.add(ended)

    known = await batches.known([ended.id, mine.id, BatchId("batch_unknown")])

    assert sorted(known, key=lambda each: each.resource) == sorted([mine, ended], key=lambda each: each.resource)
    assert await batches.known([]) == []


async def test_a_save_writes_only_what_differs(batches: Batches) -> None:
    """Progress that was recorded in between is not undone."""
    await batches.add(a_batch())
    [batch] = await _claim(batches, ANN)
    running = batch.to(S.IN_PROGRESS, NOW, total=4)
    assert await batches.save(running, expected=batch)
    assert await batches.record_progress(running, Tally(completed=3, failed=1, usage=Usage(input_tokens=5)), now=NOW)

    assert await batches.save(running.to(S.CANCELLING, NOW), expected=running)

    stored = await batches.get(MINE, batch.id)
    assert stored is not None
    assert (stored.status, stored.total, stored.completed, stored.failed) == (S.CANCELLING, 4, 3, 1)
    assert stored.usage == Usage(input_tokens=5)


async def test_a_save_over_a_changed_status_is_refused_with_its_files(records: Records) -> None:
    """A cancel is never reverted, and no file shows up for a save that did not happen."""
    batches, files = records.batches, records.files
    await batches.add(a_batch())
    [batch] = await _claim(batches, ANN)
    cancelling = batch.to(S.CANCELLING, NOW)
    assert await batches.save(cancelling, expected=batch)

    saved = await batches.save(batch.to(S.IN_PROGRESS, NOW), expected=batch, files=[a_file("file-9")])

    assert saved is False
    assert await batches.get(MINE, batch.id) == cancelling
    assert await files.get(MINE, FileId("file-9"), now=NOW) is None


async def test_a_save_of_an_older_epoch_is_refused(records: Records) -> None:
    """A worker that lost its lease cannot write."""
    batches = records.batches
    await batches.add(a_batch())
    [old] = await _claim(batches, ANN)
    [new] = await _claim(batches, BOB, now=NOW + 100)

    assert await batches.save(old.to(S.IN_PROGRESS, NOW), expected=old, files=[a_file("file-9")]) is False
    assert await batches.record_progress(old, Tally(completed=9), now=NOW) is False
    assert await batches.get(MINE, old.id) == new
    assert await records.files.get(MINE, FileId("file-9"), now=NOW) is None


async def test_a_save_of_an_unknown_batch_is_refused(batches: Batches) -> None:
    """Losing is an ordinary result."""
    batch = a_batch()

    assert await batches.save(batch.to(S.FAILED, NOW), expected=batch) is False
    assert await batches.record_progress(batch, Tally(), now=NOW) is False


async def test_the_files_of_a_save_appear_with_it(records: Records) -> None:
    """One transaction."""
    batches, files = records.batches, records.files
    await batches.add(a_batch())
    [batch] = await _claim(batches, ANN)

    assert await batches.save(
        batch.to(S.FAILED, NOW, output_file_id=FileId("file-8")), expected=batch, files=[a_file("file-8")]
    )

    assert await files.get(MINE, FileId("file-8"), now=NOW) == a_file("file-8")


async def test_a_save_whose_file_cannot_be_stored_changes_nothing(records: Records) -> None:
    """The whole transaction fails."""
    batches, files = records.batches, records.files
    await batches.add(a_batch())
    [batch] = await _claim(batches, ANN)
    await files.add(a_file("file-8"))

    with pytest.raises(Exception, match="file"):
        await batches.save(batch.to(S.FAILED, NOW), expected=batch, files=[a_file("file-7"), a_file("file-8")])

    assert await batches.get(MINE, batch.id) == batch
    assert await files.get(MINE, FileId("file-7"), now=NOW) is None


async def test_of_two_saves_at_once_one_wins(batches: Batches) -> None:
    """Whatever the interleaving."""
    await batches.add(a_batch())
    [batch] = await _claim(batches, ANN)

    outcomes = await together(
        batches.save(batch.to(S.IN_PROGRESS, NOW), expected=batch),
        batches.save(batch.to(S.CANCELLING, NOW), expected=batch),
        batches.save(batch.to(S.FAILED, NOW), expected=batch),
    )

    assert sorted(outcomes) == [False, False, True]


class TestRepeats:
    """A request that is sent again makes no second batch."""

    async def add(self, batches: Batches, name: str, *, since: int = int(NOW), **changes: Any) -> str:
        """Store a batch unless it repeats one; give the id of the one that is stored."""
        batch = replace(a_batch(name), fingerprint="print", **changes)
        return (await batches.add_once(batch, since=since)).id

    async def test_a_batch_that_repeats_none_is_stored(self, batches: Batches) -> None:
        """With its key and its fingerprint."""
        batch = replace(a_batch(), fingerprint="print", idempotency_key="key")

        assert await batches.add_once(batch, since=int(NOW)) == batch
        assert await batches.get(MINE, batch.id) == batch

    async def test_the_batch_with_the_key_is_given_as_it_stands(self, batches: Batches) -> None:
        """Whatever the second one asks for: whoever asks compares."""
        await self.add(batches, "batch_1", idempotency_key="key")
        [claimed] = await _claim(batches, ANN)
        second = replace(a_batch("batch_2"), fingerprint="other", idempotency_key="key")

        assert await batches.add_once(second, since=int(NOW)) == claimed
        assert await batches.get(MINE, second.id) is None

    async def test_another_key_or_resource_is_another_request(self, batches: Batches) -> None:
        """The fingerprint counts for nothing where there is a key."""
        assert await self.add(batches, "batch_1", idempotency_key="key") == "batch_1"
        assert await self.add(batches, "batch_2", idempotency_key="KEY") == "batch_2"
        assert await self.add(batches, "batch_3", idempotency_key="key", resource=OTHERS) == "batch_3"
        assert await self.add(batches, "batch_4") == "batch_4"

    async def test_a_key_is_forgotten_after_its_time(self, batches: Batches) -> None:
        """The old batch stays, and the key is the new one's."""
        await self.add(batches, "batch_1", idempotency_key="key")

        assert await self.add(batches, "batch_2", since=int(NOW) + 1, idempotency_key="key") == "batch_2"
        assert await self.add(batches, "batch_3", idempotency_key="key") == "batch_2"
        old = await batches.get(MINE, BatchId("batch_1"))
        assert old is not None
        assert (old.idempotency_key, old.fingerprint) == (None, "print")

    async def test_without_a_key_the_newest_of_the_fingerprint_is_given(self, batches: Batches) -> None:
        """If it is no older than asked, and of the same resource."""
        for name in ("batch_1", "batch_2"):
            await batches.add(replace(a_batch(name), fingerprint="print"))
        await batches.add(replace(a_batch("batch_3"), fingerprint="another"))

        assert await self.add(batches, "batch_4") == "batch_2"
        assert await self.add(batches, "batch_5", resource=OTHERS) == "batch_5"
        assert await self.add(batches, "batch_6", since=int(NOW) + 1) == "batch_6"

    @pytest.mark.parametrize("key", ["key", None])
    async def test_of_many_equal_ones_at_once_one_is_stored(self, batches: Batches, key: str | None) -> None:
        """Whatever the interleaving."""
        names = await together(*(self.add(batches, f"batch_{number}", idempotency_key=key) for number in range(9)))

        page = await batches.page(MINE, BatchQuery(limit=10))
        assert page is not None
        assert {batch.id for batch in page.items} == set(names)
        assert len(page.items) == 1


class TestClaims:
    """A lease with an epoch."""

    async def test_a_claim_takes_the_oldest_first_up_to_its_limit(self, batches: Batches) -> None:
        """And raises the epoch."""
        for number in range(4):
            await batches.add(a_batch(f"batch_{number}"))

        first = await _claim(batches, ANN, limit=3)
        second = await _claim(batches, BOB, limit=3)

        assert [batch.id for batch in first] == ["batch_0", "batch_1", "batch_2"]
        assert [batch.id for batch in second] == ["batch_3"]
        assert {batch.epoch for batch in [*first, *second]} == {1}

    async def test_a_claim_of_none_takes_none(self, batches: Batches) -> None:
        """A worker at its limit still looks."""
        await batches.add(a_batch())

        assert await _claim(batches, ANN, limit=0) == []
        assert len(await _claim(batches, ANN)) == 1

    async def test_a_batch_that_is_held_cannot_be_claimed_before_its_time_is_over(self, batches: Batches) -> None:
        """Not even by the worker that holds it."""
        await batches.add(a_batch())
        await _claim(batches, ANN)

        assert await _claim(batches, BOB, now=NOW + 9.9) == []
        assert await _claim(batches, ANN, now=NOW + 9.9) == []
        [stolen] = await _claim(batches, BOB, now=NOW + 10.1)
        assert stolen.epoch == 2

    @pytest.mark.parametrize("status", sorted({S.FAILED, S.COMPLETED, S.EXPIRED, S.CANCELLED}))
    async def test_a_batch_that_has_ended_is_not_claimed(self, batches: Batches, status: S) -> None:
        """Terminal is terminal."""
        await batches.add(replace(a_batch(), status=status))

        assert await _claim(batches, ANN) == []

    @pytest.mark.parametrize("status", sorted({S.VALIDATING, S.IN_PROGRESS, S.FINALIZING, S.CANCELLING}))
    async def test_a_batch_that_has_not_ended_is_claimed(self, batches: Batches, status: S) -> None:
        """Whatever it was doing."""
        await batches.add(replace(a_batch(), status=status))

        assert [batch.status for batch in await _claim(batches, ANN)] == [status]

    async def test_of_many_claimers_each_batch_goes_to_one(self, batches: Batches) -> None:
        """No two workers are given the same epoch."""
        for number in range(12):
            await batches.add(a_batch(f"batch_{number}"))

        claims = await together(*(_claim(batches, WorkerId(f"w{number}"), limit=5) for number in range(6)))

        taken = [batch.id for claimed in claims for batch in claimed]
        assert len(taken) == len(set(taken))
        left = await _claim(batches, BOB, limit=20)
        assert len(taken) + len(left) == 12
        assert {batch.epoch for batch in left} <= {1}

    async def test_a_renewed_claim_holds_longer(self, batches: Batches) -> None:
        """And tells what became of the batch meanwhile."""
        await batches.add(a_batch())
        [batch] = await _claim(batches, ANN)
        assert await batches.save(batch.to(S.CANCELLING, NOW), expected=batch)

        stored = await batches.renew(batch, ANN, until=NOW + 50)

        assert stored is not None
        assert stored.status is S.CANCELLING
        assert await _claim(batches, BOB, now=NOW + 49) == []
        assert len(await _claim(batches, BOB, now=NOW + 51)) == 1

    async def test_a_lost_claim_cannot_be_renewed(self, batches: Batches) -> None:
        """Losing it is an ordinary result."""
        await batches.add(a_batch())
        [batch] = await _claim(batches, ANN)
        await _claim(batches, BOB, now=NOW + 11)

        assert await batches.renew(batch, ANN, until=NOW + 50) is None
        assert await batches.renew(batch, BOB, until=NOW + 50) is None

    async def test_a_released_batch_can_be_taken_at_once(self, batches: Batches) -> None:
        """With a new epoch."""
        await batches.add(a_batch())
        [batch] = await _claim(batches, ANN)

        await batches.release(batch, ANN)

        [again] = await _claim(batches, BOB)
        assert again.epoch == 2
        assert await batches.renew(batch, ANN, until=NOW + 50) is None

    async def test_releasing_a_lost_claim_does_nothing(self, batches: Batches) -> None:
        """The new owner keeps its lease."""
        await batches.add(a_batch())
        [old] = await _claim(batches, ANN)
        await _claim(batches, BOB, now=NOW + 11)

        await batches.release(old, ANN)

        assert await _claim(batches, ANN, now=NOW + 12) == []

    async def test_all_claims_of_a_dead_worker_can_be_given_back(self, batches: Batches) -> None:
        """And only its own."""
        for number in range(3):
            await batches.add(a_batch(f"batch_{number}"))
        await _claim(batches, ANN, limit=2)
        await _claim(batches, BOB)

        await batches.release_all(ANN)

        assert [batch.id for batch in await _claim(batches, BOB)] == ["batch_0", "batch_1"]


async def test_what_waits_is_counted_by_lane_in_the_order_of_the_oldest(batches: Batches) -> None:
    """Not what another holds, nor what has ended, nor what may not be claimed yet."""
    running: dict[str, Any] = {"status": S.IN_PROGRESS, "deployment": "chat"}
    for number, (resource, changes) in enumerate(
        [
            (OTHERS, running),
            (MINE, {}),
            (OTHERS, {"status": S.COMPLETED}),
            (MINE, running),
            (MINE, running | {"deployment": "other"}),
            (MINE, {"status": S.FINALIZING}),
            (MINE, running | {"expiry": Expiry.EXPIRE, "expires_at": int(NOW)}),
            (OTHERS, running),
        ]
    ):
        await batches.add(replace(a_batch(f"batch_{number}", resource), **changes))
    waiting = await batches.waiting(ANN, now=NOW)

    assert list(waiting.items()) == [
        (Lane(OTHERS, "chat"), 2),
        (Lane(MINE), 3),
        (Lane(MINE, "chat"), 1),
        (Lane(MINE, "other"), 1),
    ]
    [held] = await _claim(batches, BOB, limit=1)
    await batches.release(held, BOB, until=NOW + 5)
    assert (await batches.waiting(ANN, now=NOW))[Lane(OTHERS, "chat")] == 1
    assert (await batches.waiting(ANN, now=NOW + 5))[Lane(OTHERS, "chat")] == 2


@pytest.mark.parametrize(
    ("lane", "expected"),
    [
        (Lane(MINE), ["batch_0", "batch_3"]),
        (Lane(MINE, "chat"), ["batch_1", "batch_4"]),
        (Lane(OTHERS, "chat"), ["batch_2"]),
        (Lane(OTHERS), []),
        (Lane(MINE, "other"), []),
    ],
)
async def test_of_a_lane_its_oldest_are_claimed(batches: Batches, lane: Lane, expected: list[str]) -> None:
    """And nothing of another."""
    running: dict[str, Any] = {"status": S.IN_PROGRESS, "deployment": "chat"}
    overdue: dict[str, Any] = {"expiry": Expiry.EXPIRE, "expires_at": int(NOW)}
    for number, (resource, changes) in enumerate(
        [(MINE, {}), (MINE, running), (OTHERS, running), (MINE, running | overdue), (MINE, running), (MINE, running)]
    ):
        await batches.add(replace(a_batch(f"batch_{number}", resource), **changes))
    claimed = await batches.claim(ANN, now=NOW, until=NOW + 10, limit=2, lane=lane)

    assert [batch.id for batch in claimed] == expected
    assert {batch.epoch for batch in claimed} <= {1}
    assert sum((await batches.waiting(BOB, now=NOW)).values()) == 6 - len(expected)


async def test_what_had_to_wait_before_is_behind_what_did_not(batches: Batches) -> None:
    """Among what needs no upstream: a hundred that are looked at again and again do not keep others from it."""
    for number in range(4):
        await batches.add(a_batch(f"batch_{number}"))
    for pause, held in enumerate(reversed(await _claim(batches, BOB, limit=2)), 1):
        await batches.release(held, BOB, until=NOW + pause)
    claimed = await batches.claim(ANN, now=NOW + 5, until=NOW + 10, limit=9, lane=Lane(MINE))

    assert [batch.id for batch in claimed] == ["batch_2", "batch_3", "batch_1", "batch_0"]
