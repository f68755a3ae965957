"""Guards on their way into a snapshot: what is said of them, and that none gets lost on it."""

from __future__ import annotations

import pytest

from spillway_api.compile import Cluster, compile_snapshot
from spillway_api.types import DataHandling

EU = {"spec.dataHandling": {"jurisdictions": ["EU"], "maxSensitivity": "Confidential", "retentionDays": 0}}


def compiled(objects, last=None):
    return compile_snapshot(objects, "default", lambda _secret, _key: True, Cluster(last_good=last))


def guards(of):
    return [guard.name for route in of.snapshot.routes for guard in route.guards]


@pytest.fixture
def pools(built):
    return [built("pool", EU), built("provider")]


def test_they_reach_the_snapshot_with_what_pools_declare(built, pools):
    made = compiled([*pools, built("guarded")])
    assert made.problems == ()
    assert guards(made) == ["eu"]
    declared = {pool.name: pool.data_handling for pool in made.snapshot.pools}
    assert declared == {"default/llama": DataHandling(("EU",), "Confidential", 0), "default/openai": None}


BAD = [
    ("tokens.inputs > 3", 'line 1, column 7: there is no "tokens.inputs"'),
    ("true &&\n headers == 3", "line 2, column 10: "),
    ("tokens.input", "must be true or false, and is of type dyn"),
    ('headers["X-Data-Class"] == "a"', 'names of headers are in lower case: "x-data-class"'),
    ('pools["elsewhere"].ready > 0', 'pools["elsewhere"]: this policy leads to no such pool'),
]


@pytest.mark.parametrize(("when", "words"), BAD)
def test_a_bad_condition_of_overrides_is_told_with_its_place(built, pools, when, words):
    made = compiled([*pools, built("guarded", {"spec.overrides.when": when})])
    (problem,) = made.problems
    assert (problem.path, problem.reason, problem.fatal) == ("spec.overrides.when", "InvalidExpression", True)
    assert words in problem.message
    (route,) = made.snapshot.routes
    assert route.overrides.when == when  # which allows nothing


@pytest.mark.parametrize(("when", "words"), BAD)
def test_one_that_does_not_compile_is_a_problem_with_its_place_and_is_served_all_the_same(built, pools, when, words):
    made = compiled([*pools, built("guarded", {"spec.guards[0].when": when})])
    (problem,) = made.problems
    assert (problem.path, problem.reason, problem.fatal) == ("spec.guards[0].when", "InvalidExpression", True)
    assert words in problem.message
    assert guards(made) == ["eu"]


def test_one_that_no_pool_passes_is_told_of_and_refuses_nothing(built):
    made = compiled([built("pool"), built("provider"), built("guarded")])
    (problem,) = made.problems
    assert (problem.path, problem.reason, problem.fatal) == ("spec.guards[0]", "GuardRefuses", False)
    assert 'no pool of this policy passes "eu"' in problem.message
    assert guards(made) == ["eu"]


def test_the_last_good_version_keeps_its_guards_and_all_else_that_it_sets(built, pools):
    extras = {"spec.rules[0].set": {"maxOutputTokens": 100}, "spec.explain": {"headers": "Never"}}
    before = compiled([*pools, built("guarded", extras)])
    bad = built("policy", {"spec.rules[0].tiers[0].pools[0].name": "gone"})
    after = compiled([*pools, bad], before.memory)
    assert after.kept == {"default/chat"}
    assert guards(after) == ["eu"]
    trimmed = compiled([pools[0], bad], after.memory)  # and when a pool is taken out of it as well
    assert guards(trimmed) == ["eu"]
    (was,), (now,) = before.snapshot.routes, trimmed.snapshot.routes
    assert now.overrides == was.overrides is not None
    assert now.explain == was.explain is not None
    assert now.rules[0].set_ == was.rules[0].set_ is not None
