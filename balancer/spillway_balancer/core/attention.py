"""What the length of a prompt adds to the work of computing it: each token attends to all that stand before it.

For most of a model a prompt of twice the length is twice the work; for attention it is four times. Prompts of a few
thousand tokens do not show it; of tens of thousands, more than half of the time may be attention's. How much it is
depends on model and hardware. It is learned, as the weight of *pairs* (a token to be computed, and one before it).
"""

from __future__ import annotations

from typing import Final

MOST: Final = 1e-3
"""Tokens' worth of work in a pair: attention that doubles the work of a prompt of 2,000 tokens, beyond any model."""
MEMORY: Final = 1 / 256
ENOUGH: Final = 20.0
"""Measurements before it is believed."""
APART: Final = 1e-3
"""Of the spread that lengths could have: below, all prompts are much alike, and nothing can be told from them."""


def pairs(prompt: float, cached: float) -> float:
    """Of the tokens of a prompt behind the first `cached`, each with those before it."""
    return (prompt * prompt - cached * cached) / 2


class Attention:
    """Least squares of `seconds = a * tokens + b * pairs`, the last few hundred measurements counting most.

    Errors count as parts of what was measured: else a few long prompts would decide all, and those that waited for
    something else would spoil it. Only requests that had no queue before them are to be measured: in a queue all grows
    together, and no line tells the one from the other.
    """

    __slots__ = ("_n", "_u", "_uu", "_uv", "_v", "_vv", "weight")

    def __init__(self) -> None:
        self.weight = 0.0
        """Of a pair, in tokens."""
        self._n = self._u = self._v = self._uu = self._uv = self._vv = 0.0

    def work(self, tokens: float, pairs: float) -> float:
        """In tokens of a short prompt."""
        return tokens + self.weight * pairs

    def measured(self, tokens: float, pairs: float, took: float) -> None:
        """So much was computed in `took` seconds."""
        if not took > 0:
            return
        u, v, keep = tokens / took, pairs / took, 1 - MEMORY
        self._n = keep * self._n + 1
        self._u = keep * self._u + u
        self._v = keep * self._v + v
        self._uu = keep * self._uu + u * u
        self._uv = keep * self._uv + u * v
        self._vv = keep * self._vv + v * v
        spread = self._uu * self._vv - self._uv * self._uv
        if self._n < ENOUGH or spread <= APART * self._uu * self._vv:
            return
        linear = self._u * self._vv - self._v * self._uv
        square = self._v * self._uu - self._u * self._uv
        self.weight = min(MOST, max(0.0, square) / linear) if linear > 0 else MOST
