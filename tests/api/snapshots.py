"""Snapshots as they may come one after the other: few names, so that parts stay, change, go and come back."""

from __future__ import annotations

import itertools

from hypothesis import strategies as st

from spillway_api.snapshot import Credential, Endpoint, Identity, Pool, Route, RouteRule, RouteTier, Snapshot, Target
from spillway_api.types import AwsIdentity, AzureIdentity, Capacity, Dispatch, Health, Metrics, Model, Retry, Timeouts

NAMES = ("default/a", "default/b", "team/a", "team/b")
CREDENTIAL = Credential("default/key", "api-key", "Authorization", "Bearer ")


def _pool(name: str, *endpoints: Endpoint, provider: str | None = None) -> Pool:
    models = (Model("m", "org/m"),)
    return Pool(name, models, "Auto", provider, endpoints, Dispatch(), Capacity(), Metrics(), Health())


def _route(name: str, *pools: str, model: str | None = None) -> Route:
    tier = RouteTier("t", tuple(Target(pool, model) for pool in pools), "Weighted", ("Capacity",))
    return Route(name, ("chat",), (RouteRule("default", (tier,)),), Timeouts(), Retry())


_ENDPOINTS = (
    (),
    (Endpoint("x", "http://10.0.0.1:8000"),),
    (Endpoint("x", "http://10.0.0.2:8000"),),
    (Endpoint("x", "http://10.0.0.1:8000", 50, CREDENTIAL), Endpoint("y", "http://10.0.0.2:8000")),
    (Endpoint("x", "https://api", identity=Identity("team", aws=AwsIdentity()), region="eu-west-1"),),
    (Endpoint("x", "https://api", identity=Identity("team", True, azure=AzureIdentity("t", "c"))),),
)
POOLS = tuple(_pool(name, *endpoints) for name, endpoints in itertools.product(NAMES, _ENDPOINTS))
ROUTES = tuple(
    _route(name, pool, model=model) for name, pool, model in itertools.product(NAMES, NAMES[:2], (None, "m"))
)


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    """A snapshot of the gateway `default` in the form in which compile makes it: parts by name, each name once."""
    parts = []
    for kind in (POOLS, ROUTES):
        chosen = draw(st.lists(st.sampled_from(kind), unique_by=lambda part: part.name, max_size=len(NAMES)))
        parts.append(tuple(sorted(chosen, key=lambda part: part.name)))
    return Snapshot("default", *parts)
