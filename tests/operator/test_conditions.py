"""Conditions of both kinds, row by row: every reason of the API, and messages that say what would be right."""

from __future__ import annotations

import ast
import inspect
from typing import get_args

import pytest

from spillway_api import pools, routes
from spillway_api.compile import Problem
from spillway_api.stream import MetricsState
from spillway_operator import conditions, sources
from spillway_operator.conditions import (
    LONGEST_MESSAGE,
    POOL,
    REFERENCES,
    ROUTE,
    PoolSight,
    Reach,
    RouteSight,
    TierSight,
)

HERE = Reach("default", True, 2, 2)
BEHIND = Reach("default", True, 3, 1)
ABSENT = Reach("edge", False, 0, 0)
OPEN = TierSight("default", "local", "Open", 2, 0)
SPILLING = TierSight("default", "local", "Spilling", 2, 18)
SHUT = TierSight("default", "cloud", "Unavailable", 1, 100)
SPENT = TierSight("default", "cloud", "Closed", 1, 0, "4.99", "5.00 USD a day")
EMPTY = TierSight("default", "cloud", "Unavailable", 0, 100)


def pool(**changes):
    return PoolSight(unreadable="", problems=(), reach=(HERE,), total=4)._replace(**changes)


def route(**changes):
    usual = RouteSight(unreadable="", problems=(), reach=(HERE,), served=True, kept=False, tiers=(OPEN,))
    return usual._replace(**changes)


def problem(reason, message="it is so", path="spec.x", fatal=True):
    return Problem("Kind/default/name", path, reason, message, fatal)


def bad(reason, **more):
    return route(problems=(problem(reason),), kept=True, **more)


ROWS = [
    # kind, condition, status, reason, what is seen, words that the message must hold
    ("pool", "Accepted", "True", "Accepted", pool(), "valid"),
    ("pool", "Accepted", "False", "Invalid", pool(unreadable="Expected `array`"), "Expected `array`"),
    ("pool", "Accepted", "False", "Invalid", pool(problems=(problem("Invalid"),)), "spec.x: it is so"),
    (
        "pool",
        "Accepted",
        "True",
        "Accepted",
        pool(problems=(problem("Invalid", 'Pod "a": weight is "x"', fatal=False),)),
        'weight is "x"',
    ),
    ("route", "Accepted", "True", "Accepted", route(), "valid"),
    ("route", "Accepted", "False", "Invalid", route(unreadable="Expected `array`", kept=True), "goes on serving"),
    ("route", "Accepted", "False", "InvalidExpression", bad("InvalidExpression"), "spec.x: it is so"),
    ("route", "Accepted", "False", "ModelNameConflict", bad("ModelNameConflict"), "last good version goes on serving"),
    ("route", "Accepted", "False", "ModelNotInPool", bad("ModelNotInPool"), "spec.x"),
    ("route", "Accepted", "False", "NotAllowedByPool", bad("NotAllowedByPool"), "spec.x"),
    ("route", "Accepted", "False", "UnknownGateway", route(reach=(HERE, ABSENT)), "no gateway edge"),
    ("route", "Accepted", "True", "Accepted", bad("PoolNotFound"), "valid"),
    ("pool", "ResolvedRefs", "True", "ResolvedRefs", pool(), "everything"),
    *(
        ("pool", "ResolvedRefs", "False", reason, pool(problems=(problem(reason, fatal=False),)), "spec.x: it is so")
        for reason in sorted(REFERENCES - {"PoolNotFound"})
    ),
    ("route", "ResolvedRefs", "True", "ResolvedRefs", bad("ModelNotInPool"), "everything"),
    ("route", "ResolvedRefs", "False", "PoolNotFound", bad("PoolNotFound"), "last good version goes on serving"),
    ("pool", "Programmed", "True", "Programmed", pool(), "all balancers"),
    ("pool", "Programmed", "False", "Pending", pool(reach=()), "no RoutePolicy leads here"),
    ("pool", "Programmed", "False", "NoGateway", pool(reach=(ABSENT,)), "no gateway edge"),
    (
        "pool",
        "Programmed",
        "False",
        "PartiallyProgrammed",
        pool(reach=(HERE, BEHIND)),
        "in force on 1 of 3 balancers of gateway default",
    ),
    ("pool", "Programmed", "False", "Pending", pool(unreadable="Expected `array`"), "not in force"),
    ("route", "Programmed", "True", "Programmed", route(), "all balancers"),
    ("route", "Programmed", "False", "NoGateway", route(reach=(ABSENT,), served=False), "no gateway edge"),
    ("route", "Programmed", "False", "Pending", route(kept=True), "its last good version goes on serving"),
    ("route", "Programmed", "False", "Pending", route(served=False), "nothing of it can be served"),
    (
        "route",
        "Programmed",
        "False",
        "PartiallyProgrammed",
        route(reach=(BEHIND._replace(refused="no such strategy"),)),
        "1 of 3 balancers of gateway default; refused: no such strategy",
    ),
    (
        "route",
        "Programmed",
        "False",
        "PartiallyProgrammed",
        route(reach=(Reach("default", True, 0, 0),)),
        "0 of 0 balancers",
    ),
    ("pool", "Ready", "True", "EndpointsReady", pool(not_ready=1, ejected=1), "3 of 5 take traffic"),
    ("pool", "Ready", "False", "NoEndpoints", pool(total=0), "no endpoint is there"),
    ("pool", "Ready", "False", "NoEndpoints", pool(total=0, nobody="no Pod"), "no endpoint is there: no Pod"),
    ("pool", "Ready", "False", "NoEndpoints", pool(total=0, not_ready=3), "3 are not ready yet"),
    ("pool", "Ready", "False", "NoEndpoints", pool(total=0, draining=2), "no endpoint is there; 2 are draining"),
    (
        "pool",
        "Ready",
        "False",
        "NoEndpoints",
        pool(total=0, problems=(problem("ServiceNotFound", 'no Service "x"', fatal=False),)),
        'no Service "x"',
    ),
    ("pool", "Ready", "False", "ScaledToZero", pool(total=0, asleep=True), "scaled to zero"),
    ("pool", "Ready", "False", "NoEndpoints", pool(total=0, asleep=True, not_ready=1), "1 are not ready yet"),
    ("pool", "Ready", "False", "AllEjected", pool(ejected=4), "of 4 endpoints 4 are ejected"),
    ("pool", "Ready", "False", "AllUnhealthy", pool(unhealthy=4), "of 4 endpoints 4 fail their probes"),
    ("pool", "Ready", "False", "CredentialsRefused", pool(refused=4), "takes a minute"),
    ("pool", "Ready", "False", "CredentialsRefused", pool(refused=4, refused_message="a: no file"), "; a: no file"),
    (
        "pool",
        "Ready",
        "True",
        "EndpointsReady",
        pool(refused=1, refused_message="a: no file"),
        "3 of 4 take traffic; a:",
    ),
    ("pool", "Ready", "False", "Invalid", pool(unreadable="Expected `array`"), "Expected `array`"),
    ("pool", "MetricsHealthy", "True", "MetricsRead", pool(metrics="Ok"), "is read"),
    ("pool", "MetricsHealthy", "False", "Stale", pool(metrics="Stale"), "own counts"),
    ("pool", "MetricsHealthy", "False", "NotExposed", pool(metrics="NotExposed"), "own counts"),
    (
        "pool",
        "MetricsHealthy",
        "False",
        "UnknownNames",
        pool(metrics="UnknownNames", metrics_message="no vllm:num_requests_waiting"),
        "no vllm:num_requests_waiting",
    ),
    ("pool", "MetricsHealthy", "False", "AuthRequired", pool(metrics="AuthRequired"), "own counts"),
    ("route", "Ready", "True", "Programmed", route(), "all balancers"),
    ("route", "Ready", "True", "Programmed", route(tiers=(EMPTY, OPEN)), "all balancers"),
    ("route", "Ready", "True", "Shadow", route(shadow=True), "it serves nothing"),
    ("route", "Ready", "False", "AllPoolsUnready", route(shadow=True, tiers=(EMPTY,)), "no pool of any tier"),
    ("route", "Ready", "False", "AllPoolsUnready", route(tiers=(EMPTY, EMPTY)), "no pool of any tier"),
    ("route", "Ready", "False", "NoOpenTier", route(tiers=(SHUT, EMPTY)), "no tier takes requests"),
    ("route", "Ready", "False", "UnknownGateway", route(reach=(ABSENT,), served=False), "no gateway edge"),
    ("route", "Ready", "False", "PoolNotFound", bad("PoolNotFound"), "spec.x"),
    ("route", "Ready", "False", "Pending", route(served=False), "nothing of it"),
    ("route", "Ready", "False", "PartiallyProgrammed", route(reach=(BEHIND,)), "1 of 3"),
    ("route", "Spilling", "False", "NotSpilling", route(tiers=(OPEN, SHUT)), "no tier sends requests on"),
    (
        "route",
        "Ready",
        "False",
        "NoOpenTier",
        route(problems=(problem("GuardRefuses", "no pool passes it", "spec.guards[0]", fatal=False),), tiers=(EMPTY,)),
        "spec.guards[0]: no pool passes it",
    ),
    (
        "route",
        "Spilling",
        "False",
        "GuardRefuses",
        route(problems=(problem("GuardRefuses", "no pool passes it", "spec.guards[0]", fatal=False),)),
        "spec.guards[0]: no pool passes it",
    ),
    ("route", "Spilling", "True", "Load", route(tiers=(SPILLING, OPEN)), "default/local sends 18% on"),
    ("route", "Spilling", "True", "Load", route(tiers=(SPILLING,)), "default/local sends 18% on"),
    ("route", "Spilling", "True", "Load", route(tiers=(SPILLING, SPENT, OPEN)), "default/local sends 18% on"),
    (
        "route",
        "Spilling",
        "False",
        "BudgetSpent",
        route(tiers=(OPEN, SPENT)),
        "default/cloud has spent its budget of 5",
    ),
    ("route", "Spilling", "False", "BudgetSpent", route(tiers=(SPILLING, SPENT)), "5.00 USD a day"),
    ("route", "Ready", "False", "NoOpenTier", route(tiers=(SPENT,)), "no tier takes requests"),
    ("route", "Ready", "True", "Programmed", route(tiers=(OPEN, SPENT)), "in force"),
]
CHECKS = {"pool": POOL, "route": ROUTE}


@pytest.mark.parametrize(("kind", "condition", "status", "reason", "sight", "words"), ROWS)
def test_a_condition(kind, condition, status, reason, sight, words):
    verdict = CHECKS[kind][condition](sight)
    assert (verdict.status, verdict.reason) == (status, reason)
    assert words in verdict.message


def test_nothing_is_said_of_metrics_that_nobody_reads():
    assert POOL["MetricsHealthy"](pool(metrics=None)) is None
    assert POOL["MetricsHealthy"](pool(metrics="Off")) is None


def test_every_reason_that_the_code_can_give_has_a_row():
    given = {reason for _, _, _, reason, _, _ in ROWS}
    assert verdicts() | set(get_args(MetricsState)) - {"Ok", "Off"} <= given
    assert found() - {"NoEndpoints"} <= given  # from files alone
    assert given >= REFERENCES


def test_every_condition_of_both_kinds_has_rows_for_both_answers():
    for kind, checks in CHECKS.items():
        for condition in checks:
            statuses = {row[2] for row in ROWS if row[:2] == (kind, condition)}
            assert statuses == {"True", "False"}, (kind, condition)


def verdicts():
    """Reasons that stand in conditions.py."""
    calls = [node for node in ast.walk(ast.parse(inspect.getsource(conditions))) if isinstance(node, ast.Call)]
    named = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "Verdict"]
    reasons = {call.args[1].value for call in named if isinstance(call.args[1], ast.Constant)}
    assert len(reasons) > 10
    return reasons


def found():
    """Reasons of problems that pools.py, routes.py and sources.py find: constants of the form of a reason."""
    reasons = set()
    for module in (pools, routes, sources):
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            elements = node.args if isinstance(node, ast.Call) else getattr(node, "elts", ())
            words = [each.value for each in elements if isinstance(each, ast.Constant) and isinstance(each.value, str)]
            reasons |= {word for word in words if word.isidentifier() and word[0].isupper()}
    reasons -= {"Authorization", "Same", "All"}
    assert {"ModelNotInPool", "PortNotFound", "Invalid"} <= reasons
    return reasons


# ---- which of several things is told


def test_the_chain_of_a_route_tells_the_most_important_thing_first():
    everything = RouteSight(
        unreadable="Expected `array`",
        problems=(problem("ModelNameConflict"), problem("PoolNotFound")),
        reach=(ABSENT, BEHIND),
        served=False,
        kept=False,
        tiers=(EMPTY,),
    )
    mended = [
        ("Invalid", {"unreadable": ""}),
        ("ModelNameConflict", {"problems": (problem("PoolNotFound"),)}),
        ("UnknownGateway", {"reach": (BEHIND,)}),
        ("PoolNotFound", {"problems": ()}),
        ("Pending", {"served": True}),
        ("PartiallyProgrammed", {"reach": (HERE,)}),
        ("AllPoolsUnready", {"tiers": (SHUT,)}),
        ("NoOpenTier", {"tiers": (OPEN,)}),
        ("Programmed", {}),
    ]
    for reason, mending in mended:
        assert ROUTE["Ready"](everything).reason == reason
        everything = everything._replace(**mending)


def test_of_several_problems_all_are_told_and_the_first_is_the_reason():
    both = (problem("ModelNotInPool", "no model x", "spec.a"), problem("NotAllowedByPool", "not yours", "spec.b"))
    verdict = ROUTE["Accepted"](route(problems=both))
    assert verdict.reason == "ModelNotInPool"
    assert verdict.message == "spec.a: no model x; spec.b: not yours"


def test_a_thousand_problems_still_fit_into_a_message():
    many = tuple(problem("ModelNotInPool", "x" * 100, f"spec.{number}") for number in range(1000))
    assert len(ROUTE["Accepted"](route(problems=many)).message) <= LONGEST_MESSAGE + 1


def test_endpoints_that_fail_for_several_reasons():
    mixed = pool(total=4, unhealthy=1, ejected=2, refused=1)
    assert POOL["Ready"](mixed).reason == "AllEjected"
    assert POOL["Ready"](mixed._replace(unhealthy=2, ejected=1)).reason == "AllUnhealthy"
    assert POOL["Ready"](mixed._replace(ejected=1)).status == "True"


def test_a_verdict_has_the_form_that_the_api_server_demands():
    for kind, condition, _, reason, sight, _ in ROWS:
        verdict = CHECKS[kind][condition](sight)
        assert reason.isalnum()
        assert verdict.message
        assert verdict.status in ("True", "False", "Unknown")
