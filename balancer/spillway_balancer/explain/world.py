"""A balancer's runtime without a network, in a state that is assumed: idle and healthy unless something else is said.

A state is told to the objects that serve in the way in which life tells them: load by leases and scrapes, health by
probes and circuits, speed by first tokens, caches by prompts that were there. Nothing is put in their place.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from spillway_api.durations import seconds
from spillway_api.known import Cluster, Discovered
from spillway_api.problem import Steps, did_you_mean
from spillway_api.snapshot import Endpoint, Snapshot
from spillway_api.types import ModelPool

from ..core.conditions import Moment
from ..core.endpoint import EndpointState
from ..core.errors import SpillwayError
from ..core.explanation import Explanation, Refused, explain
from ..core.health import HEALTHY, UNHEALTHY
from ..core.load import Reported
from ..core.pool import Pool
from ..core.progress import DEEP_QUEUE
from ..core.reasons import Failure, Reason
from ..core.runtime import Runtime
from ..net.credentials import Credentials
from ..net.facts import Facts
from ..net.filesource import judge
from .asking import Asking
from .document import Read, Unusable
from .given import EndpointGiven, PoolGiven, State

NOW: Final = 1_000_000.0
"""Seconds, monotonic: any moment will do that has something before it."""
ASSUMED: Final = 2
"""Endpoints of a pool that finds its own in a cluster."""
OUTPUT: Final = 256
"""Tokens that requests in flight may still generate."""
ATTEMPTS: Final = 100
"""Of which `errorPercent` have failed."""

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

    def __init__(self, paths: Sequence[Path], gateway: str, secrets: Path | None, state: State | None = None) -> None:
        """Raises Unusable with all that is wrong in the files."""
        self._given = {} if state is None else state.pools
        self.assumed: list[str] = []
        credentials = AllCredentials() if secrets is None else Credentials(secrets)
        judged = judge(paths, gateway, credentials, Cluster(discovered=self._discovered))
        if judged.snapshot is None:
            raise Unusable(*judged.errors)
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

    def __init__(self, snapshot: Snapshot, state: State | None = None, seed: int = 1) -> None:
        self._state = State() if state is None else state
        self._snapshot = snapshot
        self._seed = seed
        self._unix = time.time() if self._state.now is None else unix(self._state.now)
        self._by_pool = {whole(name): given for name, given in self._state.pools.items()}

    def ask(self, asking: Asking) -> Explanation:
        """What becomes of the request, were it the next one. Raises Unusable for a path that is not served."""
        return self._ask(asking, None, random.Random(self._seed))

    def ask_all(self, many: Iterable[Asking]) -> Iterator[Explanation]:
        """What becomes of each, in one runtime, so that those who take turns do; what is drawn is drawn anew."""
        dice = random.Random(self._seed)
        # What is assumed of one prompt or attempt must not be found by the next.
        own = any(_of_one(each) for given in self._by_pool.values() for each in (given, *given.endpoints.values()))
        runtime: Runtime | None = None
        for asking in many:
            if runtime is None and not own:
                runtime = self._runtime(asking.facts())
            yield self._ask(asking, runtime, dice)

    def _ask(self, asking: Asking, runtime: Runtime | None, dice: random.Random) -> Explanation:
        try:
            facts = asking.facts()
        except SpillwayError as error:
            said = Refused(error.status, error.code, error.message)
            return Explanation("", asking.path, False, 0, 0, said)
        runtime = runtime or self._runtime(facts)
        return explain(runtime.routes, facts, Moment(NOW, self._unix, dice), self._answer)

    def _runtime(self, facts: Facts) -> Runtime:
        runtime = Runtime(self._snapshot)
        for name, pool in runtime.pools.items():
            given = self._by_pool.get(name)
            if given is not None:
                _tell_pool(pool, given, facts)
        return runtime

    def _answer(self, pool: Pool, endpoint: EndpointState) -> Failure | None:
        given = self._by_pool.get(pool.name)
        fails = None if given is None else _of(given, endpoint.name).fails
        if fails is None:
            return None
        if fails == "connect":
            return Failure(fails, retry_on="ConnectError")
        if fails in ("first-byte-timeout", "stall"):
            return Failure(fails, retry_on="FirstByteTimeout")
        return Failure(fails, _STATUS[fails])


def whole(name: str) -> str:
    """namespace/name of a pool that is named as in a policy of the namespace `default`."""
    return name if "/" in name else f"default/{name}"


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
    pools = {pool.name: [endpoint.name for endpoint in pool.endpoints] for pool in snapshot.pools}
    for name, given in state.value.pools.items():
        endpoints = pools.get(whole(name))
        if endpoints is None:
            yield unknown(("pools", name), "pool", name, [each.removeprefix("default/") for each in pools])
            continue
        for endpoint in given.endpoints:
            if endpoint not in endpoints:
                yield unknown(("pools", name, "endpoints", endpoint), "endpoint", endpoint, endpoints)
        if given.ready is not None and given.ready > len(endpoints):
            yield state.problem(("pools", name, "ready"), f"the pool has {len(endpoints)} endpoints")


def _of_one(given: EndpointGiven) -> bool:
    """Whether something is assumed that one request uses up."""
    return given.cached_percent is not None or given.fails is not None or given.circuit == "HalfOpen"


def _of(given: PoolGiven, endpoint: str) -> EndpointGiven:
    """What is assumed of one endpoint: its own, else what holds for the pool."""
    own = given.endpoints.get(endpoint)
    if own is None:
        return given
    said: dict[str, Any] = {
        name: value
        for name in EndpointGiven.__struct_fields__
        if (value := getattr(own, name)) is not None or (value := getattr(given, name)) is not None
    }
    return EndpointGiven(**said)


def _tell_pool(pool: Pool, given: PoolGiven, facts: Facts) -> None:
    for number, endpoint in enumerate(pool.endpoints.values()):
        _tell(pool, endpoint, _of(given, endpoint.name), facts)
        if given.ready is not None and number >= given.ready:
            endpoint.probe = UNHEALTHY


def _tell(pool: Pool, endpoint: EndpointState, given: EndpointGiven, facts: Facts) -> None:
    _tell_load(pool, endpoint, given)
    if given.predicted_ttft is not None:
        # A first token that came so late, behind so much, teaches the rate at which a typical one will.
        tokens = pool.queue_ahead(endpoint, NOW) + pool.learned.miss_tokens
        backlog = max(DEEP_QUEUE, tokens)
        endpoint.learned.first_token(seconds(given.predicted_ttft) * backlog / tokens, backlog, NOW)
    if given.cached_percent is not None:
        for model in dict.fromkeys(pool.models.values()):
            if (prompt := facts.prompt(model)) is not None:
                there = prompt.blocks[: round(len(prompt.blocks) * given.cached_percent / 100)]
                endpoint.cache.pin(there).unpin()
    if given.error_percent is not None:
        number = max(ATTEMPTS, pool.circuits.min_requests)
        failed = round(number * given.error_percent / 100)
        for _ in range(failed):
            endpoint.circuit = endpoint.circuit.failed(NOW, pool.circuits, may_open=False)
        for _ in range(number - failed):
            endpoint.circuit = endpoint.circuit.succeeded(NOW, pool.circuits)
    _tell_health(pool, endpoint, given)


def _tell_load(pool: Pool, endpoint: EndpointState, given: EndpointGiven) -> None:
    """Requests in flight of a typical length, some of them in the engine's queue, and a scrape that says the same."""
    queued = given.queued or 0
    in_flight = queued if given.in_flight is None else given.in_flight
    for number in range(in_flight):
        lease = endpoint.load.lease(round(pool.learned.miss_tokens), OUTPUT)
        if number >= queued:
            lease.first_token()
    if given.in_flight is None and given.queued is None and given.kv_cache_percent is None:
        return
    book = endpoint.load
    usage = None if given.kv_cache_percent is None else given.kv_cache_percent / 100
    running = float(in_flight - queued)
    endpoint.reported(
        Reported(NOW, float(queued), running, usage, in_flight, None, None, book.pending, float(book.context))
    )


def _tell_health(pool: Pool, endpoint: EndpointState, given: EndpointGiven) -> None:
    if given.health is not None:
        endpoint.probe = HEALTHY if given.health == "Passing" else UNHEALTHY
    if given.circuit in ("Open", "HalfOpen"):
        once = pool.circuits._replace(consecutive_failures=1)
        since = NOW if given.circuit == "Open" else NOW - once.base_ejection
        endpoint.circuit = endpoint.circuit.failed(since, once)
    if given.limited_for is not None:
        endpoint.circuit = endpoint.circuit.shut(NOW, NOW + seconds(given.limited_for))
    if given.credential is not None:
        endpoint.keyed = given.credential != "Missing"
        endpoint.refused = given.credential == "Refused"
