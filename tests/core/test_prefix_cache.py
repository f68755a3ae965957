"""PrefixCache: whoever has most of the prompt, within the bound; the least loaded among equals."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from spillway_api.types import Dispatch
from spillway_balancer.core.strategies import Ask, Candidate, Choice
from spillway_balancer.core.strategies.prefix_cache import PrefixCache
from spillway_balancer.core.strategies.protocol import within_bounds

NOW = 1000.0
candidates_of = st.lists(
    st.tuples(st.integers(1, 1000), st.integers(0, 50), st.sampled_from([0.0, 0.0, 64.0, 640.0, 641.0])), max_size=8
).map(lambda rows: [Candidate(f"e{i}", w, float(q), q, cached=c) for i, (w, q, c) in enumerate(rows)])


def choose(candidates: list[Candidate], seed: int = 1) -> Choice | None:
    strategy = PrefixCache({each.name: each.weight for each in candidates}, Dispatch())
    return strategy.choose(Ask(None, 1.0), candidates, random.Random(seed))


@given(candidates_of)
@settings(deadline=None)
def test_most_of_the_prompt_wins_and_least_load_among_equals(candidates: list[Candidate]) -> None:
    choice = choose(candidates)
    if not candidates:
        assert choice is None
        return
    assert choice is not None
    able = within_bounds(candidates, Dispatch().chwbl)
    most = max(each.cached for each in able)
    equals = {each.name: (each.load + 1) / each.weight for each in able if each.cached == most}
    assert equals[choice.name] == min(equals.values())
    assert choice.reason == ("prefix" if most else "least-load")


def test_ties_fall_by_dice() -> None:
    candidates = [Candidate(name, cached=640.0) for name in "ab"] + [Candidate("c")]
    shares = Counter(choice.name for seed in range(400) if (choice := choose(candidates, seed)))
    assert set(shares) == {"a", "b"}
    assert 150 < shares["a"] < 250


def test_a_popular_prefix_stays_where_it_is_until_the_bound(pools, dice) -> None:
    pool = pools.pool(4, "PrefixCache")
    pools.send(pool, pools.prompt(("system", 10)), NOW, dice, to="e2").end(NOW)
    sent = [pools.send(pool, pools.prompt(("system", 10), (number, 90)), NOW, dice) for number in range(40)]
    assert {each.endpoint.name for each in sent[:2]} == {"e2"}
    shares = Counter(each.endpoint.name for each in sent)
    assert set(shares) == set(pool.endpoints)
    assert max(shares.values()) <= 1.25 * 41 / 4 + 1


def test_unknown_prompts_go_where_least_is(pools, dice) -> None:
    pool = pools.pool(4, "PrefixCache")
    sent = [pools.send(pool, pools.prompt((number, 20)), NOW, dice) for number in range(40)]
    assert set(Counter(each.endpoint.name for each in sent).values()) == {10}


def test_request_without_a_prompt_goes_where_least_is(pools, dice) -> None:
    pool = pools.pool(2, "PrefixCache")
    pools.send(pool, pools.prompt(("a", 20)), NOW, dice, to="e0")
    assert pool.pick(pools.want(None), (), NOW, dice).choice == Choice("e1", "least-load")
