"""Laws of the world: equal seeds make equal runs, and nothing that has arrived is lost, whatever fails."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import cache
from random import Random

import pytest

from spillway_api import snapshot
from spillway_balancer.core.strategies import STRATEGIES
from spillway_balancer.engine.profiles import PROFILES
from spillway_balancer.simulate import asked
from spillway_balancer.simulate.balancers import CoreBalancer, PeerBalancer
from spillway_balancer.simulate.faults import BadFault, Fault, check, parse
from spillway_balancer.simulate.measure import Figures, Recorder
from spillway_balancer.simulate.peers import PEERS
from spillway_balancer.simulate.plan import Plan
from spillway_balancer.simulate.request import Request
from spillway_balancer.simulate.runs import settings_of
from spillway_balancer.simulate.stations import Balancer
from spillway_balancer.simulate.workloads import GENERATORS
from spillway_balancer.simulate.world import Setting, World

H100 = PROFILES["h100-llama3-8b"]
EVENTS = tuple(
    parse(each) for each in ("fail:1@3", "join@6", "restart-balancer:0@5", "fail:0@9", "join:l4-llama3-8b@9")
)


class Counting(Recorder):
    """Remembers which requests have ended."""

    def __init__(self, objective: float, most: int) -> None:
        super().__init__(objective, most)
        self.ended: Counter[int] = Counter()

    def finished(self, request: Request, now: float) -> None:
        super().finished(request, now)
        assert request.first_token_at is not None
        assert request.at <= request.dispatched_at <= request.first_token_at <= now
        self.ended[request.id] += 1


@cache
def pool(endpoints: int) -> snapshot.Pool:
    return asked.pool(None, endpoints, ())[0]


def play(
    strategy: str,
    workload: str = "chat",
    rate: float = 8.0,
    seed: int = 1,
    endpoints: int = 4,
    balancers: int = 1,
    faults: tuple[Fault, ...] = (),
    limit: int = 300,
) -> tuple[Counting, list[Request], World]:
    def make(world: World, index: int) -> Balancer:
        dice = Random(f"{index} {world.started} {world.seed}")
        if strategy in PEERS:
            return PeerBalancer(world, PEERS[strategy], dice)
        return CoreBalancer(world, settings_of(pool(endpoints), strategy), dice)

    arrivals = GENERATORS[workload].arrivals(Plan(rate, seed, endpoints, limit))
    seen: list[Request] = []
    recorder = Counting(1.0, arrivals.most)
    world = World(Setting((H100,) * endpoints, 64, balancers, None, None, faults), make, recorder, seed)
    world.run(arrivals._replace(requests=seen_as_they_go(arrivals.requests, seen)))
    return recorder, seen, world


def seen_as_they_go(requests: Iterator[Request], seen: list[Request]) -> Iterator[Request]:
    for request in requests:
        seen.append(request)
        yield request


@pytest.mark.parametrize("strategy", ["Adaptive", "CHWBL", "PowerOfTwo", "lmetric"])
def test_the_same_seed_makes_the_same_run(strategy: str) -> None:
    one, again = (play(strategy, balancers=2)[0].figures() for _ in range(2))
    assert one == again
    assert one != play(strategy, balancers=2, seed=2)[0].figures()


@pytest.mark.parametrize("strategy", [*STRATEGIES, *PEERS])
def test_every_request_ends_once_whatever_fails(strategy: str) -> None:
    recorder, seen, world = play(strategy, faults=EVENTS, balancers=2, endpoints=3, limit=120)
    assert set(recorder.ended.values()) == {1}
    assert {request.id for request in seen} <= set(recorder.ended)
    assert world.open == 0
    assert recorder.shed == 0
    assert recorder.repeated > 0
    for station in world.stations:
        if station.alive:
            assert station.timing.pool.used == 0
            assert not station.timing.live


def test_a_closed_session_has_all_its_turns() -> None:
    recorder, _, _ = play("Adaptive", "agent-sessions", rate=0.5, limit=200)
    turns = Counter(id >> 16 for id in recorder.ended)
    left = {session: min(id & 0xFFFF for id in recorder.ended if id >> 16 == session) for session in turns}
    assert sum(number == 0 for number in left.values()) > len(left) / 2, "most end because they are through"


def without_decisions(figures: Figures) -> Figures:
    return figures._replace(hit_believed=0.0)


@pytest.mark.parametrize("workload", ["chat", "tenants"])
def test_with_one_endpoint_every_strategy_gives_the_same_times(workload: str) -> None:
    found = {
        name: without_decisions(play(name, workload, rate=6.0, endpoints=1, limit=80)[0].figures())
        for name in (*STRATEGIES, *PEERS)
    }
    assert len(set(found.values())) == 1


def test_books_of_the_core_are_empty_after_the_last_answer() -> None:
    _, _, world = play("Adaptive", faults=EVENTS[:2])
    (balancer,) = world.balancers
    assert isinstance(balancer, CoreBalancer)
    for endpoint in balancer.pool.endpoints.values():
        assert (endpoint.load.in_flight, endpoint.load.pending, endpoint.load.tokens) == (0, 0, 0)
        assert endpoint.cache.pinned == 0


def test_what_no_engine_has_room_for_is_turned_away() -> None:
    small = PROFILES["laptop-demo"]
    arrivals = GENERATORS["documents"].arrivals(Plan(1.0, 1, 1, 40))
    recorder = Recorder(1.0, 40)
    World(Setting((small,), 64), lambda world, _: CoreBalancer(world, pool(1), Random(1)), recorder, 1).run(arrivals)
    assert recorder.shed > 0
    assert len(recorder) + recorder.shed == 40


@pytest.mark.parametrize(
    "event", ["fail@3", "fail:x@3", "explode:1@3", "join:abacus@3", "fail:3", "restart-balancer:-1@2", "fail:1@-5"]
)
def test_an_event_that_cannot_be_read_says_how_one_is_written(event: str) -> None:
    with pytest.raises(BadFault, match=r"fail:|such as|there are"):
        parse(event)


@pytest.mark.parametrize(
    "events",
    [
        ["fail:4@1"],
        ["fail:1@1", "fail:1@2"],
        ["restart-balancer:1@1"],
        ["fail:0@1", "fail:1@1", "fail:2@1", "fail:3@1"],
    ],
)
def test_events_about_what_is_not_there_are_refused(events: list[str]) -> None:
    with pytest.raises(BadFault):
        check([parse(event) for event in events], endpoints=4, balancers=1)
    check([parse("join@1"), parse("fail:4@2")], endpoints=4, balancers=1)
