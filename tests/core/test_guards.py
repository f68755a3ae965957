"""Laws of guards: whatever fails, wherever it goes, no attempt reaches a pool that a holding guard excludes."""

from __future__ import annotations

import random
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.core.asked import Asked

from spillway_api import snapshot
from spillway_api.guards import passes
from spillway_api.types import (
    Capacity,
    DataHandling,
    Dispatch,
    EnterOn,
    Guard,
    Health,
    Hedge,
    KeySource,
    Limits,
    Metrics,
    Model,
    Overrides,
    Ramp,
    Requirement,
    Retry,
    Select,
    Sensitivity,
    Spill,
    Timeouts,
)
from spillway_balancer.core.attempts import Attempts, Stop, Try
from spillway_balancer.core.conditions import Moment
from spillway_balancer.core.errors import NoCompliantTarget, NoReadyEndpoint
from spillway_balancer.core.planning import Plan, plan
from spillway_balancer.core.reasons import REASONS, Failure
from spillway_balancer.core.runtime import Runtime

NOW = 1000.0
PERSONAL = {"x-data-class": "personal"}
EXPRESSIONS: dict[str | None, bool] = {
    None: True,
    "true": True,
    'headers["x-data-class"] == "personal"': True,
    'headers["x-missing"] == "personal"': True,  # cannot be evaluated
    'tokens.nonsense > 1 && "x" in headers': True,  # cannot be compiled
    "int(model) > 3": True,  # errs
    "false": False,
    'headers["x-data-class"] == "public"': False,
    '"x-missing" in headers && headers["x-missing"] == "personal"': False,
}
"""Whether a guard with each holds for a request of personal data."""


def pool(name: str, declared: DataHandling | None = None, endpoints: int = 1, bound: int = 0) -> snapshot.Pool:
    return snapshot.Pool(
        name=f"default/{name}",
        models=(Model(name="m", upstream_name="m"),),
        engine="Auto",
        provider=None,
        endpoints=tuple(snapshot.Endpoint(f"e{at}", f"http://{name}{at}:80") for at in range(endpoints)),
        dispatch=Dispatch(key=[KeySource(type="Header", name="x-session-id")]),
        capacity=Capacity(max_in_flight_per_endpoint=bound),
        metrics=Metrics(),
        health=Health(),
        data_handling=declared,
    )


def tier(name: str, *pools: str, **more: Any) -> snapshot.RouteTier:
    targets = tuple(snapshot.Target(f"default/{each}") for each in pools)
    settings = {"select": "Weighted", "enter_on": ("Capacity", "Transient"), **more}
    return snapshot.RouteTier(name, targets, **settings)


ALL = Overrides(("Rule", "Pool", "NoFallback"))


def served(
    pools: list[snapshot.Pool],
    tiers: list[snapshot.RouteTier],
    guards: list[Guard],
    mirror: str | None = None,
    **retry: Any,
) -> Runtime:
    rule = snapshot.RouteRule("default", tuple(tiers))
    copies = None if mirror is None else snapshot.Mirror(snapshot.Target(f"default/{mirror}"), 100)
    more: dict[str, Any] = {"guards": tuple(guards), "overrides": ALL, "mirror": copies}
    route = snapshot.Route("default/chat", ("chat",), (rule,), Timeouts(), Retry(**retry), **more)
    return Runtime(snapshot.Snapshot("default", tuple(pools), (route,)))


def decided(runtime: Runtime, asked: Asked | None = None, seed: int = 1) -> Plan:
    return plan(runtime.routes, asked or Asked(given=PERSONAL), Moment(NOW, NOW, random.Random(seed)))


def guard(name: str = "g", when: str | None = None, **require: Any) -> Guard:
    return Guard(name, Requirement(**require), when)


EU = DataHandling(jurisdictions=("EU",))
US = DataHandling(jurisdictions=("US",))
BOTH = DataHandling(jurisdictions=("EU", "US"))

# what a pool declares, what a guard requires, whether it passes
PASSES = [
    (None, Requirement(jurisdictions=("EU",)), False),
    (None, Requirement(max_sensitivity="Public"), False),
    (DataHandling(), Requirement(max_sensitivity="Public"), False),
    (DataHandling(jurisdictions=()), Requirement(jurisdictions=("EU",)), False),
    (EU, Requirement(jurisdictions=("EU",)), True),
    (EU, Requirement(jurisdictions=("EU", "CH")), True),
    (BOTH, Requirement(jurisdictions=("EU",)), False),
    (BOTH, Requirement(jurisdictions=("US", "EU")), True),
    (US, Requirement(jurisdictions=("EU",)), False),
    (EU, Requirement(jurisdictions=("EU",), max_sensitivity="Public"), False),
    (DataHandling(jurisdictions=("EU",), retention_days=0), Requirement(jurisdictions=("EU",)), True),
    *(
        (DataHandling(max_sensitivity=has), Requirement(max_sensitivity=data), has_rank >= data_rank)
        for has_rank, has in enumerate(("Public", "Internal", "Confidential", "Restricted"))
        for data_rank, data in enumerate(("Public", "Internal", "Confidential", "Restricted"))
    ),
]


@pytest.mark.parametrize(("declared", "require", "expected"), PASSES)
def test_what_a_pool_declares_against_what_is_required(
    declared: DataHandling | None, require: Requirement, expected: bool
) -> None:
    assert passes(declared, require) is expected


@pytest.mark.parametrize(("when", "holds"), EXPRESSIONS.items())
def test_a_guard_that_has_no_value_holds(when: str | None, holds: bool) -> None:
    made = decided(served([pool("us", US)], [tier("only", "us")], [guard("eu", when, jurisdictions=("EU",))]))
    assert isinstance(made.refused, NoCompliantTarget) is holds
    assert (made.tiers == ()) is holds
    assert made.held is None or [each.name for each in made.held.guards] == ["eu"]


def test_why_a_guard_holds_is_told() -> None:
    guards = [
        guard("plain", "true", jurisdictions=("EU",)),
        guard("absent", 'headers["x-missing"] == "a"', jurisdictions=("EU",)),
        guard("broken", "no.such > 1", jurisdictions=("EU",)),
        guard("sleeps", "false", jurisdictions=("EU",)),
    ]
    held = decided(served([pool("eu", EU)], [tier("only", "eu")], guards)).held
    assert held is not None
    assert [each.name for each in held.guards] == ["plain", "absent", "broken"]
    assert held.unknown == (("absent", "missing"), ("broken", "error"))


def test_the_requirements_of_all_that_hold_are_one() -> None:
    pools = [pool("eu", EU), pool("us", US), pool("ch", DataHandling(jurisdictions=("CH",)))]
    guards = [guard("a", jurisdictions=("EU", "CH")), guard("b", jurisdictions=("EU", "US"))]
    made = decided(served(pools, [tier("only", "eu", "us", "ch")], guards))
    assert [target.pool.name for each in made.tiers for target in each.targets] == ["default/eu"]
    assert [target.pool for each in made.tiers for target in each.spec.targets] == ["default/eu"]
    assert {each.pool for each in made.cut} == {"default/us", "default/ch"}


def test_where_every_pool_passes_nothing_is_touched() -> None:
    runtime = served([pool("eu", EU)], [tier("only", "eu")], [guard(jurisdictions=("EU",))])
    made = decided(runtime)
    assert made.tiers is runtime.routes.all[0].rules[0]
    assert made.cut == ()
    unready = NoReadyEndpoint("none")
    assert made.told(unready) is unready


def test_a_tier_that_has_become_the_last_spills_no_more() -> None:
    ramp = Spill(in_flight_per_endpoint=Ramp(start=0, full=1))
    tiers = [tier("home", "eu", "us", spill=ramp), tier("cloud", "us")]
    made = decided(served([pool("eu", EU), pool("us", US)], tiers, [guard(jurisdictions=("EU",))]))
    (home,) = made.tiers
    assert home.spilling is None
    assert home.spec.spill is None


def test_a_tier_that_was_cut_spills_by_the_load_of_what_is_left() -> None:
    ramp = Spill(in_flight_per_endpoint=Ramp(start=0, full=1), smoothing="0s", min_dwell="0s")
    pools = [pool("eu", EU), pool("us", US), pool("eu-2", EU)]
    tiers = [tier("home", "eu", "us", spill=ramp), tier("cloud", "eu-2")]
    runtime = served(pools, tiers, [guard("g", 'headers["x-data-class"] == "personal"', jurisdictions=("EU",))])
    for _ in range(2):
        runtime.pools["default/us"].endpoints["e0"].load.lease(10, 10)
    bound, free = decided(runtime), decided(runtime, Asked(given={"x-data-class": "public"}))
    assert bound.tiers[0].spilling is not None
    assert free.tiers[0].spilling is not None
    assert bound.tiers[0].spilling.share(NOW) == 0.0
    assert free.tiers[0].spilling.share(NOW) == 1.0
    assert decided(runtime).tiers is bound.tiers  # the share that it has come to is kept


def test_a_tier_that_has_become_the_first_is_home_and_its_share_of_a_spill_does_not_bind() -> None:
    tiers = [tier("cloud", "us"), tier("home", "eu", limits=Limits(max_share_percent=10))]
    when = 'headers["x-data-class"] == "personal"'
    runtime = served([pool("us", US), pool("eu", EU)], tiers, [guard("g", when, jurisdictions=("EU",))])
    (route,) = runtime.routes.all
    dice = random.Random(1)
    for number in range(60):
        asked = Asked(f"session-{number}", PERSONAL)
        way = Attempts(decided(runtime, asked).tiers, route.spec.retry, route.retry_budget, asked, dice, NOW + 60)
        step = way.next(NOW)
        assert isinstance(step, Try)
        assert step.pool.name == "default/eu"


def test_a_name_that_says_how_to_select_is_bound_and_disturbs_no_other() -> None:
    ramp = Spill(in_flight_per_endpoint=Ramp(start=0, full=1))
    pools = [pool("eu", EU), pool("us", US), pool("eu-2", EU)]
    tiers = [tier("home", "eu", "us", "eu-2", spill=ramp), tier("cloud", "eu-2")]
    runtime = served(pools, tiers, [guard(jurisdictions=("EU",))])
    before = decided(runtime).tiers
    floor = decided(runtime, Asked(given=PERSONAL, model="chat:floor")).tiers
    assert [target.pool.name for each in floor for target in each.targets] == [
        target.pool.name for each in before for target in each.targets
    ]
    assert floor[0].chooser is not before[0].chooser
    assert floor[0].spilling is before[0].spilling
    assert decided(runtime).tiers is before


def test_pools_of_no_weight_do_not_make_a_tier() -> None:
    targets = (snapshot.Target("default/eu", weight=0), snapshot.Target("default/us"))
    mixed = snapshot.RouteTier("mixed", targets, "Weighted", ())
    made = decided(served([pool("eu", EU), pool("us", US)], [mixed], [guard(jurisdictions=("EU",))]))
    assert isinstance(made.refused, NoCompliantTarget)


def test_what_a_pool_declares_anew_is_in_force_with_the_next_snapshot() -> None:
    tiers, guards = [tier("only", "p")], [guard(jurisdictions=("EU",))]
    runtime = served([pool("p", EU)], tiers, guards)
    assert decided(runtime).refused is None
    spec = served([pool("p", BOTH)], tiers, guards).spec
    assert isinstance(decided(Runtime(spec, runtime)).refused, NoCompliantTarget)


# ---- any policy, any fault

SENSITIVITIES = list(get_args(Sensitivity))
PLACES = st.lists(st.sampled_from(["EU", "CH", "US"]), min_size=1, max_size=3, unique=True).map(tuple)
DECLARED = st.none() | st.builds(
    DataHandling, jurisdictions=st.none() | PLACES, max_sensitivity=st.none() | st.sampled_from(SENSITIVITIES)
)
REQUIRED = st.builds(
    Requirement, jurisdictions=st.none() | PLACES, max_sensitivity=st.none() | st.sampled_from(SENSITIVITIES)
).filter(lambda made: made.jurisdictions is not None or made.max_sensitivity is not None)
NAMES = ["a", "b", "c", "d"]


@st.composite
def policies(draw: st.DrawFn) -> tuple[Runtime, list[Guard]]:
    pools = [pool(name, draw(DECLARED), draw(st.integers(1, 2)), draw(st.sampled_from([0, 0, 1]))) for name in NAMES]
    guards = [
        Guard(f"g{at}", draw(REQUIRED), draw(st.sampled_from(list(EXPRESSIONS))))
        for at in range(draw(st.integers(1, 3)))
    ]
    tiers = []
    for at in range(draw(st.integers(1, 4))):
        chosen = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True))
        weights = draw(st.lists(st.sampled_from([0, 1, 100]), min_size=len(chosen), max_size=len(chosen)).filter(any))
        spill = draw(
            st.none()
            | st.builds(
                Spill,
                in_flight_per_endpoint=st.sampled_from([None, Ramp(start=0, full=1), Ramp(start=0, full=3)]),
                when_unavailable=st.booleans(),
                by=st.sampled_from(["Key", "Request"]),
                smoothing=st.just("0s"),
                min_dwell=st.just("0s"),
            )
        )
        tiers.append(
            snapshot.RouteTier(
                f"t{at}",
                tuple(snapshot.Target(f"default/{name}", weight=w) for name, w in zip(chosen, weights, strict=True)),
                draw(st.sampled_from(get_args(Select))),
                tuple(draw(st.lists(st.sampled_from(get_args(EnterOn)), min_size=1, unique=True))),
                spill,
                draw(st.none() | st.just(Hedge(after="1s", max_percent=100))),
            )
        )
    mirror = draw(st.none() | st.sampled_from(NAMES))
    return served(pools, tiers, guards, mirror, attempts=10, budget_percent=100), guards


def compliant(runtime: Runtime, guards: list[Guard]) -> set[str]:
    """The pools that every guard that holds lets pass: said here once more, in other words than the code's."""
    left = set()
    for name, each in runtime.pools.items():
        declared = each.spec.data_handling or DataHandling()
        fits = []
        for one in guards:
            if EXPRESSIONS[one.when]:
                places, most = one.require.jurisdictions, one.require.max_sensitivity
                if places is not None:
                    fits.append(
                        bool(declared.jurisdictions) and all(at in places for at in declared.jurisdictions or ())
                    )
                if most is not None:
                    has = declared.max_sensitivity
                    fits.append(has is not None and SENSITIVITIES.index(has) >= SENSITIVITIES.index(most))
        if all(fits):
            left.add(name)
    return left


@st.composite
def wishes(draw: st.DrawFn) -> dict[str, str]:
    """Headers of a caller that may decide everything itself."""
    given = {"x-data-class": "personal"}
    if draw(st.integers(0, 3)) == 0:
        given["x-spillway-pool"] = draw(st.sampled_from(NAMES))
    if draw(st.integers(0, 3)) == 0:
        given["x-spillway-no-fallback"] = "1"
    if draw(st.integers(0, 3)) == 0:
        given["x-spillway-rule"] = "default"
    return given


@settings(max_examples=500, deadline=None)
@given(
    policies(),
    st.randoms(use_true_random=False),
    st.sampled_from([None, "ann", "bob"]),
    wishes(),
    st.sampled_from(["chat", "chat:floor", "chat:nitro"]),
)
def test_no_attempt_goes_to_a_pool_that_a_guard_excludes(
    made: tuple[Runtime, list[Guard]], dice: random.Random, key: str | None, given: dict[str, str], model: str
) -> None:
    runtime, guards = made
    allowed = compliant(runtime, guards)
    for each in runtime.pools.values():  # some are busy, some ejected, some fail their probes
        for endpoint in each.endpoints.values():
            for _ in range(dice.randrange(3)):
                endpoint.load.lease(10, 10)
            for _ in range(dice.choice([0, 0, 20])):
                each.failed(endpoint, Failure("connect", retry_on="ConnectError"), NOW, NOW)
            if dice.random() < 0.2:
                endpoint.keyed = False
    asked = Asked(key, given, model=model)
    decision = decided(runtime, asked, dice.randrange(1000))
    (route,) = runtime.routes.all
    reached = {target.pool.name for tier in decision.tiers for target in tier.targets}
    assert reached <= allowed
    assert decision.mirror is None or decision.mirror.pool.name in allowed
    if set(given) <= {"x-data-class", "x-spillway-rule"}:
        leads_to = {target.pool.name for tier in route.rules[0] for target in tier.targets if target.weight}
        assert isinstance(decision.refused, NoCompliantTarget) == (not leads_to & allowed)
    if "x-spillway-pool" in given:
        assert reached <= {f"default/{given['x-spillway-pool']}"}
    if "x-spillway-no-fallback" in given:
        assert len(decision.tiers) <= 1
    if decision.refused is not None:
        return
    way = Attempts(decision.tiers, route.spec.retry, route.retry_budget, asked, dice, NOW + 60)
    now = NOW
    for _ in range(40):
        step = way.next(now)
        if isinstance(step, Try):
            assert step.pool.name in allowed
            hedging = way.hedging(step)
            beside = None if hedging is None else way.hedge(step, hedging, now)
            assert beside is None or beside.pool.name in allowed
            reason = dice.choice(list(REASONS))
            failure = Failure(reason, dice.choice([None, 429, 500, 503]), retry_on=None)
            step.pool.failed(step.endpoint, failure, now, now)
            way.failed(step, failure)
            now += dice.random()
        elif isinstance(step, Stop):
            told = decision.told(step.error)
            if isinstance(step.error, NoReadyEndpoint):
                assert isinstance(told, NoCompliantTarget) == bool(decision.cut)
            return
        else:
            now += step.seconds
    raise AssertionError("no end")
