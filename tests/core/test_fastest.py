"""Pools that are measured: the fastest is found, left when it slows down, found again, and sessions do not bounce."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable
from itertools import count
from math import isfinite
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from tests.core.asked import Asked

from spillway_api import snapshot
from spillway_api.types import Capacity, Dispatch, Health, Metrics, Model, Retry, Timeouts
from spillway_balancer.core.learning import Usage
from spillway_balancer.core.pace import Pace
from spillway_balancer.core.pool import Picked, Want
from spillway_balancer.core.runtime import Runtime
from spillway_balancer.core.selecting import order


class World:
    """Pools a, b, … that answer as `speed` says: seconds to the first token, tokens a second; None never answers."""

    def __init__(self, select: str, *speeds: Any, noise: float = 0.0, slots: int = 0, seed: int = 1) -> None:
        self.speed = dict(zip("abcd", speeds, strict=False))
        self.noise = noise
        self.slots = slots
        """Requests that each serves at once; 0 is no bound."""
        self.now = 1000.0
        self.dice = random.Random(seed)
        pools = tuple(
            snapshot.Pool(
                f"default/{name}", (Model("m"),), "Auto", None, (snapshot.Endpoint("e", "http://e:80"),),
                Dispatch(strategy="LeastLoad"), Capacity(), Metrics(), Health(),
            )
            for name in self.speed
        )  # fmt: skip
        tier = snapshot.RouteTier("t", tuple(snapshot.Target(pool.name) for pool in pools), select, ())
        made = snapshot.Route("default/chat", ("chat",), (snapshot.RouteRule("all", (tier,)),), Timeouts(), Retry())
        self.tier = Runtime(snapshot.Snapshot("default", pools, (made,))).routes.all[0].rules[0][0]
        self.took: list[float] = []
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._number = count()
        self._free = {name: [0.0] * slots for name in self.speed}

    def send(self, key: int | None = None, streams: bool = True, tokens: int = 200) -> str:
        pool = order(self.tier, key, Asked(), self.now, self.dice)[0].pool
        picked = pool.pick(Want(key, 100, 256, None, streams, "m"), (), self.now, self.dice)
        assert isinstance(picked, Picked)
        visit, sent, name = pool.visit(picked, self.now), self.now, pool.name.removeprefix("default/")
        if self.speed[name] is None:
            return name
        ttft, rate = self.speed[name]
        vary = self.dice.lognormvariate(0, self.noise) if self.noise else 1.0
        begin = self.now
        if self.slots:
            free = self._free[name]
            begin = max(self.now, heapq.heappop(free))
            heapq.heappush(free, begin + ttft + tokens / rate)
        first = begin + ttft * vary
        last = first + tokens / rate * vary

        def end() -> None:
            self.took.append(self.now - sent)
            visit.usage(Usage(100, None, tokens))
            visit.end(self.now)

        if streams:
            self._at(first, lambda: visit.first_token(self.now))
        self._at(last, end)
        return name

    def _at(self, when: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._due, (when, next(self._number), event))

    def wait(self, seconds: float) -> None:
        until = self.now + seconds
        while self._due and self._due[0][0] <= until:
            self.now, _, event = heapq.heappop(self._due)
            event()
        self.now = until

    def traffic(self, seconds: float, rate: float = 10.0, sessions: int = 0, streams: bool = True) -> Counter[str]:
        seen: Counter[str] = Counter()
        for _ in range(int(seconds * rate)):
            key = self.dice.randrange(sessions) + 1 if sessions else None
            seen[self.send(key, streams)] += 1
            self.wait(self.dice.expovariate(rate))
        return seen


FAST, SLOW = (0.2, 100.0), (1.0, 50.0)
STREAMS = pytest.mark.parametrize("streams", [True, False])


@STREAMS
@pytest.mark.parametrize("select", ["Fastest", "HighestThroughput"])
def test_the_fastest_is_found(select: str, streams: bool) -> None:
    world = World(select, SLOW, (0.5, 70.0), FAST, noise=0.3)
    first = world.traffic(10, streams=streams)
    assert min(first[name] for name in "ab") >= 1  # each has been tried
    later = world.traffic(60, streams=streams)
    assert later["c"] > 0.95 * later.total()


def test_an_unknown_pool_is_not_flooded_before_it_has_answered() -> None:
    world = World("Fastest", SLOW, SLOW)
    seen = Counter(world.send() for _ in range(6))
    assert seen == {"a": 3, "b": 3}
    world = World("Fastest", FAST, None)
    assert world.traffic(30)["b"] <= 5  # nothing comes of it, and it is not asked for ever


@STREAMS
def test_it_is_left_within_seconds_when_it_slows_down(streams: bool) -> None:
    world = World("Fastest", FAST, SLOW, noise=0.2)
    world.traffic(30, streams=streams)
    world.speed["a"] = (8.0, 20.0)
    world.traffic(30, streams=streams)
    assert world.traffic(30, streams=streams)["b"] > 280


@STREAMS
def test_it_is_left_when_it_answers_no_more(streams: bool) -> None:
    """Long before a deadline tells: those that wait are proof enough."""
    world = World("Fastest", FAST, SLOW, noise=0.2)
    world.traffic(30, streams=streams)
    world.speed["a"] = None
    world.traffic(10 if streams else 25, streams=streams)
    assert world.traffic(30, streams=streams)["b"] > 285


@STREAMS
def test_it_is_found_again_when_it_has_recovered(streams: bool) -> None:
    world = World("Fastest", FAST, SLOW, noise=0.2)
    world.traffic(30, streams=streams)
    world.speed["a"] = (8.0, 20.0)
    world.traffic(60, streams=streams)
    world.speed["a"] = FAST
    world.traffic(90, streams=streams)
    later = world.traffic(30, streams=streams)
    assert later["a"] > 0.9 * later.total()


def test_exploring_is_rare_and_only_of_what_has_not_been_seen() -> None:
    world = World("Fastest", FAST, SLOW, noise=0.2)
    world.traffic(30, rate=50)
    later = world.traffic(100, rate=50)
    assert 3 <= later["b"] <= 12  # about each ten seconds once, of five thousand


def test_throughput_is_tokens_a_second_and_not_the_first_one() -> None:
    late, early = (3.0, 200.0), (0.1, 40.0)
    assert World("HighestThroughput", late, early).traffic(60)["a"] > 500
    assert World("Fastest", late, (0.1, 80.0)).traffic(60)["b"] > 500


def test_long_answers_may_be_faster_elsewhere() -> None:
    """What counts is the end: short answers go where they begin early, long ones where tokens come quickly."""
    world = World("Fastest", (2.0, 200.0), (0.1, 50.0))
    world.traffic(20)
    for target in world.tier.targets:
        target.pool.learned.output_tokens = 20.0
    assert order(world.tier, None, Asked(), world.now, random.Random(2))[0].pool.name == "default/b"
    for target in world.tier.targets:
        target.pool.learned.output_tokens = 2000.0
    assert order(world.tier, None, Asked(), world.now, random.Random(2))[0].pool.name == "default/a"


# ---- sessions


def moves(world: World, sessions: int, seconds: float) -> float:
    """How often a session changes its pool, of all its requests."""
    last: dict[int, str] = {}
    changed = total = 0
    for _ in range(int(seconds * 10)):
        key = world.dice.randrange(sessions) + 1
        name = world.send(key)
        changed += last.get(key, name) != name
        total += 1
        last[key] = name
        world.wait(world.dice.expovariate(10))
    return changed / total


@pytest.mark.parametrize("select", ["Fastest", "HighestThroughput"])
def test_noise_does_not_send_a_session_to_and_fro(select: str) -> None:
    equal = World(select, FAST, FAST, FAST, noise=0.4)
    assert moves(equal, 20, 300) < 0.02
    # Without what keeps them, the same noise does.
    loose = World(select, FAST, FAST, FAST, noise=0.4)
    chooser: Any = loose.tier.chooser
    chooser._mode = chooser._mode._replace(margin=0.0, tie=0.0)
    assert moves(loose, 20, 300) > 0.08


def test_a_session_is_not_what_an_unknown_pool_is_tried_with() -> None:
    world = World("Fastest", FAST, SLOW)
    for target in world.tier.targets[:1]:
        pace = target.pool.learned.pace("m")
        pace.ttft, pace.rate = FAST
    chooser: Any = world.tier.chooser
    chooser._placed[7] = "default/a"
    assert world.send(key=7) == "a"
    assert world.send(key=8) == "b"  # a new one


def test_a_session_leaves_for_what_is_clearly_faster() -> None:
    world = World("Fastest", FAST, SLOW)
    world.traffic(20, sessions=5)
    world.speed["a"] = (6.0, 30.0)
    world.traffic(30, sessions=5)
    assert world.traffic(20, sessions=5)["b"] > 190


def test_pools_of_equal_speed_share_the_sessions() -> None:
    world = World("Fastest", FAST, FAST)
    world.traffic(20, sessions=200)
    later = world.traffic(60, sessions=200)
    assert 150 < later["a"] < 450


def test_more_than_a_pool_can_do_goes_to_the_next_without_swinging() -> None:
    """The fastest serves 3.3 a second, the other 1.7; 4 come."""
    world = World("Fastest", (0.2, 200.0), (0.4, 100.0), slots=4)
    world.traffic(30, rate=4)
    world.took.clear()
    shares = [world.traffic(5, rate=4)["a"] / 20 for _ in range(40)]
    assert 0.7 < sum(shares) / len(shares) < 0.9
    assert min(shares) >= 0.5
    took = sorted(world.took)
    assert took[len(took) // 2] < 3.0
    assert took[int(0.95 * len(took))] < 4.5


def test_a_tier_that_has_no_use_for_it_learns_no_pace() -> None:
    world = World("Cheapest", FAST, SLOW)
    world.traffic(5)
    assert all(target.pool.learned.paces is None for target in world.tier.targets)


def test_two_models_of_one_pool_are_known_apart() -> None:
    """As at a provider, whose large model is slower than its small one."""
    models = (Model("small"), Model("large", "org/large"))
    pool = snapshot.Pool(
        "default/cloud", models, "Auto", "OpenAI", (snapshot.Endpoint("main", "http://e:80"),),
        Dispatch(), Capacity(), Metrics(), Health(),
    )  # fmt: skip
    targets = tuple(snapshot.Target("default/cloud", each.name) for each in models)
    tier = snapshot.RouteTier("t", targets, "Fastest", ())
    route = snapshot.Route("default/chat", ("chat",), (snapshot.RouteRule("all", (tier,)),), Timeouts(), Retry())
    made = Runtime(snapshot.Snapshot("default", (pool,), (route,))).routes.all[0].rules[0][0]
    dice, now, seen = random.Random(1), 0.0, Counter[str | None]()
    for _ in range(100):
        target = order(made, None, Asked(), now, dice)[0]
        upstream = target.pool.upstream_model("chat", target.model)
        picked = target.pool.pick(Want(None, 100, 256, None, True, upstream or ""), (), now, dice)
        assert isinstance(picked, Picked)
        visit = target.pool.visit(picked, now)
        visit.first_token(now + (0.1 if upstream == "small" else 2.0))
        visit.end(now + 3.0)
        seen[upstream] += 1
        now += 3.0
    assert seen["small"] > 90
    assert seen["org/large"] >= 1
    paces = made.targets[0].pool.learned.paces or {}
    assert {name: round(pace.ttft or 0.0, 1) for name, pace in paces.items()} == {"small": 0.1, "org/large": 2.0}


# ---- what is learned

TIMES = st.floats(0, 1e6) | st.just(0.0)


class Life(RuleBasedStateMachine):
    """Whatever order things happen in, figures stay finite and nobody is waited for who has gone."""

    def __init__(self) -> None:
        super().__init__()
        self.pace = Pace()
        self.now = 0.0
        self.open: list[list[Any]] = []

    @rule(after=TIMES, streams=st.booleans())
    def sent(self, after: float, streams: bool) -> None:
        self.now += after
        self.open.append([self.pace.sent(self.now, streams), None])

    @rule(after=TIMES, which=st.integers(0, 99))
    def first(self, after: float, which: int) -> None:
        waiting = [each for each in self.open if each[0].streams and each[1] is None]
        if waiting:
            self.now += after
            one = waiting[which % len(waiting)]
            one[1] = self.now
            self.pace.first_token(one[0], self.now)

    @rule(after=TIMES, which=st.integers(0, 99), tokens=st.none() | st.integers(0, 10**9), ok=st.booleans())
    def ended(self, after: float, which: int, tokens: int | None, ok: bool) -> None:
        if self.open:
            self.now += after
            mark, first = self.open.pop(which % len(self.open))
            self.pace.ended(mark, first, self.now, tokens, ok)

    @invariant()
    def sound(self) -> None:
        assert self.pace.under_way == sum(first is None for _, first in self.open)
        seconds = self.pace.seconds(200.0, self.now)
        assert seconds is None or (isfinite(seconds) and seconds >= 0)
        assert self.pace.rate is None or 0.1 <= self.pace.rate <= 1e5


TestLife = Life.TestCase


@given(speed=st.tuples(st.floats(0.01, 10), st.floats(5, 500)), tokens=st.integers(20, 1000), streams=st.booleans())
def test_what_is_always_the_same_is_learned_as_it_is(speed: tuple[float, float], tokens: int, streams: bool) -> None:
    ttft, rate = speed
    pace, now = Pace(), 0.0
    for _ in range(20):
        mark = pace.sent(now, streams)
        first = now + ttft if streams else None
        if first is not None:
            pace.first_token(mark, first)
        end = now + ttft + (tokens - 1) / rate
        pace.ended(mark, first, end, tokens, True)
        now = end
    assert pace.seconds(tokens - 1, now) == pytest.approx(ttft + (tokens - 1) / rate, rel=0.1)
