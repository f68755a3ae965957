"""What came out of the loads, side by side, and one sentence on what it means: computed, whichever way it went."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from rich.table import Column, Table

from ..simulate.measure import percentile
from .chat import Answer
from .figures import share
from .words import count, milliseconds, money, percent, times

NOTABLE: Final = 0.05
"""A difference of the mean below 5 % is called none: it is within what two runs of one strategy differ by."""


@dataclass(frozen=True, slots=True)
class Result:
    """One load under one strategy."""

    strategy: str
    answers: tuple[Answer, ...]
    queried: float  # prompt tokens that reached the self-hosted engines
    cached: float  # of those, found in their prefix caches
    spilled: float | None  # share of requests that went to a later tier
    bill: Decimal | None = None  # dollars that the providers charged, by their own books

    @property
    def firsts(self) -> list[float]:
        """Seconds to the first token of all answers that had one, sorted."""
        return sorted(each.first_token for each in self.answers if each.first_token is not None)

    @property
    def mean_first(self) -> float | None:
        firsts = self.firsts
        return sum(firsts) / len(firsts) if firsts else None

    @property
    def errors(self) -> int:
        return sum(1 for each in self.answers if each.error is not None)

    @property
    def computed(self) -> float:
        return self.queried - self.cached

    @property
    def hit_share(self) -> float | None:
        return share(self.cached, self.queried)


def table(results: Sequence[Result]) -> Table:
    """One column for each load."""
    shown = Table(
        Column("", no_wrap=True),
        *(Column(each.strategy, justify="right", min_width=12) for each in results),
        box=None,
        padding=(0, 2, 0, 1),
        header_style="bold",
    )
    firsts = [each.firsts for each in results]
    shown.add_row("requests", *(count(len(each.answers)) for each in results))
    shown.add_row("errors", *(count(each.errors) for each in results))
    shown.add_row("time to first token, mean", *(milliseconds(each.mean_first) for each in results))
    for name, part in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99)):
        shown.add_row(f"{name:>25}", *(milliseconds(percentile(each, part) if each else None) for each in firsts))
    shown.add_row("prompt tokens found in cache", *(percent(each.hit_share) for each in results))
    shown.add_row("prompt tokens computed", *(count(each.computed) for each in results))
    shown.add_row("spilled to the provider", *(percent(each.spilled) for each in results))
    shown.add_row("the provider's bill", *(money(each.bill) for each in results))
    return shown


def sentence(ours: Result, theirs: Result) -> str:
    """What the difference between two loads means."""
    us, them = ours.strategy, theirs.strategy
    if ours.mean_first is None or theirs.mean_first is None:
        return f"No comparison: {us if ours.mean_first is None else them} had no answers."
    gain = theirs.mean_first / ours.mean_first
    caches = (
        f"{percent(ours.hit_share)} of the prompt tokens were found in the engines' caches instead of "
        f"{percent(theirs.hit_share)}"
    )
    if gain > 1 + NOTABLE:
        waits = f"the first token came {times(gain)} as fast on average as under {them}"
        if (ours.hit_share or 0) > (theirs.hit_share or 0):
            said = f"With {us} {caches}, and {waits}."
        else:
            said = f"With {us} {waits}, though not by the prefix caches: {caches}."
    elif gain < 1 / (1 + NOTABLE):
        waits = f"the first token took {times(1 / gain)} as long as under {them}"
        said = f"In this run {us} did not pay: {waits}, with {caches}."
    else:
        said = f"In this run {us} and {them} were level on the first token, with {caches}."
    spilled = percent(ours.spilled), percent(theirs.spilled)
    if spilled[0] != spilled[1]:
        said += f" {spilled[0]} of the requests spilled over to the provider instead of {spilled[1]}."
    return said


def complaints(result: Result) -> list[str]:
    """The errors of a load by kind, most frequent first; there should be none."""
    found = Counter(each.error for each in result.answers if each.error is not None)
    return [f"{result.strategy}: {number} x {error}" for error, number in found.most_common()]
