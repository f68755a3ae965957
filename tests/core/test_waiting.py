"""The line of those that no tier is open to: laws of its order, its bounds and its estimates."""

from __future__ import annotations

import heapq
import random
from itertools import combinations
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_balancer.core.waiting import REACH, Bounds, Ticket, Waiting

WIDE = Bounds(1_000_000, 1 << 40)


def ticket(caller: str = "a", priority: int = 0, size: int = 1, until: float = 1e9, needs: object = None) -> Ticket:
    return Ticket(caller, priority, size, 0.0, until, needs)


def lined_up(*tickets: Ticket, bounds: Bounds = WIDE) -> Waiting:
    line = Waiting(bounds)
    for each in tickets:
        assert line.join(each, 0.0)
    return line


def drained(line: Waiting) -> list[Ticket]:
    """All of it, in the order served."""
    found = []
    while (each := line.next()) is not None:
        line.served(each, 0.0)
        found.append(each)
    return found


CALLERS = st.sampled_from("abcd")
PRIORITIES = st.sampled_from((-1, 0, 5))
NEWCOMERS = st.lists(st.tuples(CALLERS, PRIORITIES, st.integers(0, 30)), max_size=40)
# join a newcomer, serve the head, or let the n-th that waits leave
STEPS = st.lists(
    st.one_of(st.tuples(CALLERS, PRIORITIES, st.integers(0, 30)), st.just("serve"), st.integers(0, 30)), max_size=80
)


class Played:
    """Steps carried out on a line, and what became of everybody."""

    def __init__(self, steps: list[object], bounds: Bounds) -> None:
        self.line = Waiting(bounds)
        self.there: list[Ticket] = []
        self.served: list[Ticket] = []
        self.gone: list[Ticket] = []
        self.refused: list[Ticket] = []
        self.rounds: list[tuple[Ticket, frozenset[tuple[str, int]]]] = []
        """Each that was served, with the callers and priorities that waited just before."""
        for now, step in enumerate(steps):
            self._step(step, float(now))
            self.check(bounds)

    def _step(self, step: object, now: float) -> None:
        if isinstance(step, tuple):
            caller, priority, size = step
            made = Ticket(caller, priority, size, now, now + 100)
            (self.there if self.line.join(made, now) else self.refused).append(made)
        elif step == "serve":
            head = self.line.next()
            if head is None:
                assert not self.there
                return
            self.rounds.append((head, frozenset((each.caller, each.priority) for each in self.there)))
            self.line.served(head, now)
            self.there.remove(head)
            self.served.append(head)
        elif self.there and isinstance(step, int):
            left = self.there.pop(step % len(self.there))
            self.line.leave(left, now)
            self.gone.append(left)

    def check(self, bounds: Bounds) -> None:
        assert len(self.line) == len(self.there) <= bounds.requests
        assert self.line.size == sum(each.size for each in self.there) <= bounds.size
        in_order = list(self.line.in_order())
        assert len(in_order) == len(self.there)
        assert set(in_order) == set(self.there)
        for index, each in enumerate(in_order):
            assert self.line.position(each) == index


@given(STEPS, st.integers(0, 12), st.integers(0, 200))
def test_nobody_is_lost_and_no_bound_is_exceeded(steps: list[object], requests: int, size: int) -> None:
    Played(steps, Bounds(requests, size))


@given(STEPS)
def test_a_higher_priority_is_served_before_a_lower_one(steps: list[object]) -> None:
    for head, waited in Played(steps, WIDE).rounds:
        assert head.priority == max(priority for _, priority in waited)


@given(STEPS)
def test_the_requests_of_a_caller_keep_their_order(steps: list[object]) -> None:
    played = Played(steps, WIDE)
    for caller in "abcd":
        for priority in (-1, 0, 5):
            own = [each.joined for each in played.served if (each.caller, each.priority) == (caller, priority)]
            assert own == sorted(own)


@given(STEPS)
def test_of_two_callers_that_wait_none_is_served_more_than_one_above_the_other(steps: list[object]) -> None:
    rounds = Played(steps, WIDE).rounds
    for priority in (-1, 0, 5):
        for one, other in combinations("abcd", 2):
            # Over every stretch in which both wait, the counts may part by one.
            lead = lowest = highest = 0
            for head, waited in rounds:
                if (one, priority) not in waited or (other, priority) not in waited:
                    lead = lowest = highest = 0
                    continue
                if head.priority == priority:
                    lead += (head.caller == one) - (head.caller == other)
                lowest, highest = min(lowest, lead), max(highest, lead)
                assert highest - lowest <= 1


@given(NEWCOMERS)
def test_what_is_foretold_comes_true_when_nobody_comes_and_nobody_leaves(newcomers: list[tuple[str, int, int]]) -> None:
    line = lined_up(*(Ticket(caller, priority, size, 0.0, 1e9) for caller, priority, size in newcomers))
    foretold = list(line.in_order())
    assert drained(line) == foretold
    assert (len(line), line.size) == (0, 0)


def test_one_request_is_not_kept_waiting_by_a_hundred_of_another_caller() -> None:
    many = [ticket("many") for _ in range(100)]
    one = ticket("one")
    line = lined_up(*many, one)
    assert line.position(one) == 1
    assert drained(line).index(one) == 1


def test_who_comes_again_and_again_does_not_keep_the_others_waiting() -> None:
    patient = [ticket("patient") for _ in range(5)]
    line = lined_up(*patient, ticket("busy"))
    order = []
    for _ in range(10):
        head = line.next()
        assert head is not None
        line.served(head, 0.0)
        order.append(head.caller)
        if head.caller == "busy":
            line.join(ticket("busy"), 0.0)
    assert order == ["patient", "busy"] * 5


def test_ever_new_callers_do_not_keep_an_old_one_waiting() -> None:
    line = lined_up(ticket("old"), ticket("old"), ticket("new-0"))
    order = []
    for number in range(1, 5):
        head = line.next()
        assert head is not None
        line.served(head, 0.0)
        order.append(head.caller)
        line.join(ticket(f"new-{number}"), 0.0)
    assert order == ["old", "new-0", "old", "new-1"]


def test_one_whose_way_is_closed_is_passed_by_one_with_other_needs_and_keeps_its_place() -> None:
    image, text = ticket("a", needs="vision"), ticket("a", needs="any")
    line = lined_up(image, ticket("a", needs="vision"), text)
    assert line.next() is image
    assert line.next({"vision"}) is text
    line.served(text, 1.0)
    assert line.next() is image
    assert line.next({"vision"}) is None


def test_no_more_than_the_head_is_searched() -> None:
    behind = ticket("a", needs="any")
    line = lined_up(*(ticket("a", needs="vision") for _ in range(REACH)), behind)
    assert line.next({"vision"}) is None
    line.served(next(line.in_order()), 0.0)
    assert line.next({"vision"}) is behind


def test_bounds_that_shrink_send_nobody_away() -> None:
    line = lined_up(ticket(), ticket(), ticket())
    line.bounds = Bounds(1, 100)
    assert len(line) == 3
    assert not line.join(ticket(), 0.0)
    assert len(drained(line)) == 3


@pytest.mark.parametrize(
    ("bounds", "size", "refused"),
    [
        (Bounds(0, 100), 0, "requests"),
        (Bounds(2, 100), 98, None),
        (Bounds(2, 100), 99, None),
        (Bounds(2, 100), 100, "bytes"),
        (Bounds(1, 100), 1, "requests"),
    ],
)
def test_which_bound_is_reached(bounds: Bounds, size: int, refused: str | None) -> None:
    line = Waiting(bounds)
    line.join(ticket(size=1), 0.0)
    assert line.refuses(size) == refused


def test_who_has_left_may_leave_again() -> None:
    gone, there = ticket(), ticket()
    line = lined_up(gone, there)
    line.leave(gone, 1.0)
    line.leave(gone, 2.0)
    line.served(there, 3.0)
    line.leave(there, 4.0)
    assert (len(line), line.size) == (0, 0)


def moving(every: float, served: int, waiting: int) -> tuple[Waiting, list[Ticket], float]:
    """A line that has moved by one every so many seconds, and what waits in it then."""
    there = [ticket() for _ in range(served + waiting)]
    line = lined_up(*there)
    now = 0.0
    for each in there[:served]:
        now += every
        line.served(each, now)
    return line, there[served:], now


@pytest.mark.parametrize("every", [0.05, 1.0, 90.0])
def test_the_expected_wait_follows_the_rate_at_which_the_line_moves(every: float) -> None:
    line, there, now = moving(every, served=40, waiting=10)
    for index, each in enumerate(there):
        assert line.expected_wait(each, now) == pytest.approx((index + 1) * every, rel=0.05)
    assert line.until_free(0, now) == pytest.approx(11 * every, rel=0.05)
    assert line.until_free(1, now) == pytest.approx(every, rel=0.05)


def test_a_line_that_has_stopped_is_expected_to_take_longer() -> None:
    line, there, now = moving(1.0, served=100, waiting=1)
    before = line.expected_wait(there[0], now)
    assert line.expected_wait(there[0], now + 60.0) > 2.5 * before


def test_time_without_anybody_waiting_does_not_count() -> None:
    line, _, now = moving(1.0, served=40, waiting=0)
    last = ticket()
    line.join(last, now + 3600.0)
    assert line.expected_wait(last, now + 3600.0) == pytest.approx(1.0, rel=0.2)


def test_nothing_is_known_of_a_line_that_has_just_begun() -> None:
    line = Waiting(WIDE)
    assert line.until_free(0, 0.0) == inf
    first = ticket(until=30.0)
    line.join(first, 0.0)
    assert line.expected_wait(first, 0.0) == 30.0  # never more than it will wait
    assert line.expected_wait(first, 10.0) == pytest.approx(10.0, rel=0.2)  # as long again as it has been


@pytest.mark.parametrize("callers", [1, 10_000])
def test_a_long_line_is_as_fast_as_a_short_one(callers: int) -> None:
    """No look at everybody: ten thousand joins and turns, within the time that a hundred million looks would not."""
    line = Waiting(WIDE)
    for number in range(10_000):
        line.join(ticket(str(number % callers)), 0.0)
    for _ in range(10_000):
        head = line.next()
        assert head is not None
        line.served(head, 0.0)
    assert not len(line)


@pytest.mark.parametrize(("servers", "mean"), [(1, 2.0), (4, 2.0), (32, 20.0)])
def test_what_is_told_of_a_wait_is_about_what_it_takes(servers: int, mean: float) -> None:
    """In virtual time: so many requests at once, each for an exponential time, and many rounds of them in line."""
    dice = random.Random(servers)
    there = [ticket(str(number % 3)) for number in range(20 * servers + 40)]
    line = lined_up(*there)
    ends = [dice.expovariate(1.0 / mean) for _ in range(servers)]
    told: list[tuple[Ticket, float, float]] = []
    served: dict[Ticket, float] = {}
    heapq.heapify(ends)
    while (head := line.next()) is not None:
        now = heapq.heappop(ends)
        line.served(head, now)
        served[head] = now
        heapq.heappush(ends, now + dice.expovariate(1.0 / mean))
        if len(served) > 16 and len(line) > 8:
            last = list(line.in_order())[-1]
            told.append((last, now, line.expected_wait(last, now)))
    errors = sorted(abs(wait / (served[each] - at) - 1.0) for each, at, wait in told)
    assert errors[len(errors) // 2] < 0.35  # of sixteen exponential times the mean strays by a quarter itself
    assert errors[len(errors) * 9 // 10] < 0.8


def test_requests_that_end_together_do_not_make_the_next_turn_seem_near() -> None:
    together, every = 32, 20.0
    line = lined_up(*(ticket() for _ in range(8 * together)))
    for round_ in range(1, 7):
        for number in range(together):
            head = line.next()
            assert head is not None
            line.served(head, round_ * every + number * 1e-3)
        last = list(line.in_order())[-1]
        rounds = len(line) // together
        assert line.expected_wait(last, round_ * every + 1.0) == pytest.approx(rounds * every, rel=0.3)
