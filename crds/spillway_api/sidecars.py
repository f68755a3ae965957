"""What of a gateway's snapshot is for sidecars: the routes that they may have, and what they can send themselves.

A sidecar has no keys, keeps no books, and is one of many. So a tier that needs a key, or in which something is counted
for all, is the gateway's: its targets become one, a pool that is `remote`. What a sidecar has no route for is the
gateway's as well.
"""

from __future__ import annotations

from typing import Final

from spillway_api.snapshot import Pool, Route, RouteRule, RouteTier, Snapshot, Target
from spillway_api.types import Capacity, Dispatch, Health, Metrics, Model, Retry, Timeouts

GATEWAY: Final = "gateway"
"""Name of the one endpoint of the remote pool."""
_NOWHERE: Final = "@gateway"
"""In the place of a namespace; no namespace has an @ in its name."""


def remote_name(gateway: str) -> str:
    """Of the pool that stands for a gateway, and of the route of everything that has no other."""
    return f"{_NOWHERE}/{gateway}"


def remote_pool(gateway: str) -> Pool:
    """The gateway as a pool. Its one endpoint is added by the sidecar."""
    return Pool(
        name=remote_name(gateway),
        models=(Model(name="*", upstream_name="*"),),
        engine="Generic",
        provider=None,
        endpoints=(),
        dispatch=Dispatch(strategy="Random"),
        capacity=Capacity(),
        metrics=Metrics(mode="None"),
        health=Health(),
        remote=True,
    )


def everything_else(gateway: str) -> Route:
    """The route of what has no other: all goes to the gateway."""
    tier = RouteTier(GATEWAY, (Target(remote_name(gateway)),), select="Weighted", enter_on=())
    return Route(remote_name(gateway), ("*",), (RouteRule(GATEWAY, (tier,)),), Timeouts(), Retry())


def unknown_world(gateway: str) -> Snapshot:
    """What a sidecar serves from that has nothing: all goes to the gateway."""
    return Snapshot(gateway, (remote_pool(gateway),), (everything_else(gateway),))
