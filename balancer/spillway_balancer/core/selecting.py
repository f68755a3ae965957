"""How one pool of a tier is chosen: by weight, in order, or by a score that its mode gives each of them.

A mode that scores is one entry in `MODES`: a function from the targets and the request to one number for each, of which
less is better, or None where it is unknown. A signal of another kind (the task, how hard it is, what it is about) is
one more entry; the order, the ties, the sessions and the exploring below are the same for all.

A session stays with the pool where its cache is unless another one is better by its mode's margin: noise must not send
it to and fro. Of pools that are as good as each other, weight and key choose, as they do without a score.
"""

from __future__ import annotations

import math
import random
from collections import OrderedDict
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import xxhash

from spillway_api.types import Model, Price

from . import prices
from .learning import BYTES_PER_TOKEN
from .pace import Pace
from .prefix import Prompt

if TYPE_CHECKING:
    from .pool import Pool
    from .routing import Target, Tier

SESSIONS: Final = 8192
"""Remembered by a tier; one that is forgotten is as a new one."""
EXPLORE: Final = 0.02
"""Of the requests, those that look at a pool that has not been measured of late, where there is one."""
AT_ONCE: Final = 3
"""Requests that an unknown pool is tried with before the first of them is answered."""


class Sized(Protocol):
    """How large a request is."""

    @property
    def model(self) -> str: ...
    @property
    def prompt_tokens(self) -> int: ...
    def max_tokens(self) -> int:
        """The client's own limit on the answer; 0 without one. Reads the body."""
        ...


class Asks(Sized, Protocol):
    """What a choice may depend on."""

    def prompt(self, model: str) -> Prompt | None: ...


Scores = list[float | None]
"""One for each target. Less is better, -inf is to be tried, None is unknown and comes last."""


class Mode(NamedTuple):
    scores: Callable[[Sequence[Target], Asks, float], Scores]
    tie: float = 0.0
    """Scores within this part of the best are as good as it."""
    margin: float = 0.0
    """A session leaves its pool when the best is better by more than this part."""
    explores: bool = False
    """Whether scores are measured, so that one that is never chosen is never known."""


class Turns:
    """The choice by weight. Requests of a session go by its key; those without one take turns, so that as few as
    there may be are shared as the weights say. What turn it is outlives a reload."""

    __slots__ = ("_turn",)

    def __init__(self) -> None:
        self._turn = 0.0

    def order(
        self, targets: Sequence[Target], key: int | None, asks: Asks, now: float, dice: random.Random
    ) -> Sequence[Target]:
        ranked = _weighted(targets, key, dice)
        if key is not None or len(ranked) < 2:
            return ranked
        # The multiples of the golden ratio, each without its whole part, fill any interval as evenly as can be.
        self._turn = (self._turn + GOLDEN) % 1.0
        left = self._turn * sum(target.weight for target in ranked)
        for first in sorted(ranked, key=_named):
            left -= first.weight
            if left < 0.0:
                ranked.remove(first)
                return [first, *ranked]
        return ranked


GOLDEN: Final = (5**0.5 - 1) / 2


class Selection:
    """The choice by score of one tier. Remembers where sessions went; that outlives a reload."""

    __slots__ = ("_mode", "_placed", "select")

    def __init__(self, select: str) -> None:
        self.select = select
        self._mode = MODES[select]
        self._placed: OrderedDict[int, str] = OrderedDict()

    def scores(self, targets: Sequence[Target], asks: Asks, now: float) -> Scores:
        """What each is held to be worth."""
        return self._mode.scores(targets, asks, now)

    def order(
        self, targets: Sequence[Target], key: int | None, asks: Asks, now: float, dice: random.Random
    ) -> Sequence[Target]:
        mode = self._mode
        ranked = _weighted(targets, key, dice)
        if len(ranked) < 2:
            return ranked
        score = dict(zip(ranked, mode.scores(ranked, asks, now), strict=True))
        best = min((each for each in score.values() if each is not None), default=math.inf)
        near = best + mode.tie * abs(best) if math.isfinite(best) else best

        def rank(target: Target) -> tuple[bool, float]:
            own = score[target]
            return (True, 0.0) if own is None else (False, best if own <= near else own)

        ranked.sort(key=rank)  # stable: by weight and key where the rank is the same
        self._keep(ranked, score, key)
        if mode.explores:
            _explore(ranked, asks, now, dice)
        return ranked

    def _keep(self, ranked: list[Target], score: dict[Target, float | None], key: int | None) -> None:
        """The session's own pool first, if it still does. What is unknown is for others to try."""
        if key is None:
            return
        placed = self._placed
        before = placed.pop(key, None)
        if before is not None and before != _named(ranked[0]):
            own = next((each for each in ranked if _named(each) == before), None)
            known = None if own is None else score[own]
            best = min((each for each in score.values() if each is not None and math.isfinite(each)), default=math.inf)
            if own is not None and known is not None and best >= known - self._mode.margin * abs(known):
                ranked.remove(own)
                ranked.insert(0, own)
        placed[key] = _named(ranked[0])
        if len(placed) > SESSIONS:
            placed.popitem(last=False)


def chooser(select: str) -> Selection | Turns | None:
    """What chooses among the pools of a tier; None where it is their order."""
    if select == "Weighted":
        return Turns()
    return Selection(select) if select in MODES else None


def order(tier: Tier, key: int | None, asks: Asks, now: float, dice: random.Random) -> Sequence[Target]:
    """Pools of a tier in the order to try them; those without weight are left out, unless order alone decides."""
    targets = tier.targets
    if len(targets) == 1 or tier.chooser is None:
        return targets
    return tier.chooser.order(targets, key, asks, now, dice)


def _named(target: Target) -> str:
    """Of a pool that stands twice in a tier, each of its models is a choice of its own."""
    return target.pool.name if target.model is None else f"{target.pool.name} {target.model}"


def _weighted(targets: Sequence[Target], key: int | None, dice: random.Random) -> list[Target]:
    """Weighted rendezvous hashing (Thaler and Ravishankar, 1998; weights by Schindelhauer and Schomaker, 2005): sticky
    by key, and a change of one weight moves only the keys that must move."""

    def score(target: Target) -> float:
        if key is None:
            u = dice.random()
        else:
            u = xxhash.xxh3_64_intdigest(_named(target).encode(), seed=key) / 2**64
        return -target.weight / math.log(u + 2**-65) if u < 1 else math.inf

    return sorted((target for target in targets if target.weight > 0), key=score, reverse=True)


def _explore(ranked: list[Target], asks: Asks, now: float, dice: random.Random) -> None:
    """Now and then one first that may have become better unseen; it is not where its session goes from now on."""
    if dice.random() >= EXPLORE:
        return
    unseen = [target for target in ranked[1:] if (pace := _pace(target, asks)) is not None and pace.stale(now)]
    if unseen:
        one = dice.choice(unseen)
        ranked.remove(one)
        ranked.insert(0, one)


# ---- what requests may become


def output_tokens(pool: Pool, limit: int) -> float:
    """As long as this pool's answers are, and no longer than the limit, if there is one."""
    mean = pool.learned.output_tokens
    return min(mean, limit) if limit > 0 else mean


def full_cost(price: Price, pool: Pool, asks: Sized, limit: int) -> Decimal:
    """Expected, and nothing of the prompt cached."""
    return prices.estimate(price, prompt_tokens(pool, asks), 0, math.ceil(output_tokens(pool, limit)))


def prompt_tokens(pool: Pool, asks: Sized) -> float:
    """As the pool's engines have been seen to count them."""
    return asks.prompt_tokens * BYTES_PER_TOKEN / pool.learned.bytes_per_token


def expected_cost(target: Target, asks: Asks, now: float) -> float | None:
    """In the currency of the model's price; None without one. What the pool is believed to have cached of the prompt
    costs what cached tokens do."""
    pool = target.pool
    model = pool.model(asks.model, target.model)
    if model is None or model.price is None:
        return None
    answer = output_tokens(pool, asks.max_tokens())
    tokens, cached = prompt_tokens(pool, asks), 0.0
    by = prices.rates(model.price, tokens)
    if pool.wants_prompt and by.cached != by.input:
        prompt = asks.prompt(model.upstream_name or model.name)
        if prompt is not None:
            tokens, cached = pool.cached(prompt, now)
    return float(by.input) * (tokens - cached) + float(by.cached) * cached + float(by.output) * answer


# ---- modes


def _cheapest(targets: Sequence[Target], asks: Asks, now: float) -> Scores:
    """Nothing is converted: what is priced in another currency than most of the targets is as good as unpriced."""
    currencies = [model.price.currency if model and model.price else None for model in _models(targets, asks)]
    known = [each for each in currencies if each is not None]
    common = max(sorted(set(known)), key=known.count, default=None)
    return [
        expected_cost(target, asks, now) if currency is not None and currency == common else None
        for target, currency in zip(targets, currencies, strict=True)
    ]


def _fastest(targets: Sequence[Target], asks: Asks, now: float) -> Scores:
    def score(target: Target) -> float | None:
        pace = _pace(target, asks)
        if pace is None:
            return None
        seconds = pace.seconds(output_tokens(target.pool, asks.max_tokens()), now)
        return _to_be_tried(pace) if seconds is None else seconds

    return [score(target) for target in targets]


def _throughput(targets: Sequence[Target], asks: Asks, now: float) -> Scores:
    """Seconds a token."""

    def score(target: Target) -> float | None:
        pace = _pace(target, asks)
        if pace is None:
            return None
        return _to_be_tried(pace) if pace.rate is None else 1 / pace.rate

    return [score(target) for target in targets]


def _quality(targets: Sequence[Target], asks: Asks, now: float) -> Scores:
    return [
        None if model is None or model.quality_percent is None else 100.0 - model.quality_percent
        for model in _models(targets, asks)
    ]


def _models(targets: Sequence[Target], asks: Asks) -> list[Model | None]:
    return [target.pool.model(asks.model, target.model) for target in targets]


def _pace(target: Target, asks: Asks) -> Pace | None:
    """Of the model that a target would serve with; None where it has none."""
    model = target.pool.upstream_model(asks.model, target.model)
    return None if model is None else target.pool.learned.pace(model)


def _to_be_tried(pace: Pace) -> float | None:
    """An unknown pool is taken for the best until a few requests are under way to tell."""
    return -math.inf if pace.under_way < AT_ONCE else None


MODES: Final[dict[str, Mode]] = {
    "Cheapest": Mode(_cheapest, tie=0.02, margin=0.1),
    "Fastest": Mode(_fastest, tie=0.05, margin=0.3, explores=True),
    "HighestThroughput": Mode(_throughput, tie=0.05, margin=0.3, explores=True),
    "Quality": Mode(_quality),
}
