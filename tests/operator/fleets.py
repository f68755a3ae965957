"""A cluster, its gateways and their balancers, planned for as the operator does it, without an API server."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tests.operator.balancers import Balancer
from tests.operator.objects import deployment, world

from spillway_api.labelled import Labelled
from spillway_api.snapshot import digest
from spillway_operator import facts
from spillway_operator.arbiter import Total
from spillway_operator.plan import ConfigView, Gateway, StatusView, Written, snapshot_of, statuses_of
from spillway_operator.progress import Progress

NOON = 1_767_268_800.0
SECRETS = {f"default/{name}": {"api-key": f"sk-quagga-{name}"} for name in ("openai", "groq", "engine")}


class Fleet:
    """What one operator remembers; `see` shows it a cluster, `statuses` are what it would write."""

    def __init__(self, *gateways: str, replicas: int = 2, secrets: Mapping[str, Mapping[str, str]] = SECRETS) -> None:
        self.facts = {
            name: facts.gateway(deployment(f"spillway-gateway-{name}", name, replicas))
            for name in gateways or ("default",)
        }
        self.progress = {name: Progress(name) for name in self.facts}
        self.balancers: dict[str, tuple[Balancer, ...]] = dict.fromkeys(self.facts, ())
        self.secrets = secrets
        self.consumers: list[tuple[str, Labelled]] | None = None
        """By namespace; None may not be listed."""
        self.world = world()
        self.settling = False
        self.totals: dict[str, Total] = {}

    def see(self, *bodies: dict[str, Any]) -> Fleet:
        """Plan the snapshots of all gateways for these objects."""
        self.world = world(*bodies)
        for name, progress in self.progress.items():
            compiled = snapshot_of(self.view(name))
            progress.take(compiled, digest(compiled.snapshot), NOON)
        return self

    def view(self, gateway: str) -> ConfigView:
        return ConfigView(
            gateway,
            list(self.world.pools()),
            list(self.world.policies()),
            self.world.found,
            self.world.labels,
            lambda secret, key: bool(self.secrets.get(secret, {}).get(key)),
            lambda secret: secret in self.secrets,
            self.progress[gateway].last_good,
            self.selected,
        )

    def selected(self, namespace: str, labels: str) -> list[Labelled] | None:
        """The consumers of the namespace, whatever they are selected by."""
        return self.consumers and [face for space, face in self.consumers if space == namespace]

    def value(self, secret: str, key: str) -> bytes | None:
        found = self.secrets.get(secret, {}).get(key)
        return None if found is None else found.encode()

    def acknowledge(self, replicas: int = 2) -> Fleet:
        """All balancers serve by the present snapshots."""
        for name, progress in self.progress.items():
            mark = progress.digest
            self.balancers[name] = tuple(Balancer(f"{name}-{number}", mark) for number in range(replicas))
        return self

    def statuses(self, now: float = NOON) -> dict[str, Written]:
        gateways = {
            name: Gateway(self.facts.get(name), progress, self.balancers[name])
            for name, progress in self.progress.items()
        }
        pools, policies = list(self.world.pools()), list(self.world.policies())
        view = StatusView(pools, policies, self.world.found, gateways, self.settling, totals=self.totals)
        return {each.watched.key: each for each in statuses_of(view, now)}

    def condition(self, key: str, type: str) -> tuple[str, str]:
        """Status and reason of a condition of Kind/namespace/name."""
        return self.conditions(key)[type]

    def conditions(self, key: str) -> dict[str, tuple[str, str]]:
        return {each["type"]: (each["status"], each["reason"]) for each in self.status(key)["conditions"]}

    def message(self, key: str, type: str) -> str:
        (only,) = [each["message"] for each in self.status(key)["conditions"] if each["type"] == type]
        return str(only)

    def status(self, key: str) -> dict[str, Any]:
        return self.statuses()[key].status

    def routes(self, gateway: str = "default") -> dict[str, Any]:
        compiled = self.progress[gateway].compiled
        assert compiled is not None
        return {route.name: route for route in compiled.snapshot.routes}

    def pools(self, gateway: str = "default") -> dict[str, Any]:
        compiled = self.progress[gateway].compiled
        assert compiled is not None
        return {pool.name: pool for pool in compiled.snapshot.pools}


def stored(bodies: Iterable[dict[str, Any]], written: Mapping[str, Written]) -> list[dict[str, Any]]:
    """The objects after the API server took the statuses."""
    found = []
    for body in bodies:
        key = f"{body['kind']}/{body['metadata'].get('namespace', '')}/{body['metadata']['name']}"
        found.append({**body, "status": written[key].status} if key in written else body)
    return found
