"""What a strategy is asked and what it answers; apart from the table, so that strategies can import it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import ClassVar, Literal, NamedTuple, Protocol

from spillway_api.types import Chwbl

Reads = Literal["load", "cache", "latency"]


class Ask(NamedTuple):
    """What a strategy may know of a request."""

    key: int | None = None
    """64-bit hash of the session's key; None when the request has none."""
    cost: float = 1.0
    """What this request adds to an endpoint, in the pool's load unit: 1.0, or its tokens. Above 0."""


class Candidate(NamedTuple):
    """An endpoint that may take the request: ready, not ejected, below its hard limit, not yet tried."""

    name: str
    weight: int = 100
    """1 to 1000; twice the weight takes twice the load."""
    load: float = 0.0
    """In the pool's load unit: requests, or tokens still to compute. Finite and not negative."""
    requests: int = 0
    """Requests in flight there, by own count and by scrape, whatever the load unit."""
    miss: float = 0.0
    """Tokens of this prompt that it would have to compute; this and all to `trusted` only for who reads the cache."""
    cached: float = 0.0
    """Tokens of this prompt that it is believed to have."""
    queue: float = 0.0
    """Uncached prompt tokens that have been sent there and have no first token yet."""
    pending: float = 0.0
    """The requests that these belong to."""
    context: float = 0.0
    """Prompt tokens of all requests in flight there."""
    speed: float = 1.0
    """Relative to the pool's typical endpoint; 1.0 unless it differs clearly."""
    trusted: bool = True
    """False while its answers come far later than all this explains."""
    latency: float | None = None
    """Seconds to the first token of late, None before any; only for who reads latencies."""


class Choice(NamedTuple):
    """The pick and why; `reason` is one word of a closed set, fit for a metric label."""

    name: str
    reason: str


class Strategy(Protocol):
    """Chooses an endpoint among candidates.

    Built anew when membership or dispatch settings change, so a strategy may keep what it derives from them
    and whatever it wants to remember between requests. Time and chance come from outside only.
    """

    reads: ClassVar[Reads]
    """What it looks at; what nobody looks at is not worked out."""

    def choose(self, ask: Ask, candidates: Sequence[Candidate], dice: random.Random) -> Choice | None:
        """One of the candidates; None if and only if there are none.

        Candidates are some of the members that the strategy was built with, in the members' order.
        """
        ...


def within_bounds(candidates: Sequence[Candidate], bounds: Chwbl) -> Sequence[Candidate]:
    """Those that have no more than their share of the requests, as CHWBL bounds it; all, should none have.

    `candidates` is not empty.
    """
    allowed = bounds.load_factor_percent * (1 + sum(at.requests for at in candidates))
    scale = 100 * sum(at.weight for at in candidates)
    least = bounds.min_in_flight
    able = [at for at in candidates if at.requests * scale < allowed * at.weight or at.requests < least]
    return able or candidates
