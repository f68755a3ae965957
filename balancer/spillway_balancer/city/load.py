"""Who chats in the city: sessions of several kinds with their questions and pauses, all drawn from one seed.

The plan holds only what people do, never what the engines answer, so one plan can be played against any balancer.
The sizes are a demo's (a real document is ten times as long), the shape is that of published chat traces: many short
chats, fewer assistants that share a long system prompt, a few long documents that make most of the prompt tokens.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from typing import Final, Literal, NamedTuple

Kind = Literal["chat", "assistant", "document", "crowd"]

BYTES_PER_TOKEN: Final = 4
"""About what a token of English text has, and what the simulated engine counts."""

QUIET_END: Final = 0.92
"""Share of the time after which nobody new arrives, so that the last chats are not all first turns."""

_TALE: Final = """
a river town keeps its bridges low and the water finds another way when spring brings more than the bed can hold so
people built a second channel with a gate that opens by itself before the first street is wet every keeper writes down
how high it stood which mill was busy and who asked for help that night the old notes show what worked and what did not
because nobody remembers a flood for long unless it stood in their own kitchen
"""
_WORDS: Final = _TALE.split()


class Turn(NamedTuple):
    """One question. `pause` seconds pass before it, since the answer before."""

    text: str
    max_tokens: int
    pause: float


@dataclass(frozen=True, slots=True)
class Session:
    """One conversation. It begins `at` seconds after the start of the load; each turn carries the whole history."""

    kind: Kind
    at: float
    system: str | None
    turns: tuple[Turn, ...]
    cache_key: str | None = None
    """Sent as `prompt_cache_key` by the few clients that set one; all others are plain OpenAI clients."""


@dataclass(frozen=True, slots=True)
class Habit:
    """How sessions of one kind are. Ranges are inclusive; sizes are in tokens, times in seconds."""

    per_second: float
    turns: tuple[int, int]
    first: tuple[int, int]
    later: tuple[int, int]
    answer: tuple[int, int]
    pause: tuple[float, float]
    keyed: float = 0.0


HABITS: Final[dict[Kind, Habit]] = {
    "chat": Habit(per_second=1.8, turns=(2, 5), first=(20, 80), later=(10, 50), answer=(16, 48), pause=(0.4, 1.2)),
    "assistant": Habit(
        per_second=1.3, turns=(3, 6), first=(40, 160), later=(30, 120), answer=(24, 56), pause=(0.3, 0.9), keyed=0.2
    ),
    "document": Habit(
        per_second=1.3, turns=(4, 8), first=(1600, 3600), later=(10, 40), answer=(16, 40), pause=(0.3, 0.9)
    ),
}
ASSISTANTS: Final = 3
ASSISTANT_TOKENS: Final = (700, 1100)

CROWD: Final = Habit(per_second=45.0, turns=(1, 2), first=(30, 120), later=(10, 40), answer=(24, 56), pause=(0.4, 1.0))
CROWD_SECONDS: Final = 0.9
"""In the middle of the load something happens, and a crowd asks about it at once: what makes spillover begin."""


def plan(seed: int, seconds: float) -> tuple[Session, ...]:
    """All sessions of a load of about `seconds`, by arrival; the same for the same arguments.

    Questions that would come after the end by a usual answering speed are left out, so a load against a balancer that
    keeps up lasts `seconds` and one answer. ValueError when there is no time for anything.
    """
    if seconds <= 0:
        raise ValueError("a load needs more than 0 seconds")
    dice = random.Random(seed)
    prompts = tuple(
        f"You are the assistant of department {number + 1}. {prose(dice, dice.randint(*ASSISTANT_TOKENS))}"
        for number in range(ASSISTANTS)
    )
    notice = f"You answer questions about tonight's flood notice. {prose(dice, 200)}"
    sessions: list[Session] = []
    for kind, habit in HABITS.items():
        for at in _arrivals(dice, habit.per_second, 0.0, seconds * QUIET_END):
            system = dice.choice(prompts) if kind == "assistant" else None
            sessions.append(_session(dice, kind, habit, at, system, seconds, len(sessions)))
    middle = seconds / 2
    for at in _arrivals(dice, CROWD.per_second, middle, min(middle + CROWD_SECONDS, seconds)):
        sessions.append(_session(dice, "crowd", CROWD, at, notice, seconds, len(sessions)))
    return tuple(sorted((each for each in sessions if each.turns), key=lambda session: session.at))


def prose(dice: random.Random, tokens: int) -> str:
    """Text of about so many tokens that makes no sense and looks as if it did."""
    sentences: list[str] = []
    left = tokens * BYTES_PER_TOKEN
    while left > 0:
        at = dice.randrange(len(_WORDS))
        words = [_WORDS[(at + step * dice.choice((1, 1, 1, 7))) % len(_WORDS)] for step in range(dice.randint(6, 14))]
        sentence = " ".join(words).capitalize() + "."
        sentences.append(sentence[:left])
        left -= len(sentence) + 1
    return " ".join(sentences)


def _arrivals(dice: random.Random, per_second: float, start: float, end: float) -> Iterator[float]:
    """One at a random moment of each slot: as irregular as people, and about as many with every seed."""
    for slot in range(ceil((end - start) * per_second)):
        at = start + (slot + dice.random()) / per_second
        if at < end:
            yield at


def _session(
    dice: random.Random, kind: Kind, habit: Habit, at: float, system: str | None, seconds: float, number: int
) -> Session:
    turns: list[Turn] = []
    clock = at
    for index in range(dice.randint(*habit.turns)):
        pause = dice.uniform(*habit.pause) if index else 0.0
        size = habit.later if index else habit.first
        turn = Turn(_question(dice, kind, index, size), dice.randint(*habit.answer), pause)
        clock += pause
        if clock > seconds:
            break
        turns.append(turn)
        clock += 0.3 + turn.max_tokens * 0.035
    cache_key = f"session-{number}" if dice.random() < habit.keyed else None
    return Session(kind, at, system, tuple(turns), cache_key)


def _question(dice: random.Random, kind: Kind, index: int, size: tuple[int, int]) -> str:
    text = prose(dice, dice.randint(*size))
    if kind == "document" and not index:
        return f"Read this report, number {dice.randrange(10**6):06d}, and say what matters.\n\n{text}"
    return text
