"""Pools made of a few words, prompts that share what they should, and engines that compute them in virtual time."""

from __future__ import annotations

import heapq
import random
from array import array
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import pytest
from xxhash import xxh3_64_intdigest

from spillway_api import snapshot
from spillway_api.types import Capacity, Chwbl, Dispatch, Health, Metrics, Model, PassiveHealth
from spillway_balancer.core.learning import BYTES_PER_TOKEN, Usage
from spillway_balancer.core.pool import Picked, Pool, Want
from spillway_balancer.core.prefix import BLOCK_BYTES, Prompt
from spillway_balancer.core.visits import Visit

BLOCK_TOKENS = BLOCK_BYTES / BYTES_PER_TOKEN
"""Before a pool has learned better."""


class Pools:
    """What tests of dispatch are about, in a few words."""

    block_tokens = BLOCK_TOKENS

    @staticmethod
    def spec(
        weights: int | Sequence[int] = 4,
        strategy: Any = "Adaptive",
        load: Any = "Tokens",
        bound: int = 0,
        urls: Callable[[str], str] = "http://{}:80".format,
        **chwbl: Any,
    ) -> snapshot.Pool:
        """Endpoints e0, e1, … of these weights, or so many of weight 100."""
        weights = [100] * weights if isinstance(weights, int) else weights
        return snapshot.Pool(
            name="default/pool",
            models=(Model(name="chat"),),
            engine="Auto",
            provider=None,
            endpoints=tuple(snapshot.Endpoint(f"e{i}", urls(f"e{i}"), weight) for i, weight in enumerate(weights)),
            dispatch=Dispatch(strategy=strategy, load=load, chwbl=Chwbl(**chwbl)),
            capacity=Capacity(max_in_flight_per_endpoint=bound),
            metrics=Metrics(stale_after="5s"),
            health=Health(passive=PassiveHealth(max_ejected_percent=100)),
        )

    @classmethod
    def pool(cls, *args: Any, **settings: Any) -> Pool:
        return Pool(cls.spec(*args, **settings))

    @staticmethod
    def blocks(*parts: tuple[object, int], after: Sequence[int] = ()) -> array[int]:
        """A chain of so many blocks of each part: ("system", 20), ("alice", 3)."""
        chain = array("Q")
        last = after[-1] if len(after) else 0
        for name, size in parts:
            for place in range(size):
                last = xxh3_64_intdigest(f"{name} {place}".encode(), last)
                chain.append(last)
        return chain

    @classmethod
    def prompt(cls, *parts: tuple[object, int], rest: int = 100) -> Prompt:
        """A prompt of these parts, with `rest` bytes behind its last whole block."""
        blocks = cls.blocks(*parts)
        return Prompt(blocks, len(blocks) * BLOCK_BYTES + rest)

    @staticmethod
    def want(prompt: Prompt | None, output: int = 256, streams: bool = True, key: int | None = None) -> Want:
        tokens = 100 if prompt is None else prompt.size // 4
        return Want(key, tokens, output, prompt, streams)

    @classmethod
    def send(
        cls,
        pool: Pool,
        prompt: Prompt | None,
        now: float,
        dice: random.Random,
        to: str | None = None,
        output: int = 256,
        streams: bool = True,
    ) -> Visit:
        """Dispatches one request, to the endpoint named `to` where the test decides."""
        exclude = [each for name, each in pool.endpoints.items() if to is not None and name != to]
        picked = pool.pick(cls.want(prompt, output, streams), exclude, now, dice)
        assert isinstance(picked, Picked)
        return pool.visit(picked, now)


class Engines:
    """Engines that compute prompts one after the other, each at its rate, and decode beside that, in virtual time."""

    def __init__(self, pool: Pool, rates: Sequence[float], fixed: float = 0.0, decode: float = 0.0) -> None:
        self.pool = pool
        self.rates = dict(zip(pool.endpoints, rates, strict=True))
        self.fixed = fixed
        self.decode = decode
        self.now = 0.0
        self.took: list[float] = []
        """Seconds to the first token, of every request so far."""
        self._free = dict.fromkeys(pool.endpoints, 0.0)
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()

    def send(self, prompt: Prompt, dice: random.Random, uncached: float | None = None, to: str | None = None) -> Visit:
        """`uncached` tokens have to be computed; unless given, what dispatch believes."""
        pool = self.pool
        exclude = [each for name, each in pool.endpoints.items() if to is not None and name != to]
        picked = pool.pick(Pools.want(prompt), exclude, self.now, dice)
        assert isinstance(picked, Picked)
        visit = pool.visit(picked, self.now)
        name, sent = picked.endpoint.name, self.now
        tokens = picked.forecast.prompt_tokens - picked.forecast.cached_tokens if uncached is None else uncached
        done = self._free[name] = max(self.now, self._free[name]) + tokens / self.rates[name]

        def first_token() -> None:
            self.took.append(self.now - sent)
            visit.first_token(self.now)

        def end() -> None:
            visit.usage(Usage(None, None, 200))
            visit.end(self.now)

        self._at(done + self.fixed, first_token)
        self._at(done + self.fixed + self.decode, end)
        return visit

    def _at(self, when: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._due, (when, next(self._order), event))

    def until(self, when: float) -> None:
        """Let everything happen that is due by then."""
        while self._due and self._due[0][0] <= when:
            self.now, _, event = heapq.heappop(self._due)
            event()
        self.now = when

    def drain(self) -> None:
        while self._due:
            self.until(self._due[0][0])


@pytest.fixture(scope="session")
def pools() -> type[Pools]:
    return Pools


@pytest.fixture(scope="session")
def engines() -> type[Engines]:
    return Engines


@pytest.fixture
def dice() -> random.Random:
    return random.Random(1)
