"""Placeholder."""


class Limiter:
    """Fixed."""

    def __init__(self, *, start: int, cap: int) -> None:
        self.limit = start

    def succeeded(self, began: float, now: float, starved: bool) -> None:
        return

    def refused(self, began: float, now: float) -> bool:
        return False
