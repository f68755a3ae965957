"""CHWBL: the bound is never exceeded, sessions stay at home below it, and overflow walks the ring."""

from __future__ import annotations

import random
from fractions import Fraction
from math import ceil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, rule

from spillway_api.types import Chwbl, Dispatch
from spillway_balancer.core.load import Lease, LoadBook
from spillway_balancer.core.ring import Ring
from spillway_balancer.core.strategies import Ask, Candidate, Choice
from spillway_balancer.core.strategies.chwbl import CHWBL

NAMES = ["a", "b", "c", "d", "e", "f"]
keys = st.integers(0, 2**64 - 1)


def has_room(cost: float, at: Candidate, candidates: list[Candidate], settings: Chwbl) -> bool:
    """The rule of the paper, once more and in exact numbers."""
    total = sum(Fraction(each.load) for each in candidates) + Fraction(cost)
    weight = Fraction(at.weight, sum(each.weight for each in candidates))
    bound = Fraction(settings.load_factor_percent, 100) * total * weight
    if cost == 1 and all(each.load == int(each.load) for each in candidates):
        below = at.load + 1 <= ceil(bound)  # requests: as the paper writes it
    else:
        below = at.load < bound
    return below or at.requests < settings.min_in_flight


class Pool(RuleBasedStateMachine):
    """A pool in traffic: leases come and go, endpoints come and go, and each choice is held against the bound."""

    leases = Bundle("leases")

    @initialize(
        weights=st.lists(st.integers(1, 1000), min_size=1, max_size=6),
        chwbl=st.builds(
            Chwbl,
            load_factor_percent=st.integers(100, 250),
            vnodes=st.just(32),
            min_in_flight=st.integers(0, 3),
            overflow=st.sampled_from(["NextOnRing", "LeastLoaded"]),
        ),
        unit=st.sampled_from(["Requests", "Tokens"]),
        even=st.booleans(),
    )
    def build(self, weights: list[int], chwbl: Chwbl, unit: str, even: bool) -> None:
        self.members = {n: 100 if even else w for n, w in zip(NAMES, weights, strict=False)}
        self.chwbl = chwbl
        self.unit = unit
        self.strategy = CHWBL(self.members, Dispatch(chwbl=chwbl))
        self.ring = Ring(self.members, chwbl.vnodes)
        self.books = {name: LoadBook() for name in self.members}
        self.away: set[str] = set()
        self.dice = random.Random(0)

    @rule(target=leases, key=keys, prompt=st.integers(1, 100_000), output=st.integers(1, 4000))
    def request(self, key: int, prompt: int, output: int) -> Lease | None:
        candidates = [
            Candidate(name, weight, self.load(name), self.books[name].in_flight)
            for name, weight in self.members.items()
            if name not in self.away
        ]
        cost = 1.0 if self.unit == "Requests" else float(prompt + output)
        choice = self.strategy.choose(Ask(key, cost), candidates, self.dice)
        if not candidates:
            assert choice is None
            return None
        assert choice is not None
        by_name = {each.name: each for each in candidates}
        assert has_room(cost, by_name[choice.name], candidates, self.chwbl)
        self.check_order(key, cost, choice, by_name, candidates)
        return self.books[choice.name].lease(prompt, output)

    def check_order(
        self,
        key: int,
        cost: float,
        choice: Choice,
        by_name: dict[str, Candidate],
        candidates: list[Candidate],
    ) -> None:
        on_ring = [by_name[name] for name in self.ring.walk(key) if name in by_name]
        with_room = [each for each in on_ring if has_room(cost, each, candidates, self.chwbl)]
        assert (choice.reason == "ring") == (choice.name == on_ring[0].name)
        if choice.reason == "ring":
            return
        assert choice.reason == "overflow"
        assert on_ring[0] not in with_room
        if self.chwbl.overflow == "NextOnRing":
            assert choice.name == with_room[0].name
        else:
            least = min((each.load + cost) / each.weight for each in with_room)
            assert (by_name[choice.name].load + cost) / by_name[choice.name].weight == least

    def load(self, name: str) -> float:
        return float(self.books[name].in_flight if self.unit == "Requests" else self.books[name].tokens)

    @rule(lease=leases)
    def first_token(self, lease: Lease | None) -> None:
        if lease is not None:
            lease.first_token()

    @rule(lease=consumes(leases))
    def release(self, lease: Lease | None) -> None:
        if lease is not None:
            lease.release()

    @rule(place=st.integers(0, 5))
    def come_or_go(self, place: int) -> None:
        if NAMES[place] in self.members:
            self.away ^= {NAMES[place]}


TestBoundIsNeverExceeded = Pool.TestCase
TestBoundIsNeverExceeded.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def even(count: int, **loads: float) -> list[Candidate]:
    return [Candidate(n, 100, loads.get(n, 0.0), int(loads.get(n, 0))) for n in NAMES[:count]]


def pool(count: int, **chwbl: object) -> CHWBL:
    return CHWBL(dict.fromkeys(NAMES[:count], 100), Dispatch(chwbl=Chwbl(**chwbl)))  # type: ignore[arg-type]


@given(keys)
@settings(deadline=None)
def test_a_session_stays_at_home_while_its_home_has_room(key: int) -> None:
    home = Ring(dict.fromkeys(NAMES, 100), 64).home(key)
    assert pool(6, vnodes=64).choose(Ask(key, 1.0), even(6), random.Random()) == Choice(str(home), "ring")


@given(keys)
@settings(deadline=None)
def test_overflow_walks_the_ring_in_order(key: int) -> None:
    """Endpoints fill up one after the other: the session moves along its own walk, and the same way back."""
    walk = list(Ring(dict.fromkeys(NAMES, 100), 64).walk(key))
    strategy, dice = pool(6, load_factor_percent=100, vnodes=64), random.Random(0)
    for full in range(6):
        choice = strategy.choose(Ask(key, 1.0), even(6, **dict.fromkeys(walk[:full], 1000.0)), dice)
        assert choice == Choice(walk[full], "overflow" if full else "ring")


@given(keys, st.integers(0, 2**32))
@settings(deadline=None)
def test_two_balancers_agree_without_talking(key: int, seed: int) -> None:
    """Built apart, in another order, with other dice: equal loads give the same choice, overflow included."""
    members = dict(zip(NAMES, (100, 200, 50, 100, 1000, 1), strict=True))
    backwards = dict(reversed(members.items()))
    for overflow in ("NextOnRing", "LeastLoaded"):
        dispatch = Dispatch(chwbl=Chwbl(overflow=overflow, vnodes=32))
        one, other = CHWBL(members, dispatch), CHWBL(backwards, dispatch)
        loads = [random.Random(seed).randrange(8) for _ in NAMES]
        here = [Candidate(n, members[n], float(q), q) for n, q in zip(NAMES, loads, strict=True)]
        first = one.choose(Ask(key, 1.0), here, random.Random(1))
        assert first == other.choose(Ask(key, 1.0), here[::-1], random.Random(2))


def test_overflow_to_the_least_loaded_ties_falling_to_the_next_on_the_ring() -> None:
    key = 7
    walk = list(Ring(dict.fromkeys(NAMES, 100), 256).walk(key))
    strategy = pool(6, overflow="LeastLoaded")
    loads = dict(zip(walk, (90.0, 6.0, 5.0, 4.0, 4.0, 7.0), strict=True))
    for seed in range(20):
        choice = strategy.choose(Ask(key, 1.0), even(6, **loads), random.Random(seed))
        assert choice == Choice(walk[3], "overflow")


def test_a_few_requests_never_overflow() -> None:
    """One request on an idle pool of six is six times the mean; without a minimum every second one would move."""
    key = 42
    home = str(Ring(dict.fromkeys(NAMES, 100), 256).home(key))
    busy = even(6, **{home: 1.0})
    assert pool(6, min_in_flight=2).choose(Ask(key, 1.0), busy, random.Random(0)) == Choice(home, "ring")
    moved = pool(6, min_in_flight=0).choose(Ask(key, 1.0), busy, random.Random(0))
    assert moved is not None
    assert moved.reason == "overflow"


def test_one_giant_prompt_counts_as_what_it_is() -> None:
    """By tokens one long prompt fills an endpoint that has a single request."""
    key = 42
    home = str(Ring(dict.fromkeys(NAMES, 100), 256).home(key))
    strategy = pool(6, min_in_flight=0)
    long = [Candidate(n, 100, 50_000.0 if n == home else 2_000.0, 1) for n in NAMES]
    choice = strategy.choose(Ask(key, 500.0), long, random.Random(0))
    assert choice is not None
    assert choice.reason == "overflow"


@pytest.mark.parametrize("overflow", ["NextOnRing", "LeastLoaded"])
@given(
    loads=st.lists(st.floats(0, 1e300), min_size=1, max_size=6),
    key=keys,
    cost=st.floats(1e-3, 1e6),
    factor=st.sampled_from([100, 101, 1000]),
)
@settings(deadline=None)
def test_it_is_total_at_the_tightest_bound_and_beyond_the_precision_of_floats(
    overflow: str, loads: list[float], key: int, cost: float, factor: int
) -> None:
    strategy = pool(len(loads), load_factor_percent=factor, min_in_flight=0, overflow=overflow)
    candidates = [Candidate(n, 100, load, 1) for n, load in zip(NAMES, loads, strict=False)]
    assert strategy.choose(Ask(key, cost), candidates, random.Random(0)) is not None


def test_perfectly_even_at_one_hundred_percent() -> None:
    strategy, dice = pool(6, load_factor_percent=100, min_in_flight=0), random.Random(3)
    held = dict.fromkeys(NAMES, 0)
    for _ in range(600):
        choice = strategy.choose(Ask(dice.getrandbits(64), 1.0), even(6, **held), dice)
        assert choice is not None
        held[choice.name] += 1
    assert set(held.values()) == {100}


def test_without_a_key_least_load_decides() -> None:
    choice = pool(3).choose(Ask(None, 1.0), even(3, a=3.0, b=1.0, c=2.0), random.Random(0))
    assert choice == Choice("b", "least-load")


def test_sessions_of_an_endpoint_that_is_away_are_spread_and_come_back() -> None:
    strategy, dice = pool(6), random.Random(0)
    at_a = [key for key in (dice.getrandbits(64) for _ in range(3000)) if _name(strategy, key, even(6)) == "a"]
    without = [each for each in even(6) if each.name != "a"]
    elsewhere = {_name(strategy, key, without) for key in at_a}
    assert elsewhere == set(NAMES) - {"a"}
    assert {_name(strategy, key, even(6)) for key in at_a} == {"a"}


def _name(strategy: CHWBL, key: int, candidates: list[Candidate]) -> str:
    choice = strategy.choose(Ask(key, 1.0), candidates, random.Random(0))
    assert choice is not None
    assert choice.reason == "ring"
    return choice.name
