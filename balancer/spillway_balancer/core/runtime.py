"""A snapshot made ready to serve. Built beside the old one, then swapped in by one assignment."""

from __future__ import annotations

from spillway_api import snapshot

from .pool import Pool
from .routing import Route, Routes


class Runtime:
    """Everything a request reads. A request takes it once and holds it to its end."""

    def __init__(self, spec: snapshot.Snapshot, previous: Runtime | None = None) -> None:
        """Make `spec` ready, carrying over by name what lives: circuits, load, probes, cursors, retry budgets."""
        old_pools = previous.pools if previous else {}
        old_routes = {route.name: route for route in previous.routes.all} if previous else {}
        self.spec = spec
        self.digest = snapshot.digest(spec)
        self.pools: dict[str, Pool] = {pool.name: Pool(pool, old_pools.get(pool.name)) for pool in spec.pools}
        self.routes: Routes = Routes(Route(route, self.pools, old_routes.get(route.name)) for route in spec.routes)
