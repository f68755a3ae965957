"""What sets each peer's policy apart from the others."""

from __future__ import annotations

from itertools import pairwise

import pytest
from tests.simulate.conftest import (  # by its full name, as pytest has imported it
    BLOCK,
    H100,
    Pool,
    ask,
    play,
    traffic,
)

from spillway_balancer.simulate.peers import PEERS
from spillway_balancer.simulate.request import Request


def load(pool: Pool, *requests: int) -> None:
    for view, count in zip(pool.views, requests, strict=True):
        view.in_flight = count


def test_random_reaches_everybody() -> None:
    pool = Pool("random")
    assert {pool.choose(ask(number, [number])).index for number in range(100)} == {0, 1, 2, 3}


def test_round_robin_takes_turns() -> None:
    pool = Pool("round-robin")
    chosen = [pool.choose(ask(number, [number])).index for number in range(12)]
    assert all((after - before) % 4 == 1 for before, after in pairwise(chosen))


def test_power_of_two_never_takes_the_busiest() -> None:
    pool = Pool("power-of-two")
    load(pool, 0, 5, 5, 9)
    assert {pool.choose(ask(number, [number])).index for number in range(200)} == {0, 1, 2}


def test_least_request_takes_the_idlest_and_ties_at_random() -> None:
    pool = Pool("least-request")
    load(pool, 3, 1, 1, 2)
    assert {pool.choose(ask(number, [number])).index for number in range(50)} == {1, 2}


def test_a_session_stays_at_home_whatever_the_load() -> None:
    pool = Pool("session-hash")
    home = pool.choose(ask(1, [1], session=77))
    home.in_flight = 1000
    assert all(pool.choose(ask(number, [number], session=77)) is home for number in range(20))


def test_without_a_session_the_hash_goes_by_the_rate_of_the_last_minute() -> None:
    pool = Pool("session-hash", size=2)
    first = pool.send(ask(1, [1]))
    second = pool.send(ask(2, [2]))
    assert {first.index, second.index} == {0, 1}
    pool.send(ask(3, [3]), pool.views[0])
    assert pool.choose(ask(4, [4])).index == 1
    pool.now = 100.0
    assert pool.choose(ask(5, [5])).index == 0


def test_kubeai_walks_on_past_a_full_endpoint() -> None:
    pool = Pool("kubeai-chwbl")
    home = pool.choose(ask(1, [1], session=5))
    home.in_flight = 10
    second = pool.choose(ask(2, [2], session=5))
    assert second is not home
    load(pool, 10, 10, 10, 10)
    assert pool.choose(ask(3, [3], session=5)) is home


def test_kubeai_counts_the_request_in_the_mean_but_not_on_the_endpoint() -> None:
    pool = Pool("kubeai-chwbl", size=2)
    home = pool.choose(ask(1, [1], session=5))
    other = pool.views[1 - home.index]
    home.in_flight, other.in_flight = 5, 2  # bound: (7 + 1) / 2 * 1.25 = 5
    assert pool.choose(ask(2, [2], session=5)) is home
    home.in_flight, other.in_flight = 6, 2  # 5.6
    assert pool.choose(ask(3, [3], session=5)) is other


def test_sglang_prefix_hash_gives_the_overflow_to_the_least_loaded() -> None:
    pool = Pool("sglang-prefix-hash")
    home = pool.choose(ask(1, [1], system=9))
    others = [view for view in pool.views if view is not home]
    home.in_flight = 20
    for count, view in enumerate(others):
        view.in_flight = 3 - count
    assert pool.choose(ask(2, [2], system=9)) is others[-1]


def test_sglang_goes_by_the_match_until_loads_are_far_apart() -> None:
    pool = Pool("sglang-cache-aware")
    holder = pool.send(ask(1, range(10)), pool.views[2])
    assert pool.choose(ask(2, range(10))) is holder
    load(pool, 10, 5, 69, 30)  # the difference is 64, not more
    assert pool.choose(ask(3, range(10))) is holder
    load(pool, 10, 4, 69, 30)
    assert pool.choose(ask(4, range(10))).index == 1
    load(pool, 160, 140, 206, 150)  # 66 more, but less than one and a half times
    assert pool.choose(ask(5, range(10))) is holder


def test_sglang_takes_the_least_loaded_where_little_matches() -> None:
    pool = Pool("sglang-cache-aware")
    pool.send(ask(1, range(10)), pool.views[2])
    load(pool, 2, 1, 0, 2)
    pool.views[2].in_flight = 3
    assert pool.choose(ask(2, [*range(3), *range(100, 107)])).index == 1  # under 30 %
    assert pool.choose(ask(3, [*range(4), *range(100, 106)])).index == 2


def test_aibrix_gates_by_load_then_goes_by_the_match_within_one_deviation() -> None:
    pool = Pool("aibrix-prefix-cache")
    pool.send(ask(1, range(10)), pool.views[2])
    load(pool, 2, 2, 2, 2)
    assert pool.choose(ask(2, range(10))).index == 2
    load(pool, 2, 2, 6, 2)  # mean 3, deviation 2
    assert pool.choose(ask(3, range(10))).index != 2
    load(pool, 2, 2, 4, 4)
    assert pool.choose(ask(4, range(10))).index == 2
    load(pool, 1, 10, 2, 10)  # 9 apart: only endpoint 0 may match, and it does not
    assert pool.choose(ask(5, range(10))).index == 0


def test_aibrix_forgets_after_twenty_minutes() -> None:
    pool = Pool("aibrix-prefix-cache")
    pool.send(ask(1, range(10)), pool.views[2])
    pool.answer()
    load(pool, 1, 1, 1, 0)
    pool.views[2].in_flight = 0
    pool.now = 1100.0
    assert pool.choose(ask(2, range(10))).index == 2
    pool.now = 1300.0
    assert {pool.choose(ask(number, range(10))).index for number in range(3, 40)} == {2, 3}


def test_production_stack_looks_at_no_load() -> None:
    pool = Pool("production-stack-prefix")
    pool.send(ask(1, range(10)), pool.views[2])
    load(pool, 0, 0, 1000, 0)
    assert all(pool.choose(ask(number, [0, 500 + number])).index == 2 for number in range(2, 30))


def test_preble_exploits_a_prefix_that_outweighs_the_rest_and_explores_otherwise() -> None:
    pool = Pool("preble")
    holder = pool.send(ask(1, range(20)))
    busy = pool.choose(ask(2, [*range(20), *range(200, 205)]))
    assert busy is holder
    assert pool.choose(ask(3, [*range(5), *range(300, 320)])) is not holder


def test_preble_moves_prefixes_from_the_dearest_endpoint_where_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PEERS["preble"], "rebalancing", True)
    pool = Pool("preble", size=2)
    first = pool.views[0]
    for number in range(120):  # two hot prefixes, both at the same endpoint
        pool.now += 0.1
        prefix = range(1000 * (number % 2), 1000 * (number % 2) + 60)
        pool.send(ask(number, [*prefix, 10_000 + number]), first)
    pool.now += 2.0
    for number in (200, 201, 202, 203):
        pool.send(ask(number, [*range(1000 * (number % 2), 1000 * (number % 2) + 60), 10_000 + number]))
        pool.now += 2.0
    homes = {pool.choose(ask(300 + one, [*range(1000 * one, 1000 * one + 60), 20_000])).index for one in (0, 1)}
    assert homes == {0, 1}


def test_dualmap_keeps_a_prefix_on_two_endpoints() -> None:
    pool = Pool("dualmap", size=8)
    homes = set()
    for number in range(60):
        homes.add(pool.send(ask(number, [7])).index)
        for view in pool.views:
            view.kv_usage = pool.peer.dice.random()  # type: ignore[attr-defined]
    assert len(homes) <= 2


def test_dualmap_leaves_the_cache_when_the_objective_is_broken() -> None:
    pool = Pool("dualmap", size=2)
    holder = pool.send(ask(1, range(10)))
    other = pool.views[1 - holder.index]
    holder.pending_tokens = 0.9 / H100.token_s
    assert pool.choose(ask(2, range(10))) is holder
    holder.pending_tokens = 1.1 / H100.token_s
    assert pool.choose(ask(3, range(10))) is other


def test_dualmap_lengthens_the_key_of_a_hot_prefix() -> None:
    pool = Pool("dualmap", size=8)
    used = set()
    for number in range(400):
        used.add(pool.send(ask(number, [7, 1000 + number])).index)
        pool.answer()
    assert len(used) > 4


def with_truth(name: str, endpoint: int, blocks: int) -> Pool:
    """A pool where one endpoint has that much of any prompt in its cache."""
    pool = Pool(name)
    pool.views[endpoint].truth = lambda request: blocks
    return pool


@pytest.mark.parametrize("name", ["llm-d-precise", "dynamo-events", "mooncake-min-ttft"])
def test_those_told_every_event_go_by_the_true_cache(name: str) -> None:
    assert with_truth(name, 3, 9).choose(ask(1, range(10))).index == 3
    assert with_truth(name, 1, 9).choose(ask(1, range(10))).index == 1


@pytest.mark.parametrize("name", sorted(set(PEERS) - {"llm-d-precise", "dynamo-events", "mooncake-min-ttft"}))
def test_all_others_never_ask_for_the_truth(name: str) -> None:
    def forbidden(request: Request) -> int:
        raise AssertionError(f"{name} looked into the engine")

    play(Pool(name, truth=forbidden), traffic(60))


def test_mooncake_weighs_the_queue_against_the_cache_in_seconds() -> None:
    pool = with_truth("mooncake-min-ttft", 3, 9)
    for number in range(15):  # 74 tokens each at 3, 650 elsewhere
        pool.send(ask(number, range(10)))
    assert all(view.index == 3 for _, view, _ in pool.sent[:8])
    assert {view.index for _, view, _ in pool.sent} > {3}


def test_inference_extension_sees_no_difference_behind_4096_tokens() -> None:
    capped, whole = Pool("inference-extension"), Pool("inference-extension-uncapped")
    start = list(range(64))  # 4096 tokens
    for pool in (capped, whole):
        pool.send(ask(1, [*start, *range(1000, 1064)]), pool.views[1])
        pool.send(ask(2, [*start, *range(2000, 2064)]), pool.views[2])
    again = [*start, *range(2000, 2064)]
    assert {capped.choose(ask(number, again)).index for number in range(3, 60)} == {1, 2}
    assert {whole.choose(ask(number, again)).index for number in range(3, 60)} == {2}


def test_inference_extension_weighs_queue_memory_and_prefix() -> None:
    pool = Pool("inference-extension")
    pool.send(ask(1, range(10)), pool.views[0])
    assert pool.choose(ask(2, range(10))).index == 0  # 3 for the prefix
    pool.views[0].waiting = 1  # the longest queue, even by one: 2 less
    assert pool.choose(ask(3, range(10))).index == 0
    pool.views[0].kv_usage = 0.6  # 1.2 less
    assert pool.choose(ask(4, range(10))).index != 0


def test_latency_routing_keeps_to_the_cache_until_it_costs_five_seconds() -> None:
    pool = Pool("inference-extension-latency")
    pool.send(ask(1, range(50)), pool.views[2])
    assert {pool.choose(ask(number, range(50))).index for number in range(2, 40)} == {2}
    load(pool, 1, 1, 1, 1)
    pool.views[2].pending_tokens = 6.0 / H100.token_s
    assert 2 not in {pool.choose(ask(number, range(50))).index for number in range(40, 60)}


def test_latency_routing_prefers_the_idle_and_draws_by_score() -> None:
    pool = Pool("inference-extension-latency")
    load(pool, 1, 0, 2, 0)
    assert {pool.choose(ask(number, [number])).index for number in range(100)} == {1, 3}
    load(pool, 1, 1, 1, 1)
    for view in pool.views:
        view.pending_tokens = 10_000.0 * view.index
    counts = [0] * 4
    for number in range(600):
        counts[pool.choose(ask(1000 + number, [1000 + number])).index] += 1
    assert counts[0] > counts[1] > counts[2] > counts[3]


def test_dynamo_counts_a_block_in_use_once() -> None:
    pool = Pool("dynamo-approximate", size=2)
    for number in range(3):
        pool.send(ask(number, range(40)), pool.views[0])  # the same 40 blocks in use thrice
        pool.send(ask(10 + number, range(100 * number + 1000, 100 * number + 1010)), pool.views[1])  # 30 blocks
    for view in pool.views:
        view.pending_tokens = 0.0
    assert pool.choose(ask(20, range(5000, 5010))).index == 1
    pool.send(ask(21, range(6000, 6015)), pool.views[1])
    pool.views[1].pending_tokens = 0.0
    assert pool.choose(ask(22, range(5000, 5010))).index == 0


def test_dynamo_without_events_believes_for_two_minutes() -> None:
    pool = Pool("dynamo-approximate")
    holder = pool.send(ask(1, range(10)), pool.views[3])
    pool.answer()
    pool.now = 119.0
    assert pool.choose(ask(2, range(10))) is holder
    pool.now = 121.0
    assert {pool.choose(ask(number, range(10))).index for number in range(3, 60)} == {0, 1, 2, 3}


def test_lmetric_multiplies_the_tokens_by_the_requests() -> None:
    pool = Pool("lmetric", size=2)
    pool.send(ask(1, range(20)), pool.views[0])
    pool.answer()
    request = ask(2, [*range(16), *range(100, 104)])  # 266 tokens uncached at 0, 1290 at 1
    load(pool, 3, 0)
    assert pool.choose(request).index == 0
    load(pool, 4, 0)
    assert pool.choose(request).index == 1


@pytest.mark.parametrize(("name", "left"), [("lmetric", 10), ("sglang-cache-aware", 10)])
def test_an_index_forgets_the_oldest_beyond_its_capacity(name: str, left: int) -> None:
    pool = Pool(name, size=2)
    if name == "sglang-cache-aware":
        pool.peer.capacity = 20  # type: ignore[attr-defined]
    for view in pool.views:
        view.kv_blocks = 20
    first = pool.views[0]
    pool.send(ask(1, range(15)), first)
    assert pool.peer.estimate(ask(2, range(15)), first) == 15 * BLOCK
    pool.send(ask(3, range(100, 110)), first)
    assert pool.peer.estimate(ask(4, range(15)), first) == left * BLOCK
    assert pool.peer.estimate(ask(5, range(100, 110)), first) == 10 * BLOCK


def test_the_inference_extensions_index_loses_the_beginning_first_and_then_finds_nothing() -> None:
    pool = Pool("inference-extension", size=2)
    pool.views[0].kv_blocks = 20
    pool.send(ask(1, range(15)), pool.views[0])
    pool.send(ask(2, range(100, 110)), pool.views[0])
    assert pool.peer.estimate(ask(3, range(15)), pool.views[0]) == 0
    pool.send(ask(4, range(5)), pool.views[1])  # somebody has the beginning: blocks behind it count again
    assert pool.peer.estimate(ask(5, range(15)), pool.views[0]) > 0
