"""Places that a failing disk has cut or changed: each call gives what it can, or says that they are damaged."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from structlog.testing import capture_logs
from tests.unit.test_requests import MINE, Shop, bad, good, some

from overnight.domain.blob_keys import error_key, output_key, places_key
from overnight.domain.errors import Conflict, ServiceError
from overnight.domain.places import (
    ENTRY_BYTES,
    MAGIC,
    State,
    pack,
    unpack,
)
from overnight.services.retry import NewRetry, Which
from overnight.services.sheets import RequestQuery

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from overnight.domain.batch import Batch

REQUESTS = 6
DAMAGED = "is damaged"


class Ended:
    """A batch with two successes, two failures and two requests that were not run, and every way to look into it."""

    def __init__(self, shop: Shop, batch: Batch) -> None:
        self.batch = batch
        self.shop = shop
        self.places = places_key(batch)
        self.held = dict(shop.blobs.held)

    @property
    def looks(self) -> list[Callable[[], Awaitable[object]]]:
        requests, batch_id = self.shop.requests, self.batch.id
        return [
            lambda: requests.page(MINE, batch_id, RequestQuery()),
            lambda: requests.page(MINE, batch_id, RequestQuery(state=State.FAILED, code="server_busy")),
            lambda: requests.page(MINE, batch_id, RequestQuery(custom_id="r5")),
            lambda: requests.one(MINE, batch_id, "r0"),
            lambda: requests.one(MINE, batch_id, "r3"),
            lambda: requests.one(MINE, batch_id, "", 1, full=True),
            lambda: requests.failures(MINE, batch_id),
            lambda: self.shop.retries.retry(MINE, batch_id, NewRetry(which=Which.ALL_UNFINISHED)),
        ]

    def with_blob(self, key: str, data: bytes) -> list[str]:
        """Look in every way while a blob is something else, and give what was refused."""
        self.shop.blobs.held[key] = data
        try:
            return asyncio.run(self._refusals())
        finally:
            self.shop.blobs.held[key] = self.held[key]

    async def _refusals(self) -> list[str]:
        refusals = []
        for look in self.looks:
            try:
                await look()
            except ServiceError as error:
                refusals.append(str(error))
        return refusals


async def end_one(shop: Shop) -> Ended:
    batch = await shop.begin(some(REQUESTS))
    await shop.record(batch, good(0), bad(1), good(2), bad(3, "other"))
    return Ended(shop, await shop.end(batch))


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    return asyncio.run(end_one(Shop(tmp_path_factory.mktemp("damaged"))))


def test_whole_places_are_looked_into(ended: Ended) -> None:
    """Otherwise the other tests here would say nothing."""
    assert ended.with_blob(ended.places, ended.held[ended.places]) == []


def test_places_that_were_cut_anywhere_are_damaged(ended: Ended) -> None:
    whole = ended.held[ended.places]
    refused = {length: ended.with_blob(ended.places, whole[:length]) for length in range(0, len(whole), 11)}

    assert all(len(refusals) == len(ended.looks) for refusals in refused.values())
    assert all(DAMAGED in refusal for refusals in refused.values() for refusal in refusals)


@settings(max_examples=60)
@given(data=st.data())
def test_bytes_that_were_changed_do_no_more_than_be_refused(ended: Ended, data: st.DataObject) -> None:
    """In the places, or in a file that they point to; what still can be, may be believed."""
    key = data.draw(st.sampled_from([ended.places, str(ended.batch.input_blob), error_key(ended.batch)]))
    changed = bytearray(ended.held[key])
    for at in data.draw(st.lists(st.integers(0, len(changed) - 1), min_size=1, max_size=4)):
        changed[at] ^= data.draw(st.integers(1, 255))

    refusals = ended.with_blob(key, bytes(changed))

    assert len(refusals) <= len(ended.looks)


@pytest.mark.parametrize("keep", [0, 1, 100])
def test_files_that_were_cut_are_not_read_beyond_their_end(ended: Ended, keep: int) -> None:
    files = (str(ended.batch.input_blob), output_key(ended.batch), error_key(ended.batch))
    refused = [ended.with_blob(key, ended.held[key][:keep]) for key in files]

    assert all(any(DAMAGED in refusal for refusal in refusals) for refusals in refused)


def test_a_length_that_cannot_be_takes_no_memory(ended: Ended) -> None:
    """Four gigabytes are not made room for before it is seen that there are no such bytes."""
    changed = bytearray(ended.held[ended.places])
    place = unpack(changed[len(MAGIC) :], 1)
    for field in ("length", "input_length"):
        start = len(MAGIC) + ENTRY_BYTES
        changed[start : start + ENTRY_BYTES] = pack(replace(place, **{field: 2**32 - 1}))
        refusals = ended.with_blob(ended.places, bytes(changed))

        assert any("points behind the end" in refusal for refusal in refusals)


@pytest.mark.parametrize("first", [b"ovnplc1\n", b"ovnplc3\n"])
def test_places_of_another_version_are_not_known_and_no_damage(ended: Ended, first: bytes) -> None:
    with capture_logs() as logs:
        refusals = ended.with_blob(ended.places, first + ended.held[ended.places][len(MAGIC) :])

    assert len(refusals) == len(ended.looks)
    assert all("is not known any more" in refusal and "another version" in refusal for refusal in refusals)
    assert logs == []


async def test_it_is_logged_with_its_reason_and_no_word_of_a_request(tmp_path: Path) -> None:
    ended = await end_one(Shop(tmp_path))
    ended.shop.blobs.held[ended.places] = b"ovn"
    with capture_logs() as logs, pytest.raises(Conflict, match=DAMAGED):
        await ended.shop.requests.failures(MINE, ended.batch.id)

    assert logs == [
        {
            "event": "places.damaged",
            "log_level": "error",
            "batch_id": ended.batch.id,
            "reason": "it does not begin as it should",
        }
    ]
