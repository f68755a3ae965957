"""The gateway as a sidecar plans with it: it takes what nobody else does, and is asked again."""

from __future__ import annotations

import random
from typing import Any

import pytest
from tests.core.asked import Asked

from spillway_api import sidecars
from spillway_api.snapshot import Endpoint, Pool, Route, RouteRule, RouteTier, Snapshot, Target
from spillway_api.types import (
    Capacity,
    DataHandling,
    Dispatch,
    Guard,
    Health,
    Metrics,
    Model,
    Overrides,
    Ramp,
    Requirement,
    Retry,
    Spill,
    Timeouts,
)
from spillway_balancer.core.apis import COUNTING
from spillway_balancer.core.attempts import Attempts, Stop, Try, Wait
from spillway_balancer.core.conditions import Moment
from spillway_balancer.core.errors import ModelNotFound, NoCompliantTarget
from spillway_balancer.core.planning import Plan, plan
from spillway_balancer.core.reasons import Failure
from spillway_balancer.core.runtime import Runtime

NOW = 1000.0
REMOTE = sidecars.remote_name("edge")
NEAR = Pool(
    "team/near",
    (Model("chat", capabilities=("Chat",)),),
    "Auto",
    None,
    (Endpoint("e1", "http://e1:80"),),
    Dispatch(strategy="Random"),
    Capacity(),
    Metrics(),
    Health(),
    data_handling=DataHandling(jurisdictions=("EU",)),
)


def tier(pool: str, name: str = "", **more: Any) -> RouteTier:
    return RouteTier(name or pool.rpartition("/")[2], (Target(pool),), "Weighted", ("Capacity", "Transient"), **more)


def known(*tiers: RouteTier, models: tuple[str, ...] = ("chat",), **more: Any) -> Runtime:
    """A sidecar with one policy of these tiers, and all else at the gateway."""
    own = Route("team/chat", models, (RouteRule("all", tiers),), Timeouts(), more.pop("retry", Retry()), **more)
    parts = (sidecars.remote_pool("edge"), NEAR)
    whole = Snapshot("edge", parts, (sidecars.everything_else("edge"), own) if "*" not in models else (own,))
    return Runtime(sidecars.reached(whole, "http://gateway:8787"), partial=True)


def planned(runtime: Runtime, **told: Any) -> Plan:
    return plan(runtime.routes, Asked(**told), Moment(NOW, NOW, random.Random(1)))


def led_to(made: Plan) -> list[str]:
    return [target.pool.name for each in made.tiers for target in each.targets]


BOTH = tier("team/near"), tier(REMOTE, "cloud")


@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/v1/embeddings", "/v1/messages", COUNTING, "/v1/moderations"]
)
def test_it_takes_any_model_on_any_path(path: str) -> None:
    runtime = known(*BOTH)
    assert led_to(planned(runtime, model="unheard/of", path=path)) == [REMOTE]
    made = planned(runtime, path=path)
    assert led_to(made)[-1] == REMOTE
    assert made.tiers[-1].targets[0].pool.apis.into(path, "x") is None


def test_a_name_with_a_suffix_is_found_without_it() -> None:
    made = planned(known(*BOTH), model="chat:floor")
    assert (made.route.name, led_to(made)) == ("team/chat", ["team/near", REMOTE])


def test_what_a_wildcard_of_the_sidecars_alone_would_have_is_nowhere() -> None:
    runtime = known(tier("team/near"), models=("*",))
    # With one model a pool serves whatever is asked.
    assert led_to(planned(runtime, model="other")) == ["team/near"]
    with pytest.raises(ModelNotFound):
        planned(known(models=("*",)), model="other")


def test_it_is_listed_nowhere() -> None:
    for runtime in (known(*BOTH), known(*BOTH, models=("chat", "*"))):
        assert runtime.routes.names(runtime.routes.all) == ["chat"]


def test_it_passes_every_guard() -> None:
    guards = (Guard("us", Requirement(jurisdictions=("US",))),)
    assert led_to(planned(known(*BOTH, guards=guards))) == [REMOTE]
    assert isinstance(planned(known(tier("team/near"), guards=guards)).refused, NoCompliantTarget)


def test_a_pool_that_is_named_may_be_there() -> None:
    runtime = known(*BOTH, overrides=Overrides(("Pool",)))
    assert led_to(planned(runtime, given={"x-spillway-pool": "cloud"})) == [REMOTE]
    assert led_to(planned(runtime, given={"x-spillway-pool": "near"})) == ["team/near", REMOTE]


def test_its_load_is_its_own_affair() -> None:
    spill = Spill(in_flight_per_endpoint=Ramp(start=0, full=1))
    runtime = known(tier(REMOTE, "cloud", spill=spill), tier("team/near"))
    made = planned(runtime)
    assert [each.spilling for each in made.tiers] == [None, None]


def attempts(made: Plan) -> Attempts:
    return Attempts.of(made, Asked(), random.Random(1), NOW + 100, 0.0)


def outcome(made: Plan, failure: Failure) -> tuple[list[str], int]:
    """Where a request is sent to whose every attempt fails so, and how many waits there were between."""
    tried: list[str] = []
    waits, now, line = 0, NOW, attempts(made)
    while not isinstance(step := line.next(now), Stop):
        if isinstance(step, Wait):
            waits, now = waits + 1, now + step.seconds
            continue
        assert isinstance(step, Try)
        tried.append(step.pool.name)
        line.failed(step, failure)
    return tried, waits


CONNECT = Failure("connect", retry_on="ConnectError")


def test_without_a_gateway_the_next_tier_is_tried_and_then_the_gateway_again() -> None:
    made = planned(known(tier(REMOTE, "cloud"), tier("team/near"), retry=Retry(attempts=4)))
    assert outcome(made, CONNECT) == ([REMOTE, "team/near", REMOTE, REMOTE], 2)


def test_it_is_asked_as_often_as_attempts_are_left() -> None:
    assert outcome(planned(known(*BOTH), model="other"), CONNECT) == ([REMOTE] * 10, 9)
    assert outcome(planned(known(*BOTH), model="other"), Failure("server-error")) == ([REMOTE] * 10, 9)


def test_all_may_wait_for_a_gateway_that_is_not_reached() -> None:
    """Retries of what has cost nobody anything are not counted; of what may have, they are."""
    runtime = known(*BOTH)
    tried = [outcome(planned(runtime, model="other"), CONNECT)[0] for _ in range(50)]
    assert {len(each) for each in tried} == {10}
    runtime = known(*BOTH)
    tried = [outcome(planned(runtime, model="other"), Failure("connect", retry_on="Reset"))[0] for _ in range(50)]
    assert len(tried[-1]) == 1


def test_nothing_of_it_is_new_with_a_new_snapshot() -> None:
    before = known(*BOTH)
    after = Runtime(before.spec, before)
    assert after.pools[REMOTE] is before.pools[REMOTE]
    assert after.pools[REMOTE].remote
    assert not after.pools["team/near"].remote
