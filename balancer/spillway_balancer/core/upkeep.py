"""What tokens of own engines cost: what keeping their endpoints costs, divided by the tokens that they really serve.

Money accrues for every endpoint that the pool has and every second, busy or not. What was accrued within WINDOW is
divided by the work that was done in it: a token of a prompt is one, one that was found in the cache a tenth, one of an
answer five, which is about how providers price them. So an idle pool is dear by the token and a busy one is cheap, and
no request can cost more than the pool did within the window.

Several balancers, and whoever else uses the endpoints, share what these cost by the requests that they have in flight
there. Nothing is decided by this price: whoever sent less to a pool because it looks dear would make it dearer.
"""

from __future__ import annotations

from collections import deque
from decimal import Decimal
from math import isfinite
from typing import TYPE_CHECKING, Final

from spillway_api.types import EndpointCost

from .prices import Used

if TYPE_CHECKING:
    from .pool import Pool

WINDOW: Final = 600.0
"""Seconds. Long enough for answers that take minutes, whose work counts when they end."""
SLICE: Final = 10.0
"""Seconds, of which the window is made."""
PAUSE: Final = 1.0
"""Seconds between two looks at a pool's endpoints."""
CACHED: Final = 0.1
OUTPUT: Final = 5.0


def work(used: Used) -> float:
    """Of a request, in tokens of a prompt."""
    prompt, output = max(used.prompt, 0), max(used.output, 0)
    cached = min(max(used.cached, 0), prompt)
    return prompt - cached + CACHED * cached + OUTPUT * output


class _Slice:
    __slots__ = ("began", "kept", "work")

    def __init__(self, began: float) -> None:
        self.began = began
        self.kept = 0.0  # seconds of endpoints
        self.work = 0.0


class Upkeep:
    """Of one pool. Outlives a reload."""

    __slots__ = ("_kept", "_last", "_part", "_slices", "_work", "spec", "total")

    def __init__(self, spec: EndpointCost) -> None:
        self.spec = spec
        self.total = 0.0
        """Money that has accrued, as far as it is this balancer's part."""
        self._last: float | None = None
        self._part = 1.0
        self._slices: deque[_Slice] = deque()
        self._kept = 0.0
        self._work = 0.0

    @classmethod
    def of(cls, spec: EndpointCost | None, previous: Upkeep | None) -> Upkeep | None:
        """None where nobody says what endpoints cost. A new currency begins anew."""
        if spec is None:
            return None
        if previous is None or previous.spec.currency != spec.currency:
            return cls(spec)
        previous.spec = spec
        return previous

    @property
    def currency(self) -> str:
        return self.spec.currency

    @property
    def _second(self) -> float:
        """Money for one endpoint."""
        return float(self.spec.per_endpoint_hour) / 3600

    def look(self, pool: Pool, now: float) -> None:
        """Account for the time since the last look, by the endpoints that there are. Looks at most once a second."""
        if self._last is None or now - self._last >= PAUSE:
            books = [endpoint.load for endpoint in pool.endpoints.values()]
            own = sum(book.in_flight for book in books)
            self.passed(now, len(books), own, own + sum(book.others(now, pool.stale_after) for book in books))

    def passed(self, now: float, endpoints: int, own: int, everybody: int) -> None:
        """Time has passed, with so many endpoints; of `everybody`'s requests on them `own` are this balancer's. While
        there are none, they are shared as they were before."""
        if everybody > 0:
            self._part = min(own / everybody, 1.0)
        elapsed = 0.0 if self._last is None else max(now - self._last, 0.0)
        self._last = now if self._last is None else max(self._last, now)
        kept = elapsed * endpoints * self._part
        at = self._slice(now)
        at.kept += kept
        self._kept += kept
        self.total += kept * self._second

    def served(self, now: float, used: Used) -> Decimal:
        """A request has used so many tokens. Returns its part of what the pool has cost within the window."""
        done = work(used)
        self._slice(now).work += done
        self._work += done
        price = self.price(now)
        return Decimal(0) if price is None else Decimal(str(round(price * done, 15)))

    def price(self, now: float) -> float | None:
        """Of a token of a prompt; None while nothing has been served for WINDOW."""
        self._slice(now)
        if self._work <= 0:
            return None
        price = self._kept * self._second / self._work
        return price if isfinite(price) else None

    def _slice(self, now: float) -> _Slice:
        """The one that is under way. Those that are out of the window are forgotten."""
        slices = self._slices
        while slices and now - slices[0].began > WINDOW:
            gone = slices.popleft()
            self._kept = max(self._kept - gone.kept, 0.0)
            self._work = max(self._work - gone.work, 0.0)
        if not slices or now - slices[-1].began >= SLICE:
            slices.append(_Slice(now))
        if len(slices) == 1:  # sums of floats drift; here they are known
            self._kept, self._work = slices[0].kept, slices[0].work
        return slices[-1]
