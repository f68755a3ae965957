"""Visits: whatever becomes of a request, its endpoint's books return to zero; what is not seen, a clock tells."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spillway_balancer.core.learning import PREFILL_RATE, Usage
from spillway_balancer.core.pool import Picked
from spillway_balancer.core.strategies import STRATEGIES

NOW = 1000.0
counts = st.none() | st.integers(0, 50_000)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(0, 5), st.integers(0, 30), st.booleans()),
        st.tuples(st.just("first-token"), st.integers(0, 9)),
        st.tuples(st.just("usage"), st.integers(0, 9), st.builds(Usage, counts, counts, counts)),
        st.tuples(st.just("end"), st.integers(0, 9), st.integers(0, 4)),
        st.tuples(st.just("cancel"), st.integers(0, 9)),
        st.tuples(st.just("restart"), st.integers(0, 1)),
    ),
    max_size=40,
)


def is_empty(endpoint: Any) -> bool:
    book = endpoint.load
    books = (book.in_flight, book.tokens, book.pending, book.pending_tokens, book.context)
    return books == (0, 0, 0, 0.0, 0) and endpoint.cache.pinned == 0


@pytest.mark.parametrize("strategy", ["Adaptive", "PrefixCache", "LowestLatency"])
@given(steps=STEPS, step=st.floats(0, 3), bound=st.integers(0, 3))
@settings(deadline=None, max_examples=80)
def test_books_return_to_zero_whatever_the_order(
    pools, strategy: str, steps: list[tuple[Any, ...]], step: float, bound: int
) -> None:
    pool, dice, now = pools.pool(2, strategy, bound=bound), random.Random(3), NOW
    endpoints = list(pool.endpoints.values())
    visits: list[tuple[Any, Any]] = []
    for name, *said in steps:
        now += step
        if name == "send":
            stem, blocks, streams = said
            prompt = pools.prompt((stem, blocks), rest=stem) if stem else None
            picked = pool.pick(pools.want(prompt, streams=streams), (), now, dice)
            if isinstance(picked, Picked):
                visits.append((pool.visit(picked, now), prompt))
        elif name == "restart":
            endpoints[said[0]].restarted()
        elif visits:
            visit, prompt = visits[said[0] % len(visits)]  # ended ones are among them: double calls
            if name == "first-token":
                visit.first_token(now)
            elif name == "usage":
                visit.usage(said[1])
            elif name == "cancel":
                visit.end(now, ok=False)
            else:
                after = prompt.blocks if prompt is not None else ()
                visit.end(now, pools.blocks(("answer", said[1]), after=after))
        for each in endpoints:
            assert each.load.in_flight >= each.load.pending >= 0
            assert each.load.context >= each.load.pending_tokens >= 0.0
    for visit, _ in visits:
        visit.end(now + 1)
        visit.first_token(now + 1)
        visit.computed()
        visit.end(now + 1)
    assert all(map(is_empty, endpoints))


def test_first_token_takes_the_prompt_off_the_queue_and_the_end_the_context(pools, dice) -> None:
    pool = pools.pool(1)
    endpoint = pool.endpoints["e0"]
    visit = pools.send(pool, pools.prompt(("a", 50), rest=0), NOW, dice, output=300)
    book = endpoint.load
    assert (book.in_flight, book.pending, book.pending_tokens, book.context) == (1, 1, 3200.0, 3200)
    assert (book.tokens, endpoint.cache.pinned) == (3500, 50)
    visit.first_token(NOW + 1)
    visit.first_token(NOW + 2)
    assert (book.in_flight, book.pending, book.pending_tokens, book.context) == (1, 0, 0.0, 3200)
    assert (book.tokens, endpoint.cache.pinned) == (300, 50)
    visit.end(NOW + 3, pools.blocks(("answer", 4), after=pools.blocks(("a", 50))))
    assert is_empty(endpoint)
    assert endpoint.cache.idle == 54


def test_what_is_cached_is_no_work(pools, dice) -> None:
    pool = pools.pool(1)
    pools.send(pool, pools.prompt(("a", 50), rest=0), NOW, dice).end(NOW)
    picked = pool.pick(pools.want(pools.prompt(("a", 50), ("b", 10), rest=0)), (), NOW, dice)
    assert (picked.forecast.prompt_tokens, picked.forecast.cached_tokens) == (60 * 64, 50 * 64)
    assert picked.forecast.ttft == pytest.approx(640 / PREFILL_RATE)
    pool.visit(picked, NOW)
    assert pool.endpoints["e0"].load.pending_tokens == 640.0


def test_last_token_of_a_prompt_is_always_work(pools, dice) -> None:
    pool = pools.pool(1)
    same = pools.prompt(("a", 50), rest=0)
    pools.send(pool, same, NOW, dice).end(NOW)
    pools.send(pool, same, NOW, dice)
    assert pool.endpoints["e0"].load.pending_tokens == 1.0


def test_mirror_keeps_no_more_than_the_engine(pools, dice) -> None:
    """Room is what the engine has, less what is in flight there."""
    pool = pools.pool(1)
    endpoint = pool.endpoints["e0"]
    endpoint.learned.capacity_reported(6400.0 + pool.learned.output_tokens / 2)
    for number in range(10):
        pools.send(pool, pools.prompt((number, 30), rest=0), NOW, dice).end(NOW)
    assert endpoint.cache.idle == 101  # of 64 tokens
    flying = pools.send(pool, pools.prompt(("long", 60), rest=0), NOW, dice)
    flying.first_token(NOW + 1)
    assert endpoint.cache.idle == 40
    assert endpoint.cache.match(pools.blocks((9, 30))) == 30  # who came last stays longest
    flying.end(NOW + 2)
    assert (endpoint.cache.pinned, endpoint.cache.idle) == (0, 100)


# ---- answers that are not streamed


def pending(pool: Any, now: float, dice: random.Random, pools: Any) -> int:
    """As a choice sees it."""
    pool.pick(pools.want(None), (), now, dice)
    return int(pool.endpoints["e0"].load.pending)


def test_clock_tells_when_unstreamed_prompts_are_computed(pools, dice) -> None:
    """One after the other, at the rate of the endpoint; each takes a second here."""
    pool = pools.pool(1)
    blocks = round(PREFILL_RATE / pools.block_tokens)
    visits = [pools.send(pool, pools.prompt((name, blocks), rest=0), NOW, dice, streams=False) for name in "abc"]
    seen = [pending(pool, NOW + seconds, dice, pools) for seconds in (0.0, 0.99, 1.01, 1.99, 2.01, 3.01)]
    assert seen == [3, 3, 2, 2, 1, 0]
    assert pool.endpoints["e0"].load.in_flight == 3
    for visit in visits:
        visit.end(NOW + 9)
    assert is_empty(pool.endpoints["e0"])


def test_clock_stands_while_nothing_is_queued(pools, dice) -> None:
    pool = pools.pool(1)
    blocks = round(PREFILL_RATE / pools.block_tokens)
    pools.send(pool, pools.prompt(("a", blocks), rest=0), NOW, dice, streams=False).end(NOW + 1)
    pools.send(pool, pools.prompt(("b", blocks), rest=0), NOW + 60, dice, streams=False)
    assert [pending(pool, NOW + 60 + after, dice, pools) for after in (0.9, 1.1)] == [1, 0]


def test_streamed_first_token_tells_of_all_that_was_sent_before_it(pools, dice) -> None:
    pool = pools.pool(1)
    blocks = round(10 * PREFILL_RATE / pools.block_tokens)
    for name in "ab":
        pools.send(pool, pools.prompt((name, blocks)), NOW, dice, streams=False)
    streamed = pools.send(pool, pools.prompt(("c", blocks)), NOW, dice)
    pools.send(pool, pools.prompt(("d", blocks)), NOW, dice, streams=False)
    book = pool.endpoints["e0"].load
    assert book.pending == 4
    streamed.first_token(NOW + 3)
    assert book.pending == 1
    # From there on the clock goes on, at the rate that this has taught: one such prompt a second.
    assert [pending(pool, NOW + 3 + after, dice, pools) for after in (0.98, 1.02)] == [1, 0]


def test_end_of_an_answer_tells_of_all_that_was_sent_before_it(pools, dice) -> None:
    """So that a clock which is slower than the engine does not run away from it."""
    pool = pools.pool(1)
    blocks = round(10 * PREFILL_RATE / pools.block_tokens)
    visits = [pools.send(pool, pools.prompt((name, blocks)), NOW, dice, streams=False) for name in "abc"]
    book = pool.endpoints["e0"].load
    visits[1].end(NOW + 2)
    assert (book.in_flight, book.pending) == (2, 1)
    assert pending(pool, NOW + 12.1, dice, pools) == 0


def test_failed_attempt_tells_nothing_of_those_before_it(pools, dice) -> None:
    pool = pools.pool(1)
    visits = [pools.send(pool, pools.prompt((name, 500)), NOW, dice, streams=False) for name in "abc"]
    visits[1].end(NOW + 0.1, ok=False)
    assert pool.endpoints["e0"].load.pending == 2


def test_clock_leaves_ended_visits_alone(pools, dice) -> None:
    """The end has settled their books; nothing is taken off twice."""
    pool = pools.pool(1)
    ended = pools.send(pool, pools.prompt(("a", 100)), NOW, dice, streams=False)
    flying = pools.send(pool, pools.prompt(("b", 1000)), NOW, dice, streams=False)
    ended.end(NOW + 0.1, ok=False)
    book = pool.endpoints["e0"].load
    before = (book.pending, book.pending_tokens, book.tokens)
    assert pending(pool, NOW + 1.0, dice, pools) == 1
    assert (book.pending, book.pending_tokens, book.tokens) == before
    flying.end(NOW + 2)
    assert pending(pool, NOW + 90, dice, pools) == 0
    assert is_empty(pool.endpoints["e0"])


@pytest.mark.parametrize("ok", [True, False])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_ended_visits_are_not_remembered(pools, dice, strategy: str, ok: bool) -> None:
    """Whatever the strategy looks at, and though nothing is ever streamed or counted."""
    pool = pools.pool(1, strategy)
    for number in range(300):
        pools.send(pool, pools.prompt((number, 200)), NOW + number / 100, dice, streams=False).end(
            NOW + number / 100 + 0.005, ok=ok
        )
    assert len(pool.endpoints["e0"].unseen) <= 1


def test_short_answer_is_as_good_as_a_first_token(pools, dice) -> None:
    pool = pools.pool(1)
    learned = pool.endpoints["e0"].learned
    long, short = (pools.send(pool, pools.prompt((name, 100)), NOW, dice, streams=False) for name in "ab")
    long.usage(Usage(6400, None, 400))
    long.end(NOW + 30)
    assert learned.rate is None
    short.usage(Usage(6400, None, 3))
    short.end(NOW + 31)
    assert learned.rate == pytest.approx(2 * 6400 / 31, rel=0.05)  # both were ahead of its answer


def test_whole_answer_counts_as_latency_where_no_first_token_is_seen(pools, dice) -> None:
    pool = pools.pool(1, "LowestLatency")
    learned = pool.endpoints["e0"].learned
    pools.send(pool, None, NOW, dice, streams=False).end(NOW + 3)
    assert learned.latency(NOW + 3) == 3.0


def test_failed_attempt_teaches_nothing(pools, dice) -> None:
    pool = pools.pool(1)
    endpoint = pool.endpoints["e0"]
    prompt = pools.prompt(("a", 100))
    visit = pools.send(pool, prompt, NOW, dice)
    visit.usage(Usage(None, None, 0))
    visit.end(NOW + 30, pools.blocks(("answer", 5), after=prompt.blocks), ok=False)
    assert endpoint.learned.latency(NOW + 30) is None
    assert endpoint.cache.match(pools.blocks(("a", 100), ("answer", 5))) <= 100


def test_of_what_waits_one_prompt_is_taken_to_be_computed_in_part(pools, dice) -> None:
    """By the clock: a newcomer does not wait for what is done already, nor is more than one prompt ever half done."""
    pool = pools.pool(1)
    (endpoint,) = pool.endpoints.values()
    endpoint.learned.rate = 1000.0
    first = pools.send(pool, pools.prompt(("a", 125), rest=0), 0.0, dice)
    second = pools.send(pool, pools.prompt(("b", 125), rest=0), 0.0, dice)
    assert pool.work_ahead(endpoint, 0.0) == pytest.approx(16_000)
    assert pool.work_ahead(endpoint, 3.0) == pytest.approx(13_000)
    assert pool.work_ahead(endpoint, 60.0) == pytest.approx(8_000)  # no first token has come: the second waits still
    first.first_token(60.0)
    assert pool.work_ahead(endpoint, 60.0) == pytest.approx(8_000, rel=0.1)
    second.end(61.0, ok=False)
    assert pool.work_ahead(endpoint, 61.0) == 0.0
