"""What a decision costs: the core's own functions, each beside a fixed loop of plain Python in the same run.

Microseconds differ from machine to machine and with what else runs there; ratios to the loop do so far less.
"""

from __future__ import annotations

import gc
import json
import random
import tracemalloc
from array import array
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import count
from time import perf_counter
from typing import Any

from msgspec.structs import replace
from multidict import CIMultiDict

from spillway_api import snapshot
from spillway_api.types import (
    Capacity,
    DataHandling,
    Dispatch,
    DurationRamp,
    Guard,
    Health,
    Metrics,
    Model,
    PercentRamp,
    Price,
    Ramp,
    Requirement,
    Retry,
    Spill,
    Timeouts,
)
from spillway_balancer.core.conditions import Moment
from spillway_balancer.core.planning import plan_by
from spillway_balancer.core.pool import Picked, Pool, Want
from spillway_balancer.core.prefix import BLOCK_BYTES, CacheMirror, Prompt
from spillway_balancer.core.routing import Route
from spillway_balancer.core.selecting import MODES, order
from spillway_balancer.core.spilling import Spilling
from spillway_balancer.core.strategies import STRATEGIES
from spillway_balancer.net.facts import Facts
from spillway_balancer.wire import openai
from spillway_balancer.wire.paths import PATHS

from .callers import CONSUMERS, EVERY, asked_by_consumer

Table = tuple[str, list[str], list[list[str]]]

BYTES_PER_TOKEN = 4
CACHE_TOKENS = 400_000
NOW = 1000.0


def _reference() -> int:
    """A thousand rounds of arithmetic on small integers."""
    total = 0
    for number in range(1000):
        total += number * number & 255
    return total


def _best(call: Callable[[], object], rounds: int = 15, seconds: float = 0.02) -> float:
    """Seconds of a call: the best of several rounds, since all that disturbs a round makes it longer."""
    call()
    times, best = 1, float("inf")
    while True:
        begun = perf_counter()
        for _ in range(times):
            call()
        took = perf_counter() - begun
        if took >= seconds / 2:
            break
        times *= 2
    for _ in range(rounds):
        begun = perf_counter()
        for _ in range(times):
            call()
        best = min(best, (perf_counter() - begun) / times)
    return best


def _blocks(dice: random.Random, tokens: int, after: Sequence[int] = ()) -> array[int]:
    """Hashes as a prompt of so many tokens has, behind those of another."""
    more = tokens * BYTES_PER_TOKEN // BLOCK_BYTES
    return array("Q", [*after, *(dice.getrandbits(64) for _ in range(more))])


def _turns(dice: random.Random, begin: int, turns: int) -> Iterator[tuple[array[int], array[int]]]:
    """A session: each turn's prompt, and the blocks that its answer adds. 300 tokens a turn, half of them answer."""
    prompt = _blocks(dice, begin)
    for _ in range(turns):
        whole = _blocks(dice, 150, after=prompt)
        yield prompt, whole[len(prompt) :]
        prompt = _blocks(dice, 150, after=whole)


def _fill(mirror: CacheMirror, dice: random.Random) -> None:
    """As many sessions as an engine has room for; they begin with 2,000 tokens and have five turns on average."""
    room = CACHE_TOKENS * BYTES_PER_TOKEN // BLOCK_BYTES
    while mirror.idle < room:
        for prompt, answer in _turns(dice, 2000, dice.randrange(1, 10)):
            mirror.pin(prompt).unpin(answer)
    mirror.trim(room)


def _pool(endpoints: int, strategy: Any, name: str = "bench", declared: DataHandling | None = None) -> Pool:
    return Pool(
        snapshot.Pool(
            name=f"bench/{name}",
            models=(Model(name="bench"),),
            engine="vLLM",
            provider=None,
            endpoints=tuple(snapshot.Endpoint(f"e{each}", f"http://e{each}:8000") for each in range(endpoints)),
            dispatch=Dispatch(strategy=strategy),
            capacity=Capacity(),
            metrics=Metrics(),
            health=Health(),
            data_handling=declared,
        )
    )


def _in_use(endpoints: int, strategy: Any, dice: random.Random) -> Pool:
    """A pool in the middle of its day: mirrors full, and ten requests in flight on each endpoint."""
    pool = _pool(endpoints, strategy)
    for name, endpoint in pool.endpoints.items():
        if pool.wants_prompt:
            _fill(endpoint.cache, dice)
        others = [each for other, each in pool.endpoints.items() if other != name]
        for number in range(10):
            picked = pool.pick(_want(_blocks(dice, 2000)), others, NOW, dice)
            assert isinstance(picked, Picked)
            visit = pool.visit(picked, NOW)
            if number:
                visit.first_token(NOW + 0.1)
    return pool


def _want(blocks: array[int], key: int | None = None) -> Want:
    size = len(blocks) * BLOCK_BYTES
    return Want(key, size // BYTES_PER_TOKEN, 256, Prompt(blocks, size))


def _conversation(size: int) -> bytes:
    """A chat of `size` bytes of JSON, as a client sends it, in messages of 800 bytes."""
    words = "the quick brown fox jumps over the lazy dog and so on "
    messages = [{"role": "system", "content": words * 4}]
    while len(messages) * 840 < size:
        messages.append({"role": "user" if len(messages) % 2 else "assistant", "content": (words * 15)[:800]})
    return json.dumps({"model": "bench", "messages": messages}).encode()


RULES = {
    "none has a condition": [],
    'headers["x-tier"] == "premium", among 16 headers': ['headers["x-tier"] == "premium"'],
    "the same on 8 rules before the last": ['headers["x-tier"] == "premium"'] * 8,
    "any of 16 headers": ['headers.exists(name, name == "x-tier")'],
    "tokens_used > 75": ["tokens_used > 75"],
    "bucket < 80, by a header": ["bucket < 80"],
    "the state of a pool of 32 endpoints": ['pools["bench"].queued > 3'],
}
"""What is asked before the last rule, which has no condition."""


def _headers() -> CIMultiDict[str]:
    """As many as an ordinary client sends."""
    told = {f"x-header-{number}": "a value of an ordinary length" for number in range(14)}
    return CIMultiDict(told, **{"x-tier": "basic", "x-session-id": "user-17"})


def _ruled(whens: Sequence[str]) -> Route:
    pool = _pool(32, "Adaptive")
    tier = snapshot.RouteTier("only", (snapshot.Target(pool.name),), "Weighted", ())
    rules = tuple(snapshot.RouteRule(f"r{at}", (tier,), when) for at, when in enumerate([*whens, None]))
    return Route(snapshot.Route("bench/bench", ("bench",), rules, Timeouts(), Retry()), {pool.name: pool})


GUARDS = {
    "no guard": None,
    "a guard that does not hold": 'headers["x-tier"] == "premium"',
    "a guard that takes one pool of two away": 'headers["x-tier"] == "basic"',
}


def _guarded(when: str | None) -> Route:
    """Two pools, of which one may be sent everything."""
    made = (_pool(2, "LeastLoad", "away"), _pool(2, "LeastLoad", "home", DataHandling(("EU",))))
    tiers = tuple(snapshot.RouteTier(each.name[6:], (snapshot.Target(each.name),), "Weighted", ()) for each in made)
    rules = (snapshot.RouteRule("all", tiers),)
    guards = () if when is None else (Guard("eu-only", Requirement(("EU",)), when),)
    return Route(
        snapshot.Route("bench/bench", ("bench",), rules, Timeouts(), Retry(), guards=guards),
        {each.name: each for each in made},
    )


def _share(spilling: Spilling) -> Callable[[], object]:
    """As 1,000 requests a second ask for it."""
    clock = count()
    return lambda: spilling.share(NOW + next(clock) / 1000)


def dispatch() -> Table:
    """Time of each step of a decision, and memory of the mirrors."""
    dice = random.Random(1)
    loop = _best(_reference)
    rows = [["the loop: 1,000 rounds of plain Python", f"{loop * 1e6:.1f}", "1.00"]]

    def timed(name: str, call: Callable[[], object]) -> None:
        took = _best(call)
        rows.append([name, f"{took * 1e6:.1f}", f"{took / loop:.2f}"])

    pool = _in_use(32, "Adaptive", dice)
    mirrors = [endpoint.cache for endpoint in pool.endpoints.values()]
    whole = _blocks(dice, 100_000)
    for place, mirror in enumerate(mirrors):
        if place % 4 == 0:
            mirror.pin(whole[: len(whole) * (place + 4) // 32]).unpin()
    for prompt, answer in _turns(random.Random(2), 2000, 327):
        mirrors[0].pin(prompt).unpin(answer)
    *_, (grown, _) = _turns(random.Random(2), 2000, 327)

    def match(blocks: array[int]) -> None:
        for mirror in mirrors:
            mirror.match(blocks)

    timed("match 100,000 tokens, 32 endpoints", lambda: match(whole))
    timed("match 100,000 tokens that grew in 327 turns, 32 endpoints", lambda: match(grown))
    timed("pin and unpin 100,000 tokens in a mirror", lambda: mirrors[28].pin(whole).unpin())
    timed("pin and unpin 100,000 tokens that grew in 327 turns", lambda: mirrors[0].pin(grown).unpin())

    want = _want(_blocks(dice, 2000), key=dice.getrandbits(64))
    for endpoints in (8, 32):
        for strategy in STRATEGIES:
            pick = partial(_in_use(endpoints, strategy, dice).pick, want, (), NOW + 1, dice)
            timed(f"pick, 2,000 tokens, {endpoints} endpoints, {strategy}", pick)

    def visit() -> None:
        picked = pool.pick(want, (), NOW + 1, dice)
        assert isinstance(picked, Picked)
        visit = pool.visit(picked, NOW + 1)
        visit.first_token(NOW + 1.2)
        visit.end(NOW + 2, want.prompt.blocks[:2] if want.prompt else ())

    timed("pick, visit, first token and end, 32 endpoints, Adaptive", visit)
    every = Spill(
        queued_per_endpoint=Ramp(8, 32),
        in_flight_per_endpoint=Ramp(64, 128),
        predicted_ttft=DurationRamp("2s", "6s"),
        kv_cache_percent=PercentRamp(85, 100),
        error_percent=PercentRamp(20, 60),
    )
    few = Spill(predicted_ttft=DurationRamp("2s", "6s"), smoothing="0s")
    for name, spec in (("5 signals", every), ("predictedTTFT, read every time", few)):
        timed(f"the share that leaves, 32 endpoints, {name}", _share(Spilling(spec, [(pool, 100)])))
    for size in (8_000, 400_000):
        peeked = openai.peek(PATHS["/v1/chat/completions"], "application/json", _conversation(size))
        timed(f"hash a conversation of {size // 1000} KB", partial(peeked.prompt, 1))
    for name, when in RULES.items():
        route, moment = _ruled(when), Moment(NOW, 1.8e9, dice)
        facts = Facts(_headers(), "127.0.0.1", peeked)
        timed(f"a rule: {name}", partial(route.decide, facts, moment))
    for name, guard in GUARDS.items():
        bound, facts = _guarded(guard), Facts(_headers(), "127.0.0.1", peeked)
        timed(f"a plan: {name}", partial(plan_by, bound, "bench", facts, Moment(NOW, 1.8e9, dice)))
    timed(f"a plan: one consumer of {CONSUMERS}", asked_by_consumer(peeked, None))
    timed("a plan: the same with every limit, and out of them again", asked_by_consumer(peeked, EVERY))
    facts = Facts(_headers(), "127.0.0.1", peeked)
    for select in ("Weighted", *MODES):
        tier = _tiered(select).rules[0][0]
        timed(f"which of four pools: {select}", partial(order, tier, 1, facts, NOW, dice))
    able = _tiered("Weighted", context_window=8192, capabilities=("Chat", "Tools"))
    timed(
        "a plan: four models that say what they can do",
        partial(plan_by, able, "bench", facts, Moment(NOW, 1.8e9, dice)),
    )
    rows += _memory()
    return "Cost of a decision", ["", "µs", "to the loop"], rows


def _tiered(select: str, **facts: Any) -> Route:
    """A tier of four pools, each with a price and a quality, and measured."""
    pools = {}
    for number in range(4):
        model = Model("bench", price=Price("1", f"0.{number + 1}", "3"), quality_percent=50 + number, **facts)
        pool = Pool(replace(_pool(2, "LeastLoad").spec, name=f"bench/{number}", models=(model,)))
        pace = pool.learned.pace("bench")
        pace.ttft, pace.rate = 0.2, 50.0
        pools[pool.name] = pool
    tier = snapshot.RouteTier("bench", tuple(map(snapshot.Target, pools)), select, ())
    rule = snapshot.RouteRule("bench", (tier,))
    return Route(snapshot.Route("bench/bench", ("bench",), (rule,), Timeouts(), Retry()), pools)


def _memory() -> list[list[str]]:
    """32 mirrors of 400,000 tokens each."""
    dice = random.Random(1)
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    mirrors = [CacheMirror() for _ in range(32)]
    for mirror in mirrors:
        _fill(mirror, dice)
    gc.collect()
    used = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    blocks = sum(mirror.idle for mirror in mirrors)
    return [
        ["32 mirrors of 400,000 tokens: MB", f"{used / 1e6:.1f}", ""],
        [f"bytes a block of {BLOCK_BYTES} bytes of text", f"{used / blocks:.0f}", ""],
    ]
