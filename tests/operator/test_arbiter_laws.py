"""Whatever becomes of balancers, operators and messages: a budget holds, and money that nobody uses comes back.

Real holders (`core/leases.py`, `core/meters.py`) against real arbiters, with a network in between that loses, doubles
and holds up messages, clocks that differ, two operators that both believe that they lead, and a store with versions.
"""

from __future__ import annotations

import random
from collections import Counter
from decimal import Decimal
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spillway_api.ledger import Books, Grants, Spent
from spillway_api.periods import period_end
from spillway_api.types import Budget
from spillway_balancer.core.leases import Ledger
from spillway_balancer.core.meters import Reserved, Spend
from spillway_operator.arbiter import Arbiter

NAME = "pool/default/cloud/USD/Hour"
LIMIT = Decimal(10)
BUDGETS = {NAME: Budget("10", "USD", "Hour")}
BEGIN = 1_800_000_000.0 - 1_800_000_000.0 % 3600 + 3600 - 90
"""A minute and a half before an hour ends."""
NOTHING = Decimal(0)


class Under(NamedTuple):
    """A request under way."""

    held: Reserved
    ends: float


class Balancer:
    """One process."""

    def __init__(self, name: str, skew: float) -> None:
        self.name = name
        self.skew = skew
        self.spend = Spend(LIMIT, "Hour")
        self.ledger = Ledger(name)
        self.ledger.follow({NAME: self.spend}, BEGIN)
        self.open: list[Under] = []


class Operator:
    """One replica that believes that it leads."""

    def __init__(self, stored: tuple[int, bytes | None]) -> None:
        self.version, kept = stored
        self.arbiter = Arbiter(kept)
        self.arbiter.follow(BUDGETS)


class World:
    """All of it, in one thread and in virtual time."""

    def __init__(self, balancers: int = 3, skews: tuple[float, ...] = (), seed: int = 0) -> None:
        self.dice = random.Random(seed)
        self.time = 0.0
        self.stored: tuple[int, bytes | None] = (0, None)
        self.operators = [Operator(self.stored)]
        self.count = 0
        self.skews = (*skews, *[0.0] * balancers)
        self.balancers = [self.born(self.skews[at]) for at in range(balancers)]
        self.wire: list[tuple[Any, Any]] = []
        self.real: Counter[float] = Counter()
        """Spent, by period."""
        self.decided = 0
        """Times that something was put away because of a grant."""
        self.under: Counter[float] = Counter()
        """By how much estimates were too low."""

    def born(self, skew: float) -> Balancer:
        self.count += 1
        return Balancer(f"pod-{self.count}", skew)

    def unix(self, skew: float = 0.0) -> float:
        return BEGIN + self.time + skew

    def ask(self, at: int, amount: Decimal) -> bool:
        one = self.balancers[at % len(self.balancers)]
        unix = self.unix(one.skew)
        if one.spend.until_free(unix, amount) > 0:
            return False
        held = one.spend.reserve(unix, amount)
        assert held is not None
        one.open.append(Under(held, one.spend.ends(unix)))
        return True

    def settle(self, at: int, number: int, share: Decimal) -> None:
        """A request ends at so much of its estimate."""
        one = self.balancers[at % len(self.balancers)]
        if one.open:
            under = one.open.pop(number % len(one.open))
            self.paid(one, under, under.held.amount * share)

    def paid(self, one: Balancer, under: Under, real: Decimal) -> None:
        one.spend.settle(under.held, self.unix(one.skew), real)
        self.real[under.ends] += real
        self.under[under.ends] += max(NOTHING, real - under.held.amount)

    def speak(self, at: int) -> None:
        one = self.balancers[at % len(self.balancers)]
        self.wire.append((one.name, one.ledger.books(self.time, self.unix(one.skew))))

    def deliver(self, number: int, keep: bool = False) -> None:
        """Some message comes, now or again later."""
        if not self.wire:
            return
        at = number % len(self.wire)
        to, what = self.wire[at] if keep else self.wire.pop(at)
        if isinstance(what, Books):
            self.dice.choice(self.operators).arbiter.hear(to, what, self.time, self.unix())
        else:
            for one in self.balancers:
                if one.name == to:
                    one.ledger.take(what, self.unix(one.skew))

    def work(self, number: int) -> None:
        """An operator decides, puts it away, and grants; one whose version is not the last begins anew."""
        at = number % len(self.operators)
        one = self.operators[at]
        one.arbiter.decide(self.time, self.unix())
        if one.arbiter.urgent or one.arbiter.changed:
            self.decided += one.arbiter.urgent
            if one.version != self.stored[0]:
                self.operators[at] = Operator(self.stored)
                return
            self.stored = (one.version + 1, one.arbiter.dump())
            one.version += 1
            one.arbiter.urgent = one.arbiter.changed = False
        for holder in sorted(one.arbiter.holders()):
            grants = one.arbiter.grants(holder, self.time)
            if grants:
                self.wire.append((holder, Grants(holder, grants)))

    def crash(self, at: int) -> None:
        """A balancer is gone without a word; the cost of what was under way is spent."""
        at %= len(self.balancers)
        one = self.balancers[at]
        for under in one.open:
            self.paid(one, under, under.held.amount)
        self.balancers[at] = self.born(one.skew)

    def leave(self, at: int) -> None:
        at %= len(self.balancers)
        one = self.balancers[at]
        for under in one.open:
            self.paid(one, under, under.held.amount / 2)
        one.open.clear()
        one.ledger.leave(self.unix(one.skew))
        self.wire.append((one.name, one.ledger.books(self.time, self.unix(one.skew))))
        self.balancers[at] = self.born(one.skew)

    def begin_anew(self, number: int) -> None:
        """An operator restarts, or another one leads while the first does not know yet."""
        if number % 3 == 0 and len(self.operators) < 3:
            self.operators.append(Operator(self.stored))
        else:
            self.operators[number % len(self.operators)] = Operator(self.stored)

    def holds(self) -> None:
        for ends in self.real:
            assert self.real[ends] <= LIMIT + self.under[ends]
        taken = Counter(self.real)
        for one in self.balancers:
            for under in one.open:
                taken[under.ends] += under.held.amount
        for ends, amount in taken.items():
            assert amount <= LIMIT + self.under[ends]

    def calm(self, seconds: float, asks: tuple[int, Decimal] | None = None, step: float = 0.5) -> Decimal:
        """Nothing is lost for so long. Returns what one balancer could spend, by requests of that size."""
        spent = NOTHING
        until = self.time + seconds
        while self.time < until:
            self.time += step
            if asks is not None:
                while self.ask(*asks):
                    self.settle(asks[0], -1, Decimal(1))
                    spent += asks[1]
            for at in range(len(self.balancers)):
                self.speak(at)
            while self.wire:
                self.deliver(0)
            self.work(0)
            while self.wire:
                self.deliver(0)
            self.holds()
        return spent


STEPS = st.one_of(
    st.tuples(st.just("ask"), st.integers(0, 9), st.integers(1, 300)),
    st.tuples(st.just("settle"), st.integers(0, 9), st.integers(0, 150)),
    st.tuples(st.just("speak"), st.integers(0, 9), st.just(0)),
    st.tuples(st.sampled_from(["deliver", "again", "work", "lose"]), st.integers(0, 30), st.just(0)),
    st.tuples(st.just("all"), st.integers(0, 9), st.integers(1, 40)),
    st.tuples(st.sampled_from(["crash", "leave", "restart"]), st.integers(0, 9), st.just(0)),
    st.tuples(st.just("wait"), st.integers(1, 60), st.just(0)),
)


def play(world: World, steps: list[tuple[str, int, int]]) -> None:
    for what, at, size in steps:
        if what == "ask":
            world.ask(at, Decimal(size) / 100)
        elif what == "settle":
            world.settle(at, size, Decimal(size % 151) / 100)
        elif what == "speak":
            world.speak(at)
        elif what in ("deliver", "again"):
            world.deliver(at, keep=what == "again")
        elif what == "work":
            world.work(at)
        elif what == "lose" and world.wire:
            world.wire.pop(at % len(world.wire))
        elif what == "all":
            world.speak(at)
            world.deliver(len(world.wire) - 1)
            world.work(0)
            world.deliver(len(world.wire) - 1)
            for _ in range(size % 12):
                world.ask(at, Decimal(size % 7 + 1) / 10)
        elif what == "crash":
            world.crash(at)
        elif what == "leave":
            world.leave(at)
        elif what == "restart":
            world.begin_anew(at)
        elif what == "wait":
            world.time += at / 4
        world.holds()


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 4), st.tuples(*[st.floats(-30, 30)] * 4), st.integers(0, 1000), st.lists(STEPS, max_size=120))
def test_no_more_is_spent_than_the_budget_and_what_estimates_were_too_low_by(balancers, skews, seed, steps) -> None:
    play(World(balancers, skews, seed), steps)


KINDS = ("ask", "settle", "speak", "deliver", "again", "lose", "work", "all", "crash", "leave", "restart", "wait")


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32))
def test_nor_in_long_lives(seed) -> None:
    """Each with its own mixture: in one nearly all messages are lost, in another balancers crash all the time."""
    dice = random.Random(seed)
    weights = [dice.choice((0.1, 1.0, 5.0)) for _ in KINDS]
    weights[KINDS.index("wait")] /= 5.0
    weights[KINDS.index("crash")] /= 5.0
    world = World(dice.randint(1, 4), tuple(dice.uniform(-30, 30) for _ in range(4)), seed)
    for kind in dice.choices(KINDS, weights, k=400):
        play(world, [(kind, dice.randint(1, 30), dice.randint(1, 300))])


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 4), st.integers(0, 1000), st.lists(STEPS, max_size=60))
def test_money_that_nobody_uses_comes_back(balancers, seed, steps) -> None:
    """After three minutes without losses one balancer can have all that is not spent, and not lost with one that
    crashed; here within one period."""
    world = World(balancers, (), seed)
    world.time = 90.0
    play(world, [step for step in steps if step[0] != "crash"])
    for one in world.balancers:
        for under in one.open:
            world.paid(one, under, under.held.amount)
        one.open.clear()
    world.calm(60.0)
    world.operators = world.operators[:1]
    world.calm(180.0)
    ends = period_end(world.unix(), "Hour")
    spent = world.real[ends]
    lost = sum((each.committed - each.spent for name, each in _holdings(world, ends) if now_gone(world, name)), NOTHING)
    had = world.calm(60.0, (0, Decimal("0.25")))
    assert had >= LIMIT - spent - lost - Decimal("0.25") - Decimal("0.01")


def _holdings(world: World, ends: float) -> list[tuple[str, Any]]:
    account = world.operators[0].arbiter._accounts.get(NAME, {}).get(ends)
    return [] if account is None else list(account.holders.items())


def now_gone(world: World, name: str) -> bool:
    """Its last words were lost on the way."""
    return name not in {one.name for one in world.balancers}


def test_a_balancer_that_vanishes_takes_its_ceiling_with_it_and_no_more() -> None:
    world = World(3)
    world.calm(5.0)
    for _ in range(3):
        assert world.ask(0, Decimal("0.02"))
    world.crash(0)
    world.calm(300.0)  # into the next hour
    assert world.calm(60.0, (1, Decimal("0.025"))) > Decimal("9.9")


def test_what_it_takes_with_it_is_small() -> None:
    world = World(3)
    world.time = 100.0
    world.calm(5.0)
    world.crash(0)
    assert Decimal("9.85") < world.calm(120.0, (1, Decimal("0.025"))) <= LIMIT


@pytest.mark.parametrize("seed", range(3))
def test_three_that_spend_at_once_use_all_of_it(seed: int) -> None:
    world = World(3, (), seed)
    world.time = 100.0
    spent = NOTHING
    for _ in range(600):
        world.calm(0.5)
        for at in range(3):
            if world.ask(at, Decimal("0.04")):
                world.settle(at, 0, Decimal("0.30"))
                spent += Decimal("0.012")
    assert Decimal("9.94") <= spent <= LIMIT  # what is left is less than an estimate


@pytest.mark.parametrize("asks", [Decimal("0.04"), Decimal("0.5"), Decimal(3)])
def test_when_nothing_more_can_be_had_nothing_more_is_decided(asks: Decimal) -> None:
    world = World(3)
    world.time = 100.0
    for rounds in range(2):
        before = world.decided
        for _ in range(600):
            world.calm(0.5)
            for at in range(3):
                if world.ask(at, asks):
                    world.settle(at, 0, Decimal("0.9"))
        assert (world.decided == before) is bool(rounds)
    assert sum(world.real.values()) > LIMIT - asks


def test_steady_spending_takes_few_decisions() -> None:
    """One write covers what all balancers need for ten seconds or so."""
    world = World(3)
    world.time = 100.0
    for _ in range(600):
        world.calm(0.5)
        for at in range(3):
            assert world.ask(at, Decimal("0.006"))
            world.settle(at, 0, Decimal("0.8"))
    assert world.decided < 100  # in five minutes


def test_the_first_request_of_a_period_finds_money_there() -> None:
    world = World(3)
    world.calm(89.0)
    world.time = 90.5  # and nothing was said in between
    assert all(world.ask(at, Decimal("0.05")) for at in range(3))


def test_without_an_operator_it_goes_on_with_what_it_has_and_then_it_is_spent() -> None:
    world = World(2)
    world.time = 100.0
    world.calm(5.0)
    had = 0
    while world.ask(0, Decimal("0.01")):
        had += 1
    one = world.balancers[0]
    assert had == 10  # a fiftieth of a half
    assert one.spend.until_free(world.unix(), Decimal("0.01")) == 1.0  # it may come back at any time
    one.ledger.books(world.time, world.unix())
    assert one.ledger.short


def test_when_all_is_spent_the_end_of_the_period_is_told() -> None:
    world = World(2)
    world.time = 100.0
    world.calm(120.0, (0, Decimal("0.50")))
    for one in world.balancers:
        wait = one.spend.until_free(world.unix(), Decimal("0.50"))
        assert wait == period_end(world.unix(), "Hour") - world.unix()
        assert not one.ledger.short


def test_an_operator_without_notes_believes_what_balancers_go_by() -> None:
    """Somebody has deleted them: what is granted by now is known to those who have it."""
    world = World(2)
    world.time = 100.0
    world.calm(10.0)
    for at in range(2):
        assert world.ask(at, Decimal("0.05"))
    world.stored = (world.stored[0] + 1, None)
    world.operators = [Operator(world.stored)]
    world.calm(10.0)
    total = world.operators[0].arbiter.totals(world.unix())[NAME]
    assert (total.limit, total.spent) == (LIMIT, 0)
    assert total.leased >= Decimal("0.20")
    world.calm(120.0, (0, Decimal("0.01")))


@pytest.mark.parametrize(
    "ends", [BEGIN, 0.0, -1e300, 1e300, float("inf"), float("nan"), BEGIN + 90 + 10800, BEGIN + 90.5]
)
def test_what_is_no_period_that_is_near_gets_nothing(ends: float) -> None:
    one = Operator((0, None)).arbiter
    one.hear("pod", Books("a", (Spent(NAME, ends, "1", asked="1"),)), 0.0, BEGIN)
    one.decide(0.0, BEGIN)
    assert (one.urgent, one.grants("pod", 0.0), one.holders()) == (False, (), set())


def test_a_budget_that_is_no_more_is_granted_nothing_and_is_not_forgotten() -> None:
    world = World(1)
    world.time = 100.0
    world.calm(5.0, (0, Decimal("0.05")))
    arbiter = world.operators[0].arbiter
    spent = arbiter.totals(world.unix())[NAME].spent
    assert spent > 1
    arbiter.follow({})
    assert arbiter.totals(world.unix()) == {}
    world.calm(10.0)
    arbiter.follow(BUDGETS)
    assert arbiter.totals(world.unix())[NAME].spent == spent


def test_a_limit_that_is_lowered_takes_back_what_is_not_used() -> None:
    world = World(3)
    world.time = 100.0
    world.calm(10.0)
    world.operators[0].arbiter.follow({NAME: Budget("0.10", "USD", "Hour")})
    world.calm(10.0)
    total = world.operators[0].arbiter.totals(world.unix())[NAME]
    assert total.spent + total.leased <= Decimal("0.10")


def test_what_is_put_away_is_what_was_decided() -> None:
    """Also where nobody has said anything in between."""
    world = World(3)
    world.time = 100.0
    world.calm(10.0)
    arbiter = world.operators[0].arbiter
    before = arbiter.dump()
    arbiter.follow({NAME: Budget("0.10", "USD", "Hour")})
    arbiter.decide(world.time, world.unix())
    assert arbiter.urgent
    assert before != arbiter.dump() == Arbiter(arbiter.dump()).dump()
