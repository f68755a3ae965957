"""What one run asks of a workload, what it is given, and the dice that the generators share."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator
from itertools import accumulate
from random import Random
from typing import Final, NamedTuple

from .request import Request

BLOCK: Final = 64
"""Tokens of a block in the generators: what 256 bytes of text come to."""


class Plan(NamedTuple):
    """What one run asks of a workload."""

    rate: float
    """In the workload's unit."""
    seed: int
    endpoints: int
    limit: int | None
    """Requests at most; None is the workload's own number."""


class Arrivals(NamedTuple):
    """Requests in order of arrival, and at most how many they are, all turns of all sessions included."""

    requests: Iterator[Request]
    most: int


def hashes(dice: Random, number: int) -> array[int]:
    """Hashes of text that nobody has sent before."""
    return array("Q", dice.randbytes(8 * number))


def zipf(number: int, exponent: float) -> list[float]:
    """Cumulated weights 1 / rank**exponent, for `random.choices`."""
    return list(accumulate(1 / rank**exponent for rank in range(1, number + 1)))


def lognormal(dice: Random, median: float, sigma: float, least: int, most: int = 1 << 30) -> int:
    """A size in tokens."""
    return int(min(most, max(least, dice.lognormvariate(math.log(median), sigma))))
