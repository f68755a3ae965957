"""What a balancer learns of pools and endpoints from the requests it serves; every value has a first guess and bounds.

Nothing here is ever needed to be right: a value that is off makes a choice less good, never impossible. What an
endpoint has taught is dropped with the endpoint, and when the engine behind it has been restarted.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import exp, isfinite
from statistics import median
from typing import Final, NamedTuple

from .attention import Attention
from .line import Line
from .pace import Pace
from .progress import DEEP_QUEUE

BYTES_PER_TOKEN: Final = 4.0
"""First guess. English prose has 4 to 5, code 3, other scripts 2 to 4 in UTF-8."""
BYTES_PER_TOKEN_BOUNDS: Final = (1.0, 16.0)
PREFILL_RATE: Final = 8_000.0
"""First guess, tokens a second: an 8B model on a datacenter GPU does 10,000 to 40,000, on a small one 4,000."""
PREFILL_RATE_BOUNDS: Final = (10.0, 2e6)
CACHE_TOKENS: Final = 400_000.0
"""First guess of an engine's prefix cache: an 8B model in bf16 on 80 GB."""
CACHE_TOKENS_BOUNDS: Final = (2_000.0, 50e6)
OUTPUT_TOKENS: Final = 200.0
"""First guess of an answer's length."""

CLEARLY: Final = 1.25
"""A relative speed within this factor of the pool's is measurement noise, and taken as 1."""
ENOUGH: Final = 10
"""Measurements before an endpoint's speed is compared with the others'."""
LATENCY_MEMORY: Final = 10.0
"""Seconds in which a latency loses its weight, as in Finagle's Peak EWMA."""

_LEARN: Final = 0.05
_GAIN: Final = 0.1


class Usage(NamedTuple):
    """What an engine says of one request, in tokens; None is not told.

    As OpenAI counts: prompts include what was read from a cache and what was written to one, answers include reasoning.
    """

    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None
    written_tokens: int | None = None
    reasoning_tokens: int | None = None
    kept_long_tokens: int | None = None
    """Of those written to a cache, to be kept for an hour or longer."""


NOT_TOLD: Final = Usage()


def bounded(value: float, bounds: tuple[float, float]) -> float:
    # NaN comes out as the lower bound: it loses every comparison.
    return min(bounds[1], max(bounds[0], value))


class PoolLearned:
    """What the requests of a pool have in common."""

    __slots__ = ("_alone", "attention", "bytes_per_token", "miss_pairs", "miss_tokens", "output_tokens", "paces")

    def __init__(self) -> None:
        self.bytes_per_token = BYTES_PER_TOKEN
        """Of canonical text, by the pool's tokenizer."""
        self.output_tokens = OUTPUT_TOKENS
        """Mean length of an answer."""
        self.miss_tokens = 512.0
        """Mean prompt tokens of a request that have to be computed; what one of somebody else's is taken for."""
        self.miss_pairs = 0.0
        """Mean of what these add by the length of their prompts."""
        self.attention = Attention()
        self.paces: dict[str, Pace] | None = None
        """How fast each model answers, as its engines call it; kept once a tier chooses by it."""
        self._alone = Line()

    def pace(self, model: str) -> Pace:
        """Of a model, kept from now on."""
        if self.paces is None:
            self.paces = {}
        if model not in self.paces:
            self.paces[model] = Pace()
        return self.paces[model]

    def dispatched(self, miss: float, pairs: float) -> None:
        self.miss_tokens += _LEARN * (miss - self.miss_tokens)
        self.miss_pairs += _LEARN * (pairs - self.miss_pairs)

    def usage(self, size: int, usage: Usage) -> None:
        """An engine has counted the tokens of a prompt of `size` bytes, or of an answer."""
        tokens = usage.prompt_tokens
        if tokens is not None and tokens > 0 and size >= 64:
            # Short prompts are mostly the chat template, which the text does not show.
            ratio = bounded(size / tokens, BYTES_PER_TOKEN_BOUNDS)
            self.bytes_per_token += _LEARN * min(1.0, tokens / 200) * (ratio - self.bytes_per_token)
        if usage.output_tokens is not None and usage.output_tokens >= 0:
            self.output_tokens += _LEARN * (min(usage.output_tokens, 131_072) - self.output_tokens)

    def computed_alone(self, tokens: float, took: float) -> float | None:
        """A request had an endpoint to itself, `tokens` of its prompt to be computed, and a first token after `took`
        seconds. Returns the seconds that the pool's endpoints take for so many; None before enough is known of them.

        Only such requests compare endpoints: under load equal ones differ by more than double with what they happen to
        decode beside, and to act on that would make it true.
        """
        if not (took > 0 and tokens >= 1 and isfinite(took) and isfinite(tokens)):
            return None
        expected = self._alone.at(tokens)
        self._alone.take(tokens, took)
        return expected


def compare(endpoints: Iterable[EndpointLearned]) -> None:
    """Set every endpoint's speed by the median of those that are known; 1.0 where there is nothing to compare with."""
    known = [(each, ratio) for each in endpoints if (ratio := each.ratio) is not None]
    typical = median(ratio for _, ratio in known) if len(known) > 1 else None
    for each, ratio in known:
        speed = 1.0 if typical is None else bounded(ratio / typical, (1 / 64, 64.0))
        each.speed = 1.0 if 1 / CLEARLY <= speed <= CLEARLY else speed


class EndpointLearned:
    """How one endpoint works, as far as it can be seen from outside."""

    __slots__ = (
        "_alone",
        "_expected",
        "_factor",
        "_latency",
        "_measured",
        "_reported",
        "_samples",
        "_strays",
        "_took",
        "fixed",
        "rate",
        "speed",
        "trusted",
    )

    def __init__(self) -> None:
        self.rate: float | None = None
        """Prefill, tokens a second, as it comes with all else that the engine does; None before any measurement."""
        self.fixed = 0.0
        """Seconds to the first token that no queue explains."""
        self.trusted = True
        """False while most first tokens come far later than the mirror and the metrics explain."""
        self.speed = 1.0
        """By the pool's endpoints, where it clearly differs; 1.0 else."""
        self._alone = 0
        self._expected = 0.0
        self._took = 0.0
        self._samples = 0
        self._strays = 0.0
        self._factor = 1.0
        self._reported: float | None = None
        self._latency: float | None = None
        self._measured = 0.0

    # ---- prediction

    @property
    def pace(self) -> float:
        """The rate, or its first guess."""
        return self.rate or PREFILL_RATE

    def ttft_of_late(self, tokens: float) -> float:
        """Seconds to the first token that were to be expected of late, with `tokens` uncached tokens to compute."""
        return self.fixed + tokens / self.pace

    def predicts(self, now: float, under_way: bool) -> bool:
        """Whether a prediction rests on first tokens that were seen, of late unless some are `under_way`."""
        if self.rate is None and not self.fixed:
            return False
        return under_way or now - self._measured <= LATENCY_MEMORY

    def latency(self, now: float) -> float | None:
        """Seconds to the first token of late, peaks first; sinks while nothing new is seen; None before any."""
        if self._latency is None:
            return None
        return self._latency * exp((self._measured - now) / LATENCY_MEMORY / 4)

    def answered(self, took: float, now: float) -> None:
        """The client had to wait `took` seconds: for the first token, or for the whole where it is not streamed."""
        if not (isfinite(took) and took > 0):
            return
        known = self.latency(now)
        # A rise is believed at once, a fall little by little.
        fade = exp((self._measured - now) / LATENCY_MEMORY)
        self._latency = took if known is None or took > known else fade * known + (1 - fade) * took
        self._measured = now

    def first_token(self, took: float, backlog: float, now: float) -> None:
        """A first token came `took` seconds after dispatch; `backlog` uncached tokens' worth of work was to be done by
        then."""
        if not (isfinite(took) and took > 0 and backlog >= 0):
            return
        expected = self.ttft_of_late(backlog)
        stray = self.rate is not None and took > 3 * expected + 0.5
        self._strays += 0.1 * (stray - self._strays)
        self.trusted = self._strays < 0.5
        self.answered(took, now)
        if backlog < DEEP_QUEUE:
            rest = min(max(took - backlog / self.pace, 0.0), 10.0)
            self.fixed += _LEARN * (rest - self.fixed)
            return
        sample = bounded(backlog / max(took - self.fixed, took / 10, 1e-6), PREFILL_RATE_BOUNDS)
        self._samples += 1
        if self.rate is None:
            self.rate = sample
        else:
            self.rate += max(_LEARN, 1 / self._samples) * (sample - self.rate)

    def computed_alone(self, expected: float, took: float) -> None:
        """A request that had the endpoint to itself took so many seconds where the pool's take `expected`."""
        self._expected = 0.95 * self._expected + expected
        self._took = 0.95 * self._took + took
        self._alone += 1

    @property
    def ratio(self) -> float | None:
        """How much faster than expected, of requests that had it to themselves; None before ENOUGH of them."""
        return self._expected / self._took if self._alone >= ENOUGH else None

    # ---- the cache

    @property
    def cache_tokens(self) -> float:
        """Room of the engine's prefix cache, in tokens: as its metrics say, else as its answers make believe."""
        if self._reported is not None:
            return self._reported
        return bounded(CACHE_TOKENS * self._factor, CACHE_TOKENS_BOUNDS)

    @property
    def room_reported(self) -> float | None:
        """Room of the cache as the engine's metrics say; None where they do not."""
        return self._reported

    def capacity_reported(self, tokens: float | None) -> None:
        """What the engine's metrics say of its room, in tokens. None, or what cannot be true, is no news."""
        if tokens is not None and CACHE_TOKENS_BOUNDS[0] <= tokens <= CACHE_TOKENS_BOUNDS[1]:
            self._reported = tokens

    def cached(self, believed: float, told: float, prompt: float) -> None:
        """`believed` tokens of a prompt were thought to be cached, and the engine has found `told`."""
        if not (prompt > 0 and abs(told - believed) >= 64):
            return
        error = bounded((told - believed) / prompt, (-1.0, 1.0))
        self._factor = bounded(self._factor * (1 + _GAIN * error), (1 / 128, 8.0))
