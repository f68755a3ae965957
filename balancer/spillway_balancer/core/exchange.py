"""What balancers tell one another, so that each knows what all have sent where.

A balancer that sees a part of the traffic believes endpoints idle that are not, and prompts cached nowhere that are.
Scrapes correct the first, late and roughly; nothing corrects the second. So balancers may tell each other, in small
batches, what they dispatch and how it goes on: a few numbers and the hashes of the prompt's blocks, no text. Who hears
it treats the visit as one of its own: it takes a lease on the endpoint's load and pins the prompt in its mirror.

How notes travel is not said here. They may come late and in batches, each sender's in order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .notes import Begun, Ended, FirstToken, Note
from .visits import Forecast, Visit

if TYPE_CHECKING:
    from .pool import Pool


class Sisters:
    """The visits of other balancers at the endpoints of one pool."""

    __slots__ = ("_open",)

    def __init__(self) -> None:
        self._open: dict[tuple[str, int], Visit] = {}

    def heard(self, pool: Pool, sender: str, note: Note, now: float) -> None:
        """Another balancer says something. What is about an endpoint or a visit that is not known is passed over."""
        match note:
            case Begun():
                endpoint = pool.endpoints.get(note.endpoint)
                if endpoint is None or (sender, note.visit) in self._open:
                    return
                forecast = Forecast(
                    note.prompt_tokens, note.cached_tokens, note.output_tokens, note.blocks, streams=note.streams
                )
                self._open[sender, note.visit] = pool.visit_of_sister(endpoint, forecast, now)
            case FirstToken():
                visit = self._open.get((sender, note.visit))
                if visit is not None:
                    visit.first_token(now)
            case Ended():
                visit = self._open.pop((sender, note.visit), None)
                if visit is not None:
                    visit.end(now, note.answer, note.ok)
