"""A line through the last few hundred points: what does not depend on size, and what does."""

from __future__ import annotations

from math import isfinite
from typing import Final

ENOUGH: Final = 10
"""Points before anything is expected of the next one."""


class Line:
    """Least squares, the last few hundred points counting most: what does not depend on size, and what does."""

    __slots__ = ("_n", "_x", "_xx", "_xy", "_y")

    def __init__(self) -> None:
        self._n = self._x = self._y = self._xx = self._xy = 0.0

    def take(self, x: float, y: float) -> None:
        keep = 1 - 1 / 256
        self._n = keep * self._n + 1
        self._x = keep * self._x + x
        self._y = keep * self._y + y
        self._xx = keep * self._xx + x * x
        self._xy = keep * self._xy + x * y

    def at(self, x: float) -> float | None:
        """What to expect there; None before ENOUGH points, or where they make no sense."""
        n = self._n
        if n < ENOUGH:
            return None
        rise = self.rise
        expected = max(0.0, (self._y - rise * self._x) / n) + rise * x
        return expected if expected > 0 and isfinite(expected) else None

    @property
    def rise(self) -> float:
        """Of y for each x; never downwards."""
        n = self._n
        spread = n * self._xx - self._x * self._x
        if not spread > 1e-6 * n * self._xx:  # all are of one size, and the mean is all that is known
            return 0.0
        return max(0.0, (n * self._xy - self._x * self._y) / spread)
