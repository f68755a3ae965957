"""What sidecars are given of a gateway's snapshot: nothing that is a secret or counted for all, and all of the rest."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_api import snapshot as snap
from spillway_api import stream
from spillway_api.sidecars import Asked, Offer, direct, everything_else, reached, remote_name, unknown_world, view
from spillway_api.snapshot import (
    Consumer,
    Consumers,
    Credential,
    Endpoint,
    Identity,
    Mirror,
    Pool,
    Proxy,
    Route,
    RouteRule,
    RouteTier,
    Snapshot,
    Target,
    digest,
)
from spillway_api.types import (
    AccountLimits,
    AwsIdentity,
    Budget,
    Capacity,
    Dispatch,
    Health,
    Hedge,
    Limits,
    Metrics,
    Model,
    Retry,
    Spill,
    Timeouts,
)

GATEWAY = "edge"
REMOTE = remote_name(GATEWAY)
SECRET = Credential("team/s3cr3t", "api-key", "Authorization", "Bearer ")
PLAIN = Endpoint("e", "http://10.0.0.1:8000")


def pool(name: str, *endpoints: Endpoint, provider: str | None = None, **more: object) -> Pool:
    kept = (Dispatch(), Capacity(), Metrics(), Health())
    return Pool(name, (Model("m"),), "vLLM", provider, endpoints, *kept, **more)


KINDS: dict[str, tuple[bool, Pool]] = {
    "plain": (True, pool("p", PLAIN)),
    "grown": (True, pool("p", PLAIN, Endpoint("f", "http://10.0.0.2:8000"))),
    "asleep": (True, pool("p", wakes=True)),
    "by a proxy": (True, pool("p", PLAIN, proxy=Proxy("http://proxy:3128"))),
    "provider": (False, pool("p", Endpoint("a", "https://provider.example", credential=SECRET), provider="OpenAI")),
    "provider without an account": (False, pool("p", provider="OpenAI")),
    "own key": (False, pool("p", PLAIN, Endpoint("g", "https://engine.example", credential=SECRET))),
    "proxy's password": (False, pool("p", PLAIN, proxy=Proxy("http://proxy:3128", SECRET))),
    "budget": (False, pool("p", PLAIN, budget=Budget("5"))),
    "limits of accounts": (False, pool("p", Endpoint("e", "http://e", limits=AccountLimits(requests_per_minute=5)))),
    "identity": (False, pool("p", Endpoint("e", "https://cloud", identity=Identity("team", aws=AwsIdentity())))),
}
SPACES = ("red", "blue")
POOLS = tuple(f"{space}/{name}" for space, name in itertools.product(SPACES, "ab"))
ROUTES = tuple(f"{space}/{name}" for space, name in itertools.product(SPACES, "xyz"))
MODELS = ("chat", "chat-large", "chat-*", "c*", "*", "other")
KEYS = Consumers({"team": "a"}, (Consumer("ann", "team/s3cr3t", "key"),))

targets = st.builds(Target, st.sampled_from(POOLS), st.sampled_from((None, "m")), st.sampled_from((50, 100)))
tiers = st.builds(
    RouteTier,
    st.sampled_from(("first", "second")),
    st.lists(targets, min_size=1, max_size=3).map(tuple),
    st.sampled_from(("Weighted", "InOrder")),
    st.sampled_from(((), ("Capacity",))),
    spill=st.sampled_from((None, Spill())),
    hedge=st.sampled_from((None, Hedge("1s"))),
    min_quality_percent=st.sampled_from((None, 50)),
    limits=st.sampled_from((None, None, Limits(requests_per_minute=5), Limits(budget=Budget("7")))),
)
rules = st.builds(RouteRule, st.sampled_from(("r", "s")), st.lists(tiers, max_size=2).map(tuple))


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    """As compile makes them: parts by name, every name of a model decided by one route at the most."""
    kinds = st.sampled_from(sorted(KINDS))
    pools = tuple(msgspec.structs.replace(KINDS[draw(kinds)][1], name=name) for name in POOLS)
    free = draw(st.permutations(MODELS))
    routes = []
    for at, name in enumerate(ROUTES):
        made = Route(
            name,
            (free[at],),
            draw(st.lists(rules, min_size=1, max_size=2).map(tuple)),
            Timeouts(),
            Retry(),
            consumers=draw(st.sampled_from((None, None, KEYS))),
            mirror=draw(st.sampled_from((None, Mirror(Target(POOLS[0]), 5), Mirror(Target(POOLS[3]), 5)))),
            mode=draw(st.sampled_from(("Enforce", "Enforce", "Shadow"))),
        )
        if draw(st.booleans()):
            routes.append(made)
    used = {target.pool for route in routes for target in route.targets()}
    return Snapshot(GATEWAY, tuple(each for each in pools if each.name in used), tuple(routes))


questions = st.builds(
    Asked, st.sampled_from((None, *SPACES, "green")), st.frozensets(st.sampled_from((*ROUTES, "red/none")), max_size=3)
)


@given(snapshots(), questions)
def test_a_view_holds_nothing_that_a_gateway_keeps_from_anybody(whole: Snapshot, asked: Asked) -> None:
    given_view = view(whole, asked)
    written = snap.encode(given_view).decode()
    for word in ("s3cr3t", '"budget"', '"ann"', "provider.example", "identity", '"limits"'):
        assert word not in written
    assert all(direct(each) for each in given_view.pools)
    assert not any(each.consumers or each.mode == "Shadow" for each in given_view.routes)


@given(snapshots(), questions)
def test_a_view_is_a_snapshot_that_can_be_served_from(whole: Snapshot, asked: Asked) -> None:
    given_view = view(whole, asked)
    pools = [each.name for each in given_view.pools]
    assert pools == sorted(set(pools))
    assert {target.pool for route in given_view.routes for target in route.targets()} <= set(pools)
    assert [each.name for each in given_view.routes] == sorted({each.name for each in given_view.routes})
    assert [each.name for each in given_view.pools if each.remote] == [REMOTE]
    assert snap.decode(snap.encode(given_view)) == given_view
    claimed = [name for route in given_view.routes for name in route.models]
    assert len(claimed) == len(set(claimed))
    assert "*" in claimed


@given(snapshots(), questions)
def test_what_can_be_sent_by_oneself_is_as_the_gateway_has_it(whole: Snapshot, asked: Asked) -> None:
    own = {each.name: each for each in whole.routes}
    known = {each.name: each for each in whole.pools}
    for route in view(whole, asked).routes:
        if route.name == REMOTE:
            continue
        source = own[route.name]
        assert asked.namespace in (None, route.name.partition("/")[0])
        assert not asked.routes or route.name in asked.routes
        assert [rule.name for rule in route.rules] == [rule.name for rule in source.rules]
        for rule, before in zip(route.rules, source.rules, strict=True):
            for tier, was in zip(rule.tiers, before.tiers, strict=True):
                free = was.limits is None and all(direct(known[each.pool]) for each in was.targets)
                assert (tier.name, tier.enter_on, tier.spill) == (was.name, was.enter_on, was.spill)
                assert tier == was if free else [each.pool for each in tier.targets] == [REMOTE]


@given(snapshots(), questions, st.sampled_from(("chat", "chat-large", "chat-9", "cx", "other", "new")))
def test_a_name_never_falls_to_another_route_than_at_the_gateway(whole: Snapshot, asked: Asked, name: str) -> None:
    at_gateway = decides([each for each in whole.routes if each.mode == "Enforce"], name)
    beside = decides(view(whole, asked).routes, name)
    assert beside in (at_gateway, REMOTE)


def decides(routes: list[Route] | tuple[Route, ...], name: str) -> str | None:
    """The route that a name is of: exact, else by the longest wildcard."""
    claims = {model: route.name for route in routes for model in route.models}
    wild = [model for model in claims if model.endswith("*") and name.startswith(model[:-1])]
    return claims.get(name) or (claims[max(wild, key=len)] if wild else None)


@given(st.lists(snapshots(), min_size=1, max_size=3), st.lists(questions, min_size=1, max_size=2))
def test_offers_one_after_the_other_give_what_each_alone_would(wholes: list[Snapshot], asked: list[Asked]) -> None:
    offer: Offer | None = None
    before: dict[Asked, Snapshot] = {}
    for whole in wholes:
        offer = Offer(whole, offer)
        for each in asked:
            now = offer.view(each)
            assert now == view(whole, each)
            assert offer.digest(now) == digest(now) == digest(view(whole, each))
            if (last := before.get(each)) is not None:
                delta = stream.difference(last, now, digest(last), digest(now), 1.0)
                assert stream.applied(last, delta) == now
                heard = stream.from_operator(stream.encode(delta))
                assert isinstance(heard, stream.Delta)
                assert digest(stream.applied(last, heard)) == digest(now)
            before[each] = now


@given(snapshots(), questions)
def test_what_does_not_change_stays_the_same_object(whole: Snapshot, asked: Asked) -> None:
    offer = Offer(whole)
    again = snap.decode(snap.encode(whole))  # as it is compiled anew
    before, now = offer.view(asked), Offer(again, offer).view(asked)
    assert now == before
    assert all(one is other for one, other in zip(before.pools, now.pools, strict=True))
    assert all(one is other for one, other in zip(before.routes, now.routes, strict=True) if one.name != REMOTE)


@pytest.mark.parametrize("kind", KINDS)
def test_which_pools_a_sidecar_can_send_to(kind: str) -> None:
    expected, each = KINDS[kind]
    assert direct(each) is expected


@dataclass(frozen=True)
class Names:
    given: tuple[str, ...]
    kept: tuple[str, ...]
    elsewhere: tuple[str, ...]


@pytest.mark.parametrize(
    "names",
    [
        Names(("chat",), ("secret",), ("*",)),
        Names(("gpt-*",), ("gpt-5", "llama"), ("*", "gpt-5")),
        Names(("gpt-*",), ("gpt-5*", "g*"), ("*", "gpt-5*")),
        Names(("*",), ("gpt-5", "llama*"), ("gpt-5", "llama*")),
        Names(("*",), (), ()),
    ],
)
def test_names_that_are_somebody_else_s_go_to_the_gateway(names: Names) -> None:
    tier = RouteTier("t", (Target("red/a"),), "Weighted", ())
    given_route = Route("red/x", names.given, (RouteRule("r", (tier,)),), Timeouts(), Retry())
    kept = Route("blue/y", names.kept, (RouteRule("r", (tier,)),), Timeouts(), Retry(), consumers=KEYS)
    whole = Snapshot(GATEWAY, (pool("red/a", PLAIN),), (kept, given_route))
    routes = {each.name: each for each in view(whole, Asked()).routes}
    assert (routes[REMOTE].models if REMOTE in routes else ()) == names.elsewhere


def test_without_anything_all_is_the_gateway_s() -> None:
    nothing = unknown_world(GATEWAY)
    assert nothing == view(Snapshot(GATEWAY, (), ()), Asked())
    assert nothing.routes == (everything_else(GATEWAY),)
    (remote,) = reached(nothing, "http://edge:80").pools
    assert remote.endpoints == (Endpoint("gateway", "http://edge:80"),)
    assert digest(nothing) != digest(reached(nothing, "http://edge:80"))
