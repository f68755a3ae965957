"""The least and the most of some views, ties by the dice: what nearly every policy ends with."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

from .base import View


def lowest(views: Iterable[View], costs: Iterable[float], dice: random.Random) -> View:
    """The view of the least cost; the dice say which where several have it."""
    least = float("inf")
    ties: list[View] = []
    for view, cost in zip(views, costs, strict=True):
        if cost < least:
            least = cost
            ties = [view]
        elif cost == least:
            ties.append(view)
    return ties[0] if len(ties) == 1 else dice.choice(ties)


def least_busy(views: Sequence[View], dice: random.Random) -> View:
    """The view with the fewest own requests in flight."""
    return lowest(views, [view.in_flight for view in views], dice)


def first_least_busy(views: Sequence[View]) -> View:
    """The same where the source takes the first of several."""
    return min(views, key=_in_flight)


def _in_flight(view: View) -> int:
    return view.in_flight
