"""People who talk, and for a while many more who do: the load under which spillover is judged."""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Iterator, Sequence
from random import Random
from typing import Final, NamedTuple

from .conversation import Conversation
from .plan import BLOCK, hashes, lognormal, zipf
from .request import Request

SYSTEMS: Final = 20
"""System prompts in use."""
TURNS: Final = 12
"""Of a conversation, in the mean."""
THINKING: Final = 30.0
"""Seconds between two turns of a person, in the mean: the time to read the answer and to write."""
READING: Final = 5.0
"""Of these, the least."""

MOST_OUTPUT: Final = 2_000
"""Tokens of an answer at most; what the people say that may be generated."""


class Crowd(NamedTuple):
    """People who are there for a while. Each has one conversation after the other."""

    begins: float
    ends: float
    rate: float
    """Requests a second, all of them together."""


def burst(crowds: Sequence[Crowd], seed: int) -> Iterator[Request]:
    """The requests of all crowds in the order of their arrival. Whether the last answer has come nobody waits to see:
    what arrives is the same, whatever serves it."""
    dice = Random(f"burst {seed}")
    weights = zipf(SYSTEMS, 1.0)
    systems = [hashes(dice, lognormal(dice, 800, 0.5, BLOCK, 4_000) // BLOCK) for _ in range(SYSTEMS)]
    due: list[tuple[float, int, int]] = []
    people: list[_Talk] = []
    for number, crowd in enumerate(crowds):
        for _ in range(round(crowd.rate * THINKING)):
            due.append((crowd.begins + _residue(dice), len(people), number))
            people.append(_Talk(len(people), dice, weights, systems))
    heapq.heapify(due)
    talks, requests = len(people), 0
    while due:
        at, person, number = due[0]
        if at >= crowds[number].ends:
            heapq.heappop(due)
            continue
        if not people[person].turns:
            people[person] = _Talk(talks, dice, weights, systems)
            talks += 1
        yield people[person].turn(requests, at, dice)
        requests += 1
        heapq.heapreplace(due, (at + _pause(dice), person, number))


def _pause(dice: Random) -> float:
    return READING + dice.expovariate(1 / (THINKING - READING))


def _residue(dice: Random) -> float:
    """Of a pause in whose midst somebody is found, what is left: so a crowd asks evenly from the start."""
    return dice.random() * READING if dice.random() < READING / THINKING else _pause(dice)


class _Talk:
    """What one person has to say before there is another matter."""

    __slots__ = ("id", "said", "turns")

    def __init__(self, id: int, dice: Random, weights: Sequence[float], systems: Sequence[array[int]]) -> None:
        self.id = id
        system = dice.choices(systems, cum_weights=weights)[0]
        self.said = Conversation(system, len(system) * BLOCK)
        self.turns = 1 + int(dice.expovariate(1 / (TURNS - 1)))

    def turn(self, number: int, at: float, dice: Random) -> Request:
        prompt = self.said.said + lognormal(dice, 200, 0.9, 8, 8_000)
        output = lognormal(dice, 200, 0.6, 4, MOST_OUTPUT)
        self.turns -= 1
        return self.said.turn(number, at, prompt, output, dice, session=self.id, user_key=self.id)
