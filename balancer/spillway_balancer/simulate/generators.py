"""Generators of single questions: many tenants with system prompts of their own, and long documents."""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Iterator
from random import Random
from typing import Final

from .plan import BLOCK, Arrivals, Plan, hashes, lognormal, zipf
from .request import Request

QUESTIONS: Final = 8
"""On a document, in the mean."""
AGAIN: Final = 60.0
"""Seconds between two questions on the same document, in the mean."""


def tenants(plan: Plan) -> Arrivals:
    """Many customers of one service. Popularity is Zipf's (1.1), 25 tenants an endpoint."""
    number = plan.limit or max(24_000, 3_000 * plan.endpoints)
    return Arrivals(_tenants(plan, number), number)


def _tenants(plan: Plan, number: int) -> Iterator[Request]:
    dice = Random(f"tenants {plan.seed}")
    population = 25 * plan.endpoints
    weights, everyone = zipf(population, 1.1), range(population)
    prompts = [lognormal(dice, 3500, 0.5, 500, 9000) for _ in everyone]
    systems = [hashes(dice, size // BLOCK) for size in prompts]
    at = 0.0
    for id in range(number):
        at += dice.expovariate(plan.rate)
        tenant = dice.choices(everyone, cum_weights=weights)[0]
        system = systems[tenant]
        size = prompts[tenant] + lognormal(dice, 300, 0.8, 20)
        own = hashes(dice, size // BLOCK - len(system) + 1)
        output = lognormal(dice, 150, 0.7, 2)
        yield Request(
            id, at, size, output, system + own[1:], BLOCK, user_key=own[0], system_key=system[0], tenant=tenant
        )


def documents(plan: Plan) -> Arrivals:
    """Long documents, some questions on each, short answers. Readers come at random, and ask one after the other.

    Sizes are those of LooGLE (Li et al. 2023, arXiv 2311.04939): 776 documents of some 24,000 tokens, 6,400 questions.
    """
    number = plan.limit or 750 * plan.endpoints
    return Arrivals(_documents(plan, number), number)


def _documents(plan: Plan, number: int) -> Iterator[Request]:
    dice = Random(f"documents {plan.seed}")
    readers = plan.rate / QUESTIONS
    due: list[tuple[float, int, _Reader]] = []
    opened = round(readers * AGAIN * (QUESTIONS - 1))  # those who are there from the start
    due.extend((dice.random() * AGAIN, reader, _Reader(reader, dice)) for reader in range(opened))
    heapq.heapify(due)
    opens = dice.expovariate(readers)
    for id in range(number):
        while not due or opens <= due[0][0]:
            heapq.heappush(due, (opens, opened, _Reader(opened, dice)))
            opened += 1
            opens += dice.expovariate(readers)
        at, order, reader = due[0]
        yield reader.question(id, at, dice)
        if reader.left:
            heapq.heapreplace(due, (at + dice.expovariate(1 / AGAIN), order, reader))
        else:
            heapq.heappop(due)


class _Reader:
    """One with a document, and questions left to ask."""

    __slots__ = ("document", "id", "left", "size")

    def __init__(self, id: int, dice: Random) -> None:
        self.id = id
        self.left = 1 + int(dice.expovariate(1 / (QUESTIONS - 1)))
        self.size = lognormal(dice, 22_000, 0.4, 4_000, 90_000)
        self.document: array[int] = hashes(dice, self.size // BLOCK)

    def question(self, id: int, at: float, dice: Random) -> Request:
        self.left -= 1
        size = self.size + lognormal(dice, 40, 0.6, 8, 400)
        own = hashes(dice, size // BLOCK - len(self.document))
        output = lognormal(dice, 16, 0.6, 2, 200)
        first = self.document[0]
        return Request(
            id, at, size, output, self.document + own, BLOCK, session=self.id, user_key=first, system_key=first
        )
