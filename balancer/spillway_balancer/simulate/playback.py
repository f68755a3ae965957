"""Recorded traces played back: faster or slower, in copies where there are many endpoints, mixed with agents."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from random import Random
from typing import Final, NamedTuple

from .plan import Arrivals, Plan, hashes
from .request import Request
from .traces import Trace

ENDPOINTS: Final = 8
"""A pool of this many gets the trace once, one of twice as many two copies with texts and times of their own."""


class _Due(NamedTuple):
    """A row of one copy at the time it was shifted to."""

    at: float
    copy: int
    row: int


def _shuffled(trace: Trace, plan: Plan) -> list[_Due]:
    """When each row of each copy is due, in the trace's own time.

    A copy begins somewhere in the middle. Where timestamps were rounded, arrivals are spread over the step again:
    whole bursts in the same instant are of the clock's making.
    """
    dice = Random(f"playback {plan.seed}")
    span, quantum = trace.span, trace.quantum
    due = []
    for copy in range(max(1, round(plan.endpoints / ENDPOINTS))):
        shift = dice.random() * span if copy else 0.0
        for index, row in enumerate(trace.rows):
            due.append(_Due((row.at + shift) % span + dice.random() * quantum, copy, index))
    due.sort()
    return due


class _Texts:
    """Hashes for the prefixes of a trace. Copies differ in all but what everybody's prompts begin with."""

    def __init__(self, trace: Trace, copies: int) -> None:
        self._trace = trace
        shared = hashes(Random(trace.name), trace.nodes)
        self._hashes = [shared]
        for copy in range(1, copies):
            own = hashes(Random(f"{trace.name} {copy}"), trace.nodes)
            for node in trace.common:
                own[node] = shared[node]
            self._hashes.append(own)

    def request(self, id: int, at: float, copy: int, index: int) -> Request:
        trace = self._trace
        row, table = trace.rows[index], self._hashes[copy]
        common = trace.common
        first = next((table[node] for node in row.nodes if node not in common), None)
        if first is None:
            # Nothing is known of its text but what everybody shares.
            first = hash((copy, index)) & 0xFFFF_FFFF_FFFF_FFFF
        blocks = array("Q", [table[node] for node in row.nodes])
        session = first if trace.nodes else None
        if row.session is not None:
            session = row.session << 8 | copy
        return Request(
            id,
            at,
            row.prompt_tokens,
            row.output_tokens,
            blocks,
            trace.block_tokens,
            session=session,
            user_key=first,
            system_key=blocks[0] if blocks else first,
        )


def play(trace: Trace, plan: Plan) -> Arrivals:
    """The trace, `rate` times as fast as it was recorded."""
    due = _shuffled(trace, plan)[: plan.limit]
    return Arrivals(_played(trace, plan, due), len(due))


def _played(trace: Trace, plan: Plan, due: list[_Due]) -> Iterator[Request]:
    texts = _Texts(trace, 1 + max(each.copy for each in due))
    for id, (at, copy, index) in enumerate(due):
        yield texts.request(id, at / plan.rate, copy, index)


# ---- the mix of tools and agents -----------------------------------------------------------------------------------


class _Agents(NamedTuple):
    """A class of agents that share the beginning of their prompts."""

    name: str
    share: float
    """Of the requests of the mix."""
    shared: int
    """Blocks."""


TOOLS: Final = _Agents("tools", 0.39, 12)
STEPS: Final = _Agents("steps", 0.16, 5)
MIX: Final = 23_608 / 12_031
"""Requests of Mooncake's tool and agent trace for one of its conversation trace, in the same hour."""
TALKING: Final = 0.88
"""Share of the conversations that take part."""


def tool_agent(trace: Trace, plan: Plan) -> Arrivals:
    """Conversations of a trace, thinned, and two classes of agents with long shared prompts.

    Mix and lengths are those measured on an excerpt of Mooncake's tool and agent trace.
    """
    dice = Random(f"tool-agent {plan.seed}")
    talks = [each for each in _shuffled(trace, plan) if dice.random() < TALKING]
    copies = 1 + max((each.copy for each in talks), default=0)
    mixed: list[tuple[float, int, _Due | _Agents]] = [(each.at, index, each) for index, each in enumerate(talks)]
    for agents in (TOOLS, STEPS):
        for _ in range(int(agents.share * MIX * len(trace.rows) * copies)):
            mixed.append((dice.random() * trace.span, len(mixed), agents))
    mixed.sort(key=lambda each: each[:2])
    number = min(len(mixed), plan.limit or len(mixed))
    return Arrivals(_mixed(trace, plan, mixed[:number], copies, dice), number)


def _mixed(
    trace: Trace, plan: Plan, mixed: list[tuple[float, int, _Due | _Agents]], copies: int, dice: Random
) -> Iterator[Request]:
    texts = _Texts(trace, copies)
    prompts = {agents.name: hashes(Random(agents.name), agents.shared) for agents in (TOOLS, STEPS)}
    for id, (at, _, what) in enumerate(mixed):
        if isinstance(what, _Due):
            yield texts.request(id, at / plan.rate, what.copy, what.row)
        else:
            yield _step(id, at / plan.rate, what, prompts[what.name], trace.block_tokens, dice)


def _step(id: int, at: float, agents: _Agents, shared: array[int], block_tokens: int, dice: Random) -> Request:
    size = agents.shared * block_tokens
    if agents is TOOLS:
        size += 22 + int(dice.expovariate(1 / 620) if dice.random() < 0.75 else dice.random() * 60)
        size = min(size, 9600)
        output = 3 if dice.random() < 0.6 else dice.randint(20, 55)
    else:
        size += 450 + int(abs(dice.gauss(0, 1)) * 90)
        if dice.random() < 0.06:
            size += dice.randint(100, 1600)
        output = dice.randint(16, 25)
    own = hashes(dice, size // block_tokens - agents.shared + 1)
    return Request(
        id, at, size, output, shared + own[1:], block_tokens, session=own[0], user_key=own[0], system_key=shared[0]
    )
