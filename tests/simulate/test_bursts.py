"""A burst of twice a pool's capacity, in virtual time, against the real rules, tiers, spill and attempts."""

from __future__ import annotations

from decimal import Decimal
from itertools import pairwise

import pytest
from benchmarks.burst import POOLS, policy

from spillway_balancer.engine.profiles import PROFILES
from spillway_balancer.simulate.bursts import READING, Crowd, burst
from spillway_balancer.simulate.judging import Judgement, judge

KIND = "h100-llama3-8b"
SPILL = {"predictedTTFT": {"start": "2s", "full": "6s"}}


def judged(seed: int = 1, limits: object = None, **spill: object) -> Judgement:
    size, capacity = POOLS[KIND]
    profiles = [*[PROFILES[KIND]] * size, PROFILES["provider"]]
    more = {} if limits is None else {"limits": limits}
    return judge(policy(size, SPILL | spill, **more), profiles, "chat", capacity, 2.0, seed)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_burst_of_twice_the_capacity_leaves_as_far_as_it_must_and_comes_home(seed: int) -> None:
    found = judged(seed, {"maxSharePercent": 70, "budget": {"amount": "10.00"}})
    assert found.refused == 0
    assert found.most_in_a_minute <= 0.7
    assert found.spent == found.charged, "to the last digit"
    assert Decimal("1.00") < found.spent <= Decimal("10.00")
    assert found.home_p99 < 6.0, "who stays waits no longer than `full`"
    assert 0.25 < found.spilled < 0.6, "about as much leaves as the pool cannot do"
    assert found.lowest > 0.1, "the share does not swing to nothing"
    assert found.highest < 0.9, "nor to everything"
    assert found.whole > 0.85, "sessions stay whole"
    assert found.home_after < 60.0


def test_a_budget_holds_to_the_cent_and_is_used_up() -> None:
    found = judged(limits={"budget": {"amount": "1.00"}})
    assert found.refused == 0, "what may not leave waits at home"
    assert Decimal("0.98") < found.spent <= Decimal("1.00")
    assert found.spent == found.charged


def test_a_share_holds_in_every_minute_of_a_burst() -> None:
    """Counted in seconds, so that a minute that begins within one may hold some requests more."""
    found = judged(limits={"maxSharePercent": 30})
    assert found.refused == 0
    assert 0.25 < found.most_in_a_minute < 0.31


def test_by_request_tears_sessions_apart() -> None:
    assert judged(by="Request").whole < judged().whole - 0.3


def test_the_same_seed_makes_the_same_run() -> None:
    assert judged(3) == judged(3)


def test_crowds_come_and_go_and_nobody_asks_twice_at_once() -> None:
    crowds = (Crowd(0.0, 120.0, 4.0), Crowd(40.0, 80.0, 12.0))
    requests = list(burst(crowds, 7))
    assert [each.at for each in requests] == sorted(each.at for each in requests)
    assert len({each.id for each in requests}) == len(requests)
    for begins, ends, rate in ((0.0, 40.0, 4.0), (40.0, 80.0, 16.0), (80.0, 120.0, 4.0)):
        inside = sum(begins <= each.at < ends for each in requests)
        assert inside == pytest.approx(rate * (ends - begins), rel=0.25)
    turns: dict[int, list[float]] = {}
    for each in requests:
        turns.setdefault(each.user_key, []).append(each.at)
    assert all(later - earlier >= READING for talk in turns.values() for earlier, later in pairwise(talk))
