"""A bound on how many records there may be, looked at in the transaction that adds one more."""

import msgspec


class Bound(msgspec.Struct, frozen=True, kw_only=True):
    """At most ``most`` records that count at ``since`` (unix seconds); which ones count, each store says."""

    most: int
    since: float


class BoundReached(Exception):
    """There are as many as there may be, and nothing was written.

    ``oldest`` is the moment (unix seconds) from which the oldest of those that count does; 0 where it does not matter.
    """

    def __init__(self, oldest: int = 0) -> None:
        super().__init__()
        self.oldest = oldest
