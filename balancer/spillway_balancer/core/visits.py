"""One request at one endpoint, from its dispatch to its end: what it occupies there, and what it teaches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from .attention import pairs
from .learning import NOT_TOLD, Usage, compare
from .notes import Ended, FirstToken
from .progress import DEEP_QUEUE
from .quotas import Said

if TYPE_CHECKING:
    from .endpoint import EndpointState
    from .pool import Pool

SHORT_ANSWER: Final = 8
"""Tokens. The end of an answer as short as that is as good as its first token."""


class Forecast(NamedTuple):
    """What dispatch expected of a request at the endpoint it chose. Tokens are estimates."""

    prompt_tokens: float
    cached_tokens: float
    """Of those, believed to be cached there."""
    output_tokens: int
    blocks: Sequence[int] = ()
    size: int = 0
    """Bytes of the prompt's canonical text."""
    streams: bool = True
    ttft: float | None = None
    """Seconds to the first token."""
    model: str = ""
    """As its engine calls it."""


class Visit:
    """Holds a lease on the endpoint's load and pins the prompt in its mirror. `end` it on every path.

    With `own` False it is another balancer's, known by hearsay: it takes its room, and teaches nothing.
    """

    __slots__ = (
        "_added",
        "_alone",
        "_backlog",
        "_begun",
        "_first",
        "_first_in_line",
        "_forecast",
        "_lease",
        "_mark",
        "_number",
        "_own",
        "_pace",
        "_pin",
        "_place",
        "_pool",
        "_seen",
        "_sent",
        "_uncached",
        "_usage",
        "endpoint",
    )

    def __init__(self, pool: Pool, endpoint: EndpointState, forecast: Forecast, now: float, own: bool = True) -> None:
        self.endpoint = endpoint
        self._pool = pool
        self._own = own
        self._forecast = forecast
        self._begun = now
        self._seen = False
        self._usage = NOT_TOLD
        prompt, cached = forecast.prompt_tokens, forecast.cached_tokens
        self._uncached = uncached = prompt - cached
        self._added = added = pairs(prompt, cached)
        work = pool.learned.attention.work(uncached, added)
        self._backlog = pool.work_ahead(endpoint, now) + work
        self._first_in_line = not endpoint.load.pending
        self._lease = endpoint.load.lease(round(forecast.prompt_tokens), forecast.output_tokens, uncached, added)
        if endpoint.past is not None:
            endpoint.past.note(now, endpoint.load)
        self._pin = endpoint.cache.pin(forecast.blocks) if forecast.blocks else None
        self._alone = endpoint.load.requests(now, pool.stale_after) == 1
        self._place = endpoint.queued(self, work, forecast.streams, now)
        endpoint.progress.changed(endpoint.load.pending_tokens, 0.0, now)
        quota = endpoint.quota
        self._sent = None if quota is None else quota.take(now, round(forecast.prompt_tokens), forecast.output_tokens)
        self._number = 0
        self._first: float | None = None
        paces = pool.learned.paces
        self._pace = paces.get(forecast.model) if paces and own else None
        self._mark = None if self._pace is None else self._pace.sent(now, forecast.streams)
        if own:
            pool.learned.dispatched(uncached, added)
            self._number = pool.told(endpoint, forecast)

    @property
    def ended(self) -> bool:
        return self._lease.released

    def computed(self) -> None:
        """The prompt must be computed by now, though nobody has seen a token."""
        self._lease.first_token()

    def first_token(self, now: float) -> None:
        """The first content byte of a streamed answer. Later calls change nothing."""
        if self._seen or self.ended:
            return
        self._seen = True
        self._lease.first_token()
        if self.endpoint.past is not None:
            self.endpoint.past.note(now, self.endpoint.load)
        computed = self._pool.learned.attention.work(self._uncached, self._added)
        self.endpoint.progress.changed(self.endpoint.load.pending_tokens, computed, now)
        self.endpoint.seen(self._place, now, first_token=True)
        if self._own:
            self._measure(now)
        if self._pace is not None and self._mark is not None:
            self._first = now
            self._pace.first_token(self._mark, now)
        self._pool.trim(self.endpoint, now)
        if self._number:
            self._pool.tell(FirstToken(self._number))

    def answered(self, said: Iterable[Said], ok: bool, now: float) -> None:
        """An account has begun to answer, well or not, and says what is left of its quota."""
        if self._sent is not None and self.endpoint.quota is not None:
            self.endpoint.quota.answered(self._sent, said, ok, now)

    def charge(self, tokens: int, now: float) -> None:
        """What the request has really used, for the account's limits. Not known of another balancer's: there the
        estimate stands. Later calls change nothing."""
        if self._sent is not None and self.endpoint.quota is not None:
            self.endpoint.quota.settle(self._sent, now, tokens)

    def usage(self, usage: Usage) -> None:
        """What the engine says of the request."""
        self._usage = usage
        self._pool.learned.usage(self._forecast.size, usage)
        if usage.cached_tokens is not None and usage.prompt_tokens and self._forecast.blocks:
            scale = usage.prompt_tokens / max(self._forecast.prompt_tokens, 1.0)
            believed = self._forecast.cached_tokens * scale
            self.endpoint.learned.cached(believed, min(usage.cached_tokens, usage.prompt_tokens), usage.prompt_tokens)

    def end(self, now: float, answer: Sequence[int] = (), ok: bool = True) -> None:
        """The request has ended; `answer` are the blocks its answer added. Later calls change nothing."""
        if self.ended:
            return
        self._lease.release()
        if self.endpoint.past is not None:
            self.endpoint.past.note(now, self.endpoint.load)
        if self._sent is not None and self.endpoint.quota is not None:
            self.endpoint.quota.ended(self._sent)
        if ok and not self._seen:
            output = self._usage.output_tokens
            short = output is not None and output <= SHORT_ANSWER
            self.endpoint.seen(self._place, now, first_token=short)
            if self._own:
                if short:
                    self._measure(now)
                else:
                    self.endpoint.learned.answered(now - self._begun, now)
        if self._pace is not None and self._mark is not None:
            self._pace.ended(self._mark, self._first, now, self._usage.output_tokens, ok)
        if self._pin is not None:
            self._pin.unpin(answer, ok)
        self._pool.trim(self.endpoint, now)
        if self._number:
            self._pool.tell(Ended(self._number, ok, tuple(answer)))

    def _measure(self, now: float) -> None:
        took = now - self._begun
        endpoint = self.endpoint
        if self._first_in_line and self._uncached >= DEEP_QUEUE:
            self._pool.learned.attention.measured(self._uncached, self._added, took - endpoint.learned.fixed)
        endpoint.learned.first_token(took, self._backlog, now)
        if self._alone:
            expected = self._pool.learned.computed_alone(self._backlog, took)
            if expected is not None:
                endpoint.learned.computed_alone(expected, took)
                compare(each.learned for each in self._pool.endpoints.values())
