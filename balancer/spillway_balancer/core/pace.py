"""How fast a model answers in a pool, learned of its answers: seconds to the first token, and tokens a second after it.

Kept where some tier chooses by it. A mean over recent answers: each weighs the more the longer there was none before
it, so that who is asked seldom is known by what it did last (as in Finagle's Peak EWMA).

A mean comes too late for a queue that has just grown, and for one that has just gone: so what each request ahead adds
is learned beside it, and the mean is moved by as many as are ahead now more than there were then. One that answers no
more teaches nothing: no mean holds against half of what those under way have waited so far.
"""

from __future__ import annotations

from math import exp, isfinite
from typing import Final, NamedTuple

from .line import Line

MEMORY: Final = 10.0
"""Seconds after which a measurement has lost most of its weight, as far as `MOST` lets it."""
LEAST: Final = 0.05
"""Weight of a new measurement, however many there are a second."""
MOST: Final = 0.3
"""And however long there was none: one answer may be anything."""
RATES: Final = (0.1, 1e5)
"""Tokens a second, the bounds of what is believed of one answer."""
SHORT: Final = 8
"""Tokens. A shorter answer says nothing of the rate."""
FLOOR: Final = 0.1
"""Of a mean: no empty queue makes it less than this."""


class Mark(NamedTuple):
    """A request under way."""

    begun: float
    streams: bool
    ahead: int
    """Others of its kind that waited when it was sent."""


class Pace:
    """What is known of a pool's speed. Times are seconds, monotonic."""

    __slots__ = ("_known", "_measured", "_plain", "_ran_at", "_rates", "_streams", "rate", "ttft")

    def __init__(self) -> None:
        self.ttft: float | None = None
        """Seconds to the first token; None before any answer."""
        self.rate: float | None = None
        """Tokens a second of one answer; None before any is known."""
        self._known = 0
        self._rates = 0
        self._measured = self._ran_at = float("-inf")
        self._streams = _Waiting()
        self._plain = _Waiting()

    # ---- what happens

    def sent(self, now: float, streams: bool) -> Mark:
        return Mark(now, streams, (self._streams if streams else self._plain).add(now))

    def first_token(self, mark: Mark, now: float) -> None:
        """Of a streamed answer. It is not waited for any more."""
        self._streams.remove(mark.begun)
        self._took(mark, now)

    def ended(self, mark: Mark, first: float | None, now: float, tokens: int | None, ok: bool) -> None:
        """A request has ended; its first token came at `first`, if one was seen."""
        if first is None:
            (self._streams if mark.streams else self._plain).remove(mark.begun)
        if not ok:
            # Who leaves or fails without a token has waited so long at least. A quick refusal is not a quick answer.
            if first is None and self.ttft is not None and now - mark.begun > self.ttft:
                self._took(mark, now)
        elif first is None:
            self._whole(mark, tokens, now)
        elif tokens is not None and tokens >= SHORT:
            self._ran((tokens - 1) / max(now - first, 1e-6), now)

    # ---- what is expected

    def first_token_in(self, now: float) -> float | None:
        """Seconds to the first token for who comes now; None while nothing is known."""
        return None if self.ttft is None else self._streams.by_queue(self.ttft, now)

    def seconds(self, tokens: float, now: float) -> float | None:
        """To the end of an answer of so many tokens; None while nothing is known."""
        ttft = self.first_token_in(now)
        if ttft is None:
            return None
        return self._plain.by_queue(ttft if self.rate is None else ttft + tokens / self.rate, now)

    @property
    def under_way(self) -> int:
        """Requests whose first token, or whole answer, is still to come."""
        return self._streams.count + self._plain.count

    def stale(self, now: float) -> bool:
        """Whether it may have changed unseen: nothing measured of late, and nothing under way that will tell."""
        return now - self._measured > MEMORY and not self.under_way

    # ---- learning

    def _took(self, mark: Mark, now: float) -> None:
        took = now - mark.begun
        if not (isfinite(took) and took >= 0):
            return
        gain = self._gain(now)
        self.ttft = took if self.ttft is None else self.ttft + gain * (took - self.ttft)
        (self._streams if mark.streams else self._plain).took(mark.ahead, took, gain)

    def _ran(self, rate: float, now: float) -> None:
        rate = _believed(rate)
        self._rates += 1
        gain = _gain(self._rates, now - self._ran_at)
        self.rate = rate if self.rate is None else _believed(self.rate + gain * (rate - self.rate))
        self._ran_at = now

    def _whole(self, mark: Mark, tokens: int | None, now: float) -> None:
        """An answer that was not streamed shows one time for both: where both are known, each takes its part of what it
        was off by; else all of it is taken to be the tokens'."""
        if tokens is None or tokens < SHORT:
            self._took(mark, now)
            return
        took, gain = now - mark.begun, self._gain(now)
        if self.ttft is None or self.rate is None:
            self.ttft = self.ttft or 0.0
            self._ran(tokens / max(took, 1e-6), now)
        else:
            off = took / max(self.ttft + tokens / self.rate, 1e-6)
            by = min(16.0, max(1 / 16, off)) ** gain
            self.ttft *= by
            self.rate = _believed(self.rate / by)
        self._plain.took(mark.ahead, took, gain)

    def _gain(self, now: float) -> float:
        """Weight of a measurement that is made now."""
        self._known += 1
        gain = _gain(self._known, now - self._measured)
        self._measured = now
        return gain


def _believed(rate: float) -> float:
    return min(RATES[1], max(RATES[0], rate))


def _gain(number: int, since: float) -> float:
    """Weight of the so-many-th measurement, so many seconds after the one before."""
    return max(LEAST, 1 / number, min(MOST, 1 - exp(-max(0.0, since) / MEMORY)))


class _Waiting:
    """How many wait, since when on average without a list of them, and what each that is ahead costs."""

    __slots__ = ("_ahead", "_begun", "_line", "count")

    def __init__(self) -> None:
        self.count = 0
        self._begun = 0.0
        self._ahead = 0.0
        self._line = Line()

    def add(self, begun: float) -> int:
        """One more waits. Returns how many did before."""
        self.count += 1
        self._begun += begun
        return self.count - 1

    def remove(self, begun: float) -> None:
        self.count -= 1
        # What floats have rounded away must not be all that is left.
        self._begun = self._begun - begun if self.count else 0.0

    def took(self, ahead: int, took: float, gain: float) -> None:
        """One has been answered that had so many ahead."""
        self._ahead += gain * (ahead - self._ahead)
        self._line.take(ahead, took)

    def by_queue(self, mean: float, now: float) -> float:
        """A mean of late, as it is for who comes now."""
        moved = mean + self._line.rise * (self.count - self._ahead)
        return max(moved, FLOOR * mean, self._age(now) / 2)

    def _age(self, now: float) -> float:
        """Seconds that those who wait have waited, the mean; 0 when nobody does."""
        return max(0.0, now - self._begun / self.count) if self.count else 0.0
