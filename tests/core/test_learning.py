"""What requests teach: within bounds whatever is said, near the truth after a while, and gone with the endpoint."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from spillway_balancer.core.learning import (
    BYTES_PER_TOKEN,
    BYTES_PER_TOKEN_BOUNDS,
    CACHE_TOKENS,
    CACHE_TOKENS_BOUNDS,
    ENOUGH,
    PREFILL_RATE_BOUNDS,
    EndpointLearned,
    PoolLearned,
    Usage,
    compare,
)
from spillway_balancer.core.load import Reported
from spillway_balancer.core.pool import Pool
from spillway_balancer.core.reasons import Failure

NOW = 1000.0
odd = st.sampled_from([math.nan, math.inf, -math.inf, -1.0, 0.0, -0.0, 5e-324, 1e-9, 1e308, -1e308, -(10**9)])
numbers = odd | st.floats() | st.integers(-10, 10**6)
sizes = st.integers(0, 10**9)


def within(value: float, bounds: tuple[float, float]) -> bool:
    return bounds[0] <= value <= bounds[1]


@given(st.lists(st.tuples(sizes, numbers, numbers, sizes), max_size=12))
@settings(deadline=None)
@example([(1000, -(10**9), 0, 0)])
@example([(1000, math.nan, math.nan, 0)])
def test_pool_stays_within_bounds_whatever_is_said(said: list[tuple[int, Any, Any, int]]) -> None:
    learned = PoolLearned()
    for size, prompt, output, miss in said:
        learned.usage(size, Usage(prompt, None, output))
        learned.dispatched(miss, miss / 2)
        assert within(learned.bytes_per_token, BYTES_PER_TOKEN_BOUNDS)
        assert within(learned.output_tokens, (0.0, 131_072.0))
        assert within(learned.miss_tokens, (0.0, 1e9))
        assert within(learned.miss_pairs, (0.0, 1e9))


@given(
    st.lists(
        st.tuples(st.sampled_from(["first-token", "alone", "cached", "capacity"]), numbers, numbers, numbers),
        max_size=16,
    ),
    st.floats(0, 1e6),
)
@settings(deadline=None)
@example([("cached", math.nan, 10.0, 1000.0)], 0.0)
@example([("first-token", 1.0, math.nan, 0.0)], 0.0)
@example([("first-token", 1.0, 100.0, 0.0), ("first-token", 5e-324, 5000.0, 0.0)], 0.0)
def test_endpoint_stays_within_bounds_whatever_is_said(said: list[tuple[str, Any, Any, Any]], tokens: float) -> None:
    learned, pool = EndpointLearned(), PoolLearned()
    now = NOW
    for what, one, two, three in said:
        now += 1.0
        if what == "first-token":
            learned.first_token(one, two, now)
        elif what == "alone":
            expected = pool.computed_alone(one, two)
            if expected is not None:
                learned.computed_alone(expected, two)
        elif what == "cached":
            learned.cached(one, two, three)
        else:
            learned.capacity_reported(one)
        assert learned.rate is None or within(learned.rate, PREFILL_RATE_BOUNDS)
        assert within(learned.fixed, (0.0, 10.0))
        assert within(learned.cache_tokens, CACHE_TOKENS_BOUNDS)
        assert within(learned.ttft_of_late(tokens), (0.0, 10.0 + tokens / PREFILL_RATE_BOUNDS[0]))
        latency = learned.latency(now)
        assert latency is None or (math.isfinite(latency) and latency > 0)
        compare([learned, EndpointLearned(), alone(PoolLearned(), 10_000)])
        assert within(learned.speed, (1 / 64, 64.0))


@pytest.mark.parametrize("truth", [2.2, 3.1, 4.6, 9.0])
def test_bytes_per_token_become_those_of_the_tokenizer(truth: float) -> None:
    learned, dice = PoolLearned(), random.Random(3)
    for _ in range(200):
        size = dice.randrange(500, 20_000)
        # A chat template adds tokens that the text does not show.
        learned.usage(size, Usage(round(size / truth * dice.uniform(0.9, 1.1)) + 6))
    assert learned.bytes_per_token == pytest.approx(truth, rel=0.04)


def test_a_short_prompt_says_little_of_its_tokenizer() -> None:
    learned = PoolLearned()
    for _ in range(50):
        learned.usage(40, Usage(30))
    assert learned.bytes_per_token == BYTES_PER_TOKEN
    for _ in range(5):
        learned.usage(100, Usage(45))
    assert learned.bytes_per_token == pytest.approx(BYTES_PER_TOKEN, rel=0.05)


def test_prompts_are_read_by_the_learned_ratio(pools, dice) -> None:
    pool = pools.pool(2)
    for _ in range(300):
        pool.learned.usage(20_000, Usage(10_000))
    picked = pool.pick(pools.want(pools.prompt(("a", 10), rest=0)), (), NOW, dice)
    assert picked.forecast.prompt_tokens == pytest.approx(10 * 256 / 2, rel=0.01)


# ---- how fast an endpoint is


@pytest.mark.parametrize("rate", [1_500.0, 6_000.0, 30_000.0])
def test_prefill_rate_is_seen_in_the_queue(pools, engines, dice, rate: float) -> None:
    """Prompts of all sizes arrive at 80 % of what the engine computes, and it has a fixed cost besides."""
    pool = pools.pool(1)
    engine = engines(pool, [rate], fixed=0.03)
    for number in range(600):
        blocks = dice.randrange(5, 120)
        engine.send(pools.prompt((number, blocks)), dice)
        engine.until(engine.now + dice.expovariate(0.8 * rate / (62.5 * pools.block_tokens)))
    engine.drain()
    learned = pool.endpoints["e0"].learned
    assert learned.rate == pytest.approx(rate, rel=0.3)  # of a prompt that is half computed all counts as queue
    assert learned.trusted
    assert learned.fixed < 0.3
    told = pool.pick(pools.want(pools.prompt(("new", 100), rest=0)), (), engine.now, dice).forecast.ttft
    assert told == pytest.approx(0.03 + 6400 / rate, rel=0.35)


def alone(
    pool: PoolLearned, rate: float, samples: int = 20, fixed: float = 0.0, size: float = 5000.0
) -> EndpointLearned:
    """An endpoint that had so many requests to itself."""
    learned = EndpointLearned()
    for number in range(samples):
        tokens = size * (0.5 + number % 3 / 2)
        expected = pool.computed_alone(tokens, fixed + tokens / rate)
        if expected is not None:
            learned.computed_alone(expected, fixed + tokens / rate)
    return learned


def seasoned(*rates: float) -> PoolLearned:
    """A pool that has seen requests alone on endpoints of these rates."""
    pool = PoolLearned()
    for rate in rates:
        alone(pool, rate, 60)
    return pool


def test_relative_speed_counts_only_where_it_differs_clearly() -> None:
    for factor, speed in ((0.4, 0.4), (0.6, 0.6), (0.9, 1.0), (1.1, 1.0), (1.6, 1.6), (3.0, 3.0)):
        pool = seasoned(10_000)
        equals = [alone(pool, 10_000) for _ in range(4)]
        other = alone(pool, 10_000 * factor)
        compare([*equals, other, EndpointLearned()])
        assert [each.speed for each in equals] == [1.0] * 4
        assert other.speed == pytest.approx(speed, rel=0.15)


def test_who_gets_the_short_prompts_is_not_slow() -> None:
    """Equal endpoints with a fixed cost, one with new sessions, one with some, one with warm ones."""
    pool = PoolLearned()
    every = [EndpointLearned() for _ in range(3)]
    for _ in range(200):
        for each, tokens in zip(every, (6400.0, 1920.0, 512.0), strict=True):
            took = 0.03 + tokens / 30_000
            expected = pool.computed_alone(tokens, took)
            if expected is not None:
                each.computed_alone(expected, took)
    compare(every)
    assert [each.speed for each in every] == [1.0, 1.0, 1.0]
    assert [each.ratio for each in every] == [pytest.approx(1.0, rel=0.02)] * 3


def test_one_endpoint_alone_is_not_compared() -> None:
    one = alone(seasoned(10_000), 5_000)
    compare([one, EndpointLearned()])
    assert one.speed == 1.0


def test_few_requests_say_nothing() -> None:
    pool = seasoned(10_000)
    few = alone(pool, 20_000, samples=ENOUGH - 1)
    compare([few, alone(pool, 10_000), alone(pool, 10_000)])
    assert (few.ratio, few.speed) == (None, 1.0)


@pytest.mark.parametrize(("slower", "speed"), [(8000.0, 1.0), (4000.0, 0.5)])
def test_speeds_are_learned_from_requests_that_had_an_endpoint_to_themselves(
    pools, engines, dice, slower: float, speed: float
) -> None:
    pool = pools.pool(3)
    engine = engines(pool, [8000.0, 8000.0, slower], decode=0.1)
    for number in range(60):
        for burst in range(2):  # the second finds company
            for name in pool.endpoints:
                engine.send(pools.prompt((number, 40), (burst, 40)), dice, to=name)
        engine.drain()
    speeds = [each.learned.speed for each in pool.endpoints.values()]
    assert speeds == [1.0, 1.0, pytest.approx(speed, rel=0.05)]


def test_latency_rises_at_once_and_sinks_slowly() -> None:
    learned = EndpointLearned()
    assert learned.latency(NOW) is None
    learned.first_token(0.2, 100.0, NOW)
    assert learned.latency(NOW) == pytest.approx(0.2)
    learned.first_token(4.0, 100.0, NOW + 1)
    assert learned.latency(NOW + 1) == pytest.approx(4.0)
    learned.first_token(0.2, 100.0, NOW + 2)
    assert 3.0 < learned.latency(NOW + 2) < 4.0
    for second in range(60):
        learned.first_token(0.2, 100.0, NOW + 3 + second)
    assert learned.latency(NOW + 63) == pytest.approx(0.2, rel=0.1)


def test_latency_sinks_while_nothing_is_seen() -> None:
    learned = EndpointLearned()
    learned.first_token(4.0, 100.0, NOW)
    assert learned.latency(NOW + 20) < learned.latency(NOW + 10) < 4.0
    assert learned.latency(NOW + 3600) < 1e-6


def test_trust_goes_when_most_answers_come_far_too_late_and_comes_back() -> None:
    learned = EndpointLearned()
    for number in range(20):
        learned.first_token(0.5, 5000.0, NOW + number)
    for number in range(3):
        learned.first_token(60.0, 100.0, NOW + 20 + number)
    assert learned.trusted  # a few may come late
    for number in range(10):
        learned.first_token(60.0, 100.0, NOW + 30 + number)
    assert not learned.trusted
    for number in range(20):
        learned.first_token(learned.ttft_of_late(100.0), 100.0, NOW + 50 + number)
    assert learned.trusted


# ---- how much it keeps


def test_room_shrinks_while_the_engine_finds_less_than_believed_and_grows_back() -> None:
    learned = EndpointLearned()
    assert learned.cache_tokens == CACHE_TOKENS
    for _ in range(40):
        learned.cached(believed=5000.0, told=1000.0, prompt=6000.0)
    small = learned.cache_tokens
    assert small < CACHE_TOKENS / 10
    learned.cached(believed=5000.0, told=4990.0, prompt=6000.0)
    assert learned.cache_tokens == small  # as believed: no news
    for _ in range(400):
        learned.cached(believed=1000.0, told=5000.0, prompt=6000.0)
    assert learned.cache_tokens > CACHE_TOKENS


def test_what_the_engine_says_of_its_room_wins() -> None:
    learned = EndpointLearned()
    learned.capacity_reported(123_456.0)
    for _ in range(40):
        learned.cached(believed=5000.0, told=0.0, prompt=6000.0)
    assert learned.cache_tokens == 123_456.0
    for absurd in (None, math.nan, math.inf, -1.0, 0.0, 1e308):
        learned.capacity_reported(absurd)
        assert learned.cache_tokens == 123_456.0


def test_usage_corrects_the_room_and_the_mirror_keeps_to_it(pools, dice) -> None:
    """Three sessions in turn, on an engine that has room for about one: the belief comes down to what is found."""
    pool = pools.pool(1)
    endpoint = pool.endpoints["e0"]
    now = NOW
    for number in range(150):
        visit = pools.send(pool, pools.prompt((number % 3, 100)), now, dice)
        visit.first_token(now + 0.5)
        visit.usage(Usage(6425, 0, 10))
        visit.end(now + 1)
        now += 2
    assert endpoint.learned.cache_tokens < 3 * 6425
    assert endpoint.cache.idle * pools.block_tokens <= endpoint.learned.cache_tokens * 1.05


# ---- when it starts anew


def taught(pool: Pool, pools: Any, dice: random.Random) -> None:
    for number in range(12):
        for name in pool.endpoints:
            visit = pools.send(pool, pools.prompt((number, 60), rest=0), NOW + number, dice, to=name)
            visit.first_token(NOW + number + 0.5)
            visit.usage(Usage(3840, 0, 20))
            visit.end(NOW + number + 0.6)
    for each in pool.endpoints.values():
        assert each.learned.rate is not None
        assert each.cache.idle == 12 * 60
        assert each.learned.latency(NOW) is not None


def is_new(endpoint: Any) -> bool:
    learned, mirror = endpoint.learned, endpoint.cache
    return (learned.rate, learned.latency(NOW), mirror.idle, mirror.pinned) == (None, None, 0, 0)


def test_replaced_endpoint_starts_anew_and_the_others_keep_what_they_know(pools, dice) -> None:
    pool = pools.pool(3)
    taught(pool, pools, dice)
    moved = pools.spec(3, urls=lambda name: f"http://{'elsewhere' if name == 'e1' else name}:80")
    after = Pool(moved, pool)
    assert [is_new(each) for each in after.endpoints.values()] == [False, True, False]
    assert after.learned is pool.learned


def report(at: float, queries: float | None) -> Reported:
    return Reported(at, 0.0, 0.0, 0.0, 0, queries, 0.0)


def test_restarted_engine_has_lost_its_cache_and_is_measured_anew(pools, dice) -> None:
    """The sign is its counter of looked-up tokens, which begins again at zero."""
    pool = pools.pool(2)
    taught(pool, pools, dice)
    one, other = pool.endpoints.values()
    for at, queries in enumerate([1000.0, 5000.0, 5000.0, None, 6000.0]):
        one.reported(report(NOW + at, queries))
    assert not is_new(one)
    one.reported(report(NOW + 10, 20.0))
    assert is_new(one)
    assert not is_new(other)
    taught_again = pools.send(pool, pools.prompt(("a", 10)), NOW + 11, dice, to="e0")
    taught_again.end(NOW + 12)
    one.reported(report(NOW + 13, 700.0))
    assert one.cache.idle == 10


@pytest.mark.parametrize("absurd", [math.nan, math.inf, -math.inf, -1.0, 1e308, None])
def test_absurd_counter_is_no_restart(pools, dice, absurd: float | None) -> None:
    pool = pools.pool(1)
    taught(pool, pools, dice)
    endpoint = pool.endpoints["e0"]
    for at, queries in enumerate([1000.0, absurd, 1000.0, absurd, 2000.0]):
        endpoint.reported(report(NOW + at, queries))
    assert not is_new(endpoint)


def test_report_from_the_past_is_no_restart(pools, dice) -> None:
    pool = pools.pool(1)
    taught(pool, pools, dice)
    endpoint = pool.endpoints["e0"]
    endpoint.reported(report(NOW + 2, 2000.0))
    endpoint.reported(report(NOW + 1, 1000.0))
    endpoint.reported(report(math.nan, 10.0))
    assert not is_new(endpoint)


def test_endpoint_that_nobody_answers_at_has_lost_its_cache(pools, dice) -> None:
    pool = pools.pool(2)
    taught(pool, pools, dice)
    one, other = pool.endpoints.values()
    one.reported(report(NOW, 9000.0))
    flying = pools.send(pool, pools.prompt((1, 60)), NOW + 20, dice, to="e0")
    while not pool.failed(one, Failure("connect"), NOW + 20, NOW + 21):
        pass
    flying.end(NOW + 21, ok=False)
    assert is_new(one)
    assert not is_new(other)
    back = pools.send(pool, pools.prompt((2, 60)), NOW + 22, dice, to="e1")
    back.end(NOW + 23)
    # The engine is back, and its counters say what is known already.
    one.cache.pin(pools.blocks(("a", 5))).unpin()
    one.reported(report(NOW + 30, 10.0))
    assert one.cache.idle == 5


def test_overloaded_endpoint_keeps_its_cache(pools, dice) -> None:
    pool = pools.pool(2)
    taught(pool, pools, dice)
    one = pool.endpoints["e0"]
    while not pool.failed(one, Failure("first-byte-timeout"), NOW + 20, NOW + 21):
        pass
    assert not is_new(one)
