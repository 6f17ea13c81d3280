"""What was tried of a request, and how a batch got on: kept in the log and in the places, told by the services."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.unit.test_requests import BAD, MINE, OK, UNRUN, Shop, bad, good, shop, some, timed_out

from overnight.domain.durations import bin_of, no_durations, quantile
from overnight.domain.places import MAGIC, TAIL_BYTES, DamagedPlaces, decode_summary, summary_span, unpack
from overnight.domain.result import Result
from overnight.domain.throughput import MOST_STRETCHES, NO_THROUGHPUT, Stretch, ThroughputCount
from overnight.domain.trail import (
    ATTEMPTS_KEPT,
    NO_TRAIL,
    Attempted,
    Trail,
    decode_trail,
    encode_trail,
    name_of,
)
from overnight.domain.usage import NO_USAGE, Usage
from overnight.services.sheets import EndedSheet

__all__ = ["shop"]

START = 1_700_000_000


def made(upstream: str = "a", at: float = START, **more: Any) -> Attempted:
    return Attempted(upstream=upstream, at=at, seconds=0.5, **more)


def tried(result: Result, *attempts: Attempted) -> Result:
    return replace(result, trail=encode_trail(Trail(attempts)))


class TestTrail:
    def test_the_newest_attempts_are_kept_and_all_are_counted(self) -> None:
        trail = NO_TRAIL
        for number in range(ATTEMPTS_KEPT + 4):
            trail = trail.then(made(at=number))

        assert trail.count == ATTEMPTS_KEPT + 4
        assert [each.at for each in trail.attempts] == list(range(4, ATTEMPTS_KEPT + 4))

    @given(
        st.builds(
            Trail,
            st.lists(
                st.builds(
                    Attempted,
                    upstream=st.text(max_size=64),
                    at=st.floats(0, 2**33),
                    seconds=st.floats(0, 1e6),
                    status=st.integers(0, 599),
                    fault=st.sampled_from(["", "timeout"]),
                    wait=st.floats(0, 1e6),
                ),
                max_size=ATTEMPTS_KEPT,
            ).map(tuple),
            st.integers(0, 2**31),
        )
    )
    def test_a_trail_comes_back_as_it_was_laid_out(self, trail: Trail) -> None:
        data = encode_trail(trail)

        assert decode_trail(data) == trail
        assert len(data) < 2**16

    @pytest.mark.parametrize("data", [b"", b"\xc1", b"\x90" * 70_000, b"\x92\x91\x01\x00", b"\xff" * 9])
    def test_what_is_no_trail_costs_nothing(self, data: bytes) -> None:
        assert decode_trail(data) == NO_TRAIL

    @pytest.mark.parametrize("number", [float("nan"), float("inf"), -1.0, 1e300])
    @pytest.mark.parametrize("field", ["at", "seconds", "wait"])
    def test_a_time_that_cannot_be_is_not_believed(self, field: str, number: float) -> None:
        assert decode_trail(encode_trail(Trail((replace(made(), **{field: number}),)))) == NO_TRAIL

    @pytest.mark.parametrize("trail", [Trail((), -1), Trail((made(status=-1),)), Trail((made(status=1_000),))])
    def test_a_number_that_cannot_be_is_not_believed(self, trail: Trail) -> None:
        assert decode_trail(encode_trail(trail)) == NO_TRAIL

    def test_a_long_name_is_cut(self) -> None:
        assert name_of("x" * 100) == "x" * 64


class TestDurations:
    @pytest.mark.parametrize("seconds", [0.0015, 0.02, 1.0, 7.7, 600.0])
    def test_a_quantile_is_right_within_a_tenth(self, seconds: float) -> None:
        counts = no_durations()
        for share in range(100):
            counts[bin_of(seconds * (1 if share < 60 else 4))] += 1

        half, most = quantile(counts, 0.5), quantile(counts, 0.95)

        assert (half, most) == (float(f"{half:.4g}"), float(f"{most:.4g}"))
        assert half == pytest.approx(seconds, rel=0.1)
        assert most == pytest.approx(seconds * 4, rel=0.1)

    def test_no_duration_is_told_wrong_by_more_than_a_tenth(self) -> None:
        for step in range(10_000):
            seconds = 0.001 * 1.0015**step
            counts = no_durations()
            counts[bin_of(seconds)] += 1

            assert quantile(counts, 0.5) == pytest.approx(seconds, rel=0.1), seconds

    def test_nothing_has_no_quantile(self) -> None:
        assert quantile(no_durations(), 0.5) is None


class TestThroughput:
    def test_what_ended_is_counted_where_it_ended(self) -> None:
        count = ThroughputCount()
        usage = Usage(input_tokens=3, output_tokens=2)
        count.add(START + 0.9, 0.1, usage, succeeded=True)
        count.add(START + 2.1, 9.0, NO_USAGE, succeeded=False)
        count.add(START - 50, 0.1, usage, succeeded=True)

        found = count.throughput()

        first, empty, last = found.stretches
        assert (found.start, found.width) == (START, 1)
        assert first == Stretch(2, 0, 6, 4, found.p50, found.p95)
        assert found.p50 == pytest.approx(0.1, rel=0.1)
        assert (empty, last) == (Stretch(), Stretch(0, 1))

    def test_stretches_widen_instead_of_growing_in_number(self) -> None:
        """A batch of a day has as few as one of a minute, and nothing is lost on the way."""
        count = ThroughputCount()
        for second in range(0, 10_000, 3):
            count.add(START + second, 0.1 if second < 9_000 else 8, Usage(output_tokens=1), succeeded=second % 2 == 0)

        found = count.throughput()

        assert (found.width, len(found.stretches)) == (64, 157)
        assert sum(each.succeeded for each in found.stretches) == 1_667
        assert sum(each.failed for each in found.stretches) == 1_667
        assert sum(each.output_tokens for each in found.stretches) == 3_334
        assert found.stretches[-2].p50 == pytest.approx(8, rel=0.1)
        assert found.p50 == pytest.approx(0.1, rel=0.1)

    def test_a_clock_that_leaps_far_ahead_does_not_fill_the_memory(self) -> None:
        count = ThroughputCount()
        count.add(START, 1, NO_USAGE, succeeded=False)
        count.add(START + 10**9, 1, NO_USAGE, succeeded=True)

        found = count.throughput()

        assert len(found.stretches) <= MOST_STRETCHES
        assert (found.stretches[0].failed, found.stretches[-1].succeeded) == (1, 1)

    def test_nothing_is_nothing(self) -> None:
        assert ThroughputCount().throughput() == NO_THROUGHPUT


class TestServices:
    @pytest.mark.parametrize("ended", [False, True])
    async def test_a_request_tells_its_attempts(self, shop: Shop, ended: bool) -> None:
        """While the batch runs, and afterwards."""
        batch = await shop.begin(some(4))
        attempts = (
            made("a", START, status=503, wait=2.0),
            made("b", START + 3, fault="timeout", wait=4),
            made("a", START + 9),
        )
        await shop.record(batch, tried(good(1), *attempts), tried(bad(2), made("b", status=503)), good(3))
        if ended:
            batch = await shop.end(batch)

        rows = (await shop.page(batch)).rows
        details = [await shop.requests.one(MINE, batch.id, "", line) for line in range(4)]

        assert [(row.upstream, row.attempts, row.seconds, row.ended_at) for row in rows] == [
            (None, 0, None, None),
            ("a", 3, 0.5, START + 9),
            ("b", 1, 0.5, START),
            (None, 0, None, None),
        ]
        assert [detail.trail.attempts for detail in details] == [(), attempts, (made("b", status=503),), ()]
        assert details[1].row == rows[1]

    @pytest.mark.parametrize("ended", [False, True])
    async def test_a_clock_that_is_centuries_ahead_does_not_keep_a_batch_from_ending(
        self, shop: Shop, ended: bool
    ) -> None:
        batch = await shop.begin(some(1))
        await shop.record(batch, tried(good(0), made(at=2.0**33)))
        if ended:
            batch = await shop.end(batch)

        assert [row.ended_at for row in (await shop.page(batch)).rows] == [2**32 - 1]

    @pytest.mark.parametrize("ended", [False, True])
    async def test_failures_are_grouped_by_upstream_and_found_by_it(self, shop: Shop, ended: bool) -> None:
        batch = await shop.begin(some(6))
        await shop.record(
            batch,
            tried(bad(0), made("a")),
            tried(bad(1), made("b")),
            tried(bad(2), made("b")),
            tried(good(3), made("b")),
            timed_out(4),
        )
        if ended:
            batch = await shop.end(batch)

        groups = await shop.requests.failures(MINE, batch.id)

        async def lines(**query: Any) -> list[int]:
            return [row.line for row in (await shop.page(batch, **query)).rows]

        found = [(group.code, group.upstream, group.count) for group in groups if group.state is BAD]
        assert found == [("server_busy", "b", 2), ("server_busy", "a", 1), ("request_timeout", "", 1)]
        assert await lines(code="server_busy", upstream="b") == [1, 2]
        assert await lines(upstream="b", state=OK) == [3]
        assert await lines(upstream="b") == [1, 2, 3]
        assert await lines(upstream="nobody") == []
        assert (await shop.page(batch)).upstreams == ("a", "b")
        assert await lines(state=UNRUN) == ([5] if ended else [])

    async def test_an_upstream_with_a_long_name_is_found_by_all_of_it(self, shop: Shop) -> None:
        """As other calls give it."""
        name = "rack-" * 20
        batch = await shop.begin(some(2))
        await shop.record(batch, tried(good(1), made(name_of(name))))

        assert [row.line for row in (await shop.page(batch, upstream=name)).rows] == [1]

    @pytest.mark.parametrize("ended", [False, True])
    async def test_a_batch_tells_how_it_got_on(self, shop: Shop, ended: bool) -> None:
        """From when requests ended, as their attempts say; of those without one nothing is known."""
        batch = await shop.begin(some(4))
        nothing = await shop.requests.throughput(MINE, batch.id)
        await shop.record(batch, tried(good(1), made(at=START)), tried(bad(0), made(at=START + 2)), timed_out(2))
        if ended:
            batch = await shop.end(batch)

        found = await shop.requests.throughput(MINE, batch.id)

        assert nothing == NO_THROUGHPUT
        assert (found.start, [(each.succeeded, each.failed) for each in found.stretches]) == (
            START,
            [(1, 0), (0, 0), (0, 1)],
        )
        assert found.stretches[0].input_tokens == 5
        assert found.p50 == pytest.approx(0.5, rel=0.1)

    async def test_a_trail_beyond_its_blob_is_damage(self, shop: Shop, tmp_path: Any) -> None:
        batch = await shop.begin(some(1))
        await shop.record(batch, tried(good(0), made()))
        await shop.end(batch)
        held = next(data for key, data in shop.blobs.held.items() if data.startswith(MAGIC) and "index" not in key)
        start, length = summary_span(held[-TAIL_BYTES:], len(held))
        path = tmp_path / "places"
        path.write_bytes(held)
        with path.open("rb") as places:
            sheet = EndedSheet(places.fileno(), None, None, None)

            with pytest.raises(DamagedPlaces, match="behind the end of the trails"):
                sheet.trail(replace(unpack(sheet.entries(0, 1), 0), trail_length=60_000))
        assert decode_summary(held[start : start + length], start).upstreams == ("a",)
