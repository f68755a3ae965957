"""When a slow attempt gets a second one beside it: how often at most, and what the one that lost has cost.

Dean and Barroso, "The Tail at Scale" (CACM, 2013), call such requests hedged, and hold them to a few percent.
"""

from __future__ import annotations

from decimal import Decimal
from typing import NamedTuple

from .prices import NOTHING, Used, cost
from .steps import Try

SAVED = 10
"""Hedges that a calm time may save up for a bad one."""


class HedgeBudget:
    """At no time have more hedges been sent than `percent` of the requests since the start."""

    __slots__ = ("_hundredths", "percent")

    def __init__(self, percent: int) -> None:
        self.percent = percent
        """May be set at any time; what was saved stays."""
        self._hundredths = 0

    def note_request(self) -> None:
        self._hundredths = min(self._hundredths + self.percent, SAVED * 100)

    def try_take(self) -> bool:
        """True if one more hedge is within the budget, which it then has used."""
        if self._hundredths < 100:
            return False
        self._hundredths -= 100
        return True

    def give_back(self) -> None:
        """It was not sent after all."""
        self._hundredths += 100


class Hedging(NamedTuple):
    """`hedge` of a tier."""

    after: float
    """Seconds."""
    budget: HedgeBudget


class Waste(NamedTuple):
    """What an attempt has cost that was not needed: the prompt, which is computed before anything is seen of it."""

    prompt_tokens: int
    """An estimate: who is not listened to tells no count."""
    cost: Decimal
    currency: str
    """Empty where the model has no price."""


def waste(step: Try) -> Waste:
    tokens = round(step.picked.forecast.prompt_tokens)
    price = step.price
    return Waste(tokens, cost(price, Used(tokens)), price.currency) if price else Waste(tokens, NOTHING, "")
