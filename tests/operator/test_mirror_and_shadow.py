"""What the operator makes of a policy in Shadow, and of the pool that only copies go to."""

from __future__ import annotations

import tests.operator.objects as make
from tests.operator.fleets import Fleet

CHAT, NEXT, TRIAL = "RoutePolicy/default/chat", "RoutePolicy/default/next", "ModelPool/default/trial"
POOLS = (make.model_pool("llama"), make.model_pool("trial", make.provider("openai"), models=("gpt-mini",)))


def test_a_policy_in_shadow_is_accepted_programmed_and_ready_and_says_that_it_serves_nothing():
    fleet = Fleet().see(
        *POOLS, make.route_policy("chat", "llama"), make.route_policy("next", "trial", models=("chat",), mode="Shadow")
    )
    fleet.acknowledge()
    assert fleet.condition(CHAT, "Ready") == ("True", "Programmed")
    assert fleet.condition(NEXT, "Accepted") == ("True", "Accepted")
    assert fleet.condition(NEXT, "Programmed") == ("True", "Programmed")
    assert fleet.condition(NEXT, "Ready") == ("True", "Shadow")
    assert "serves nothing" in fleet.message(NEXT, "Ready")
    assert fleet.condition(NEXT, "Spilling") == ("False", "NotSpilling")
    assert fleet.status(TRIAL)["attachedRoutes"] == 1


def test_the_pool_of_a_mirror_is_programmed_and_its_key_brought_to_the_gateway():
    mirror = {"pool": {"name": "trial"}, "percent": 5}
    fleet = Fleet().see(*POOLS, make.route_policy("chat", "llama", models=("chat",), mirror=mirror)).acknowledge()
    assert fleet.condition(CHAT, "Ready") == ("True", "Programmed")
    assert fleet.condition(TRIAL, "Ready") == ("True", "EndpointsReady")
    assert fleet.condition(TRIAL, "Programmed") == ("True", "Programmed")
    assert fleet.status(TRIAL)["attachedRoutes"] == 1
    assert fleet.status(CHAT)["tierSummary"] == "default: tier-llama=Open"


def test_a_mirror_that_is_not_there_is_told_and_the_policy_serves_on_as_it_was():
    fleet = Fleet().see(*POOLS, make.route_policy("chat", "llama", models=("chat",))).acknowledge()
    bad = make.route_policy(
        "chat", "llama", models=("chat",), mirror={"pool": {"name": "tryal"}, "percent": 5}, generation=2
    )
    fleet.see(*POOLS, bad).acknowledge()
    assert fleet.condition(CHAT, "ResolvedRefs") == ("False", "PoolNotFound")
    assert 'did you mean "trial"?' in fleet.message(CHAT, "ResolvedRefs")
    assert fleet.condition(CHAT, "Programmed") == ("False", "Pending")
