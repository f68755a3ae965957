"""What balancers and the operator say to each other of money: books one way, grants the other.

A balancer may spend of a budget what it was granted, its *ceiling*: an amount since the period began, so that a message
that comes twice, or late, says nothing new. Grants of one budget, period and balancer are numbered; of two the one with
the higher number holds. A balancer says which number it goes by and what ceiling that has left it with: only then does
the operator count what was taken back as free again. Amounts are decimal numbers as text. docs/leases.md has the rest.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Final

from msgspec import Struct

MOST: Final = Decimal(10) ** 12
"""No balancer has spent so much, and no budget allows it."""


LEAST: Final = -40
"""Exponent: no sum of prices has a digit so far behind the point, and none is to be written out in full."""


class Spent(Struct, frozen=True, rename="camel", omit_defaults=True):
    """One budget in one period, as a balancer has it."""

    budget: str
    """As `spillway_api.budgets` names it."""
    ends: float
    """The period, by when it ends, in seconds since 1970."""
    spent: str = "0"
    held: str = "0"
    """Set aside for what is under way."""
    ceiling: str = "0"
    serial: int = 0
    """Of the grant that it goes by; 0 for none yet."""
    asked: str = "0"
    """The most that one request has needed of late, whether it could be let in or not."""


class Books(Struct, frozen=True, rename="camel", omit_defaults=True, tag="books"):
    """All budgets of a balancer; each replaces the one before."""

    holder: str
    """One process: who starts anew is somebody else, and knows nothing of what the one before it was granted."""
    budgets: tuple[Spent, ...] = ()
    leaving: bool = False
    """It lets nobody in any more, and says so last."""


class Grant(Struct, frozen=True, rename="camel", omit_defaults=True):
    """How much a balancer may spend of a budget in one period, in all."""

    budget: str
    ends: float
    ceiling: str
    serial: int
    dry: bool = False
    """Nothing more is to be had in this period."""


class Grants(Struct, frozen=True, rename="camel", omit_defaults=True, tag="grants"):
    """What is new for a balancer."""

    holder: str
    grants: tuple[Grant, ...] = ()


def amount(text: str) -> Decimal:
    """Nothing, where it is no amount of money."""
    try:
        found = Decimal(text)
    except InvalidOperation:
        return Decimal(0)
    exponent = found.as_tuple().exponent
    usable = isinstance(exponent, int) and exponent >= LEAST and 0 <= found < MOST
    return found if usable else Decimal(0)
