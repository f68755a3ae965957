"""A balancer's runtime without a network, in a state that is assumed: idle and healthy unless something else is said.

Every request is asked as if it were the next one. What is assumed is told to the very objects that serve (`telling`).
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from msgspec.structs import fields, replace

from spillway_api.known import Cluster, Discovered
from spillway_api.problem import Steps, did_you_mean
from spillway_api.snapshot import Endpoint, Snapshot
from spillway_api.types import ModelPool

from ..core.account import Explanation, Refused
from ..core.conditions import Moment
from ..core.endpoint import EndpointState
from ..core.errors import SpillwayError
from ..core.explanation import explain
from ..core.pool import Pool
from ..core.reasons import Failure, Reason
from ..core.runtime import Runtime
from ..net.credentials import Credentials
from ..net.facts import Facts
from ..net.filesource import judge
from ..net.keyring import Keyring
from .asking import Asking
from .document import Read, Unusable
from .given import EndpointGiven, State
from .telling import KEY, NOW, of, tell, whole

logging.getLogger("spillway").addHandler(logging.NullHandler())  # what there is to say is said in the account

ASSUMED: Final = 2
"""Endpoints of a pool that finds its own in a cluster."""

_STATUS: Final[Mapping[Reason, int]] = {
    "rate-limited": 429,
    "quota-exhausted": 402,
    "overloaded": 503,
    "server-error": 500,
    "auth": 401,
    "model-not-found": 404,
    "context-length": 400,
    "content-policy": 400,
    "bad-request": 400,
}


class AllCredentials(Credentials):
    """Every credential that a pool refers to is there: what an account would answer is assumed, and nobody is asked."""

    def has(self, secret: str, key: str) -> bool:
        return True


class Policies:
    """ModelPools and RoutePolicies from files, compiled as a balancer compiles them."""

    def __init__(
        self,
        paths: Sequence[Path],
        gateway: str,
        secrets: Path | None,
        state: State | None = None,
        prices: Path | None = None,
    ) -> None:
        """Raises Unusable with all that is wrong in the files."""
        self._given = {} if state is None else state.pools
        self.assumed: list[str] = []
        credentials = AllCredentials() if secrets is None else Credentials(secrets)
        judged = judge(paths, gateway, credentials, Cluster(discovered=self._discovered), prices)
        if judged.snapshot is None:
            raise Unusable(*judged.errors)
        credentials.give(judged.values)
        self.credentials = credentials
        self.snapshot: Snapshot = judged.snapshot
        self.notes = (*judged.notes, *sorted(self.assumed))

    def _discovered(self, item: ModelPool) -> Discovered:
        """Endpoints of a pool whose own are known in a cluster only: those of the state, else a few."""
        namespace, name = item.metadata.namespace, item.metadata.name
        given = self._given.get(f"{namespace}/{name}") or self._given.get(name if namespace == "default" else "")
        names = [] if given is None else list(given.endpoints)
        if not names:
            number = ASSUMED if given is None or given.ready is None else max(given.ready, 1)
            names = [f"{name}-{index}" for index in range(number)]
            said = "1 is" if number == 1 else f"{number} are"
            self.assumed.append(f"pool {namespace}/{name} finds its endpoints in a cluster; {said} assumed")
        return Discovered(tuple(Endpoint(each, f"http://{each}") for each in sorted(names)))


class World:
    """Policies in a state: asks what they would do with a request."""

    def __init__(self, policies: Policies, state: State | None = None, seed: int = 1) -> None:
        self._state = State() if state is None else state
        self._snapshot = _scaled(policies.snapshot, self._state)
        self._keyring = Keyring(policies.credentials)
        self._seed = seed
        self._unix = time.time() if self._state.now is None else unix(self._state.now)
        self._by_pool = {whole(name): given for name, given in self._state.pools.items()}

    def ask(self, asking: Asking) -> Explanation:
        """What becomes of the request, were it the next one. Raises Unusable for a path that is not served."""
        return self._ask(asking, None, random.Random(self._seed))

    def ask_all(self, many: Iterable[Asking]) -> Iterator[Explanation]:
        """What becomes of each, in one runtime, so that those who take turns do; what is drawn is drawn anew."""
        dice = random.Random(self._seed)
        # What is assumed of one prompt or attempt, or counted of one caller, must not be found by the next.
        own = any(route.consumers is not None for route in self._snapshot.routes)
        own |= any(_of_one(each) for given in self._by_pool.values() for each in (given, *given.endpoints.values()))
        runtime: Runtime | None = None
        for asking in many:
            if runtime is None and not own:
                runtime = self._runtime((asking.with_key(KEY) if self._state.consumer else asking).facts())
            yield self._ask(asking, runtime, dice)

    def _ask(self, asking: Asking, runtime: Runtime | None, dice: random.Random) -> Explanation:
        if self._state.consumer is not None:
            asking = asking.with_key(KEY)
        try:
            facts = asking.facts()
        except SpillwayError as error:
            said = Refused(error.status, error.code, error.message)
            return Explanation("", asking.path, False, 0, 0, said)
        runtime = runtime or self._runtime(facts)
        return explain(runtime.routes, facts, Moment(NOW, self._unix, dice), self._answer)

    def _runtime(self, facts: Facts) -> Runtime:
        runtime = Runtime(self._snapshot)
        self._keyring.follow(runtime)
        tell(runtime, self._state, facts, self._unix)
        return runtime

    def _answer(self, pool: Pool, endpoint: EndpointState) -> Failure | None:
        given = self._by_pool.get(pool.name)
        fails = None if given is None else of(given, endpoint.name).fails
        if fails is None:
            return None
        if fails == "connect":
            return Failure(fails, retry_on="ConnectError")
        if fails in ("first-byte-timeout", "stall"):
            return Failure(fails, retry_on="FirstByteTimeout")
        return Failure(fails, _STATUS[fails])


def _scaled(snapshot: Snapshot, state: State) -> Snapshot:
    """Without the endpoints of pools that are scaled to zero: those that can be woken and have none ready."""
    ready = {whole(name): given.ready for name, given in state.pools.items()}
    pools = tuple(
        replace(pool, endpoints=()) if pool.wakes and ready.get(pool.name) == 0 else pool for pool in snapshot.pools
    )
    return replace(snapshot, pools=pools)


def unix(now: str) -> float:
    """Seconds since 1970; without an offset a time is UTC. Raises ValueError."""
    at = datetime.fromisoformat(now)
    return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp()


def slips(state: Read[State], snapshot: Snapshot) -> Iterator[str]:
    """Where a state names what is not there: a slip would be an assumption that is not made."""

    def unknown(steps: Steps, kind: str, name: str, known: Sequence[str]) -> str:
        hint = did_you_mean(name, known, "there are")
        return state.problem(steps, f'no {kind} "{name}"' + (f" ({hint})" if hint else ""))

    if state.value.now is not None:
        try:
            unix(state.value.now)
        except ValueError:
            yield state.problem(("now",), "no time; write it like 2026-05-01T21:30:00Z")
    yield from _slips_of_policies(state, snapshot, unknown)
    yield from _slips_of_consumer(state, snapshot)
    pools = {pool.name: [endpoint.name for endpoint in pool.endpoints] for pool in snapshot.pools}
    budgeted = {pool.name: pool.budget is not None for pool in snapshot.pools}
    for name, given in state.value.pools.items():
        endpoints = pools.get(whole(name))
        if endpoints is None:
            yield unknown(("pools", name), "pool", name, [each.removeprefix("default/") for each in pools])
            continue
        for endpoint in given.endpoints:
            if endpoint not in endpoints:
                yield unknown(("pools", name, "endpoints", endpoint), "endpoint", endpoint, endpoints)
        if given.budget is not None and not budgeted[whole(name)]:
            yield state.problem(("pools", name, "budget"), "the pool has no budget")
        if given.ready is not None and given.ready > len(endpoints):
            yield state.problem(("pools", name, "ready"), f"the pool has {len(endpoints)} endpoints")


def _slips_of_policies(
    state: Read[State], snapshot: Snapshot, unknown: Callable[[Steps, str, str, Sequence[str]], str]
) -> Iterator[str]:
    policies = {route.name: route for route in snapshot.routes}
    for name, given in state.value.policies.items():
        route = policies.get(whole(name))
        if route is None:
            known = [each.removeprefix("default/") for each in policies]
            yield unknown(("policies", name), "policy", name, known)
            continue
        tiers = {tier.name: tier for rule in route.rules for tier in rule.tiers}
        for tier, used in given.tiers.items():
            steps: Steps = ("policies", name, "tiers", tier)
            if tier not in tiers:
                yield unknown(steps, "tier", tier, list(tiers))
                continue
            limits = tiers[tier].limits
            for field in fields(used):
                if getattr(used, field.name) is not None and getattr(limits, field.name, None) is None:
                    yield state.problem((*steps, field.encode_name), f"the tier has no limit {field.encode_name}")


def _slips_of_consumer(state: Read[State], snapshot: Snapshot) -> Iterator[str]:
    consumer = state.value.consumer
    if consumer is None:
        return
    known = [route.consumers for route in snapshot.routes if route.consumers is not None]
    if not known:
        yield state.problem(("consumer",), "no policy names consumers: everybody may call, and nobody is known")
        return
    limits = [each.defaults for each in known] + [member.limits for each in known for member in each.members]
    for field in fields(consumer.used):
        used = getattr(consumer.used, field.name) is not None
        if used and all(getattr(each, field.name, None) is None for each in limits):
            place: Steps = ("consumer", "used", field.encode_name)
            yield state.problem(place, f"no consumer has a limit {field.encode_name}")


def _of_one(given: EndpointGiven) -> bool:
    """Whether something is assumed that one request uses up."""
    return given.cached_percent is not None or given.fails is not None or given.circuit == "HalfOpen"
