"""Statuses: what kubectl shows, when a condition turned, and when a status is worth a write."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from spillway_api.compile import Problem
from spillway_api.types.status import ModelPoolStatus, RoutePolicyStatus
from spillway_operator.conditions import PoolSight, Reach, RouteSight, TierSight
from spillway_operator.statuses import (
    NUMBERS_SECONDS,
    PoolNumbers,
    of_pool,
    of_route,
    tier_summary,
    turns,
    worth_writing,
)

NOON, LATER = 1_767_268_800.0, 1_767_268_861.7
HERE = Reach("default", True, 2, 2)
SIGHT = PoolSight(unreadable="", problems=(), reach=(HERE,), total=4, metrics="Ok")
NUMBERS = PoolNumbers("Pods", "vLLM", ("llama-8b",), 1)
TIERS = (TierSight("default", "local", "Spilling", 3, 18), TierSight("default", "cloud", "Open", 1, 0))
ROUTE = RouteSight(unreadable="", problems=(), reach=(HERE,), served=True, kept=False, tiers=TIERS)
GONE = (Problem("RoutePolicy/default/chat", "spec.x", "PoolNotFound", "no ModelPool", True),)


def pool(sight=SIGHT, before=None, now=NOON, generation=1, **numbers):
    return of_pool(sight, NUMBERS._replace(**numbers), generation, before or {}, now)


def route(sight=ROUTE, before=None, now=NOON, generation=1):
    return of_route(sight, generation, before or {}, now)


def condition(status, type):
    (only,) = [each for each in status["conditions"] if each["type"] == type]
    return only


# ---- what is shown


def test_the_status_of_a_pool():
    status = pool(SIGHT._replace(not_ready=1, unhealthy=1, ejected=1, draining=2))
    assert status.pop("conditions")
    assert status == {
        "observedGeneration": 1,
        "sourceType": "Pods",
        "engine": "vLLM",
        "endpointSummary": "2/5",
        "endpoints": {"total": 5, "ready": 2, "unhealthy": 1, "ejected": 1, "draining": 2},
        "attachedRoutes": 1,
        "models": ["llama-8b"],
        "gateways": [{"name": "default", "replicas": 2, "programmedReplicas": 2}],
    }


def test_the_status_of_a_policy():
    status = route()
    assert status.pop("conditions")
    assert status == {
        "observedGeneration": 1,
        "tierSummary": "default: local=Spilling(18%) cloud=Open",
        "tiers": [
            {"rule": "default", "name": "local", "state": "Spilling", "readyEndpoints": 3, "sharePercent": 18},
            {"rule": "default", "name": "cloud", "state": "Open", "readyEndpoints": 1, "sharePercent": 0},
        ],
        "gateways": [{"name": "default", "replicas": 2, "programmedReplicas": 2}],
    }


def test_the_status_of_a_policy_with_budgets():
    spent = (
        *TIERS[:1],
        TierSight("default", "cloud", "Closed", 1, 0, "49.9999", "50.00 USD a day"),
        TierSight("default", "spare", "Open", 1, 0, "0", "2x7 EUR a month"),
    )
    status = route(ROUTE._replace(tiers=spent))
    assert status["tierSummary"] == "default: local=Spilling(18%) cloud=Closed spare=Open"
    assert status["budgetSummary"] == "default/cloud: 49.99 of 50.00 USD a day; default/spare: 0.00 of 2x7 EUR a month"
    assert [each.get("spent") for each in status["tiers"]] == [None, "49.9999", "0"]
    assert not worth_writing(status, route(ROUTE._replace(tiers=spent)), float("inf"))


def test_three_of_four_as_kubectl_shows_it():
    assert pool(SIGHT._replace(ejected=1))["endpointSummary"] == "3/4"


def test_an_engine_that_nobody_knows_is_left_out():
    assert "engine" not in pool(engine=None)


def test_several_rules_in_one_line():
    more = (*TIERS, TierSight("long", "big", "Unavailable", 0, 100))
    assert tier_summary(more) == "default: local=Spilling(18%) cloud=Open; long: big=Unavailable"
    assert tier_summary(()) == ""


@pytest.mark.parametrize(("status", "struct"), [(pool(), ModelPoolStatus), (route(), RoutePolicyStatus)])
def test_a_status_says_nothing_that_the_api_does_not_know(status, struct):
    read = json.loads(msgspec.json.encode(msgspec.convert(status, struct)))
    assert {name: value for name, value in read.items() if value is not None} == status


@pytest.mark.parametrize(("kind", "status"), [("modelpools", pool()), ("routepolicies", route())])
def test_every_printer_column_finds_something(kind, status):
    root = Path(__file__).parents[2]
    crd = yaml.safe_load((root / "crds" / f"spillway.dev_{kind}.yaml").read_text())
    columns = [each["jsonPath"] for each in crd["spec"]["versions"][0]["additionalPrinterColumns"]]
    own = [path for path in columns if path.startswith(".status.")]
    assert len(own) >= 4
    for path in own:
        if "[?(@.type==" in path:
            assert condition(status, path.split('"')[1])[path.rsplit(".", 1)[1]]
        elif path != ".status.budgetSummary":
            assert status[path.split(".")[2]]


def test_the_conditions_of_a_pool_in_the_order_of_the_chain():
    types = [each["type"] for each in pool()["conditions"]]
    assert types == ["Accepted", "ResolvedRefs", "Programmed", "Ready", "MetricsHealthy"]
    assert [each["type"] for each in pool(SIGHT._replace(metrics=None))["conditions"]] == types[:-1]


def test_every_condition_speaks_of_this_generation():
    for status in (pool(generation=7), route(generation=7)):
        assert {each["observedGeneration"] for each in status["conditions"]} == {status["observedGeneration"]} == {7}


# ---- when it turned


def test_the_time_of_a_condition_moves_only_when_its_status_does():
    before = pool()
    assert condition(before, "Ready")["lastTransitionTime"] == "2026-01-01T12:00:00Z"
    same = pool(SIGHT._replace(ejected=1), before, LATER, generation=2)
    assert condition(same, "Ready")["message"] != condition(before, "Ready")["message"]
    assert condition(same, "Ready")["lastTransitionTime"] == "2026-01-01T12:00:00Z"
    turned = pool(SIGHT._replace(ejected=4), same, LATER)
    assert condition(turned, "Ready")["lastTransitionTime"] == "2026-01-01T12:01:01Z"
    assert condition(turned, "Accepted")["lastTransitionTime"] == "2026-01-01T12:00:00Z"


def test_another_reason_of_the_same_status_is_no_turn_of_the_clock():
    before = pool(SIGHT._replace(ejected=4))
    after = pool(SIGHT._replace(unhealthy=4), before, LATER)
    assert condition(after, "Ready")["reason"] == "AllUnhealthy"
    assert condition(after, "Ready")["lastTransitionTime"] == "2026-01-01T12:00:00Z"


def test_a_condition_without_a_time_gets_one():
    before = pool()
    del condition(before, "Ready")["lastTransitionTime"]
    assert condition(pool(before=before, now=LATER), "Ready")["lastTransitionTime"] == "2026-01-01T12:01:01Z"


# ---- events


def told(before, after):
    return [(each.type, each.verdict.status, each.verdict.reason) for each in turns(before, after)]


def test_what_is_well_from_the_beginning_is_no_news():
    assert told({}, pool()) == told({}, route(ROUTE._replace(tiers=()))) == []


def test_what_is_wrong_from_the_beginning_is():
    assert told({}, pool(SIGHT._replace(total=0))) == [("Ready", "False", "NoEndpoints")]
    assert told({}, route()) == [("Spilling", "True", "Load")]


def test_a_turn_and_its_way_back_are_told():
    well, bad = route(), route(ROUTE._replace(problems=GONE, kept=True))
    assert told(well, bad) == [("ResolvedRefs", "False", "PoolNotFound"), ("Ready", "False", "PoolNotFound")]
    assert told(bad, well) == [("ResolvedRefs", "True", "ResolvedRefs"), ("Ready", "True", "Programmed")]
    assert told(well, well) == []


def test_another_reason_is_told():
    shut, sick = (pool(SIGHT._replace(**{what: 4})) for what in ("ejected", "unhealthy"))
    assert told(shut, sick) == [("Ready", "False", "AllUnhealthy")]


def test_numbers_are_no_news():
    assert told(pool(), pool(SIGHT._replace(ejected=1), generation=2)) == []


def test_programmed_is_never_told():
    behind = SIGHT._replace(reach=(HERE._replace(programmed=1),))
    assert told(pool(), pool(behind)) == []


def test_spillover_is_told_when_it_begins_and_when_it_ends():
    still, leaves = route(ROUTE._replace(tiers=TIERS[1:])), route()
    assert told(still, leaves) == [("Spilling", "True", "Load")]
    assert told(leaves, still) == [("Spilling", "False", "NotSpilling")]


# ---- what is worth a write


def test_the_same_is_never_written():
    assert not worth_writing(pool(), pool(), float("inf"))
    assert not worth_writing(route(), route(), float("inf"))


def test_a_first_status_is_written():
    assert worth_writing({}, pool(), 0.0)


def test_a_condition_that_turns_is_written_at_once():
    before = pool()
    assert worth_writing(before, pool(SIGHT._replace(ejected=4), before, LATER), 0.0)
    shut = pool(SIGHT._replace(ejected=4))
    assert worth_writing(shut, pool(SIGHT._replace(unhealthy=4), shut), 0.0)


def test_a_new_generation_is_written_at_once():
    assert worth_writing(pool(), pool(generation=2), 0.0)


def test_a_condition_that_comes_or_goes_is_written_at_once():
    silent = pool(SIGHT._replace(metrics=None))
    assert worth_writing(silent, pool(), 0.0)
    assert worth_writing(pool(), silent, 0.0)


def test_numbers_and_wording_wait():
    before, after = pool(), pool(SIGHT._replace(ejected=1))
    assert not worth_writing(before, after, NUMBERS_SECONDS - 0.1)
    assert worth_writing(before, after, NUMBERS_SECONDS)
    assert NUMBERS_SECONDS == 10.0


@given(st.randoms(use_true_random=False))
def test_lists_that_the_server_has_put_into_its_own_order_are_the_same(dice):
    many = tuple(TierSight(f"r{number % 2}", f"t{number}", "Open", 1, 0) for number in range(4))
    reach = (HERE, Reach("edge", True, 1, 1))
    for status in (route(ROUTE._replace(tiers=many, reach=reach)), pool(SIGHT._replace(reach=reach))):
        stored = copy.deepcopy(status)
        for name in ("conditions", "gateways", "tiers"):
            dice.shuffle(stored.get(name, []))
        assert not worth_writing(stored, status, float("inf"))
        again = of_route if "tiers" in status else None
        if again:
            assert again(ROUTE._replace(tiers=many, reach=reach), 1, stored, LATER) == status


def test_what_others_put_into_a_status_is_no_reason_to_write_for_ever():
    stored = pool()
    stored |= {
        "note": "of somebody else",
        "conditions": [*stored["conditions"], {"type": "Approved", "status": "True"}],
    }
    assert not worth_writing(stored, pool(), float("inf"))


def test_an_engine_that_is_not_known_any_more_is_taken_back():
    assert worth_writing(pool(), pool(engine=None), NUMBERS_SECONDS)
