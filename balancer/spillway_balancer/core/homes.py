"""Where a prefix and a conversation are at home: what balancers guess alike of what others have cached where.

A balancer that sees a part of the traffic knows nothing of what the others' requests have left in caches. Every prefix
of 1, 2, 4, 8, … blocks has a home on the ring, and so has every conversation, by its key. It is the same for all
balancers, so that they send what none of them knows to the same place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from .prefix import Prompt
from .ring import ring_of
from .strategies import Candidate

BELIEF: Final = 0.5
"""How much of a prefix is taken to be at its home, where all requests there are others'; and how much of a prompt at
the home of its conversation, where nobody knows what others do."""

KEY_BELIEF: Final = 0.75
"""How much of a prompt is taken to be at the home of its conversation, likewise."""

SESSION_BELIEF: Final = 2.0
"""The same for the last turn of a conversation: where half of the requests are others', all of it."""


class Homes:
    """Built anew when membership or `vnodes` change."""

    __slots__ = ("_ring",)

    def __init__(self, members: Mapping[str, int], vnodes: int) -> None:
        self._ring = ring_of(members, vnodes)

    def guess(
        self,
        candidates: Sequence[Candidate],
        others: int,
        key: int | None,
        prompt: Prompt,
        tokens: float,
        block_tokens: float,
        partial: bool = False,
    ) -> list[Candidate]:
        """The candidates with what others may have left in their caches, `others` being their requests in flight.

        As much of a prefix is taken to be at its home as the others have of the requests in flight, half believed.
        Where this balancer has not served a conversation's last turn itself, somebody else has, and most likely at its
        home. What is known counts for more than a guess.

        One of many (`partial`) leads a conversation to its own home from its first turn on: the next turn may come to
        any of them. Where it knows nothing of the others' requests, only that counts: a beginning that many have in
        common would lead all of them to one place, and nobody would see it fill.
        """
        history = (prompt.history // prompt.block_size) * block_tokens
        unserved = history and key is not None and max(at.cached for at in candidates) < history
        guessed: dict[str | None, float] = {}
        share = others / sum(at.requests for at in candidates) if others else 1.0
        if others or key is None:
            self._prefixes(guessed, prompt.blocks, block_tokens * BELIEF * share)
        if key is not None:
            served = history * min(1.0, SESSION_BELIEF * share) if unserved else 0.0
            if partial and (unserved or not history):
                served = max(served, tokens * (KEY_BELIEF * share if others else BELIEF))
            where = self._ring.home(key)
            guessed[where] = max(guessed.get(where, 0.0), served)
        return [
            at._replace(cached=guess, miss=tokens - guess)
            if (guess := min(guessed.get(at.name, 0.0), tokens - 1.0)) > at.cached
            else at
            for at in candidates
        ]

    def _prefixes(self, guessed: dict[str | None, float], blocks: Sequence[int], tokens: float) -> None:
        """At the home of every prefix, `tokens` a block; the longest that is at home there counts."""
        home = self._ring.home
        depth = 1
        while depth <= len(blocks):
            guessed[home(blocks[depth - 1])] = depth * tokens
            depth *= 2
