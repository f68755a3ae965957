"""Whether a sidecar knows enough to decide as its gateway does on the requests of a policy.

An expression that reads a pool which the sidecar has not would have no value there: its rule would not hold, its guard
would, and the request would go elsewhere than by the gateway. Such a policy is the gateway's as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator

from spillway_api.expressions import InvalidExpression, condition
from spillway_api.snapshot import Pool, Route


def decides(route: Route, given: Route, remote: Pool) -> bool:
    """Whether what is `given` of a route, with `remote` in the place of pools, decides as the route does."""
    own = route.name.partition("/")[0] + "/"
    there = {target.pool.removeprefix(own) for target in given.targets()}
    lacking = {target.pool.removeprefix(own) for target in route.targets()} - there
    if not lacking:
        return True
    first = next((target.pool for rule in given.rules for tier in rule.tiers for target in tier.targets), None)
    for source in _expressions(route):
        try:
            made = condition(source)
        except InvalidExpression:
            continue  # it has no value anywhere
        if "pools" in made.reads and (made.pools is None or not lacking.isdisjoint(made.pools)):
            return False
        if "bucket" in made.reads and first == remote.name:
            return False  # of the key of a session, as the first pool reads it
    return True


def _expressions(route: Route) -> Iterator[str]:
    yield from (rule.when for rule in route.rules if rule.when is not None)
    yield from (guard.when for guard in route.guards if guard.when is not None)
    if route.overrides is not None and route.overrides.when is not None:
        yield route.overrides.when
