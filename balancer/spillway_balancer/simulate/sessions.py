"""Sessions: closed loops in which each turn repeats everything so far, and comes when the last was answered."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Final

from .conversation import Conversation
from .plan import BLOCK, Arrivals, Plan, hashes, lognormal, zipf
from .request import Request


@dataclass(frozen=True, slots=True)
class Talk:
    """How people, or agents, talk: medians and sigmas of lognormal sizes in tokens."""

    system: tuple[float, float]
    turns: float
    user: tuple[float, float]
    output: tuple[float, float]
    think: float
    sessions: int
    """By endpoint, in a run of no given length."""


CHAT: Final = Talk((800, 0.6), 6, (120, 0.9), (260, 0.6), 25.0, 375)
AGENT: Final = Talk((9000, 0.3), 18, (1100, 0.9), (160, 0.7), 6.0, 62)
SYSTEMS: Final = 50
"""System prompts in use; their popularity is Zipf's (1.0)."""
LONGEST: Final = 100_000
"""Tokens at which a session ends."""


def sessions(talk: Talk) -> Callable[[Plan], Arrivals]:
    """Closed loops: sessions begin at random, and their user thinks for a while after each answer."""

    def arrivals(plan: Plan) -> Arrivals:
        number = math.ceil(plan.limit / talk.turns) if plan.limit else talk.sessions * plan.endpoints
        most = sum(_turns(talk, _dice(plan, index)) for index in range(number))
        return Arrivals(_sessions(talk, plan, number), most)

    return arrivals


def _dice(plan: Plan, session: int) -> Random:
    return Random(plan.seed * 7919 + session)


def _turns(talk: Talk, dice: Random) -> int:
    return 1 + int(dice.expovariate(1 / (talk.turns - 1)))


def _sessions(talk: Talk, plan: Plan, number: int) -> Iterator[Request]:
    dice = Random(f"sessions {plan.seed}")
    weights, which = zipf(SYSTEMS, 1.0), range(SYSTEMS)
    sizes = [lognormal(dice, *talk.system, least=BLOCK) for _ in which]
    systems = [hashes(dice, size // BLOCK) for size in sizes]
    at = 0.0
    for index in range(number):
        at += dice.expovariate(plan.rate)
        system = dice.choices(which, cum_weights=weights)[0]
        first = _Session(talk, index, _dice(plan, index), system, systems[system], sizes[system]).turn(at)
        if first is not None:
            yield first


class _Session:
    """One of them."""

    __slots__ = ("dice", "id", "key", "said", "talk", "tenant", "turns")

    def __init__(self, talk: Talk, id: int, dice: Random, tenant: int, system: array[int], said: int) -> None:
        self.talk = talk
        self.id = id
        self.dice = dice
        self.tenant = tenant
        self.turns = _turns(talk, dice)
        self.said = Conversation(system, said)
        self.key = dice.getrandbits(64)

    def turn(self, at: float) -> Request | None:
        dice, talk = self.dice, self.talk
        prompt = self.said.said + lognormal(dice, *talk.user, least=8)
        output = lognormal(dice, *talk.output, least=4)
        if not self.turns or prompt > LONGEST:
            return None
        self.turns -= 1
        return self.said.turn(
            self.id << 16 | self.turns,
            at,
            prompt,
            output,
            dice,
            session=self.id,
            user_key=self.key,
            tenant=self.tenant,
            follow=self.follow,
        )

    def follow(self, answered: Request, now: float) -> Request | None:
        return self.turn(now + self.dice.expovariate(1 / self.talk.think)) if self.turns else None
