"""Who gets a seat when more wait than there are."""

import pytest
from msgspec.structs import replace
from tests.unit.test_domain import a_batch

from overnight.domain.batch import BatchStatus, Expiry
from overnight.domain.ids import ResourceId
from overnight.domain.lanes import Lane, lane_of, shares

S = BatchStatus
A, B, C = (Lane(ResourceId(name), "m") for name in "abc")
ALONE = 64
"""What one lane gets of 96 seats."""


def test_one_lane_leaves_half_of_what_it_gets_to_others() -> None:
    """However many of its batches wait."""
    granted = shares({A: 1_000}, {}, 96)

    assert granted == {A: ALONE}
    assert shares({A: 1}, granted, 96) == {}


def test_who_comes_later_finds_seats_until_six_have_come() -> None:
    """Each after those before it have taken all that they may; the next gets one as soon as one is left."""
    held: dict[Lane, int] = {}
    got = []
    for number in range(7):
        lane = Lane(ResourceId(f"r{number}"), "m")
        granted = shares({lane: 1_000}, held, 96)
        held |= granted
        got.append(granted.get(lane, 0))

    assert got == [64, 22, 7, 2, 1, 0, 0]
    assert sum(held.values()) == 96
    assert shares({A: 5, B: 5}, {**held, Lane(ResourceId("r0"), "m"): 63}, 96) == {A: 1}


def test_those_that_hold_least_come_first_and_then_the_oldest() -> None:
    """One by one."""
    assert shares({A: 9, B: 1, C: 9}, {A: 2}, 8) == {A: 1, B: 1, C: 3}
    assert shares({B: 3, A: 3}, {}, 1) == {B: 1}
    assert shares({A: 3}, {B: 2}, 2) == {}
    assert shares({}, {A: 2}, 4) == {}


@pytest.mark.parametrize(
    ("status", "expiry", "runs"),
    [
        (S.VALIDATING, Expiry.EXPIRE, False),
        (S.FINALIZING, Expiry.CONTINUE, False),
        (S.CANCELLING, Expiry.CONTINUE, False),
        (S.IN_PROGRESS, Expiry.CONTINUE, True),
        (S.IN_PROGRESS, Expiry.EXPIRE, False),
    ],
)
def test_what_needs_no_upstream_waits_apart(status: BatchStatus, expiry: Expiry, runs: bool) -> None:
    """So does what is overdue."""
    batch = replace(a_batch(), status=status, expiry=expiry, deployment="m")

    assert lane_of(batch, batch.expires_at) == Lane(batch.resource, "m" if runs else None)
    assert lane_of(batch, batch.expires_at - 1).deployment == ("m" if status is S.IN_PROGRESS else None)
