"""Randomness that repeats: ids count up, and jitter is what the test wants."""


class CountedEntropy:
    """Keeps the promises of ``ports/clock.py`` but for being unpredictable."""

    def __init__(self, fraction: float = 0.5) -> None:
        self._fraction = fraction
        self._drawn = 0

    def hex(self) -> str:
        self._drawn += 1
        return f"{self._drawn:032x}"

    def fraction(self) -> float:
        return self._fraction
