"""Guards of a route at work: which of them hold for a request, and what they leave of a rule's tiers.

They fail closed. One that has no value, and one that this balancer cannot compile, holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from spillway_api import types
from spillway_api.guards import passes

from .conditions import ErrorKind, View, When
from .narrowing import Narrowed, narrowed
from .pool import Pool

if TYPE_CHECKING:
    from .routing import Tier

MOST: Final = 256
"""Answers that are remembered. Which guards hold is the clients' choice, and of sixteen there are many sets."""


class Held(NamedTuple):
    """The guards that hold for a request, in their order."""

    guards: tuple[types.Guard, ...]
    unknown: tuple[tuple[str, ErrorKind], ...] = ()
    """Those of them that could not be evaluated, and why."""

    @property
    def audited(self) -> bool:
        return any(guard.audit for guard in self.guards)

    def may(self, pool: Pool) -> bool:
        """Whether the request may go to this pool: it passes every one of them. A gateway asks its own."""
        return pool.remote or all(passes(pool.spec.data_handling, guard.require) for guard in self.guards)


class Guards:
    """All guards of a route."""

    def __init__(self, specs: Sequence[types.Guard]) -> None:
        self._guards = tuple((spec, None if spec.when is None else When(spec.when)) for spec in specs)
        self._answers: dict[tuple[str, ...], tuple[tuple[Tier, ...], Narrowed]] = {}

    def compile(self) -> None:
        """Their conditions, before the first request."""
        for _, when in self._guards:
            if when is not None:
                when.compile()

    def held(self, view: View) -> Held | None:
        """Those that hold; None where none does. Every one is asked."""
        held: list[types.Guard] = []
        unknown: list[tuple[str, ErrorKind]] = []
        for spec, when in self._guards:
            answer = True if when is None else when.holds(view)
            if answer is False:
                continue
            held.append(spec)
            if answer is not True:
                unknown.append((spec.name, answer))
        return Held(tuple(held), tuple(unknown)) if held else None

    def narrowed(self, held: Held, rule: str, tiers: tuple[Tier, ...]) -> Narrowed:
        """What these guards leave of a rule's tiers. Remembered, with the spill shares of tiers that were cut: as long
        as this route and its pools are the same, so is the answer."""
        key = (rule, *(guard.name for guard in held.guards))
        found = self._answers.get(key)
        if found is None or found[0] is not tiers:
            if len(self._answers) >= MOST:
                self._answers.clear()
            found = self._answers[key] = tiers, narrowed(tiers, held.may)
        return found[1]
