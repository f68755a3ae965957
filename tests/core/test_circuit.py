"""The circuit: what opens it, how long, one trial at a time, and never too much of a pool at once."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from spillway_api.types import PassiveHealth
from spillway_balancer.core.circuit import CLOSED, Circuit, CircuitPolicy, may_eject

BY_STREAK = CircuitPolicy(consecutive_failures=3, error_rate_percent=100, min_requests=10_000)
BY_SHARE = CircuitPolicy(consecutive_failures=0, error_rate_percent=50, min_requests=20, window=30.0)
policies = st.builds(
    CircuitPolicy,
    consecutive_failures=st.integers(0, 6),
    error_rate_percent=st.integers(1, 100),
    min_requests=st.integers(1, 30),
    window=st.floats(0, 60),
    base_ejection=st.floats(0, 10),
    max_ejection=st.floats(10, 300),
)


def after(circuit: Circuit, policy: CircuitPolicy, outcomes: str, now: float = 100.0, step: float = 0.0) -> Circuit:
    """`+` is a success, `-` a failure, each `step` seconds after the last."""
    for outcome in outcomes:
        circuit = circuit.succeeded(now, policy) if outcome == "+" else circuit.failed(now, policy)
        now += step
    return circuit


def opened(now: float = 100.0, policy: CircuitPolicy = BY_STREAK) -> Circuit:
    return after(CLOSED, policy, "---", now)


def test_policy_is_the_pools_own_in_seconds() -> None:
    assert CircuitPolicy.of(PassiveHealth()) == CircuitPolicy()
    assert CircuitPolicy.of(PassiveHealth(window="1m30s", base_ejection="500ms")).window == 90.0
    assert CircuitPolicy.of(PassiveHealth(base_ejection="500ms")).base_ejection == 0.5


@pytest.mark.parametrize(("outcomes", "state"), [("--", "closed"), ("--+--", "closed"), ("+-+---", "open")])
def test_failures_in_a_row_open(outcomes: str, state: str) -> None:
    assert after(CLOSED, BY_STREAK, outcomes).state(100.0) == state


def test_zero_turns_failures_in_a_row_off() -> None:
    policy = CircuitPolicy(consecutive_failures=0, min_requests=10_000)
    assert after(CLOSED, policy, "-" * 500).state(100.0) == "closed"


@pytest.mark.parametrize(
    ("outcomes", "state"),
    [
        ("-" * 19, "closed"),  # too few to judge
        ("-" * 20, "open"),
        ("+" * 10 + "-" * 9, "closed"),
        ("+" * 10 + "-" * 10, "open"),  # half of twenty
        ("+" * 11 + "-" * 10, "closed"),
        ("-" * 10 + "+" * 10, "closed"),  # it is a failure that opens, never a success
    ],
)
def test_share_of_failures_opens_from_min_requests_on(outcomes: str, state: str) -> None:
    assert after(CLOSED, BY_SHARE, outcomes).state(100.0) == state


def test_window_slides() -> None:
    circuit = after(CLOSED, BY_SHARE, "-" * 19, 100.0)
    assert circuit.failed(126.0, BY_SHARE).state(126.0) == "open"
    assert circuit.failed(130.1, BY_SHARE).state(130.1) == "closed"


def test_window_stays_small_under_steady_traffic() -> None:
    circuit, now = CLOSED, 0.0
    for _ in range(5000):
        now += 0.05
        circuit = circuit.succeeded(now, BY_SHARE)
        assert len(circuit.older) <= 10
    counted = circuit.good + sum(bucket.good for bucket in circuit.older)
    assert 0.9 * 600 <= counted <= 600 + 60


@given(policies, st.lists(st.tuples(st.booleans(), st.floats(0, 20)), max_size=80))
@settings(deadline=None)
def test_window_agrees_with_a_log_of_all_outcomes(policy: CircuitPolicy, outcomes: list[tuple[bool, float]]) -> None:
    """The share rule against the exact log: buckets may only forget up to a tenth of the window early."""
    policy = policy._replace(consecutive_failures=0)
    circuit, now = CLOSED, 0.0
    log: list[tuple[float, bool]] = []
    for good, pause in outcomes:
        now += pause
        log.append((now, good))
        circuit = circuit.succeeded(now, policy) if good else circuit.failed(now, policy)

        def judged(seconds: float, now: float = now) -> tuple[int, int]:
            recent = [ok for at, ok in log if now - at < seconds]
            return len(recent), recent.count(False)

        surely = judged(policy.window * 0.9)
        at_most = judged(policy.window)
        if circuit.ejected_until is not None:
            assert not good
            assert at_most[0] >= policy.min_requests or policy.window == 0
            return
        newest = circuit.good + circuit.bad + sum(b.good + b.bad for b in circuit.older)
        assert surely[0] <= newest or policy.window == 0
        assert len(circuit.older) <= 10


def test_ejections_in_a_row_last_twice_as_long_up_to_the_maximum() -> None:
    policy = BY_STREAK._replace(base_ejection=5.0, max_ejection=30.0)
    now, circuit = 100.0, opened(100.0, policy)
    for seconds in (5.0, 10.0, 20.0, 30.0, 30.0, 30.0):
        assert circuit.state(now) == "open"
        assert circuit.until == pytest.approx(now + seconds)
        assert not circuit.admits(now + seconds - 0.01)
        now = circuit.until
        assert circuit.state(now) == "half-open"
        circuit = circuit.trial(now).failed(now, policy)


def test_half_open_admits_one_trial_at_a_time() -> None:
    circuit = opened()
    now = circuit.until
    assert circuit.admits(now)
    tried = circuit.trial(now)
    assert not tried.admits(now)
    assert not tried.admits(now + 1000)
    assert tried.trial(now + 1) is tried
    assert tried.untried(now + 2).admits(now + 2)


def test_successful_trial_closes_and_forgets_what_it_was_ejected_for() -> None:
    circuit = opened()
    circuit = circuit.trial(circuit.until).succeeded(106.0, BY_STREAK)
    assert circuit.state(106.0) == "closed"
    assert after(circuit, BY_STREAK, "--", 106.0).state(106.0) == "closed"
    share = after(CLOSED, BY_SHARE, "-" * 20)
    share = share.trial(share.until).succeeded(share.until, BY_SHARE)
    assert after(share, BY_SHARE, "-", 106.0).state(106.0) == "closed"


@pytest.mark.parametrize(("healthy", "next_ejection"), [(1.0, 20.0), (31.0, 10.0), (61.0, 5.0), (9e9, 5.0)])
def test_each_window_in_good_health_forgives_one_ejection(healthy: float, next_ejection: float) -> None:
    """Two ejections in a row, then good health for so long: one that flaps stays out longer each time."""
    circuit = opened()
    circuit = circuit.trial(105.0).failed(105.0, BY_STREAK)
    closed = circuit.trial(115.0).succeeded(115.0, BY_STREAK)
    now = 115.0 + healthy
    again = after(closed, BY_STREAK, "---", now)
    assert again.until == pytest.approx(now + next_ejection)


def test_long_outage_is_not_held_against_it_for_ever() -> None:
    """Ejections past the longest one are not counted: they would only take the longer to be forgiven."""
    circuit = opened()
    for _ in range(500):
        circuit = circuit.trial(circuit.until).failed(circuit.until, BY_STREAK)
    assert circuit.ejections == 7
    assert CircuitPolicy(base_ejection=5.0, max_ejection=5.0).ejection(10**6) == 5.0


def test_requests_on_their_way_do_not_open_twice_nor_close() -> None:
    circuit = opened()
    assert circuit.failed(101.0, BY_STREAK) == circuit
    assert circuit.succeeded(101.0, BY_STREAK) == circuit
    half_open = circuit.trial(106.0)
    assert half_open.failed(107.0, BY_STREAK, begun=99.0) == half_open
    assert half_open.succeeded(107.0, BY_STREAK, begun=99.0) == half_open
    assert half_open.untried(107.0, begun=99.0) == half_open
    assert half_open.succeeded(107.0, BY_STREAK, begun=106.0).state(107.0) == "closed"


def test_tried_before_its_time_when_all_is_lost() -> None:
    """Success brings it back at once; failures do not add up to a longer ejection."""
    circuit = opened()
    assert circuit.trial(101.0).succeeded(101.5, BY_STREAK).state(101.5) == "closed"
    again = circuit
    for _ in range(100):
        again = again.trial(101.0).failed(101.0, BY_STREAK)
    assert again == circuit


def test_may_open_false_counts_but_keeps_closed() -> None:
    circuit = CLOSED
    for _ in range(10):
        circuit = circuit.failed(100.0, BY_STREAK, may_open=False)
    assert circuit.state(100.0) == "closed"
    assert circuit.failed(100.0, BY_STREAK).state(100.0) == "open"


def test_shut_is_no_ejection() -> None:
    shut = CLOSED.shut(100.0, 130.0)
    assert shut.state(129.9) == "open"
    assert not shut.admits(129.9)
    assert shut.until == 130.0
    assert shut.state(130.0) == "closed"
    assert shut.shut(101.0, 110.0) == shut
    assert shut.succeeded(101.0, BY_STREAK).state(101.0) == "open"
    assert shut.ejections == 0
    both = opened().shut(100.0, 103.0)
    assert both.state(104.0) == "open"
    assert both.state(105.0) == "half-open"
    assert opened().shut(100.0, 1000.0).state(999.0) == "open"


class Endpoint(RuleBasedStateMachine):
    """One endpoint in any traffic and at any times; the laws hold in every state that it can get into."""

    def __init__(self) -> None:
        super().__init__()
        self.policy = CircuitPolicy(min_requests=5, window=10.0, max_ejection=60.0)
        self.circuit = CLOSED
        self.now = 0.0
        self.trials = 0

    @rule(seconds=st.floats(0, 40))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.circuit.admits(self.now))
    @rule()
    def send(self) -> None:
        if self.circuit.state(self.now) == "half-open":
            self.trials += 1
        self.circuit = self.circuit.trial(self.now)
        assert (self.circuit.trial_at is None) == (self.circuit.state(self.now) == "closed")

    @rule()
    def success(self) -> None:
        before = self.circuit
        self.circuit = before.succeeded(self.now, self.policy)
        assert self.circuit.ejected_until is None or self.circuit == before
        self.settle()

    @rule(may_open=st.booleans())
    def failure(self, may_open: bool) -> None:
        before = self.circuit
        self.circuit = before.failed(self.now, self.policy, may_open=may_open)
        if self.circuit.ejected_until != before.ejected_until:
            assert may_open or before.ejected_until is not None
            assert self.circuit.until >= self.now + min(self.policy.base_ejection, self.policy.max_ejection)
            assert self.circuit.until <= self.now + self.policy.max_ejection
            assert self.circuit.ejections >= 1
        self.settle()

    @rule()
    def no_verdict(self) -> None:
        self.circuit = self.circuit.untried(self.now)
        self.settle()

    @rule(passed=st.booleans())
    def probe(self, passed: bool) -> None:
        before = self.circuit
        self.circuit = before.probe_passed() if passed else before.probe_failed()
        if before.ejected_until is None:
            assert self.circuit == before
        elif not passed:
            assert not self.circuit.admits(self.now)

    @rule(seconds=st.floats(-5, 40))
    def told_to_stay_away(self, seconds: float) -> None:
        self.circuit = self.circuit.shut(self.now, self.now + seconds)

    def settle(self) -> None:
        self.trials = 0 if self.circuit.trial_at is None else self.trials

    @invariant()
    def laws(self) -> None:
        assert self.trials <= 1
        state = self.circuit.state(self.now)
        assert self.circuit.admits(self.now) == (state == "closed" or (state == "half-open" and not self.trials))
        if state == "open":
            assert not self.circuit.admits(self.circuit.until - 1e-6)
            assert self.circuit.probe_passed().state(self.circuit.until) != "open"


TestEndpoint = Endpoint.TestCase
TestEndpoint.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)


def test_probes_are_the_trials_as_long_as_they_fail() -> None:
    circuit = opened(100.0).probe_failed()
    assert circuit.state(1000.0) == "open"
    assert not circuit.admits(1000.0)
    passed = circuit.probe_passed()
    assert passed.state(104.0) == "open", "the ejection is not shortened"
    assert passed.state(105.0) == "half-open"
    assert passed.admits(105.0)
    assert not passed.probe_failed().admits(105.0)


def test_a_request_that_is_sent_since_all_is_lost_may_close_what_waits_for_a_probe() -> None:
    circuit = opened(100.0).probe_failed().trial(200.0)
    assert circuit.failed(201.0, BY_STREAK).until == circuit.until, "and does not make its ejection longer"
    assert circuit.succeeded(201.0, BY_STREAK).state(201.0) == "closed"


def test_a_spent_quota_takes_the_account_off_for_twice_as_long_each_time() -> None:
    circuit, now, waits = CLOSED, 100.0, []
    for _ in range(8):
        circuit = circuit.quota_spent(now)
        waits.append(circuit.until - now)
        assert circuit.quota_spent(now + 1.0) == circuit, "requests that were on their way say nothing new"
        now = circuit.until
    assert waits == [900.0, 1800.0, 3600.0, 7200.0, *[14400.0] * 4]
    assert circuit.succeeded(now, BY_STREAK).quota_spent(now + 1).until == now + 901.0


def test_probes_do_not_touch_a_closed_circuit() -> None:
    assert CLOSED.probe_failed() == CLOSED.probe_passed() == CLOSED


@given(st.integers(0, 200), st.integers(0, 100))
@settings(deadline=None)
def test_never_more_of_the_pool_is_ejected_than_allowed(total: int, percent: int) -> None:
    ejected = 0
    while ejected < total and may_eject(ejected, total, percent):
        ejected += 1
    assert ejected == total * percent // 100


@given(st.integers(1, 8), st.integers(0, 100), st.integers(0, 2**32))
@settings(deadline=None, max_examples=40)
def test_a_bad_day_of_all_leaves_the_rest_in_traffic(total: int, percent: int, seed: int) -> None:
    """Everything fails everywhere, with trials and time going by: the law holds at every moment."""
    policy, dice, now = CircuitPolicy(), random.Random(seed), 0.0
    pool = [CLOSED] * total
    for _ in range(200):
        now += dice.random()
        at = dice.randrange(total)
        if pool[at].admits(now):
            others = sum(each.ejected_until is not None for each in pool) - (pool[at].ejected_until is not None)
            pool[at] = pool[at].trial(now).failed(now, policy, may_open=may_eject(others, total, percent))
        assert sum(each.ejected_until is not None for each in pool) * 100 <= percent * total
