"""A snapshot made ready to serve. Built beside the old one, then swapped in by one assignment.

What did not change is taken over as the same object, so that a change of one endpoint among thousands costs what it
changes. A Pool or Route may be shared by several runtimes: neither knows the runtime it is in, all that a request
leaves in it (leases, circuits, cursors, budgets) was carried over by name before as well, and a request under way sees
the same pool before and after.
"""

from __future__ import annotations

from spillway_api import snapshot

from .pool import Pool
from .remote import pool_of
from .routing import Route, Routes


class Runtime:
    """Everything a request reads. A request takes it once and holds it to its end."""

    def __init__(self, spec: snapshot.Snapshot, previous: Runtime | None = None, partial: bool = False) -> None:
        """Make `spec` ready, carrying over by name what lives: circuits, load, probes, cursors, retry budgets.

        `partial`: that of a sidecar, which knows that others send there too (`Pool.partial`); it stays so. A gateway
        hears of sidecars later (`beside_others`), and compiles all that it serves at once all the same.

        Raises whatever an unheard-of strategy or a duration that is none raises; `previous` serves on then as it did.
        """
        old_pools = previous.pools if previous else {}
        self.partial: bool = partial if previous is None else previous.partial
        self.others: bool = partial if previous is None else previous.others
        self.spec = spec
        self._digester: snapshot.Digester = previous._digester if previous else snapshot.Digester()
        self.digest = self._digester(spec)
        try:
            self.pools: dict[str, Pool] = {pool.name: _pool(pool, old_pools.get(pool.name)) for pool in spec.pools}
            for pool in self.pools.values():
                pool.partial = self.others
            changed = {name for name, pool in self.pools.items() if old_pools.get(name) is not pool}
            changed |= old_pools.keys() - self.pools.keys()
            old_routes = previous._by_name if previous else {}
            self._by_name: dict[str, Route] = {
                route.name: _route(route, self.pools, changed, old_routes.get(route.name)) for route in spec.routes
            }
        except Exception:
            if previous is not None:
                previous._reinstate()
            raise
        if not self.partial:
            for name, route in self._by_name.items():
                if old_routes.get(name) is not route:
                    route.compile()
        same = previous is not None and list(self._by_name.values()) == list(previous.routes.all)
        self.routes: Routes = previous.routes if same and previous is not None else Routes(self._by_name.values())

    def beside_others(self) -> None:
        """From now on: others send to the same endpoints, and what they leave in caches is not seen here."""
        self.others = True
        for pool in self.pools.values():
            pool.partial = True

    def _reinstate(self) -> None:
        """A runtime that was to follow has come to nothing, and may have given endpoints its own settings."""
        for pool in self.pools.values():
            for endpoint in pool.spec.endpoints:
                pool.endpoints[endpoint.name].follow(endpoint, pool.spec.provider is not None)
            if pool.fund is not None:
                pool.fund.apply()
        for route in self._by_name.values():
            route.reinstate()


def _pool(spec: snapshot.Pool, old: Pool | None) -> Pool:
    return old if old is not None and (old.spec is spec or old.spec == spec) else pool_of(spec, old)


def _route(spec: snapshot.Route, pools: dict[str, Pool], changed: set[str], old: Route | None) -> Route:
    if old is not None and (old.spec is spec or old.spec == spec) and changed.isdisjoint(old.pools):
        return old
    return Route(spec, pools, old)
