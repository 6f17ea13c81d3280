"""Bounds on how many records there are: exact, however many are added at once."""

import asyncio
from collections.abc import Awaitable, Sequence

import pytest
from msgspec.structs import replace
from tests.contract.records import Records
from tests.contract.test_batches import MINE, NOW, OTHERS, a_batch
from tests.contract.test_files import a_file, a_part, an_upload

from overnight.domain.batch import Batch
from overnight.domain.file import Purpose
from overnight.domain.flavour import Flavour
from overnight.domain.ids import BatchId, FileId, UploadId
from overnight.domain.upload import UploadStatus
from overnight.ports.batches import Batches
from overnight.ports.bounds import Bound, BoundReached
from overnight.ports.files import Files, PartRoom, Uploads

HOUR = int(NOW) - 3_600


async def refused(adding: Sequence[Awaitable[object]]) -> int:
    """Add at once, and count what was refused; whatever else goes wrong is raised."""
    results = await asyncio.gather(*adding, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, BoundReached):
            raise result
    return sum(isinstance(result, BoundReached) for result in results)


def batch_at(name: str, created_at: int = int(NOW), **changes: object) -> Batch:
    return replace(a_batch(name), created_at=created_at, **changes)


class TestBatches:
    """Batches created within a window."""

    async def test_of_sixteen_at_the_edge_only_those_fit_that_may(self, batches: Batches) -> None:
        """None too many, none too few."""
        await batches.add(batch_at("batch_a"))
        bound = Bound(most=4, since=HOUR)
        adding = [batches.add(batch_at(f"batch_{number}"), bound=bound) for number in range(16)]

        assert await refused(adding) == 13
        stored = [await batches.get(MINE, BatchId(f"batch_{number}")) for number in range(16)]
        assert sum(batch is not None for batch in stored) == 3

    async def test_a_window_slides(self, batches: Batches) -> None:
        """And the refusal names the batch that has to leave it first."""
        bound = Bound(most=2, since=HOUR)
        for number, moment in enumerate((HOUR - 5, HOUR, HOUR + 1, HOUR + 7)):
            await batches.add(batch_at(f"batch_{number}", moment))

        with pytest.raises(BoundReached) as caught:
            await batches.add(batch_at("batch_9"), bound=bound)

        assert caught.value.oldest == HOUR + 1
        await batches.add(batch_at("batch_9"), bound=replace(bound, since=HOUR + 1))

    async def test_only_those_of_the_same_resource_and_flavour_count(self, batches: Batches) -> None:
        """Others have their own."""
        bound = Bound(most=1, since=HOUR)
        await batches.add(batch_at("batch_1", resource=OTHERS), bound=bound)
        await batches.add(batch_at("batch_2", flavour=Flavour.OPENAI), bound=bound)
        await batches.add(batch_at("batch_3"), bound=bound)

        assert await refused([batches.add(batch_at("batch_4"), bound=bound)]) == 1

    async def test_a_repeated_request_is_never_refused(self, batches: Batches) -> None:
        """It makes no batch; a new key does."""
        bound = Bound(most=1, since=HOUR)
        first = batch_at("batch_1", idempotency_key="key")
        await batches.add_once(first, since=HOUR, bound=bound)
        again = batch_at("batch_2", idempotency_key="key")

        assert (await batches.add_once(again, since=HOUR, bound=bound)).id == first.id
        other = batch_at("batch_3", idempotency_key="other")
        assert await refused([batches.add_once(other, since=HOUR, bound=bound)]) == 1

    async def test_a_refused_request_takes_the_key_of_none(self, batches: Batches) -> None:
        """An old batch keeps its key if the new one is not stored."""
        old = batch_at("batch_1", HOUR - 9, idempotency_key="key")
        await batches.add(old)
        await batches.add(batch_at("batch_2"))
        again = batch_at("batch_3", idempotency_key="key")

        assert await refused([batches.add_once(again, since=HOUR, bound=Bound(most=1, since=HOUR))]) == 1
        stored = await batches.get(MINE, old.id)
        assert stored is not None
        assert stored.idempotency_key == "key"


class TestFiles:
    """Files of a resource."""

    async def test_of_sixteen_at_the_edge_only_those_fit_that_may(self, files: Files) -> None:
        """With an expiry and without one have bounds of their own."""
        await files.add(a_file("there"))
        await files.add(a_file("deleted"))
        await files.delete(MINE, FileId("deleted"), now=NOW)
        await files.add(a_file("output", Purpose.BATCH_OUTPUT))
        bound = Bound(most=3, since=NOW)
        staying = [files.add(a_file(f"s{number}"), bound=bound) for number in range(16)]
        expiring = [files.add(a_file(f"e{number}", expires_at=int(NOW) + 9), bound=bound) for number in range(16)]

        assert await refused([*staying, *expiring]) == 14 + 13
        assert await files.count(MINE, expiring=False, now=NOW) == 3
        assert await files.count(MINE, expiring=True, now=NOW) == 3

    async def test_a_file_of_an_upload_counts_like_any_other(self, records: Records) -> None:
        """The upload stays pending, and can be completed once there is room."""
        upload = an_upload()
        await records.uploads.add(upload)
        await records.files.add(a_file("there"))
        done = replace(upload, status=UploadStatus.COMPLETED, file_id=FileId("new"))
        bound = Bound(most=1, since=NOW)

        saving = records.uploads.save(done, expected=upload, file=a_file("new"), bound=bound)
        assert await refused([saving]) == 1
        assert await records.uploads.get(MINE, upload.id) == upload

        await records.files.delete(MINE, FileId("there"), now=NOW)
        assert await records.uploads.save(done, expected=upload, file=a_file("new"), bound=bound)


class TestUploads:
    """Uploads that have not ended."""

    async def test_of_sixteen_at_the_edge_only_those_fit_that_may(self, uploads: Uploads) -> None:
        """What has ended or expired does not count, nor what is another's."""
        await uploads.add(an_upload("expired", expires_at=int(NOW)))
        await uploads.add(replace(an_upload("ended"), status=UploadStatus.CANCELLED))
        await uploads.add(replace(an_upload("foreign"), resource=OTHERS))
        bound = Bound(most=3, since=NOW)

        assert await refused([uploads.add(an_upload(f"u{number}"), bound=bound) for number in range(16)]) == 13

    async def test_parts_share_the_room_of_their_resource(self, uploads: Uploads) -> None:
        """Of parts sent at once, only those are stored that fit."""
        for name in ("upload_1", "upload_2"):
            await uploads.add(an_upload(name))
        await uploads.add(replace(an_upload("upload_3"), resource=OTHERS))
        await uploads.add_part(a_part("foreign", "upload_3"))
        room = PartRoom(parts=100, bytes=5)
        adding = [uploads.add_part(a_part(f"p{n}", f"upload_{n % 2 + 1}"), room=room) for n in range(16)]

        assert await refused([*adding]) == 11
        assert await uploads.stored_bytes(MINE) == 5

    async def test_an_upload_has_so_many_parts_at_most(self, uploads: Uploads) -> None:
        """However small they are."""
        for name in ("upload_1", "upload_2"):
            await uploads.add(an_upload(name))
        room = PartRoom(parts=2, bytes=100)
        adding = [uploads.add_part(a_part(f"p{number}"), room=room) for number in range(5)]

        assert await refused([*adding]) == 3
        assert await uploads.add_part(a_part("other", "upload_2"), room=room)

    async def test_what_has_ended_makes_room(self, uploads: Uploads) -> None:
        """At once, though its bytes are removed a little later."""
        upload = an_upload()
        await uploads.add(upload)
        await uploads.add_part(a_part("a"))
        await uploads.save(replace(upload, status=UploadStatus.CANCELLED), expected=upload)

        assert await uploads.stored_bytes(MINE) == 0
        assert len(await uploads.parts(UploadId("upload_1"))) == 1
